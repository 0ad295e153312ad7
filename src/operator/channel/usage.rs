//! What guards counted, as metrics of each AIWorkload: made anew from [`Collected`] and the world whenever they are asked for.
//!
//! Labels are names of AIWorkloads and data sources that there are, and reasons of the closed list; [`OTHER`] has the rest. Every replica
//! hears everything, so only the leader says it: sums over replicas are right.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabel, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::collected::{Collected, Totals};
use crate::api::DataSourceType;
use crate::cluster::SharedWorld;
use crate::cluster::facts::WorkloadFact;
use crate::policy::channel::{CLASSES, OTHER, Usage};
use crate::scope::ObjectName;

/// Versions of guards that are told apart.
const MOST_VERSIONS: usize = 16;

/// The data sources of an AIWorkload that are reached through its guards.
pub(super) fn declared(fact: &WorkloadFact) -> impl Iterator<Item = &str> {
    use DataSourceType::{ConfigMap, Host, Kubernetes, PersistentVolumeClaim, Secret, Service};
    let reached = fact.object.spec.data_sources.iter().filter(|source| match source.type_ {
        Service | Host | Kubernetes => true,
        ConfigMap | Secret | PersistentVolumeClaim => false,
    });
    reached.map(|source| source.name.as_str())
}

pub struct UsageMetrics {
    pub world: SharedWorld,
    pub collected: Collected,
    /// Whether this replica is the one that says it.
    pub leads: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for UsageMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageMetrics").finish_non_exhaustive()
    }
}

impl UsageMetrics {
    /// With a row for every source that is declared: one that was never used is zero.
    fn rows(&self) -> BTreeMap<ObjectName, Totals> {
        let world = self.world.read();
        let mut rows = self.collected.sums();
        rows.retain(|workload, totals| {
            let Some(fact) = world.workloads.get(workload) else { return false };
            let mut usage: BTreeMap<String, Usage> = declared(fact).map(|source| (source.to_owned(), Usage::default())).collect();
            for (source, count) in std::mem::take(&mut totals.usage) {
                if source == OTHER || usage.contains_key(&source) {
                    usage.insert(source, count);
                }
            }
            totals.usage = usage;
            true
        });
        rows
    }

    /// What guards say of their versions goes no further than it is plain.
    fn versions(&self) -> BTreeMap<(String, u32), u64> {
        let plain = |version: &str| version.len() <= 32 && version.bytes().all(|b| b.is_ascii_alphanumeric() || b".-+".contains(&b));
        let mut versions: BTreeMap<(String, u32), u64> = BTreeMap::new();
        for ((version, reads), count) in self.collected.versions(Instant::now()) {
            let key = if plain(&version) { (version, reads) } else { (OTHER.to_owned(), 0) };
            let key = if versions.contains_key(&key) || versions.len() < MOST_VERSIONS { key } else { (OTHER.to_owned(), 0) };
            *versions.entry(key).or_default() += count;
        }
        versions
    }
}

type Label<'a> = (&'static str, &'a str);

impl Collector for UsageMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if !(self.leads)() {
            return Ok(());
        }
        let rows = self.rows();
        let of = |workload: &ObjectName, labels: &[Label<'_>]| -> Vec<(&'static str, String)> {
            let own = [("namespace", workload.namespace.as_str()), ("workload", workload.name.as_str())];
            own.iter().chain(labels).map(|(name, value)| (*name, (*value).to_owned())).collect()
        };
        let help = "Connections that guards let through, by data source (_other: of none that is declared now). Only the leader says it";
        let mut family = encoder.encode_descriptor("remit_guard_connections", help, None, MetricType::Counter)?;
        for (workload, totals) in &rows {
            for (source, usage) in &totals.usage {
                counter(&mut family, &of(workload, &[("source", source)]), usage.connections)?;
            }
        }
        let help = "Bytes that guards let through, by data source; sent: from the app. Only the leader says it";
        let mut family = encoder.encode_descriptor("remit_guard_bytes", help, None, MetricType::Counter)?;
        for (workload, totals) in &rows {
            for (source, usage) in &totals.usage {
                for (direction, count) in [("sent", usage.sent), ("received", usage.received)] {
                    counter(&mut family, &of(workload, &[("source", source), ("direction", direction)]), count)?;
                }
            }
        }
        let help = "Requests that guards let through, by data source and class of the answer (other: nobody waited for one). Only the leader says it";
        let mut family = encoder.encode_descriptor("remit_guard_requests", help, None, MetricType::Counter)?;
        for (workload, totals) in &rows {
            for (source, usage) in &totals.usage {
                // Where none is judged there is nothing to say.
                for (class, count) in CLASSES.into_iter().zip(usage.requests.0).filter(|(_, count)| *count > 0) {
                    counter(&mut family, &of(workload, &[("source", source), ("answer", class)]), count)?;
                }
            }
        }
        type Counts = fn(&Totals) -> &BTreeMap<&'static str, u64>;
        let denials: [(&str, &str, Counts); 2] = [
            ("remit_guard_denials", "What guards refused, by reason. Only the leader says it", |totals| &totals.denials),
            (
                "remit_guard_would_deny",
                "What guards in Observe let pass that Enforce would refuse, by reason. Only the leader says it",
                |t| &t.would_deny,
            ),
        ];
        for (name, help, counts) in denials {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (workload, totals) in &rows {
                for (reason, count) in counts(totals) {
                    counter(&mut family, &of(workload, &[("reason", reason)]), *count)?;
                }
            }
        }
        let help = "Guards that called within the last minute, by version and the newest format of policies that they read. Only the leader says it";
        let mut family = encoder.encode_descriptor("remit_guards", help, None, MetricType::Gauge)?;
        for ((version, reads), count) in self.versions() {
            let labels = [("version", version), ("reads", reads.to_string())];
            ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(family.encode_family(&labels[..].to_vec())?)?;
        }
        Ok(())
    }
}

