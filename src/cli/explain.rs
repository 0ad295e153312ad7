//! `kubectl remit explain`: what a guard would say of a destination, or said of a request, and the lines that would declare it.
//!
//! A destination is judged by the policy that the workload's guards mount, with the function that they use themselves. A request is looked
//! up in their records.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::kubectl::{ClusterArgs, KubectlError};
use super::{Exit, Message, Outcome};
use crate::policy::pod::{GUARD_CONTAINER, POLICY_FILE};
use crate::policy::{Attempt, Connect, Document, GuardPolicy, Mode, Reason, Upstream, signed};
use crate::scope::DomainName;

/// What was typed.
#[derive(Args, Clone, Debug)]
pub(super) struct ExplainArgs {
    /// A destination (orders.shop:5432, help.example.com:443, 203.0.113.7:443), or the id of a request from a guard's record
    what: String,
    /// The AIWorkload; else all of the namespace
    #[arg(value_name = "AIWORKLOAD")]
    workload: Option<String>,
    /// Judge by this policy instead of the cluster's (as in the ConfigMap `remit-<AIWorkload>`)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn explain(args: &ExplainArgs) -> Outcome {
    attempt(args).unwrap_or_else(|error| error.outcome())
}

fn attempt(args: &ExplainArgs) -> Result<Outcome, KubectlError> {
    let ExplainArgs { what, workload, policy, cluster } = args;
    if is_request(what) {
        return request(what, cluster);
    }
    let Some(destination) = Destination::parse(what) else {
        return Ok(bad(format!("{what} is neither a destination (NAME:PORT or ADDRESS:PORT) nor the id of a request")));
    };
    let notes: Vec<String> = match policy {
        Some(file) => match std::fs::read_to_string(file) {
            Ok(text) => vec![text],
            Err(error) => return Ok(bad(format!("{}: {error}", file.display()))),
        },
        None => {
            let selector = match workload {
                Some(name) => format!("remit.dev/workload={name}"),
                None => "remit.dev/workload".to_owned(),
            };
            let maps = cluster.json(&["get", "configmaps", "-l", &selector])?;
            let notes = maps["items"].as_array().into_iter().flatten().filter_map(|map| map["data"][POLICY_FILE].as_str());
            notes.map(str::to_owned).collect()
        }
    };
    if notes.is_empty() {
        return Ok(bad("no AIWorkload of this namespace has a policy for guards (see its status)".to_owned()));
    }
    let (mut data, mut exit) = (String::new(), Exit::Done);
    for note in notes {
        match read(&note) {
            Ok(policy) => {
                let (lines, refused) = judged(&policy, &destination);
                data += &lines;
                if refused {
                    exit = Exit::Refused;
                }
            }
            Err(message) => return Ok(bad(message)),
        }
    }
    Ok(Outcome { data, messages: vec![], exit })
}

fn bad(message: String) -> Outcome {
    Outcome { data: String::new(), messages: vec![Message::Error(message)], exit: Exit::BadInput }
}

/// Guards verify who signed it; here it is only shown.
fn read(note: &str) -> Result<GuardPolicy, String> {
    let text = signed::text(note).unwrap_or(note);
    Document::read(text.as_bytes()).and_then(GuardPolicy::try_from).map_err(|e| e.to_string())
}

/// A name or an address, with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Destination {
    Name(DomainName, u16),
    Address(SocketAddr),
}

impl Destination {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Address(address));
        }
        let (name, port) = text.rsplit_once(':')?;
        Some(Self::Name(name.parse().ok()?, port.parse().ok()?))
    }
}

/// Milliseconds and a count in hexadecimal digits, as records bear them.
fn is_request(text: &str) -> bool {
    let hexadecimal = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
    text.split_once('-').is_some_and(|(time, count)| hexadecimal(time, 11) && hexadecimal(count, 8))
}

