//! What the channel counts. Labels are from closed lists, never names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::policy::Reason;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Denial {
    reason: &'static str,
}

/// Clones count into the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    answers: Family<Result, Counter>,
    denials: Family<Denial, Counter>,
    keys_refused: Counter,
    connections: Gauge,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let Self { answers, denials, keys_refused, connections } = self;
        registry.register("remit_guard_answers", "What guards were answered, by result", answers.clone());
        registry.register("remit_guard_denials", "What guards refused, by reason, as they said", denials.clone());
        registry.register("remit_guard_keys_refused", "Pods that came with another key than their guard's", keys_refused.clone());
        registry.register("remit_guard_connections", "Open connections of guards", connections.clone());
    }

    pub(super) fn answered(&self, result: &'static str) {
        self.answers.get_or_create(&Result { result }).inc();
    }

    /// Codes that this version does not know are not counted.
    pub(super) fn denied(&self, code: &str, count: u64) {
        if let Some(reason) = Reason::ALL.into_iter().find(|reason| reason.code() == code) {
            self.denials.get_or_create(&Denial { reason: reason.code() }).inc_by(count.min(1_000_000));
        }
    }

    pub(super) fn key_refused(&self) {
        self.keys_refused.inc();
    }

    pub(super) fn connected(&self, more: i64) {
        self.connections.inc_by(more);
    }
}
