//! `kubectl remit explain`: what a guard would say of a destination, or said of a request, and the lines that would declare it.
//!
//! A destination is judged by the policy that the workload's guards mount, with the function that they use themselves. What DNS tells them of
//! an address, which declared Service lies there, is told here by the Services. A request is looked up in their records.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::explain_url::{self, Url, is_url};
use super::kubectl::{ClusterArgs, KubectlError};
use super::{Exit, Message, Outcome};
use crate::plan;
use crate::policy::pod::{GUARD_CONTAINER, POLICY_FILE};
use crate::policy::{Arrived, Attempt, Connect, Document, GuardPolicy, Reason, signed};
use crate::scope::DomainName;

/// What was typed.
#[derive(Args, Clone, Debug)]
pub(super) struct ExplainArgs {
    /// A destination (orders.shop:5432, help.example.com:443, 203.0.113.7:443), a URL, or the id of a request from a guard's record
    what: String,
    /// The AIWorkload; else all of the namespace
    #[arg(value_name = "AIWORKLOAD")]
    workload: Option<String>,
    /// The method of a request to a URL [default: GET]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
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
    let ExplainArgs { what, workload, method, policy, cluster } = args;
    // Either may come first.
    let (what, workload) = match workload {
        Some(url) if is_url(url) => (url, Some(what)),
        workload => (what, workload.as_ref()),
    };
    if is_url(what) {
        let url = match Url::parse(what, method.as_deref()) {
            Ok(url) => url,
            Err(message) => return Ok(bad(message)),
        };
        return Ok(match notes(workload, policy.as_ref(), cluster)? {
            Ok(notes) => each(notes, |document, judge| explain_url::judged(document, judge, &url)),
            Err(outcome) => outcome,
        });
    }
    if method.is_some() {
        return Ok(bad("--method goes with a URL, such as https://help.example.com/articles".to_owned()));
    }
    if is_request(what) {
        return request(what, cluster);
    }
    let Some(destination) = Destination::parse(what) else {
        return Ok(bad(format!("{what} is neither a destination (NAME:PORT or ADDRESS:PORT), nor a URL, nor the id of a request")));
    };
    let notes = match notes(workload, policy.as_ref(), cluster)? {
        Ok(notes) => notes,
        Err(outcome) => return Ok(outcome),
    };
    let mut messages = Vec::new();
    let outcome = each(notes, |_, judge| {
        let names = match &destination {
            Destination::Address(address) if policy.is_none() => match names_of(judge, address.ip(), cluster) {
                Ok(names) => Some(names),
                Err(error) => {
                    messages.push(Message::Note(error.to_string()));
                    None
                }
            },
            // The policy may be another cluster's.
            Destination::Address(_) | Destination::Name(..) => None,
        };
        judged(judge, &destination, names.as_deref())
    });
    messages.extend(outcome.messages);
    Ok(Outcome { messages, ..outcome })
}

