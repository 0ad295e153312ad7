//! Every connection that is allowed between pods, one by one: for programs.

use serde::Serialize;

use super::network::{End, Network, Port, Verdict};
use super::snapshot::Snapshot;

/// One allowed connection. Names are `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pair {
    pub source: String,
    /// Pod, Deployment, …
    pub source_kind: &'static str,
    pub destination: String,
    pub destination_kind: &'static str,
    pub protocol: String,
    pub port: u16,
    /// `NetworkPolicy namespace/name`, `ClusterNetworkPolicy name`; empty where nothing selects either end.
    pub allowed_by: Vec<String>,
}

/// Between all pods, and what makes pods, at these ports. Nobody needs leave to reach itself, so that is left out.
pub fn pairs(snapshot: &Snapshot, ports: &[Port]) -> Vec<Pair> {
    let network = Network::new(snapshot);
    let governed: Vec<_> = snapshot.pods.iter().map(|pod| network.governed(pod)).collect();
    let mut all = Vec::new();
    for (source, sends) in snapshot.pods.iter().zip(&governed) {
        for (destination, takes) in snapshot.pods.iter().zip(&governed) {
            if std::ptr::eq(source, destination) {
                continue;
            }
            for port in ports {
                let Verdict::Allowed(by) = network.judge((End::Pod(source), sends), (End::Pod(destination), takes), *port) else {
                    continue;
                };
                let mut allowed_by: Vec<String> = by.iter().map(ToString::to_string).collect();
                allowed_by.sort();
                allowed_by.dedup();
                all.push(Pair {
                    source: source.name.to_string(),
                    source_kind: source.kind,
                    destination: destination.name.to_string(),
                    destination_kind: destination.kind,
                    protocol: port.protocol.to_string(),
                    port: port.number,
                    allowed_by,
                });
            }
        }
    }
    all
}
