//! What a change adds: everything of the new scope that the old one did not declare for the same pods and account.
//!
//! Promise: nothing new is left out; what is only taken away, narrowed or renamed adds nothing. In: the AIWorkload before, the scope
//! after. Out: sources that hold only what is new. Whether it may be added is decided elsewhere.

use std::collections::BTreeSet;

use crate::api::AIWorkload;
use crate::plan::validate;
use crate::scope::{Permission, Requests, Scope, Source, Target};

/// The old scope, if what it declares counts as declared: it was valid, and neither its account nor its pods are others now. None:
/// everything is added.
pub(super) fn before(old: Option<&AIWorkload>, new: &Scope) -> Option<Scope> {
    old.and_then(|old| validate(old).ok())
        // Lifting the kill switch gives everything again.
        .filter(|before| !before.suspended || new.suspended)
        .filter(|before| before.selector.covers(&new.selector) && before.account == new.account)
}

/// The sources of `new` with what `old` declares taken out. A changed class counts as new only where the class matters.
pub(super) fn added(old: Option<&Scope>, new: &Scope, class_matters: bool) -> Vec<Source> {
    let Some(old) = old else { return new.sources.clone() };
    new.sources
        .iter()
        .filter_map(|source| {
            let mut before = old.sources.iter().filter(|o| !class_matters || o.class == source.class).map(|o| &o.target);
            let target = match &source.target {
                Target::Kubernetes(permissions) => {
                    let held: BTreeSet<&Permission> = before
                        .filter_map(|t| match t {
                            Target::Kubernetes(permissions) => Some(permissions),
                            _ => None,
                        })
                        .flatten()
                        .collect();
                    let all_names = |p: &Permission| Permission { name: None, ..p.clone() };
                    let added: BTreeSet<Permission> =
                        permissions.iter().filter(|p| !held.contains(p) && !held.contains(&all_names(p))).cloned().collect();
                    (!added.is_empty()).then_some(Target::Kubernetes(added))
                }
                Target::PersistentVolumeClaim { claim, write } => {
                    let covered =
                        before.any(|t| matches!(t, Target::PersistentVolumeClaim { claim: c, write: w } if c == claim && (*w || !write)));
                    (!covered).then(|| source.target.clone())
                }
                // What lets everything pass there, or rules that together allow every request of these.
                Target::Service { http: Some(requests), .. } | Target::Host { http: Some(requests), .. } => {
                    let there: Vec<Option<&Requests>> = before.filter(|t| is_same_place(t, &source.target)).map(Target::requests).collect();
                    let held: Option<Vec<&Requests>> = there.into_iter().collect();
                    let covered = held.is_none_or(|held| requests.is_within(&held));
                    (!covered).then(|| source.target.clone())
                }
                target => (!before.any(|t| t == target)).then(|| target.clone()),
            };
            target.map(|target| Source { target, ..source.clone() })
        })
        .collect()
}