/// The policies that are asked; Err: there are none.
fn notes(workload: Option<&String>, policy: Option<&PathBuf>, cluster: &ClusterArgs) -> Result<Result<Vec<String>, Outcome>, KubectlError> {
    let notes: Vec<String> = match policy {
        Some(file) => match std::fs::read_to_string(file) {
            Ok(text) => vec![text],
            Err(error) => return Ok(Err(bad(format!("{}: {error}", file.display())))),
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
        return Ok(Err(bad("no AIWorkload of this namespace has a policy for guards (see its status)".to_owned())));
    }
    Ok(Ok(notes))
}

/// What is said by each policy, and whether one refuses.
fn each(notes: Vec<String>, mut judge: impl FnMut(&Document, &GuardPolicy) -> (String, bool)) -> Outcome {
    let (mut data, mut exit) = (String::new(), Exit::Done);
    for note in notes {
        match read(&note) {
            Ok((document, policy)) => {
                let (lines, refused) = judge(&document, &policy);
                data += &lines;
                if refused {
                    exit = Exit::Refused;
                }
            }
            Err(message) => return bad(message),
        }
    }
    Outcome { data, messages: Vec::new(), exit }
}

/// The declared Services that lie at this address, as DNS would say.
fn names_of(policy: &GuardPolicy, address: IpAddr, cluster: &ClusterArgs) -> Result<Vec<DomainName>, KubectlError> {
    let mut names = Vec::new();
    if !policy.may_be_a_service(address) {
        return Ok(names);
    }
    let mut of_namespace: BTreeMap<&str, Value> = BTreeMap::new();
    for full in policy.services() {
        let labels: Vec<&str> = full.labels().collect();
        let [service, namespace, ..] = labels[..] else { continue };
        let services = match of_namespace.get(namespace) {
            Some(services) => services,
            None => {
                let services = cluster.json(&["get", "services", &format!("--namespace={namespace}")])?;
                of_namespace.entry(namespace).or_insert(services)
            }
        };
        let object = services["items"].as_array().into_iter().flatten().find(|object| object["metadata"]["name"] == service);
        let Some(object) = object else { continue };
        let lies_there = if is_headless(object) {
            let (of, label) = (format!("--namespace={namespace}"), format!("kubernetes.io/service-name={service}"));
            has_endpoint(object, &cluster.json(&["get", "endpointslices", &of, "-l", &label])?, address)
        } else {
            object["spec"]["clusterIPs"].as_array().is_some_and(|all| all.iter().any(|text| is(text, address)))
        };
        if lies_there {
            names.push(full.clone());
        }
    }
    Ok(names)
}

fn is(text: &Value, address: IpAddr) -> bool {
    text.as_str().and_then(|text| text.parse::<IpAddr>().ok()).is_some_and(|found| found.to_canonical() == address.to_canonical())
}

/// DNS then says the addresses of its pods.
fn is_headless(service: &Value) -> bool {
    service["spec"]["clusterIP"] == "None"
}

fn has_endpoint(service: &Value, slices: &Value, address: IpAddr) -> bool {
    let not_ready_too = service["spec"]["publishNotReadyAddresses"] == true;
    let slices = slices["items"].as_array().into_iter().flatten();
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    endpoints
        .filter(|endpoint| not_ready_too || endpoint["conditions"]["ready"] != false)
        .any(|endpoint| endpoint["addresses"].as_array().is_some_and(|all| all.iter().any(|text| is(text, address))))
}

fn bad(message: String) -> Outcome {
    Outcome { data: String::new(), messages: vec![Message::Error(message)], exit: Exit::BadInput }
}

/// Guards verify who signed it; here it is only shown.
pub(super) fn read(note: &str) -> Result<(Document, GuardPolicy), String> {
    let text = signed::text(note).unwrap_or(note);
    let document = Document::read(text.as_bytes()).map_err(|e| e.to_string())?;
    let policy = GuardPolicy::try_from(document.clone()).map_err(|e| e.to_string())?;
    Ok((document, policy))
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

/// What the guards of this policy make of it, and whether they refuse it. `names`: the declared Services that lie at the address; None: nobody
/// could be asked.
fn judged(policy: &GuardPolicy, destination: &Destination, names: Option<&[DomainName]>) -> (String, bool) {
    let of = format!("{}/{}", policy.workload.namespace, policy.workload.name);
    match destination {
        Destination::Name(name, port) => by_name(policy, &of, name, *port),
        Destination::Address(address) => {
            let (reason, refused) = match policy.connect(Arrived::At { to: *address, names: names.unwrap_or_default() }, None) {
                Connect::Permitted(permit) => match permit.observed() {
                    None => return (format!("{of}: {address} is let through: data source {}\n", permit.source()), false),
                    Some(reason) => (reason, false),
                },
                Connect::Denied(reason) => (reason, true),
                Connect::Http(_) => return (format!("{of}: {address} is reached, and each request is judged\n"), false),
                Connect::ReadFirst => {
                    let hosts: Vec<String> = policy.hosts_on(address.port()).map(ToString::to_string).collect();
                    let only = format!("only over TLS to {}, wherever the guard finds that", hosts.join(" or "));
                    let lines = if policy.observes() {
                        format!("{of}: {address} is let through by Observe; Enforce would let it through {only}\n")
                    } else {
                        format!("{of}: {address} is reached {only}\n")
                    };
                    return (lines, !policy.observes());
                }
            };
            let mut lines = said(&of, &address.to_string(), reason, refused);
            if reason == Reason::DestinationNotDeclared && names.is_none() && policy.may_be_a_service(address.ip()) {
                lines += "  unless the cluster's DNS says that a declared Service lies there: explain that by its name\n";
            }
            (lines, refused)
        }
    }
}

pub(super) fn by_name(policy: &GuardPolicy, of: &str, name: &DomainName, port: u16) -> (String, bool) {
    let names = policy.meant(name);
    if let Some((full, source)) = names.iter().find_map(|full| Some((full, policy.by_name(full, port).ok()?))) {
        return (format!("{of}: {full}:{port} is let through: data source {source}\n"), false);
    }
    let reasons = names.iter().map(|full| (full, policy.by_name(full, port).err().unwrap_or(Reason::NameNotDeclared)));
    // A name that is declared, on another port, is what was meant.
    let best = reasons.max_by_key(|(_, reason)| *reason != Reason::NameNotDeclared);
    let (full, reason) = best.unwrap_or((name, Reason::NameNotDeclared));
    let refused = !policy.observes();
    let mut lines = said(of, &format!("{full}:{port}"), reason, refused);
    if let Some(declare) = declaration(full, port, &policy.domain).filter(|_| reason.declarable()) {
        lines += &format!("  to declare it: {declare}\n");
    }
    (lines, refused)
}

/// That it is not declared, and what becomes of it.
pub(super) fn said(of: &str, shown: &str, reason: Reason, refused: bool) -> String {
    let verb = if refused { "is refused" } else { "is let through by Observe; Enforce would refuse it" };
    format!("{of}: {shown} {verb}: {reason}\n  {}\n", reason.means())
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

/// Bytes of a member of a record that are shown.
const SHOWN: usize = 1024;

fn told(pod: &str, record: &Value) -> String {
    // Whatever is called like a guard writes there.
    let text = |member: &str| plan::plain(record[member].as_str().unwrap_or_default(), SHOWN);
    let attempted = plan::plain(&record["attempted"].to_string(), SHOWN);
    let reason = Reason::ALL.into_iter().find(|reason| reason.code() == text("reason"));
    let verb = if record["event"] == "would_deny" { "was let through by Observe; Enforce would have refused it" } else { "was refused" };
    let mut lines = format!("{}: pod {pod}: {attempted} {verb}: {}\n", text("workload"), text("reason"));
    if let Some(reason) = reason {
        lines += &format!("  {}\n", reason.means());
    }
    if record["declare"].is_string() {
        lines += &format!("  to declare it: {}\n", text("declare"));
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
        read(&document.to_string()).unwrap().1
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
            let (lines, is_refused) = judged(&enforce, &Destination::parse(what).unwrap(), Some(&[]));
            assert!(lines.contains(words) && is_refused == refused, "{what}: {lines}");
        }
    }

    #[test]
    fn in_observe() {
        let observe = policy("Observe");
        for (what, words, refused) in [
            ("evil.example.com:443", "is let through by Observe; Enforce would refuse it: name_not_declared", false),
            ("203.0.113.7:80", "Enforce would refuse it: port_not_declared", false),
            ("203.0.113.7:443", "is let through by Observe; Enforce would let it through only over TLS to help.example.com", false),
            // Not even by Observe.
            ("169.254.169.254:80", "is refused: address_forbidden", true),
        ] {
            let (lines, is_refused) = judged(&observe, &Destination::parse(what).unwrap(), Some(&[]));
            assert!(lines.contains(words) && is_refused == refused, "{what}: {lines}");
        }
        for mode in ["Observe", "Enforce"] {
            let mut suspended = policy(mode);
            suspended.suspended = true;
            for what in ["orders.shop:5432", "evil.example.com:443", "203.0.113.7:443"] {
                let (lines, refused) = judged(&suspended, &Destination::parse(what).unwrap(), Some(&[]));
                assert!(lines.contains("is refused: suspended") && refused, "{mode} {what}: {lines}");
            }
        }
    }

    #[test]
    fn an_address_is_what_dns_says_that_lies_there() {
        let enforce = policy("Enforce");
        let orders = ["orders.shop.svc.cluster.local".parse().unwrap()];
        let unless = "unless the cluster's DNS says that a declared Service lies there";
        for (what, names, words, refused) in [
            ("10.96.7.7:5432", Some(&orders[..]), "10.96.7.7:5432 is let through: data source orders", false),
            ("10.96.7.7:22", Some(&orders), "is refused: port_not_declared", true),
            ("10.96.7.7:5432", Some(&[]), "is refused: destination_not_declared", true),
            ("10.96.7.7:5432", None, unless, true),
        ] {
            let (lines, is_refused) = judged(&enforce, &Destination::parse(what).unwrap(), names);
            assert!(lines.contains(words) && is_refused == refused, "{what} {names:?}: {lines}");
            assert_eq!(lines.contains(unless), names.is_none(), "{what}: {lines}");
        }
        let (lines, _) = judged(&enforce, &Destination::parse("192.168.1.1:5432").unwrap(), None);
        assert!(!lines.contains(unless), "no Service may lie there: {lines}");
    }

    #[test]
    fn endpoints_of_headless_services() {
        let slices = json!({"items": [{"endpoints": [
            {"addresses": ["10.244.1.1"], "conditions": {"ready": true}},
            {"addresses": ["10.244.1.2"], "conditions": {"ready": false}},
            {"addresses": ["2001:db8:10:244::3"]},
        ]}]});
        let (ready, all) =
            (json!({"spec": {"clusterIP": "None"}}), json!({"spec": {"clusterIP": "None", "publishNotReadyAddresses": true}}));
        for (address, when_ready, always) in [
            ("10.244.1.1", true, true),
            ("::ffff:10.244.1.1", true, true),
            ("10.244.1.2", false, true),
            ("2001:db8:10:244::3", true, true),
            ("10.244.1.9", false, false),
        ] {
            let at = address.parse().unwrap();
            assert_eq!((has_endpoint(&ready, &slices, at), has_endpoint(&all, &slices, at)), (when_ready, always), "{address}");
        }
        assert!(is_headless(&ready) && !is_headless(&json!({"spec": {"clusterIP": "10.96.0.1"}})));
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
        let forged =
            super::told("x", &json!({"workload": "a\u{1b}[2Jb", "reason": "\u{202e}r", "attempted": "\u{9b}1m", "declare": "\n\r"}));
        assert!(forged.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{forged:?}");
    }
}
