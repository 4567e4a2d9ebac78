//! The schema: as the program wants it, documented, and ready to be
//! distributed.

use std::{borrow::Cow, num::NonZeroU32, path::Path, process::Command};

use callstate::{
    access::Scope,
    call::{CallId, CallKey, Direction, Disposition, ProjectId, Status},
    postgres::binaries::Programs,
    store::{
        Buckets, MIGRATOR,
        shelf::{self, Shelf},
    },
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgPool, postgres::PgQueryResult};

use crate::support::{Database, Service, callstate, delivery::fixture};

/// As a distributed database has it, before the first call.
const SIXTY_FOUR_BUCKETS: &str = "
    create or replace function callstate_buckets() returns int
        language sql immutable parallel safe return 64
";

#[tokio::test]
async fn every_table_and_column_has_a_comment() {
    let database = Database::create().await;
    let silent: Vec<String> = sqlx::query_scalar!(
        r#"
        select format('%s.%s', relname, coalesce(attname, '(table)')) as "name!"
        from pg_class
        cross join lateral (
            select null::name as attname, 0 as attnum
            union all
            select attname, attnum from pg_attribute
            where attrelid = pg_class.oid and attnum > 0 and not attisdropped
        ) as part
        where relnamespace in ('public'::regnamespace, 'reporting'::regnamespace)
            and relkind in ('r', 'v')
            and relname <> '_sqlx_migrations'
            and col_description(pg_class.oid, attnum) is null
            and (attnum > 0 or obj_description(pg_class.oid, 'pg_class') is null)
        "#
    )
    .fetch_all(&database.pool().await)
    .await
    .unwrap();
    assert_eq!(silent, Vec::<String>::new());
}

#[tokio::test]
async fn the_bucket_comes_first_in_every_index_of_calls_and_events() {
    let database = Database::create().await;
    let firsts: Vec<String> = sqlx::query_scalar!(
        r#"
        select attname as "column!"
        from pg_index
        join pg_attribute on attrelid = indrelid and attnum = indkey[0]
        where indrelid in ('calls'::regclass, 'events'::regclass)
        "#
    )
    .fetch_all(&database.pool().await)
    .await
    .unwrap();
    assert!(firsts.len() >= 2 && firsts.iter().all(|column| column == "bucket"), "{firsts:?}");
}

#[tokio::test]
async fn the_enums_of_postgres_have_the_names_of_the_program() {
    let database = Database::create().await;
    let names = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<Vec<_>>();
    for (name, values) in [
        ("api_key_scope", names(Scope::ALL.iter().map(|it| it.as_str()).collect())),
        ("call_direction", names(Direction::ALL.iter().map(|it| it.as_str()).collect())),
        ("call_status", names(Status::ALL.iter().map(|it| it.as_str()).collect())),
        ("event_disposition", names(Disposition::ALL.iter().map(|it| it.as_str()).collect())),
    ] {
        let stored: Vec<String> = sqlx::query_scalar!(
            r#"
            select enumlabel as "label!" from pg_enum
            where enumtypid = to_regtype($1)
            order by enumsortorder
            "#,
            name
        )
        .fetch_all(&database.pool().await)
        .await
        .unwrap();
        assert_eq!(stored, values, "{name}");
    }
}

/// How many calls [`insert_every_kind_of_call`] makes.
const KINDS_OF_CALLS: usize = Status::ALL.len() * 3 * 2 * 3;

/// Of every status and direction, with errors and without, with no, one and two anomalies.
async fn insert_every_kind_of_call(pool: &PgPool) {
    let inserted = sqlx::query!(
        r#"
        insert into calls (
            bucket, call_id, project_id, version, direction, status, attempts, has_errors,
            event_count, anomaly_count, microseconds_in_status, first_event_at, last_event_at,
            last_event_rank, last_event_fingerprint, updated_at, last_delivered_at
        )
        select 0, row_number() over (), 'p', 1, direction, status, '[]', has_errors, 1, anomalies,
            '{"CALLING": 1}', now(), now(), 0, '', now(), now()
        from unnest(enum_range(null::call_status)) as status
        cross join unnest(enum_range(null::call_direction) || null::call_direction) as direction
        cross join (values (false), (true)) as errors (has_errors)
        cross join generate_series(0, 2) as anomalies
        "#
    )
    .execute(pool)
    .await
    .unwrap();
    assert_eq!(usize::try_from(inserted.rows_affected()), Ok(KINDS_OF_CALLS));
}

