//! Every state that a workload's permissions ever were in, while somebody recorded.
//!
//! A sampler that looks every few milliseconds can miss an instant. The API server cannot: its watches carry every version of every
//! object, and resource versions say in which order they came to be, across kinds. [`Changes`] records the watches of everything that
//! permits; afterwards the states are played through one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use http_body_util::BodyStream;
use hyper::Request;
use kube::client::Body;
use remit::scope::{Requirement, Selector};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Api, eventually, kind};

const KINDS: [&str; 3] = ["NetworkPolicy", "Role", "RoleBinding"];

/// A recording of all NetworkPolicies, Roles and RoleBindings.
pub struct Changes {
    api: Api,
    /// By kind, namespace and name, at the beginning.
    start: BTreeMap<Key, Value>,
    events: Arc<Mutex<Vec<Change>>>,
    tasks: Vec<JoinHandle<()>>,
}

type Key = (&'static str, String, String);

#[derive(Clone)]
struct Change {
    version: u64,
    key: Key,
    /// None: deleted.
    object: Option<Value>,
}

/// What the pods of a workload are permitted, as a set of single things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    pub permitted: BTreeSet<String>,
}

/// Nothing selects the pods in this direction: everything is permitted.
pub const ANY_EGRESS: &str = "egress: anything";
pub const ANY_INGRESS: &str = "ingress: anything";

impl Changes {
    pub async fn record(api: &Api) -> Self {
        let events: Arc<Mutex<Vec<Change>>> = Arc::default();
        let mut start = BTreeMap::new();
        let mut tasks = Vec::new();
        for name in KINDS {
            let path = kind(name).path("", "");
            let list = api.request("GET", &path, None, None).await.expect("a list");
            for object in list["items"].as_array().into_iter().flatten() {
                start.insert(key(name, object), object.clone());
            }
            let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
            let (api, events) = (api.clone(), Arc::clone(&events));
            tasks.push(tokio::spawn(async move { watch(&api, name, &path, &version, &events).await }));
        }
        Self { api: api.clone(), start, events, tasks }
    }

    /// Ends the recording, when everything written so far has been seen: every state, in order, as what these pods are permitted, with the
    /// resource version since which it was so. Equal neighbours are one.
    pub async fn finish(self, namespace: &str, pod_labels: &[(&str, &str)], account: &str) -> Vec<(Reach, u64)> {
        // A mark in each kind: when it is seen, so is everything before it.
        let mark = format!("mark-{:p}", Arc::as_ptr(&self.events));
        for name in KINDS {
            let mut object = json!({"apiVersion": kind(name).version, "kind": name, "metadata": {"name": mark, "namespace": "default"}});
            match name {
                "NetworkPolicy" => object["spec"] = json!({"podSelector": {"matchLabels": {"mark": "none"}}}),
                "RoleBinding" => object["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": mark}),
                _ => {}
            }
            self.api.apply(object).await.expect("a mark");
        }
        eventually("the recording has seen everything", || async {
            let seen = self.events.lock().expect("no panic while locked").iter().filter(|c| c.key.2 == mark).count();
            super::check(seen == KINDS.len(), || format!("{seen} of {} marks", KINDS.len()))
        })
        .await;
        for task in &self.tasks {
            task.abort();
        }
        for name in KINDS {
            let _ = self.api.delete(name, "default", &mark).await;
        }
        let mut changes = self.events.lock().expect("no panic while locked").clone();
        changes.sort_by_key(|c| c.version);
        let mut objects = self.start;
        let mut states = vec![(Reach::of(&objects, namespace, pod_labels, account), 0)];
        for change in changes {
            match change.object {
                Some(object) => _ = objects.insert(change.key, object),
                None => _ = objects.remove(&change.key),
            }
            let reach = Reach::of(&objects, namespace, pod_labels, account);
            if states.last().is_none_or(|(last, _)| *last != reach) {
                states.push((reach, change.version));
            }
        }
        states
    }
}

async fn watch(api: &Api, name: &'static str, path: &str, version: &str, events: &Mutex<Vec<Change>>) {
    let uri = format!("{path}?watch=true&resourceVersion={version}&timeoutSeconds=600");
    let request = Request::get(uri).body(Body::empty()).expect("a request");
    let response = api.client.send(request).await.expect("a watch");
    assert!(response.status().is_success(), "watch {name}: {}", response.status());
    let mut frames = BodyStream::new(response.into_body());
    let mut rest: Vec<u8> = Vec::new();
    while let Some(Ok(frame)) = frames.next().await {
        rest.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).expect("JSON");
            let object = &event["object"];
            let version = object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).expect("a numeric version");
            let object = (event["type"] != "DELETED").then(|| object.clone());
            let change = Change { version, key: key(name, &event["object"]), object };
            events.lock().expect("no panic while locked").push(change);
        }
    }
}