/// What the guards of this policy make of it, and whether they refuse it.
fn judged(policy: &GuardPolicy, destination: &Destination) -> (String, bool) {
    let of = format!("{}/{}", policy.workload.namespace, policy.workload.name);
    let (shown, found, named) = match destination {
        Destination::Name(name, port) => {
            let names = policy.meant(name);
            let found = names.iter().find_map(|full| Some((full.clone(), policy.by_name(full, *port).ok()?.to_owned())));
            match found {
                Some((full, source)) => (format!("{full}:{port}"), Ok(source), None),
                None => {
                    let reasons = names.iter().map(|full| (full, policy.by_name(full, *port).err().unwrap_or(Reason::NameNotDeclared)));
                    // A name that is declared, on another port, is what was meant.
                    let best = reasons.max_by_key(|(_, reason)| *reason != Reason::NameNotDeclared);
                    let (full, reason) = best.map_or((name.clone(), Reason::NameNotDeclared), |(full, reason)| (full.clone(), reason));
                    (format!("{full}:{port}"), Err(reason), Some((full, *port)))
                }
            }
        }
        Destination::Address(address) => match policy.connect(*address, []) {
            Connect::Permitted(permit) if permit.observed().is_none() => (address.to_string(), Ok(permit.source().to_owned()), None),
            Connect::Permitted(permit) => {
                let reason = permit.observed().unwrap_or(Reason::DestinationNotDeclared);
                debug_assert!(matches!(permit.upstream(), Upstream::Anywhere(_)));
                (address.to_string(), Err(reason), None)
            }
            Connect::ReadHello => {
                let hosts: Vec<String> = policy.hosts_on(address.port()).map(ToString::to_string).collect();
                return (
                    format!("{of}: {address} is reached only over TLS to {}, wherever the guard finds that\n", hosts.join(" or ")),
                    true,
                );
            }
            Connect::Denied(reason) => (address.to_string(), Err(reason), None),
        },
    };
    match found {
        Ok(source) => (format!("{of}: {shown} is let through: data source {source}\n"), false),
        Err(reason) => {
            let verb = if policy.mode == Mode::Observe { "is let through by Observe; Enforce would refuse it" } else { "is refused" };
            let mut lines = format!("{of}: {shown} {verb}: {reason}\n  {}\n", reason.means());
            if let Some((name, port)) = named.filter(|_| reason.declarable())
                && let Some(declare) = declaration(&name, port, &policy.domain)
            {
                lines += &format!("  to declare it: {declare}\n");
            }
            (lines, policy.mode == Mode::Enforce)
        }
    }
}

/// The lines that would declare a Service or a host on this port.
fn declaration(name: &DomainName, port: u16, domain: &DomainName) -> Option<String> {
    match name.before(domain) {
        Some(_) => Attempt::Name(name.clone()).declaration(domain).map(|lines| lines.replace("<port>", &port.to_string())),
        None => Attempt::Server { name: name.clone(), port }.declaration(domain),
    }
}

/// The record of a request, from the logs of the guards of the namespace.
fn request(id: &str, cluster: &ClusterArgs) -> Result<Outcome, KubectlError> {
    let pods = cluster.json(&["get", "pods"])?;
    let guarded = pods["items"].as_array().into_iter().flatten().filter(|pod| {
        pod["spec"]["initContainers"].as_array().is_some_and(|init| init.iter().any(|container| container["name"] == GUARD_CONTAINER))
    });
    let (mut looked, mut messages) = (0, Vec::new());
    for pod in guarded.filter_map(|pod| pod["metadata"]["name"].as_str()) {
        match cluster.kubectl(&["logs", pod, "-c", GUARD_CONTAINER]) {
            Ok(log) => {
                looked += 1;
                if let Some(record) = record(&log, id) {
                    return Ok(Outcome { data: told(pod, &record), messages: vec![], exit: Exit::Done });
                }
            }
            Err(error) => messages.push(Message::Note(error.to_string())),
        }
    }
    messages.push(Message::Error(format!(
        "no record {id} in the logs of {looked} guards of this namespace; a log that was rotated away, or of a pod that is gone, is where your cluster keeps logs"
    )));
    Ok(Outcome { data: String::new(), messages, exit: Exit::BadInput })
}

fn record(log: &str, id: &str) -> Option<Value> {
    log.lines()
        .filter(|line| line.contains(id))
        .filter_map(|line| serde_json::from_str(line).ok())
        .find(|record: &Value| record["requestId"] == id)
}

