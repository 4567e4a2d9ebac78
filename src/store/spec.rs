//! Comparing the tables of statuses, event types and reasons with the program.
//!
//! The program defines them in [`crate::call`]; views join the tables. The service compares both when it starts: a program that met a status that it does
//! not know would fail on each call that has it.

use std::collections::BTreeMap;

use sqlx::PgExecutor;

use super::{Error, calls::partition::outcome};
use crate::call::{KnownEvent, ReasonCode, Status};

/// A difference between a table and the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{table} says of {name}: {stored}; this program knows: {known}")]
pub struct SpecMismatch {
    /// The table.
    pub table: &'static str,
    /// The status, event type or reason.
    pub name: String,
    /// The row, or `nothing`.
    pub stored: String,
    /// The definition in the program, or `nothing`.
    pub known: String,
}

/// All differences between the tables and the program.
pub async fn compare(executor: impl PgExecutor<'_> + Copy) -> Result<Vec<SpecMismatch>, Error> {
    let mut mismatches = Vec::new();
    let stored = sqlx::query!(
        r#"
        select status, id, rank, kind, label, terminal, final as is_final, belongs_to_attempt,
            outcome, is_completed, is_in_conversation, is_turned_away
        from status_spec
        "#
    )
    .map(|row| {
        let facts = format!(
            "id {}, rank {}, kind {}, label {:?}, terminal {}, final {}, of an attempt {}, outcome \
             {}, completed {}, in conversation {}, turned away {}",
            row.id,
            row.rank,
            row.kind,
            row.label,
            row.terminal,
            row.is_final,
            row.belongs_to_attempt,
            row.outcome,
            row.is_completed,
            row.is_in_conversation,
            row.is_turned_away,
        );
        (row.status, facts)
    })
    .fetch_all(executor)
    .await?;
    let known = Status::ALL.iter().map(|status| {
        let spec = status.spec();
        let facts = format!(
            "id {}, rank {}, kind {}, label {:?}, terminal {}, final {}, of an attempt {}, outcome \
             {}, completed {}, in conversation {}, turned away {}",
            status.id(),
            status.rank().get(),
            status.kind(),
            spec.label,
            status.is_terminal(),
            status.is_final(),
            spec.belongs_to_attempt,
            outcome(*status).id(),
            spec.is_completed,
            spec.is_in_conversation,
            spec.is_turned_away,
        );
        (status.to_string(), facts)
    });
    compare_rows("status_spec", stored, known, &mut mismatches);

    let stored = sqlx::query!(
        r#"
        select event_type, id, direction::text as "direction!", status, begins_call, starts_dial,
            leads_to
        from event_type_spec
        "#
    )
    .map(|row| {
        let facts = format!(
            "id {}, direction {}, status {}, begins a call {}, starts a dial {}, leads to {:?}",
            row.id, row.direction, row.status, row.begins_call, row.starts_dial, row.leads_to,
        );
        (row.event_type, facts)
    })
    .fetch_all(executor)
    .await?;
    let known = KnownEvent::ALL.iter().map(|event| {
        let spec = event.spec();
        let leads_to: Vec<i16> = spec.leads_to.iter().map(|status| status.id()).collect();
        let facts = format!(
            "id {}, direction {}, status {}, begins a call {}, starts a dial {}, leads to {:?}",
            event.id(),
            spec.direction,
            spec.status.id(),
            spec.begins_call,
            spec.starts_dial,
            leads_to,
        );
        (event.to_string(), facts)
    });
    compare_rows("event_type_spec", stored, known, &mut mismatches);

    let stored = sqlx::query!("select reason, id, template from reason_spec")
        .map(|row| (row.reason, format!("id {}, template {:?}", row.id, row.template)))
        .fetch_all(executor)
        .await?;
    let known = ReasonCode::ALL.iter().map(|code| {
        (code.to_string(), format!("id {}, template {:?}", code.id(), code.template()))
    });
    compare_rows("reason_spec", stored, known, &mut mismatches);
    Ok(mismatches)
}

fn compare_rows(
    table: &'static str,
    stored: Vec<(String, String)>,
    known: impl Iterator<Item = (String, String)>,
    mismatches: &mut Vec<SpecMismatch>,
) {
    let mut stored: BTreeMap<String, String> = stored.into_iter().collect();
    let nothing = || "nothing".to_owned();
    for (name, known) in known {
        let stored = stored.remove(&name).unwrap_or_else(nothing);
        if stored != known {
            mismatches.push(SpecMismatch { table, name, stored, known });
        }
    }
    let unknown = stored.into_iter();
    mismatches.extend(unknown.map(|(name, stored)| SpecMismatch {
        table,
        name,
        stored,
        known: nothing(),
    }));
}
