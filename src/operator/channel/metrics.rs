//! What this end of the channel counts; what guards counted is in `usage`. Labels are from closed lists, never names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result {
    result: &'static str,
}

/// Clones count into the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    answers: Family<Result, Counter>,
    keys_refused: Counter,
    connections: Gauge,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let Self { answers, keys_refused, connections } = self;
        registry.register("remit_guard_answers", "What guards were answered, by result", answers.clone());
        registry.register("remit_guard_keys_refused", "Pods that came with another key than their guard's", keys_refused.clone());
        registry.register("remit_guard_channels", "Open connections of guards to this replica", connections.clone());
    }

    pub(super) fn answered(&self, result: &'static str) {
        self.answers.get_or_create(&Result { result }).inc();
    }

    pub(super) fn key_refused(&self) {
        self.keys_refused.inc();
    }

    pub(super) fn connected(&self, more: i64) {
        self.connections.inc_by(more);
    }
}