#[tokio::test]
async fn the_program_and_postgres_agree_on_the_shelf_of_a_call() {
    let database = Database::create().await;
    let pool = database.pool().await;
    insert_every_kind_of_call(&pool).await;
    let shelves = sqlx::query!(
        r#"
        select direction as "direction: Direction", status as "status: Status", has_errors,
            anomaly_count, outcome as "outcome!: Status", marks as "marks!"
        from calls
        "#
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(shelves.len(), KINDS_OF_CALLS);
    for row in shelves {
        let shelf = Shelf {
            outcome: shelf::outcome(row.status),
            is_inbound: row.direction == Some(Direction::Inbound),
            has_errors: row.has_errors,
            is_anomalous: row.anomaly_count > 0,
        };
        assert_eq!((row.outcome, row.marks), (shelf.outcome, shelf.marks()), "{shelf:?}");
    }
}

#[tokio::test]
async fn the_views_leave_no_kind_of_call_out() {
    let database = Database::create().await;
    let pool = database.pool().await;
    insert_every_kind_of_call(&pool).await;
    let with_errors = sqlx::query!(
        r#"
        insert into events (
            bucket, call_id, project_id, fingerprint, event_id, event_type, rank, received_at,
            effective_at, disposition, reason, errors, endpoint, delivery_count,
            last_delivered_at, payload
        )
        select bucket, call_id, project_id, '', gen_random_uuid(), 'FAILED', -1, now(),
            now(), 'unrecognized', '', '[{"code": "E"}]', 'default', 1,
            now(), '{}'
        from calls
        where has_errors
        "#
    )
    .execute(&pool)
    .await
    .unwrap();
    assert_eq!(usize::try_from(with_errors.rows_affected()), Ok(KINDS_OF_CALLS / 2));
    let seen = sqlx::query!(
        r#"
        select view as "view!", calls::bigint as "calls!"
        from (values
            ('reported_calls', (select count(*) from reported_calls)),
            ('calls', (select count(*) from reporting.calls)),
            ('durations', (select count(*) from reporting.durations where status = 'CALLING')),
            ('outcomes_hourly', (select sum(calls) from reporting.outcomes_hourly)),
            ('outcomes_daily', (select sum(calls) from reporting.outcomes_daily)),
            ('reported_errors', (select 2 * count(*) from reported_errors)),
            ('errors', (select 2 * count(*) from reporting.errors)),
            -- each outcome has a column
            ('outcomes', (
                select sum(
                    live + completed + error + no_response + busy + unreachable + canceled + expired
                    + max_attempts_reached + concurrency_limit_exceeded
                )
                from reporting.outcomes_daily
            ))
        ) as seen (view, calls)
        "#
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    for of_view in seen {
        assert_eq!(usize::try_from(of_view.calls), Ok(KINDS_OF_CALLS), "{}", of_view.view);
    }
}

#[tokio::test]
async fn the_program_and_postgres_agree_on_the_bucket_of_a_call() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    connection.execute(SIXTY_FOUR_BUCKETS).await.unwrap();
    let buckets = Buckets::of_database(&mut connection).await.unwrap();
    assert_eq!(buckets, Buckets::new(NonZeroU32::new(64).unwrap()));
    for (project_id, call_id) in [("p", "c"), ("3c9acfb1", "out-08"), ("ü✆", "😀 1"), ("1", "1")]
    {
        let key = CallKey {
            call_id: CallId::new(call_id).unwrap(),
            project_id: ProjectId::new(project_id).unwrap(),
        };
        let by_postgres = sqlx::query_scalar!(
            "select callstate_bucket($1, $2, callstate_buckets())",
            project_id,
            call_id
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        assert_eq!(by_postgres, Some(buckets.of(&key)), "{key}");
    }
}

#[tokio::test]
async fn a_row_in_a_wrong_bucket_is_refused_however_many_there_are() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.deliver(fixture("outbound_busy")).await.ok();
    let mut connection = database.connect().await;
    for table in ["calls", "events"] {
        let refusal = |result: Result<_, sqlx::Error>| {
            let error = result.map(|_: PgQueryResult| ()).unwrap_err();
            error.as_database_error().and_then(|it| it.code().map(Cow::into_owned))
        };
        let moved = format!("update {table} set bucket = 1");
        let of_one = connection.execute(AssertSqlSafe(moved.clone())).await;
        assert_eq!(refusal(of_one).as_deref(), Some("23514"), "{table}, one bucket");
        let mut tx = connection.begin().await.unwrap();
        tx.execute(SIXTY_FOUR_BUCKETS).await.unwrap();
        let right =
            format!("update {table} set bucket = callstate_bucket(project_id, call_id, 64)");
        tx.execute(AssertSqlSafe(right)).await.unwrap();
        let next = format!("update {table} set bucket = (bucket + 1) % 64");
        let of_many = tx.execute(AssertSqlSafe(next)).await;
        assert_eq!(refusal(of_many).as_deref(), Some("23514"), "{table}, many buckets");
    }
}

#[tokio::test]
async fn migrations_leave_the_number_of_buckets_as_it_was_set() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    let clear = "drop schema reporting cascade; drop schema public cascade; create schema public";
    connection.execute(clear).await.unwrap();
    for (place, migration) in MIGRATOR.iter().enumerate() {
        connection.execute(migration.sql.clone()).await.unwrap();
        if place == 0 {
            connection.execute(SIXTY_FOUR_BUCKETS).await.unwrap();
        }
    }
    let buckets = Buckets::of_database(&mut connection).await.unwrap();
    assert_eq!(buckets, Buckets::new(NonZeroU32::new(64).unwrap()));
}

