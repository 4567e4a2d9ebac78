//! The statements of docs/sql.md.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use super::simulated;

/// The blocks of a section of docs/sql.md: a statement, and the output that follows it, if there is
/// one.
fn blocks(heading: &str) -> Vec<(&'static str, Option<&'static str>)> {
    const PAGE: &str = include_str!("../../../docs/sql.md");
    let section = PAGE.split_once(heading).expect("the page has the heading").1;
    let section = section.split("\n## ").next().expect("it is not empty");
    let block = |text: &'static str| text.split("\n```").next().expect("it is not empty");
    section
        .split("```sql\n")
        .skip(1)
        .map(|part| (block(part), part.split_once("```text\n").map(|(_, output)| block(output))))
        .collect()
}

#[tokio::test]
async fn the_ten_questions_are_answered_as_documented() {
    let (database, _service, _) = simulated(200).await;
    let mut connection = database.connect().await;
    connection.execute("set role callstate_reporting").await.unwrap();
    let questions = blocks("\n## Ten questions\n");
    assert_eq!(questions.len(), 10);
    let mut answered = 0;
    for (question, output) in questions {
        let rows = connection.fetch_all(AssertSqlSafe(question)).await;
        let rows = rows.unwrap_or_else(|error| panic!("{error}: {question}"));
        let header = output.and_then(|output| output.lines().next()).expect("it shows the output");
        if let Some(row) = rows.first() {
            let columns: Vec<&str> = row.columns().iter().map(sqlx::Column::name).collect();
            assert_eq!(header.split('|').map(str::trim).collect::<Vec<_>>(), columns);
            assert!(row.len() < 10);
            answered += 1;
        }
    }
    // The client of the last question has no calls here.
    assert_eq!(answered, 9);
}

#[tokio::test]
async fn the_documented_grants_are_those_of_the_migration() {
    let (database, _service, _) = simulated(10).await;
    let mut connection = database.connect().await;
    let all = blocks("\n## Roles and grants\n");
    let create = "create role callstate_reporting nologin;\n";
    let (by_hand, _) =
        all.iter().find(|(sql, _)| sql.starts_with(create)).expect("the page has it");
    let granted = sqlx::query_scalar!(
        r#"
        select relname::text as "name!"
        from pg_class
        where relnamespace = 'reporting'::regnamespace and relkind = 'v'
            and has_table_privilege('callstate_reporting', oid, 'select')
        order by relname
        "#
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    // In a transaction that comes to nothing: what is granted there is what is granted already.
    let mut tx = connection.begin().await.unwrap();
    tx.execute("revoke all on all tables in schema reporting from callstate_reporting")
        .await
        .unwrap();
    tx.execute(AssertSqlSafe(by_hand.replace(create, ""))).await.unwrap();
    let by_hand = sqlx::query_scalar!(
        r#"
        select relname::text as "name!"
        from pg_class
        where relnamespace = 'reporting'::regnamespace and relkind = 'v'
            and has_table_privilege('callstate_reporting', oid, 'select')
        order by relname
        "#
    )
    .fetch_all(&mut *tx)
    .await
    .unwrap();
    assert_eq!(by_hand, granted);
    tx.rollback().await.unwrap();

    let (read, _) =
        all.iter().find(|(sql, _)| sql.contains("payload_text")).expect("the page has it");
    let (_, read) = read.split_once('\n').expect("after the grant it reads");
    connection.execute(AssertSqlSafe(read)).await.unwrap();
}
