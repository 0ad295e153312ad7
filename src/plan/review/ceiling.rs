//! Nobody grants above the ceiling: each added source against each ceiling, one by one.
//!
//! Promise: what a ceiling does not allow is refused with that ceiling's name and the lines that would allow it; what was declared
//! before and lies above a ceiling by now is only warned of. In: the scope, what it adds, the ceilings over the namespace, the kind of
//! author. Out: refusals and warnings. What is within a ceiling is [`Ceilings::narrow`]'s judgement.

use std::collections::BTreeSet;

use super::remedy::{describe, remedy};
use super::{Author, Review, field};
use crate::scope::{Ceilings, Scope, Source, Target};

impl Review {
    /// An added source against each ceiling, with the remedy for each that does not allow it.
    pub(super) fn bounded(&mut self, scope: &Scope, source: &Source, author: Author, ceilings: &Ceilings) {
        let namespace = &scope.workload.namespace;
        let path = field(source);
        if ceilings.0.is_empty() {
            let without_ceiling = match (&source.target, author) {
                (Target::Service { service, .. }, _) => service.namespace == *namespace,
                (_, Author::Applier) => false,
                _ => {
                    let (_, excesses) = ceilings.narrow(&Scope { sources: vec![source.clone()], ..scope.clone() });
                    excesses.is_empty()
                }
            };
            if !without_ceiling {
                let who = match author {
                    Author::Applier => "its author is a declared applier, which needs a ceiling for what it adds",
                    Author::Person | Author::Controller => {
                        "without one, only the namespace's own Services and Kubernetes objects can be declared"
                    }
                };
                self.refuse(
                    path,
                    format!(
                        "{} needs a ScopeCeiling over namespace {namespace} that allows it, and there is none ({who}); ask an admin for one with {}",
                        describe(&source.target),
                        remedy(namespace, source, true)
                    ),
                );
            }
            return;
        }
        for one in &ceilings.0 {
            let mut one = one.clone();
            // The class is judged first and then taken as allowed, so that everything is said at once.
            if one.classes.insert(source.class) {
                self.refuse(
                    format!("dataSources[name={}].class", source.name),
                    format!(
                        "{class:?} is not within ScopeCeiling {name} (a data source without a class counts as Restricted); classify it truthfully, or ask an admin to allow it in ScopeCeiling {name}: classes: [{class:?}]",
                        class = source.class,
                        name = one.name
                    ),
                );
            }
            let name = one.name.clone();
            let (kept, excesses) = Ceilings(vec![one]).narrow(&Scope { sources: vec![source.clone()], ..scope.clone() });
            if !excesses.is_empty() {
                let rest = without(source, kept.sources.first());
                self.refuse(
                    path.clone(),
                    format!(
                        "{} is not within ScopeCeiling {name}; ask an admin to allow it in ScopeCeiling {name}: {}",
                        describe(&rest.target),
                        remedy(namespace, &rest, false),
                    ),
                );
            }
        }
    }

    /// Of what is not added, what lies above a ceiling by now.
    pub(super) fn stays_above(&mut self, scope: &Scope, added: Vec<Source>, ceilings: &Ceilings) {
        let (_, whole) = ceilings.narrow(scope);
        let (_, new_ones) = ceilings.narrow(&Scope { sources: added, ..scope.clone() });
        let stays: BTreeSet<String> = whole
            .iter()
            .filter(|excess| !new_ones.contains(excess))
            .map(|excess| format!("dataSources[name={}]: {}; it is left out of what is applied", excess.source, excess.message()))
            .collect();
        self.warnings.extend(stays);
    }
}