#[tokio::test]
async fn the_migrations_are_all_applied_and_named_as_they_are_kept() {
    let database = Database::create().await;
    let applied = sqlx::query_scalar!("select version from _sqlx_migrations order by version")
        .fetch_all(&database.pool().await)
        .await
        .unwrap();
    let known: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
    assert_eq!(applied, known);
    assert!(known.is_sorted());
}

#[tokio::test]
async fn nothing_is_taken_before_the_last_migration_has_run() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.get("/health/ready").await.ok();
    let mut connection = database.connect().await;
    let forget = "delete from _sqlx_migrations
        where version = (select max(version) from _sqlx_migrations)";
    connection.execute(forget).await.unwrap();
    let detail = service.get("/health/ready").await.problem(503);
    assert_eq!(detail, "The database lacks the schema of this callstate.");
    let serve = ["serve", "--no-migrate", "--listen", "127.0.0.1:0", "--database-url"];
    for forget in ["select", "drop schema reporting cascade; drop schema public cascade"] {
        connection.execute(forget).await.unwrap();
        let output = callstate(&[&serve[..], &[&database.url()]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("callstate migrate"), "{said}");
    }
}

/// As `pg_dump` and `pg_restore` do it, functions are found by no search path.
#[tokio::test]
async fn a_dump_can_be_restored() {
    let (from, to) = (Database::create().await, Database::create().await);
    let service = Service::start(&from).await;
    service.deliver(fixture("outbound_busy")).await.ok();
    let clear = "drop schema reporting cascade; drop schema public cascade; create schema public";
    to.connect().await.execute(clear).await.unwrap();

    let programs = Programs::installed(None, Path::new("/nowhere")).expect("Postgres is installed");
    let run = |program: &str, arguments: &[&str]| {
        let path = programs[0].dir.join(program);
        let output = Command::new(path).args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let dump = run("pg_dump", &["--no-owner", "--dbname", &from.url()]);
    let file = format!("{}/dump-{}.sql", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    std::fs::write(&file, dump).unwrap();
    let quiet = ["--quiet", "--set", "ON_ERROR_STOP=1", "--output", "/dev/null"];
    run("psql", &[&quiet[..], &["--file", &file, &to.url()]].concat());
    std::fs::remove_file(&file).unwrap();
    let restored = Service::start(&to).await;
    assert_eq!(restored.get("/calls/out-08").await.ok()["status"], "BUSY");
    assert_eq!(restored.deliver(fixture("outbound_busy")).await.ok()["disposition"], "duplicate");
}
