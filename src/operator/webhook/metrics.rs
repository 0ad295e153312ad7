//! What the webhook counts. Out: Prometheus metrics, registered by the caller; labels are closed lists, never names of users or objects.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::paths::Endpoint;

/// Clones share their counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    reviews: Family<Labels, Counter>,
    records_lost: Counter,
    strangers: Counter,
    connections_refused: Counter,
    certificate_expiry: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    path: &'static str,
    outcome: &'static str,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Allowed,
    Denied,
    /// Denied because it could not be judged.
    Error,
    Malformed,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("remit_webhook_reviews", "Admission requests answered", self.reviews.clone());
        registry.register("remit_webhook_records_lost", "Recorded writes that could not be kept", self.records_lost.clone());
        registry.register("remit_webhook_strangers", "Requests at no path of the webhook, answered with 404", self.strangers.clone());
        registry.register(
            "remit_webhook_connections_refused",
            "Connections closed at once because their peer held its share",
            self.connections_refused.clone(),
        );
        registry.register(
            "remit_webhook_certificate_expiry_timestamp_seconds",
            "When the serving certificate expires",
            self.certificate_expiry.clone(),
        );
    }

    pub(super) fn answered(&self, endpoint: Endpoint, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Allowed => "allowed",
            Outcome::Denied => "denied",
            Outcome::Error => "error",
            Outcome::Malformed => "malformed",
        };
        self.reviews.get_or_create(&Labels { path: endpoint.name(), outcome }).inc();
    }

    pub(super) fn record_lost(&self) {
        self.records_lost.inc();
    }

    pub(super) fn stranger(&self) {
        self.strangers.inc();
    }

    pub(super) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    pub(super) fn certificate_expires(&self, unix_seconds: i64) {
        self.certificate_expiry.set(unix_seconds as f64);
    }
}
