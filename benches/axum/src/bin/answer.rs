//! Reads every request and answers 200 at once, storing nothing: what the load
//! generator can do at most on this machine.

use axum::{Router, body::Bytes};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let app = Router::new().fallback(async |_body: Bytes| "{}");
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await
}