/// `source` without what was kept of it.
fn without(source: &Source, kept: Option<&Source>) -> Source {
    match (&source.target, kept.map(|k| &k.target)) {
        (Target::Kubernetes(all), Some(Target::Kubernetes(kept))) => {
            Source { target: Target::Kubernetes(all.difference(kept).cloned().collect()), ..source.clone() }
        }
        _ => source.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::review::Change;
    use crate::plan::review::fixture::{OPEN, ceilings, host, judge, kubernetes, object, of, service, workload};

    #[test]
    fn ceilings_refuse_with_the_remedy() {
        let open = ("open", OPEN);
        let tight = ("tight", "classes: [Internal]");
        let public = |mut source: Value| {
            source["class"] = json!("Internal");
            source
        };
        let cases: Vec<(Value, Author, Vec<(&str, &str)>, Vec<&str>)> = vec![
            (
                host("h", "evil.example.com"),
                Author::Person,
                vec![open],
                vec![
                    "dataSources[name=h].host: host evil.example.com port 443 is not within ScopeCeiling open; ask an admin to allow it in ScopeCeiling open: hosts: [{name: h, host: evil.example.com, ports: [443]}]",
                ],
            ),
            (
                public(host("h", "help.example.com")),
                Author::Person,
                vec![open, tight],
                vec![
                    "dataSources[name=h].host: host help.example.com port 443 is not within ScopeCeiling tight; ask an admin to allow it in ScopeCeiling tight: hosts: [{name: h, host: help.example.com, ports: [443]}]",
                ],
            ),
            (
                host("h", "help.example.com"),
                Author::Person,
                vec![],
                vec![
                    "dataSources[name=h].host: host help.example.com port 443 needs a ScopeCeiling over namespace support that allows it, and there is none (without one, only the namespace's own Services and Kubernetes objects can be declared); ask an admin for one with hosts: [{name: h, host: help.example.com, ports: [443]}], classes: [Restricted]",
                ],
            ),
            (
                service("o", Some("finance"), "ledger"),
                Author::Applier,
                vec![open],
                vec![
                    "dataSources[name=o].service: Service finance/ledger port 80 is not within ScopeCeiling open; ask an admin to allow it in ScopeCeiling open: services: [{name: o, namespace: finance, services: [ledger], ports: [80]}]",
                ],
            ),
            (
                kubernetes(json!({"resources": ["orders", "refunds"]})),
                Author::Person,
                vec![open],
                vec![
                    "dataSources[name=orders].kubernetes: get,list,watch refunds.shop.example.com in namespace support is not within ScopeCeiling open; ask an admin to allow it in ScopeCeiling open: kubernetes: [{name: orders, apiGroups: [shop.example.com], resources: [refunds], access: Read}]",
                ],
            ),
            (
                object("s", "Secret", "secret"),
                Author::Person,
                vec![tight],
                vec![
                    "dataSources[name=s].class: Restricted is not within ScopeCeiling tight (a data source without a class counts as Restricted); classify it truthfully, or ask an admin to allow it in ScopeCeiling tight: classes: [Restricted]",
                ],
            ),
            (
                kubernetes(json!({})),
                Author::Applier,
                vec![],
                vec![
                    "dataSources[name=orders].kubernetes: get,list,watch orders.shop.example.com in namespace support needs a ScopeCeiling over namespace support that allows it, and there is none (its author is a declared applier, which needs a ceiling for what it adds); ask an admin for one with kubernetes: [{name: orders, apiGroups: [shop.example.com], resources: [orders], access: Read}], classes: [Restricted]",
                ],
            ),
            (
                object("s", "Secret", "secret"),
                Author::Applier,
                vec![],
                vec![
                    "dataSources[name=s].secret: Secret support/thing needs a ScopeCeiling over namespace support that allows it, and there is none (its author is a declared applier, which needs a ceiling for what it adds); ask an admin for one with classes: [Restricted]",
                ],
            ),
            (service("o", None, "own"), Author::Applier, vec![], vec![]),
            (service("o", None, "own"), Author::Person, vec![], vec![]),
            (kubernetes(json!({})), Author::Person, vec![], vec![]),
            (object("s", "Secret", "secret"), Author::Person, vec![], vec![]),
        ];
        for (source, author, over, expected) in cases {
            let new = of(json!([source]));
            let review = judge(Change::Create(&new), author, &ceilings(&over));
            assert_eq!(review.denials(&BTreeSet::new(), "dana"), expected, "{source}");
        }
    }

    #[test]
    fn what_stays_above_a_tightened_ceiling_is_warned_of() {
        let old = of(json!([host("h", "help.example.com")]));
        let new = workload(json!({}), json!({"dataSources": [host("h", "help.example.com")], "purpose": "x"}));
        let review = judge(Change::Update { old: &old, new: &new }, Author::Person, &ceilings(&[("tight", "classes: [Restricted]")]));
        assert_eq!(review.refusals, vec![]);
        assert_eq!(
            review.warnings,
            ["dataSources[name=h]: host help.example.com port 443 is not within ScopeCeiling tight; it is left out of what is applied"]
        );
    }
}
