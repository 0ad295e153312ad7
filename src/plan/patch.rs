//! A pod before and after [`inject`](super::inject()) → a JSON patch of the pod as it was sent.
//!
//! Promise: applied to the raw pod it makes exactly the changes between the two, and every member that the types do not know (a field of a
//! newer Kubernetes) stays, at every level; but in what bears a name of ours nothing stays that we did not write. In: the raw `spec`, both typed pods.
//! Out: operations on `/spec/…`, none if nothing changed.
//!
//! Lists of named items are matched by name (of equal names, in order); any other list that differs is replaced as a whole.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use crate::policy::pod::{GUARD_CONTAINER, REDIRECT_CONTAINER, VOLUMES};

/// The operations, as RFC 6902 has them. (`add` of a member that is there replaces it.)
pub fn patch(raw_spec: &Value, before: &Pod, after: &Pod) -> Value {
    let members = |pod: &Pod| match serde_json::to_value(&pod.spec).expect("Kubernetes objects have only string keys") {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    let (before, after) = (members(before), members(after));
    let mut operations = Vec::new();
    for (member, old) in &before {
        if !after.contains_key(member) && raw_spec.get(member).is_some() {
            operations.push(json!({"op": "remove", "path": format!("/spec/{member}")}));
        }
        debug_assert!(!member.contains(['/', '~']), "members of a PodSpec need no escape: {old}");
    }
    for (member, new) in &after {
        if before.get(member) != Some(new) {
            let value = merged(raw_spec.get(member), before.get(member), new);
            operations.push(json!({"op": "add", "path": format!("/spec/{member}"), "value": value}));
        }
    }
    Value::Array(operations)
}

/// What the typed `before` does not say of `raw` stays; the rest is as `after` says.
fn merged(raw: Option<&Value>, before: Option<&Value>, after: &Value) -> Value {
    match (raw, before, after) {
        (Some(raw), Some(before), after) if before == after => raw.clone(),
        (Some(Value::Object(raw)), Some(Value::Object(before)), Value::Object(after)) => {
            let mut members = raw.clone();
            members.retain(|member, _| after.contains_key(member) || !before.contains_key(member));
            for (member, new) in after {
                if before.get(member) != Some(new) {
                    members.insert(member.clone(), merged(raw.get(member), before.get(member), new));
                }
            }
            Value::Object(members)
        }
        // The typed list was read from the raw one: the same items in the same order.
        (Some(Value::Array(raw)), Some(Value::Array(before)), Value::Array(after)) if raw.len() == before.len() => {
            let mut taken = vec![false; before.len()];
            let items = after.iter().map(|new| {
                let Some(name) = name(new).filter(|name| !is_ours(name)) else { return new.clone() };
                let at = (0..before.len()).find(|i| !taken[*i] && self::name(&before[*i]) == Some(name));
                let Some(at) = at else { return new.clone() };
                taken[at] = true;
                merged(Some(&raw[at]), Some(&before[at]), new)
            });
            Value::Array(items.collect())
        }
        (_, _, after) => after.clone(),
    }
}

fn name(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

fn is_ours(name: &str) -> bool {
    name == REDIRECT_CONTAINER || name == GUARD_CONTAINER || VOLUMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::admit::fixture::{BASE_URLS, INSPECTED, KUBERNETES, SPEC, any_good_pod, bot, injected, pod, put, scope};
    use crate::plan::fixture;
    use crate::scope::{Mode, Scope};

    /// What comes of a raw pod.
    fn patched(raw: &Value, scope: &Scope) -> Value {
        let before = pod(raw.clone());
        let operations = patch(&raw["spec"], &before, &injected(&before, scope));
        let mut after = raw.clone();
        json_patch::patch(&mut after, &serde_json::from_value::<json_patch::Patch>(operations).unwrap()).unwrap();
        after
    }

    /// A member that no type knows, in every object.
    fn strew(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.values_mut().for_each(strew);
                members.insert("futureField".into(), json!({"kept": [1, {"name": "x"}]}));
            }
            Value::Array(items) => items.iter_mut().for_each(strew),
            _ => {}
        }
    }

    fn strew_lists(spec: &mut Value) {
        for member in ["containers", "initContainers", "volumes"] {
            spec.get_mut(member).into_iter().for_each(strew);
        }
        spec.get_mut("securityContext").filter(|c| c.is_object()).into_iter().for_each(strew);
        spec["futureField"] = json!("kept");
    }

    fn count(value: &Value) -> usize {
        match value {
            Value::Object(members) => members.iter().map(|(key, v)| if key == "futureField" { 1 } else { count(v) }).sum(),
            Value::Array(items) => items.iter().map(count).sum(),
            _ => 0,
        }
    }

    fn without(value: &Value) -> Value {
        match value {
            Value::Object(members) => members.iter().filter(|(k, _)| *k != "futureField").map(|(k, v)| (k.clone(), without(v))).collect(),
            Value::Array(items) => items.iter().map(without).collect(),
            other => other.clone(),
        }
    }

    fn by_name<'a>(spec: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
        spec[list].as_array()?.iter().find(|item| item["name"] == name)
    }

    proptest! {
        /// Exactly our changes: the typed view of the patched pod is what `inject` says, and nothing unknown is lost of what stays.
        #[test]
        fn exactly_our_changes(good in any_good_pod(), kubernetes in any::<bool>(), http in 0..3usize, observe in any::<bool>()) {
            let (kubernetes, http) = (if kubernetes { KUBERNETES } else { "" }, ["", BASE_URLS, INSPECTED][http]);
            let mut scope = fixture::scope(&format!("{SPEC}{kubernetes}{http}"));
            if observe {
                scope.mode = Mode::Observe;
            }
            let mut raw = serde_json::to_value(&good).unwrap();
            strew_lists(&mut raw["spec"]);
            raw["metadata"]["futureField"] = json!(1);
            let after = patched(&raw, &scope);
            prop_assert_eq!(pod(after.clone()), injected(&good, &scope));
            prop_assert_eq!(&after["metadata"], &raw["metadata"]);
            prop_assert_eq!(&after["spec"]["futureField"], &raw["spec"]["futureField"]);
            for list in ["containers", "initContainers", "volumes"] {
                for item in after["spec"][list].as_array().unwrap() {
                    let name = item["name"].as_str().unwrap();
                    if is_ours(name) {
                        prop_assert_eq!(count(item), 0, "{} {}", list, name);
                    } else {
                        let was = by_name(&raw["spec"], list, name).unwrap();
                        // Mounts of a token that goes take theirs with them.
                        let mounts = |item: &Value| item.get("volumeMounts").map_or(0, count);
                        prop_assert_eq!(count(item) - mounts(item), count(was) - mounts(was), "{} {}", list, name);
                        prop_assert_eq!(item.get("futureField"), was.get("futureField"));
                    }
                }
            }
            // Twice is as once, but for nothing.
            prop_assert_eq!(patched(&after, &scope), after);
        }

        /// Without unknown members it is the typed pod and nothing else.
        #[test]
        fn as_typed(good in any_good_pod()) {
            let raw = serde_json::to_value(&good).unwrap();
            prop_assert_eq!(without(&patched(&raw, &scope())), serde_json::to_value(injected(&good, &scope())).unwrap());
        }
    }

    #[test]
    fn what_bears_our_names_keeps_nothing() {
        let mut raw = bot();
        put(&mut raw, "/spec/initContainers/-", json!({"name": "remit-guard", "image": "evil", "futurePower": true}));
        let ours = crate::plan::inject::guard_volumes("support-bot", crate::plan::inject::Form::Plain);
        put(&mut raw, "/spec/volumes/-", serde_json::to_value(&ours[0]).unwrap());
        let last = raw["spec"]["volumes"].as_array().unwrap().len() - 1;
        put(&mut raw, &format!("/spec/volumes/{last}/futurePower"), json!(true));
        let after = patched(&raw, &scope());
        assert!(!after.to_string().contains("futurePower"), "{after}");
    }

    #[test]
    fn shapes_that_the_types_take_for_absent() {
        let mut raw = bot();
        raw["spec"]["initContainers"] = Value::Null;
        raw["spec"]["securityContext"] = Value::Null;
        let after = patched(&raw, &scope());
        assert_eq!(after["spec"]["initContainers"].as_array().map(Vec::len), Some(2));
        assert_eq!(after["spec"]["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        // Left as they are: nothing at all.
        raw["spec"]["hostNetwork"] = json!(true);
        let before = pod(raw.clone());
        assert_eq!(patch(&raw["spec"], &before, &injected(&before, &scope())), json!([]));
    }
}
