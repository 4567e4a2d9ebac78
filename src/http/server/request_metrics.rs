//! How requests are counted: by the template of their route, never by the path
//! that a stranger makes up.

use std::{collections::HashMap, time::Duration};

use axum::http::StatusCode;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts};

/// What stands for the route of a path that has none.
const NO_ROUTE: &str = "none";

/// The first digit of a status is its class ([RFC 9110, 15]).
///
/// [RFC 9110, 15]: https://www.rfc-editor.org/rfc/rfc9110#section-15
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Bounds of answers, in seconds: from what needs no database to what is given
/// up.
const SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The counters of all routes.
#[derive(Debug)]
pub(super) struct RequestMetrics {
    pub(super) answers: IntCounterVec,
    pub(super) seconds: HistogramVec,
    by_template: HashMap<&'static str, RouteMetrics>,
    none: RouteMetrics,
}

/// The counters of one route.
#[derive(Debug)]
pub(super) struct RouteMetrics {
    name: &'static str,
    answers: [IntCounter; CLASSES.len()],
    seconds: Histogram,
}

impl RequestMetrics {
    /// Counters for these templates.
    pub(super) fn new(templates: &[&'static str]) -> Self {
        let answers = Opts::new(
            "callstate_http_requests_total",
            "Requests that were answered, by route and class of status.",
        );
        let answers = IntCounterVec::new(answers, &["route", "status"]);
        let answers = answers.expect("the names are well-formed");
        let seconds = HistogramOpts::new(
            "callstate_http_request_seconds",
            "How long an answer took, from the request's headers to the answer's.",
        );
        let seconds = HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["route"]);
        let seconds = seconds.expect("the names are well-formed and the bounds rise");
        let route = |template: &'static str| {
            // With a slash at its end or without, it is one route.
            let name = template.trim_end_matches('/');
            RouteMetrics {
                name,
                answers: CLASSES.map(|class| answers.with_label_values(&[name, class])),
                seconds: seconds.with_label_values(&[name]),
            }
        };
        let by_template = templates.iter().map(|template| (*template, route(template))).collect();
        let none = route(NO_ROUTE);
        Self { answers, seconds, by_template, none }
    }

    /// The counters of a request whose path matched that template.
    pub(super) fn of(&self, template: Option<&str>) -> &RouteMetrics {
        let Some(template) = template else { return &self.none };
        let known = self.by_template.get(template);
        debug_assert!(known.is_some(), "{template} is not among the routes");
        known.unwrap_or(&self.none)
    }
}

impl RouteMetrics {
    /// Its template.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Counts an answer.
    pub(super) fn answered(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        // What is beyond 5xx is no status; it counts as a fault of ours.
        self.answers[class.min(CLASSES.len() - 1)].inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_has_no_route_makes_no_counter_of_its_own() {
        let routes = RequestMetrics::new(&["/calls/{call_id}"]);
        let known = routes.of(Some("/calls/{call_id}"));
        known.answered(StatusCode::OK, Duration::ZERO);
        known.answered(StatusCode::NOT_FOUND, Duration::ZERO);
        routes.of(None).answered(StatusCode::from_u16(999).unwrap(), Duration::ZERO);
        let count = |route, class| routes.answers.with_label_values(&[route, class]).get();
        assert_eq!(count("/calls/{call_id}", "2xx"), 1);
        assert_eq!(count("/calls/{call_id}", "4xx"), 1);
        assert_eq!(count(NO_ROUTE, "4xx"), 0);
        assert_eq!(count(NO_ROUTE, "5xx"), 1);
    }
}
