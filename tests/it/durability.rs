//! A 2xx means committed.

use crate::support::{Database, Service, callstate, delivery::fixture};

#[tokio::test]
async fn what_was_answered_survives_the_death_of_the_service() {
    let database = Database::create().await;
    let mut service = Service::start(&database).await;
    service.deliver(fixture("outbound_busy")).await.ok();
    service.kill_9();

    let service = Service::start(&database).await;
    assert_eq!(service.get("/calls/out-08").await.ok()["status"], "BUSY");
    let again = service.deliver(fixture("outbound_busy")).await.ok();
    assert_eq!(again["disposition"], "duplicate");
    let verified = callstate(&["verify", "--database-url", &database.url()]);
    assert!(verified.status.success());
}