fn counter<L: EncodeLabel>(family: &mut MetricEncoder<'_>, labels: &Vec<L>, count: u64) -> fmt::Result {
    ConstCounter::new(count).encode(family.encode_family(labels)?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use kube::runtime::watcher::Event;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::*;
    use crate::cluster::{Settings, facts};
    use crate::policy::channel::{REPORT_FORMAT, Report, Requests};

    #[test]
    fn rows_are_of_what_is_declared() {
        let (world, collected, leads) = (SharedWorld::new(Settings::default()), Collected::default(), Arc::new(AtomicBool::new(false)));
        let workload = json!({"metadata": {"namespace": "a", "name": "bot"}, "spec": {"mode": "Enforce", "selector": {"matchLabels": {"app": "bot"}}, "dataSources": [
            {"name": "orders", "type": "Service", "access": "ReadWrite", "service": {"name": "orders", "port": 5432, "protocol": "TCP"}},
            {"name": "help", "type": "Host", "access": "ReadWrite", "host": {"name": "help.example.com", "port": 443}},
            {"name": "prompts", "type": "ConfigMap", "configMap": {"name": "prompts"}},
        ]}});
        let fact = || facts::workload(serde_json::from_value(workload.clone()).unwrap());
        world.write().on_workload(Event::Apply(fact()));
        let usage = Usage { connections: 2, sent: 30, received: 400, requests: Requests([1, 0, 6, 0, 0, 0]) };
        let named = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 7)).collect();
        let report = |version: &str| Report {
            format: REPORT_FORMAT,
            version: version.to_owned(),
            reads: 1,
            life: 1,
            enforced: None,
            denials: named(&["suspended", "odd\"reason"]),
            would_deny: named(&["too_slow"]),
            usage: [("orders".to_owned(), usage), ("odd\"source".to_owned(), usage)].into(),
        };
        let said = |version: &str, uid: &str, workload: &str| {
            let (_, fact) = fact();
            let declared = |source: &str| declared(&fact).any(|known| known == source);
            collected.report(uid, &ObjectName::new("a", uid), &ObjectName::new("a", workload), &report(version), declared, Instant::now());
        };
        said("0.1.0", "u", "bot");
        said("odd\"version", "v", "gone");
        (0..20).for_each(|n| said(&format!("9.{n}"), &format!("w{n}"), "gone"));
        let mut registry = Registry::default();
        let metrics = UsageMetrics {
            world: world.clone(),
            collected: collected.clone(),
            leads: {
                let leads = leads.clone();
                Arc::new(move || leads.load(Ordering::Relaxed))
            },
        };
        registry.register_collector(Box::new(metrics));
        let rows = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("remit_guards{")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(rows(), [""; 0], "another replica leads");
        leads.store(true, Ordering::Relaxed);
        let expected = r#"
            remit_guard_connections_total{namespace="a",workload="bot",source="_other"} 2
            remit_guard_connections_total{namespace="a",workload="bot",source="help"} 0
            remit_guard_connections_total{namespace="a",workload="bot",source="orders"} 2
            remit_guard_bytes_total{namespace="a",workload="bot",source="_other",direction="sent"} 30
            remit_guard_bytes_total{namespace="a",workload="bot",source="_other",direction="received"} 400
            remit_guard_bytes_total{namespace="a",workload="bot",source="help",direction="sent"} 0
            remit_guard_bytes_total{namespace="a",workload="bot",source="help",direction="received"} 0
            remit_guard_bytes_total{namespace="a",workload="bot",source="orders",direction="sent"} 30
            remit_guard_bytes_total{namespace="a",workload="bot",source="orders",direction="received"} 400
            remit_guard_requests_total{namespace="a",workload="bot",source="_other",answer="other"} 1
            remit_guard_requests_total{namespace="a",workload="bot",source="_other",answer="2xx"} 6
            remit_guard_requests_total{namespace="a",workload="bot",source="orders",answer="other"} 1
            remit_guard_requests_total{namespace="a",workload="bot",source="orders",answer="2xx"} 6
            remit_guard_denials_total{namespace="a",workload="bot",reason="_other"} 7
            remit_guard_denials_total{namespace="a",workload="bot",reason="suspended"} 7
            remit_guard_would_deny_total{namespace="a",workload="bot",reason="too_slow"} 7
        "#;
        assert_eq!(rows(), expected.trim().lines().map(str::trim).collect::<Vec<_>>());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let versions: Vec<&str> = text.lines().filter(|line| line.starts_with("remit_guards{")).collect();
        assert!(versions.len() <= MOST_VERSIONS + 1 && !text.contains("odd"), "{text}");
        assert!(versions.contains(&r#"remit_guards{version="0.1.0",reads="1"} 1"#), "{text}");
        let all: f64 = versions.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        assert_eq!(all, 22.0, "{text}");
        world.write().on_workload(Event::Delete(fact()));
        assert_eq!(rows(), [""; 0], "the AIWorkload is gone");
    }
}
