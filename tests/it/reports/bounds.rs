//! That a report has an end, and reads no more than it needs to know that it has too many rows.

use std::time::Duration;

use callstate::{
    call::Status,
    store::reports::{
        ReportQuery, begin, concurrency, coverage::coverage, durations::durations, errors::errors,
        outcomes::outcomes,
    },
};
use chrono::TimeDelta;

use super::{at, simulated};
use crate::support::{Database, Service, delivery::delivery};

#[tokio::test]
async fn of_too_many_rows_no_more_is_read_than_shows_it() {
    let (database, _service, _) = simulated(300).await;
    let pool = database.pool().await;
    let from = at("2026-03-01T00:00:00Z");
    let starts: Vec<_> = (0..50 * 24).map(|hour| from + TimeDelta::hours(hour)).collect();
    let read = async |max_rows| {
        let query = ReportQuery {
            from,
            to: from + TimeDelta::days(50),
            starts: &starts,
            projects: None,
            direction: None,
            by_project: true,
            by_direction: true,
            max_rows,
        };
        let mut tx = begin(&pool, Duration::from_mins(1)).await.unwrap();
        let covered = coverage(&mut tx, None, &query).await.unwrap();
        let mut cells: Vec<_> = durations(&mut tx, &query).await.unwrap();
        cells.dedup_by(|it, before| it.cell == before.cell);
        [
            errors(&mut tx, &query).await.unwrap().len(),
            outcomes(&mut tx, &query).await.unwrap().len(),
            cells.len(),
            concurrency::turned_away(&mut tx, &query).await.unwrap().len(),
            covered.seen.len(),
            covered.skipped.len(),
            concurrency::sweep(&mut tx, &query).await.unwrap().len(),
        ]
    };
    let all = read(100_000).await;
    let few = read(1).await;
    // A cell of outcomes may have one for each status of calls and of attempts, and one more.
    assert_eq!(few[..6], [2, 2 * Status::ALL.len() + 2, 2, 2, 2, 3]);
    // The hours of a piece of the span are gone through in any case.
    assert!(few[6] < 10, "{few:?}");
    assert!(all.iter().zip(few).all(|(all, few)| *all > 2 * few), "{all:?}");
}

#[tokio::test]
async fn a_report_of_too_many_rows_is_refused_by_what_was_asked() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut failed = delivery("OUTBOUND_CALL_ERROR", "call-1", 0, None);
    failed["body"]["errors"] = serde_json::json!([{"code": "E"}]);
    service.deliver(failed.to_string()).await.ok();
    sqlx::query!(
        r#"
        update events
        set errors = (
            select jsonb_agg(jsonb_build_object('code', number::text))
            from generate_series(1, 100001) as number
        )
        "#
    )
    .execute(&mut database.connect().await)
    .await
    .unwrap();
    let day = "/reports/errors?from=2026-05-12T00:00:00Z&to=2026-05-13T00:00:00Z";
    for (more, named) in [
        ("", "from, to"),
        ("&group_by=direction", "from, to, group_by"),
        ("&bucket=day&group_by=project_id", "from, to, bucket, group_by"),
    ] {
        let detail = service.get(&format!("{day}{more}")).await.problem(400);
        assert_eq!(detail, format!("{named}: there would be more than 100000 rows"));
    }
}
