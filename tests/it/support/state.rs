//! The state of namespaces in a form that can be compared: no times, no uids, no versions, no managers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Api;

/// The kinds that make up the state of a scenario.
const KINDS: &[&str] = &["AIWorkload", "NetworkPolicy", "ConfigMap", "ServiceAccount", "Role", "RoleBinding"];

/// All objects of these namespaces, in a form in which two runs can be equal: `names` are texts that differ between runs and what
/// stands for them.
pub async fn state_of(api: &Api, namespaces: &[&str], names: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    for namespace in namespaces {
        for kind in KINDS {
            for mut object in api.list(kind, namespace, "").await {
                // The guards' policy, as what it says. (Every namespace has another ConfigMap that is not ours.)
                if let Some(note) = object.pointer_mut("/data/policy.note") {
                    let text = remit::policy::signed::text(note.as_str().unwrap_or_default()).unwrap_or_default();
                    *note = serde_json::from_str(text).unwrap_or_default();
                } else if *kind == "ConfigMap" {
                    continue;
                }
                tidy(&mut object);
                let mut key = format!("{kind} {namespace}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
                let mut text = serde_json::to_string_pretty(&object).expect("JSON");
                for (name, stands_for) in names {
                    key = key.replace(name, stands_for);
                    text = text.replace(name, stands_for);
                }
                state.insert(key, text);
            }
        }
    }
    state
}

/// Takes away, at every depth, what differs between two runs that did the same.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for volatile in [
                "uid",
                "resourceVersion",
                "creationTimestamp",
                "deletionTimestamp",
                "managedFields",
                "lastTransitionTime",
                "enforcedSince",
                "serial",
                "kind",
                "apiVersion",
            ] {
                if members.get(volatile).is_some_and(|v| !v.is_object()) {
                    members.remove(volatile);
                }
            }
            // A scope's digest covers its namespace, which differs between runs.
            for digest in ["scopeDigest", "digest"] {
                if members.contains_key(digest) {
                    members.insert(digest.to_owned(), Value::from("some"));
                }
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
