//! The operator's metrics. Labels are from closed lists, never names.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    kind: &'static str,
    verb: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ready {
    ready: &'static str,
}

/// Clones count into the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    reconciles: Family<Outcome, Counter>,
    errors: Family<Reason, Counter>,
    writes: Family<Write, Counter>,
    tampering: Family<Kind, Counter>,
    workloads: Family<Ready, Gauge>,
    exceptions: Gauge,
    queue: Gauge,
    leader: Gauge,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let Self { reconciles, errors, writes, tampering, workloads, exceptions, queue, leader } = self;
        registry.register("remit_reconciles", "Reconciles by result", reconciles.clone());
        registry.register("remit_reconcile_errors", "What went wrong in reconciles, by reason", errors.clone());
        registry.register("remit_writes", "Writes that the API server accepted, by kind and verb", writes.clone());
        registry.register(
            "remit_tampering_reverted",
            "Generated objects that somebody else changed or deleted, and that were restored",
            tampering.clone(),
        );
        registry.register("remit_workloads", "AIWorkloads by their condition Ready", workloads.clone());
        registry.register("remit_break_glass", "AIWorkloads whose pods may be debugged (kubectl remit break-glass)", exceptions.clone());
        registry.register("remit_queue_length", "Keys that wait for a reconcile or are in one", queue.clone());
        registry.register("remit_leader", "1 while this process holds the lease", leader.clone());
        // Series that an alert rests on exist from the start.
        for kind in crate::plan::Kind::ALL {
            drop(tampering.get_or_create(&Kind { kind: kind.as_str() }));
        }
    }

    pub fn reconciled(&self, result: &'static str) {
        self.reconciles.get_or_create(&Outcome { result }).inc();
    }

    pub fn failed(&self, reason: &'static str) {
        self.errors.get_or_create(&Reason { reason }).inc();
    }

    pub fn wrote(&self, kind: &'static str, verb: &'static str) {
        self.writes.get_or_create(&Write { kind, verb }).inc();
    }

    pub fn reverted(&self, kind: crate::plan::Kind) {
        self.tampering.get_or_create(&Kind { kind: kind.as_str() }).inc();
    }

    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    pub fn is_leader(&self) -> bool {
        self.leader.get() == 1
    }

    pub fn queued(&self, length: usize) {
        self.queue.set(i64::try_from(length).unwrap_or(i64::MAX));
    }

    /// How many exceptions for debugging last.
    pub fn exceptions(&self, count: usize) {
        self.exceptions.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// How many workloads have each status of Ready.
    pub fn workloads(&self, counts: [(&'static str, i64); 3]) {
        for (ready, count) in counts {
            self.workloads.get_or_create(&Ready { ready }).set(count);
        }
    }
}

/// All metrics as text.
pub fn text(registry: &Arc<Registry>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}
