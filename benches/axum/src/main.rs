//! The receiver that a team writes by hand: axum and sqlx, one statement per
//! delivery, answered once it is committed.

use std::{env, error::Error};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::{FromRow, PgPool, postgres::PgPoolOptions};
use tokio::net::TcpListener;

const STORE_EVENT: &str = include_str!("../../receiver/store_event.sql");
const FIND_CALL: &str = include_str!("../../receiver/find_call.sql");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
    project_id: String,
    event_type: String,
    body: Body,
}

#[derive(Deserialize)]
struct Body {
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    call_id: String,
    call_sid: Option<String>,
    client_id: Option<String>,
}

#[derive(Serialize)]
struct Stored {
    call_id: String,
    status: String,
}

#[derive(Serialize, FromRow)]
#[expect(clippy::struct_field_names, reason = "the columns' names")]
struct Call {
    call_id: String,
    project_id: String,
    status: String,
    call_sid: Option<String>,
    client_id: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool_size = env::var("POOL_SIZE").map_or(Ok(20), |size| size.parse())?;
    let pool = PgPoolOptions::new()
        .max_connections(pool_size)
        .connect(&env::var("DATABASE_URL")?)
        .await?;
    let app = Router::new()
        .route("/webhooks", post(store_event))
        .route("/calls/{id}", get(find_call))
        .with_state(pool);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

async fn store_event(
    State(pool): State<PgPool>,
    Json(payload): Json<Box<RawValue>>,
) -> Result<Json<Stored>, StatusCode> {
    let delivery: Delivery =
        serde_json::from_str(payload.get()).map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?;
    let data = delivery.body.data;
    let status = delivery
        .event_type
        .strip_prefix("OUTBOUND_CALL_")
        .or_else(|| delivery.event_type.strip_prefix("INBOUND_CALL_"))
        .unwrap_or(&delivery.event_type);
    sqlx::query(STORE_EVENT)
        .bind(&data.call_id)
        .bind(&delivery.event_type)
        .bind(sqlx::types::Json(&payload))
        .bind(&delivery.project_id)
        .bind(status)
        .bind(&data.call_sid)
        .bind(&data.client_id)
        .execute(&pool)
        .await
        .map_err(|error| fail(&error))?;
    let status = status.to_owned();
    Ok(Json(Stored {
        call_id: data.call_id,
        status,
    }))
}

async fn find_call(
    State(pool): State<PgPool>,
    Path(call_id): Path<String>,
) -> Result<Json<Call>, StatusCode> {
    sqlx::query_as(FIND_CALL)
        .bind(call_id)
        .fetch_optional(&pool)
        .await
        .map_err(|error| fail(&error))?
        .map(Json)
        .ok_or(StatusCode::NOT_FOUND)
}

fn fail(error: &sqlx::Error) -> StatusCode {
    eprintln!("{error}");
    StatusCode::INTERNAL_SERVER_ERROR
}
