//! x
/// x
#[derive(serde::Serialize)]
pub struct Machine {}
/// x
#[must_use]
pub fn describe() -> Machine {
    Machine {}
}
