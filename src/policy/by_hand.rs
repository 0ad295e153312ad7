//! A policy that people write, for a guard outside of a cluster: what the operator would fill in may be left out.
//!
//! Promise: nothing of this is read in a cluster. What is left out means what is strictest, and unknown fields are refused here as well.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::document::{Destination, Document, DocumentError, FORMAT, LARGEST, Mode, Network, Proxy, Roots, WorkloadId};
use crate::scope::DomainName;

/// Name and namespace of what has none.
const LOCAL: &str = "local";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ByHand {
    #[serde(default = "format")]
    format: u32,
    #[serde(default = "workload")]
    workload: WorkloadId,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    serial: u64,
    #[serde(default = "digest")]
    digest: String,
    #[serde(default = "mode")]
    mode: Mode,
    #[serde(default)]
    suspended: bool,
    #[serde(default)]
    network: NetworkByHand,
    destinations: Vec<Destination>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetworkByHand {
    #[serde(default)]
    domain: DomainName,
    #[serde(default)]
    dns: Vec<SocketAddr>,
    #[serde(default)]
    services: Vec<IpNet>,
    #[serde(default)]
    own: Vec<IpNet>,
    #[serde(default)]
    roots: Option<Roots>,
    #[serde(default)]
    proxy: Option<Proxy>,
}

fn format() -> u32 {
    FORMAT
}

fn workload() -> WorkloadId {
    WorkloadId { namespace: LOCAL.to_owned(), name: LOCAL.to_owned(), uid: LOCAL.to_owned() }
}

fn digest() -> String {
    "by hand".to_owned()
}

fn mode() -> Mode {
    Mode::Enforce
}

impl Document {
    /// A whole document, or as much of it as people need to write: its destinations.
    pub fn by_hand(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > LARGEST {
            return Err(DocumentError::Large);
        }
        let ByHand { format, workload, generation, serial, digest, mode, suspended, network, destinations } =
            serde_json::from_slice(bytes)?;
        let NetworkByHand { domain, dns, services, own, roots, proxy } = network;
        let network = Network { domain, dns, services, own, roots, proxy };
        Ok(Self { format, workload, generation, serial, digest, mode, suspended, network, channel: None, destinations })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::GuardPolicy;

    fn read(value: &Value) -> Result<GuardPolicy, String> {
        Document::by_hand(value.to_string().as_bytes()).and_then(GuardPolicy::try_from).map_err(|e| e.to_string())
    }

    fn help() -> Value {
        json!([{"source": "help", "target": {"type": "Host", "name": "help.example.com", "port": 443}}])
    }

    #[test]
    fn destinations_are_enough() {
        let policy = read(&json!({"destinations": help()})).unwrap();
        assert_eq!((policy.mode, policy.suspended, policy.dns.len(), policy.roots.is_none()), (Mode::Enforce, false, 0, true));
        assert_eq!(policy.workload.to_string(), "local/local/local");
        let changed = read(&json!({"destinations": []})).unwrap();
        assert!(policy.may_become(&changed), "whoever edits the file counts nothing up");
    }

    #[test]
    fn a_whole_document_is_one_and_the_operators_is_read_as_strictly_as_before() {
        let whole = json!({
            "format": 1, "workload": {"namespace": "support", "name": "bot", "uid": "u"}, "generation": 1, "digest": "d", "mode": "Enforce",
            "suspended": false, "network": {"domain": "cluster.local", "dns": [], "services": [], "own": []}, "destinations": help(),
        });
        let bytes = whole.to_string().into_bytes();
        assert_eq!(Document::by_hand(&bytes).unwrap(), Document::read(&bytes).unwrap());
        for field in whole.as_object().unwrap().keys() {
            let mut less = whole.clone();
            less.as_object_mut().unwrap().remove(field);
            let said = Document::read(less.to_string().as_bytes()).unwrap_err().to_string();
            assert!(said.contains(&format!("missing field `{field}`")), "{said}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, words) in [
            (json!({}), "missing field `destinations`"),
            (json!({"destinations": [], "destination": []}), "unknown field `destination`"),
            (json!({"destinations": [], "network": {"DNS": []}}), "unknown field `DNS`"),
            (json!({"destinations": [], "format": 3}), "format 3"),
            (json!({"destinations": [], "mode": "Allow"}), "unknown variant `Allow`"),
        ] {
            let said = read(&value).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }
}
