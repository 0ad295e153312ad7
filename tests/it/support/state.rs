//! The state of namespaces in a form that can be compared: no times, no uids, no versions, no managers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Api;

/// The kinds that make up the state of a scenario.
const KINDS: &[&str] = &["AIWorkload", "NetworkPolicy", "ServiceAccount", "Role", "RoleBinding"];

/// All objects of these namespaces, in a form in which two runs can be equal: `names` are texts that differ between runs and what
/// stands for them.
pub async fn state_of(api: &Api, namespaces: &[&str], names: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    for namespace in namespaces {
        for kind in KINDS {
            for mut object in api.list(kind, namespace, "").await {
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
                "kind",
                "apiVersion",
            ] {
                if members.get(volatile).is_some_and(|v| !v.is_object()) {
                    members.remove(volatile);
                }
            }
            // A scope's digest covers its namespace, which differs between runs.
            if members.contains_key("scopeDigest") {
                members.insert("scopeDigest".to_owned(), Value::from("some"));
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
