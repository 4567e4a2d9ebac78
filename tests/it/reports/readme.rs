//! The statements of README that report.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use super::told;

/// The blocks of README's section on reports from that heading on: a statement, and the output that
/// follows it, if there is one.
fn blocks(heading: &str) -> Vec<(&'static str, Option<&'static str>)> {
    const README: &str = include_str!("../../../README.md");
    let section = README.split_once(heading).expect("README has the heading").1;
    let section = section.split("\n## ").next().expect("it is not empty");
    let block = |text: &'static str| text.split("\n```").next().expect("it is not empty");
    section
        .split("```sql\n")
        .skip(1)
        .map(|part| (block(part), part.split_once("```text\n").map(|(_, output)| block(output))))
        .collect()
}

#[tokio::test]
async fn the_ten_questions_of_readme_are_answered_as_it_shows() {
    let (database, _service, _) = told(200).await;
    let mut connection = database.connect().await;
    connection.execute("set role callstate_reporting").await.unwrap();
    let questions = blocks("\n### Ten questions\n");
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
    // The client whom README asks about is another.
    assert_eq!(answered, 9);
}

#[tokio::test]
async fn the_statements_of_readme_that_grant_are_right() {
    let (database, _service, _) = told(10).await;
    let mut connection = database.connect().await;
    let all = blocks("\n## Report\n");
    let create = "create role callstate_reporting nologin;\n";
    let (by_hand, _) =
        all.iter().find(|(sql, _)| sql.starts_with(create)).expect("README tells what to run");
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
        all.iter().find(|(sql, _)| sql.contains("payload_text")).expect("README tells how");
    let (_, read) = read.split_once('\n').expect("after the grant it reads");
    connection.execute(AssertSqlSafe(read)).await.unwrap();
}