fn told(pod: &str, record: &Value) -> String {
    let text = |member: &str| record[member].as_str().unwrap_or_default().to_owned();
    let reason = Reason::ALL.into_iter().find(|reason| reason.code() == text("reason"));
    let verb = if record["event"] == "would_deny" { "was let through by Observe; Enforce would have refused it" } else { "was refused" };
    let mut lines = format!("{}: pod {pod}: {} {verb}: {}\n", text("workload"), record["attempted"], text("reason"));
    if let Some(reason) = reason {
        lines += &format!("  {}\n", reason.means());
    }
    if let Some(declare) = record["declare"].as_str() {
        lines += &format!("  to declare it: {declare}\n");
    }
    if record["retryable"] == true {
        lines += "  the same may succeed later without a change of the scope\n";
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(mode: &str) -> GuardPolicy {
        let document = json!({
            "format": 1, "workload": {"namespace": "support", "name": "bot", "uid": "u"}, "generation": 2, "digest": "d", "mode": mode,
            "suspended": false,
            "network": {"domain": "cluster.local", "dns": ["10.96.0.10:53"], "services": ["10.244.0.0/16", "10.96.0.0/16"], "own": ["10.0.0.0/8"]},
            "destinations": [
                {"source": "orders", "target": {"type": "Service", "name": "orders", "namespace": "shop", "ports": [5432]}},
                {"source": "cache", "target": {"type": "Service", "name": "cache", "namespace": "support", "ports": [6379]}},
                {"source": "help", "target": {"type": "Host", "name": "help.example.com", "port": 443}},
            ],
        });
        read(&document.to_string()).unwrap()
    }

    #[test]
    fn destinations() {
        let enforce = policy("Enforce");
        for (what, words, refused) in [
            ("orders.shop:5432", "orders.shop.svc.cluster.local:5432 is let through: data source orders", false),
            ("orders.shop.svc:5432", "data source orders", false),
            ("orders.shop.svc.cluster.local:5432", "data source orders", false),
            ("cache:6379", "cache.support.svc.cluster.local:6379 is let through: data source cache", false),
            ("help.example.com:443", "data source help", false),
            ("orders.shop:22", "orders.shop.svc.cluster.local:22 is refused: port_not_declared", true),
            ("help.example.com:80", "port_not_declared", true),
            ("evil.example.com:443", "to declare it: dataSources: [{name: evil, type: Host", true),
            ("ledger.finance.svc.cluster.local:8443", "service: {name: ledger, namespace: finance, port: 8443, protocol: TCP}", true),
            ("203.0.113.7:443", "only over TLS to help.example.com", true),
            ("203.0.113.7:80", "port_not_declared", true),
            ("169.254.169.254:80", "address_forbidden", true),
            ("[::ffff:169.254.169.254]:80", "address_forbidden", true),
            ("10.244.0.9:5432", "destination_not_declared", true),
        ] {
            let (lines, is_refused) = judged(&enforce, &Destination::parse(what).unwrap());
            assert!(lines.contains(words) && is_refused == refused, "{what}: {lines}");
        }
        let (lines, refused) = judged(&policy("Observe"), &Destination::parse("evil.example.com:443").unwrap());
        assert!(!refused && lines.contains("Enforce would refuse it: name_not_declared"), "{lines}");
    }

    #[test]
    fn what_is_no_destination() {
        for text in ["orders", "orders:", "orders:70000", ":80", "a b:80", "http://x", "10.0.0.1"] {
            assert_eq!(Destination::parse(text), None, "{text}");
        }
        assert!(is_request("019a0f3c2d1-0000beef") && !is_request("orders-shop") && !is_request("019a0f3c2d1-0000beef0"));
    }

    #[test]
    fn records() {
        let id = "019a0f3c2d1-0000beef";
        let line = json!({"time": 1, "event": "denied", "requestId": id, "reason": "name_not_declared", "attempted": {"name": "evil.example.com"},
            "retryable": false, "declare": "dataSources: [...]", "workload": "support/bot", "digest": "d"});
        let log = format!("no JSON {id}\n{}\n{line}\n", json!({"event": "policy", "digest": id}));
        let told = told("bot-1", &record(&log, id).unwrap());
        assert_eq!(
            told,
            "support/bot: pod bot-1: {\"name\":\"evil.example.com\"} was refused: name_not_declared\n  no data source has this name\n  to declare it: dataSources: [...]\n"
        );
        assert_eq!(record(&log, "019a0f3c2d1-0000dead"), None);
    }
}