fn key(kind: &'static str, object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (kind, text("namespace"), text("name"))
}

impl Reach {
    fn of(objects: &BTreeMap<Key, Value>, namespace: &str, pod_labels: &[(&str, &str)], account: &str) -> Self {
        let mut permitted = network(objects, namespace, pod_labels);
        permitted.extend(permissions(objects, namespace, account));
        Self { permitted }
    }

    /// Whether network traffic is bounded in both directions.
    pub fn is_closed(&self) -> bool {
        !self.permitted.contains(ANY_EGRESS) && !self.permitted.contains(ANY_INGRESS)
    }

    /// What is permitted here and not there.
    pub fn beyond<'a>(&'a self, others: &[&'a Reach]) -> Vec<&'a str> {
        self.permitted.iter().filter(|p| !others.iter().any(|o| o.permitted.contains(*p))).map(String::as_str).collect()
    }
}

fn network(objects: &BTreeMap<Key, Value>, namespace: &str, pod_labels: &[(&str, &str)]) -> BTreeSet<String> {
    let pod: BTreeMap<String, String> = pod_labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let selecting: Vec<&Value> = objects
        .iter()
        .filter(|((kind, place, _), _)| *kind == "NetworkPolicy" && place == namespace)
        .map(|(_, policy)| &policy["spec"])
        .filter(|spec| selector(&spec["podSelector"]).matches(&pod))
        .collect();
    let mut permitted = BTreeSet::new();
    for (direction, member, peers, any) in [("Egress", "egress", "to", ANY_EGRESS), ("Ingress", "ingress", "from", ANY_INGRESS)] {
        let bounding: Vec<&&Value> =
            selecting.iter().filter(|s| s["policyTypes"].as_array().is_some_and(|t| t.iter().any(|t| t == direction))).collect();
        if bounding.is_empty() {
            permitted.insert(any.to_owned());
        }
        for rule in bounding.iter().flat_map(|s| s[member].as_array().into_iter().flatten()) {
            let all = vec![json!("anybody")];
            let ports = vec![json!("any port")];
            for peer in rule[peers].as_array().filter(|p| !p.is_empty()).unwrap_or(&all) {
                for port in rule["ports"].as_array().filter(|p| !p.is_empty()).unwrap_or(&ports) {
                    permitted.insert(format!("{member}: {peer} {port}"));
                }
            }
        }
    }
    permitted
}

fn permissions(objects: &BTreeMap<Key, Value>, namespace: &str, account: &str) -> BTreeSet<String> {
    let mut permitted = BTreeSet::new();
    for ((kind, place, _), binding) in objects {
        let subjects = || binding["subjects"].as_array().into_iter().flatten();
        let bound = |s: &Value| s["kind"] == "ServiceAccount" && s["name"] == account && s["namespace"] == namespace;
        if *kind != "RoleBinding" || !subjects().any(bound) {
            continue;
        }
        let role = binding["roleRef"]["name"].as_str().unwrap_or_default();
        let role = objects.get(&("Role", place.clone(), role.to_owned()));
        for rule in role.into_iter().flat_map(|r| r["rules"].as_array().into_iter().flatten()) {
            let list = |field: &str| -> Vec<String> {
                let texts: Vec<String> = rule[field].as_array().into_iter().flatten().map(ToString::to_string).collect();
                if texts.is_empty() { vec!["any".to_owned()] } else { texts }
            };
            for group in list("apiGroups") {
                for resource in list("resources") {
                    for name in list("resourceNames") {
                        for verb in list("verbs") {
                            permitted.insert(format!("may {verb} {resource} {group} {name} in {place}"));
                        }
                    }
                }
            }
        }
    }
    permitted
}

fn selector(value: &Value) -> Selector {
    let labels = value["matchLabels"].as_object().into_iter().flatten().map(|(key, value)| {
        let value = value.as_str().unwrap_or_default().to_owned();
        (key.clone(), Requirement::In([value].into()))
    });
    let expressions = value["matchExpressions"].as_array().into_iter().flatten().map(|e| {
        let values = e["values"].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
        let requirement = match e["operator"].as_str() {
            Some("In") => Requirement::In(values),
            Some("NotIn") => Requirement::NotIn(values),
            Some("Exists") => Requirement::Exists,
            _ => Requirement::DoesNotExist,
        };
        (e["key"].as_str().unwrap_or_default().to_owned(), requirement)
    });
    Selector::new(labels.chain(expressions)).expect("the API server accepted it")
}