fn is_same_place(one: &Target, other: &Target) -> bool {
    match (one, other) {
        (Target::Service { service, port, .. }, Target::Service { service: s, port: p, .. }) => service == s && port == p,
        (Target::Host { host, port, .. }, Target::Host { host: h, port: p, .. }) => host == h && port == p,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::plan::review::fixture::{OPEN, ceilings, host, judge, kubernetes, merge, object, of, service, workload};
    use crate::plan::review::{Author, Change};
    use crate::scope::Ceilings;

    #[test]
    fn only_what_is_added_is_asked_and_bounded() {
        let narrow = ceilings(&[(
            "narrow",
            "classes: [Restricted]\nkubernetes: [{name: o, apiGroups: [shop.example.com], resources: [orders], access: ReadWrite}]",
        )]);
        let old = of(json!([host("h", "help.example.com"), kubernetes(json!({})), object("s", "Secret", "secret")]));
        // (the new sources, how many questions, how many refusals)
        let write = {
            let mut k = kubernetes(json!({}));
            k["access"] = json!("ReadWrite");
            k
        };
        let renamed = {
            let mut h = host("h", "help.example.com");
            h["name"] = json!("other");
            h
        };
        let cases = [
            ("removed", json!([kubernetes(json!({}))]), 0, 0),
            ("renamed", json!([renamed, kubernetes(json!({})), object("s", "Secret", "secret")]), 0, 0),
            ("narrowed to a name", json!([kubernetes(json!({"resourceNames": ["a"]}))]), 0, 0),
            ("write added", json!([write]), 4, 0),
            ("host added", json!([host("h", "help.example.com"), host("g", "other.example.com")]), 0, 1),
            ("another namespace", json!([kubernetes(json!({"namespace": "shop"}))]), 3, 1),
            ("secret under another name", json!([object("t", "Secret", "secret")]), 0, 0),
            ("a ConfigMap of a Secret's name", json!([object("t", "ConfigMap", "configMap")]), 1, 0),
        ];
        for (what, sources, questions, refusals) in cases {
            let new = of(sources);
            let review = judge(Change::Update { old: &old, new: &new }, Author::Person, &narrow);
            assert_eq!((review.checks.len(), review.refusals.len()), (questions, refusals), "{what}: {review:?}");
        }
    }

    /// What may be asked of a destination is added like any permission. (A Service of another namespace, because that is asked of the author.)
    #[test]
    fn wider_rules_are_added() {
        let open = ceilings(&[("open", OPEN)]);
        let source = |access: &str, more: serde_json::Value| {
            let mut source = service("o", Some("shop"), "orders");
            source["access"] = json!(access);
            merge(&mut source["service"], more);
            source
        };
        let http = |rules: serde_json::Value| json!({"protocol": "HTTP", "http": rules});
        let prefix = |path: &str| json!([{"type": "PathPrefix", "value": path}]);
        let articles = || http(json!([{"methods": ["GET"], "paths": prefix("/articles")}]));
        let (read, write) = ("Read", "ReadWrite");
        let cases = [
            ("the same", (read, articles()), (read, articles()), false),
            ("Read to ReadWrite, the same methods", (read, articles()), (write, articles()), false),
            ("Read to ReadWrite", (read, http(json!([]))), (write, http(json!([]))), true),
            ("ReadWrite to Read", (write, http(json!([]))), (read, http(json!([]))), false),
            ("a method", (write, articles()), (write, http(json!([{"methods": ["GET", "PUT"], "paths": prefix("/articles")}]))), true),
            ("a path", (read, articles()), (read, http(json!([{"methods": ["GET"], "paths": prefix("/")}]))), true),
            ("a path below", (read, articles()), (read, http(json!([{"methods": ["GET"], "paths": prefix("/articles/1")}]))), false),
            ("no rules any more", (read, articles()), (read, http(json!([]))), true),
            ("an upgrade", (read, articles()), (read, http(json!([{"paths": prefix("/articles"), "upgrades": ["WebSocket"]}]))), true),
            ("TCP instead", (write, http(json!([]))), (write, json!({"protocol": "TCP"})), true),
            ("instead of TCP", (write, json!({"protocol": "TCP"})), (write, http(json!([]))), false),
            ("in the clear", (read, json!({"protocol": "HTTPS"})), (read, json!({"protocol": "HTTP"})), true),
            ("inspected", (read, json!({"protocol": "HTTPS"})), (read, json!({"protocol": "HTTPS", "tlsInspection": "Enabled"})), false),
            (
                "a variable",
                (read, articles()),
                (read, {
                    let mut more = articles();
                    more["baseURLEnv"] = json!(["ORDERS"]);
                    more
                }),
                false,
            ),
        ];
        for (what, before, after, added) in cases {
            let (old, new) = (of(json!([source(before.0, before.1)])), of(json!([source(after.0, after.1)])));
            let review = judge(Change::Update { old: &old, new: &new }, Author::Person, &open);
            assert_eq!((review.checks.len(), review.refusals.len()), (usize::from(added), 0), "{what}: {review:?}");
        }
        // A tunnel where requests were judged, above the ceiling by now.
        let tight = ceilings(&[("tight", "classes: [Restricted]")]);
        let of_host = |protocol: &str| {
            let mut source = host("h", "help.example.com");
            source["host"]["protocol"] = json!(protocol);
            of(json!([source]))
        };
        for (before, after, refusals) in [("HTTPS", "TLS", 1), ("TLS", "HTTPS", 0)] {
            let (old, new) = (of_host(before), of_host(after));
            let review = judge(Change::Update { old: &old, new: &new }, Author::Person, &tight);
            assert_eq!(review.refusals.len(), refusals, "{before} to {after}: {review:?}");
        }
    }

    #[test]
    fn everything_counts_as_added_when_the_pods_or_the_account_change() {
        let open = ceilings(&[("open", &format!("{OPEN}\nunscopedPods: Allow"))]);
        let sources = json!([kubernetes(json!({})), object("s", "Secret", "secret")]);
        let old = workload(
            json!({}),
            json!({"dataSources": sources, "selector": {"matchLabels": {"app": "bot", "tier": "ai"}}, "mode": "Observe"}),
        );
        let cases = [
            ("same", json!({"selector": {"matchLabels": {"app": "bot", "tier": "ai"}}, "purpose": "x"}), 0),
            ("within", json!({"selector": {"matchLabels": {"app": "bot", "tier": "ai", "x": "y"}}}), 0),
            ("wider", json!({"selector": {"matchLabels": {"app": "bot"}}}), 4),
            ("other", json!({"selector": {"matchLabels": {"app": "other"}}}), 4),
            ("account", json!({"selector": {"matchLabels": {"app": "bot", "tier": "ai"}}, "identity": {"serviceAccountName": "mine"}}), 4),
        ];
        for (what, spec, questions) in cases {
            let mut all = json!({"dataSources": sources, "mode": "Observe"});
            merge(&mut all, spec);
            let new = workload(json!({}), all);
            let review = judge(Change::Update { old: &old, new: &new }, Author::Person, &open);
            assert_eq!(review.checks.len(), questions, "{what}: {review:?}");
        }
        // An old one that is not valid says nothing of what was allowed.
        let broken = workload(json!({}), json!({"dataSources": sources, "selector": {}, "mode": "Observe"}));
        let new = workload(json!({}), json!({"dataSources": sources, "mode": "Observe"}));
        assert_eq!(judge(Change::Update { old: &broken, new: &new }, Author::Person, &open).checks.len(), 4);
    }

    #[test]
    fn lifting_the_kill_switch_counts_as_adding_everything() {
        let sources = json!([object("s", "Secret", "secret")]);
        let (off, on) =
            (workload(json!({}), json!({"dataSources": sources, "suspend": true})), workload(json!({}), json!({"dataSources": sources})));
        let checks = |old, new| judge(Change::Update { old, new }, Author::Person, &Ceilings::default()).checks.len();
        assert_eq!((checks(&off, &on), checks(&on, &off)), (1, 0));
    }
}
