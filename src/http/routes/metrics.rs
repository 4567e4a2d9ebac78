//! `GET /metrics`: what is counted, in the [text format] of Prometheus.
//!
//! What is counted on the way of a request or a delivery is kept where it
//! happens; what only has a state is looked at when somebody asks.
//!
//! [text format]: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format

use axum::{
    Extension,
    extract::State,
    http::{HeaderName, Uri, header},
};
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    IntGauge, IntGaugeVec, Opts, Registry, TEXT_FORMAT, TextEncoder, core::Collector,
};

use crate::http::{
    Problem, Service, Shared, auth::UnrestrictedClient, openapi::answers::BadParameter,
    query::Query, routes::store_metrics::StoreMetrics,
};

/// What is counted, and what is looked at.
#[derive(Debug, Clone)]
pub(crate) struct Gathered {
    registry: Registry,
    waiting: IntGauge,
    waiting_bytes: IntGauge,
    connections: IntGaugeVec,
    healthy: IntGauge,
    store: StoreMetrics,
}

/// Registers all that a service counts.
pub(crate) fn registry(service: &Service) -> Gathered {
    let registry = Registry::new();
    let waiting = IntGauge::new(
        "callstate_ingest_waiting_deliveries",
        "Deliveries that wait for the writers.",
    )
    .expect("the name is well-formed");
    let waiting_bytes = IntGauge::new(
        "callstate_ingest_waiting_bytes",
        "Bytes of deliveries that are held until they are committed.",
    )
    .expect("the name is well-formed");
    let connections = Opts::new(
        "callstate_database_connections",
        "Connections that are held for questions, by whether one is being answered.",
    );
    let connections = IntGaugeVec::new(connections, &["state"]).expect("the names are well-formed");
    let healthy = IntGauge::new(
        "callstate_ingest_healthy",
        "Whether all writers of this instance run: 1 or 0.",
    )
    .expect("the name is well-formed");
    let mut collectors: Vec<Box<dyn Collector>> = vec![
        Box::new(healthy.clone()),
        Box::new(waiting.clone()),
        Box::new(waiting_bytes.clone()),
        Box::new(connections.clone()),
        Box::new(build_info()),
    ];
    collectors.extend(service.ingest.metrics().collectors());
    collectors.extend(service.quarantine.collectors());
    collectors.extend(service.retention.collectors());
    collectors.extend(service.server.collectors());
    collectors.extend(service.streams.collectors());
    collectors.extend(service.endpoints.borrow().metrics.collectors());
    #[cfg(target_os = "linux")]
    collectors.push(Box::new(ProcessCollector::for_self()));
    for collector in collectors {
        registry.register(collector).expect("each name is there once");
    }
    let store = StoreMetrics::new(&registry);
    Gathered { registry, waiting, waiting_bytes, connections, healthy, store }
}

/// What runs here: always 1, the label tells.
fn build_info() -> IntGaugeVec {
    let options = Opts::new("callstate_build_info", "What runs here.");
    let info = IntGaugeVec::new(options, &["version"]).expect("the names are well-formed");
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    info
}

/// What is counted
///
/// In the text format of Prometheus. Where keys are asked for, it takes one that is not limited to
/// projects.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "get_metrics",
    tag = "operations",
    responses(
        (status = 200, description = "The counters.", body = String, content_type = TEXT_FORMAT,
         example = json!("# HELP callstate_http_connections Connections that are open.\n# TYPE callstate_http_connections gauge\ncallstate_http_connections 3\n")),
        BadParameter,
        UnrestrictedClient,
    ),
    security((), ("api_key" = [])),
)]
pub(crate) async fn show(
    State(service): State<Shared>,
    // It counts the calls of all projects.
    UnrestrictedClient(_): UnrestrictedClient,
    Extension(gathered): Extension<Gathered>,
    uri: Uri,
) -> Result<([(HeaderName, &'static str); 1], String), Problem> {
    Query::of(&uri).finish()?;
    let Gathered { registry, waiting, waiting_bytes, connections, healthy, store } = gathered;
    let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    waiting.set(gauge(service.ingest.waiting()));
    waiting_bytes.set(gauge(service.ingest.waiting_bytes()));
    let (all, idle) = (gauge(service.pool.size() as usize), gauge(service.pool.num_idle()));
    connections.with_label_values(&["idle"]).set(idle);
    connections.with_label_values(&["in_use"]).set((all - idle).max(0));
    healthy.set(i64::from(service.ingest.is_healthy()));
    let of_store = store.gather(&service).await;
    let text = TextEncoder::new()
        .encode_to_string(&[registry.gather(), of_store].concat())
        .map_err(|error| Problem::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], text))
}
