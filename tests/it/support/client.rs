//! Talks to a service as its users do.

use std::sync::LazyLock;

use reqwest::{Client, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::Value;

use super::Service;

/// The client of all tests. It speaks no TLS, and yet wants to know who would.
static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    // Somebody may have said so before, which is as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new()
});

/// An answer, taken in whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("the answer comes whole");
        Self { status: StatusCode::as_u16(&status), headers, text }
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The body of an answer that must be 200.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    /// The body of an answer that must be 202.
    pub(crate) fn quarantined(&self) -> Value {
        assert_eq!(self.status, 202, "{}", self.text);
        self.json()
    }

    /// A header, empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("it is ASCII"))
    }

    /// The `detail` of a problem of that status.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(problem[member].is_string(), "{member} is missing in {problem}");
        }
        problem["detail"].as_str().unwrap_or_default().to_owned()
    }
}

/// The client, for who sends by itself.
pub(super) fn client() -> &'static Client {
    &CLIENT
}

impl Service {
    /// Gets a path.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request("GET", path).send().await.expect("it answers")).await
    }

    /// Sends a delivery to `POST /webhooks`.
    pub(crate) async fn deliver(&self, body: impl Into<Vec<u8>>) -> Answer {
        self.deliver_to("/webhooks", body).await
    }

    /// Sends a delivery.
    pub(crate) async fn deliver_to(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        let request =
            self.request("POST", path).header(CONTENT_TYPE, "application/json").body(body.into());
        Answer::of(request.send().await.expect("it answers")).await
    }

    /// A request that is still to be sent.
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("it is a method");
        CLIENT.request(method, format!("{}{path}", self.base_url()))
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        Answer::of(request.send().await.expect("it answers")).await
    }
}
