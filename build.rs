//! Makes Cargo look at `migrations/` again when a file there changes.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
