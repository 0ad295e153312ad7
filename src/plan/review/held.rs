//! Nobody grants what they do not hold: what the author of an added source is asked.
//!
//! Promise: each added permission, object and Service of another namespace is asked, or, where that would be too many questions, the
//! change is refused. In: the scope before and after, or an AIWorkload that is not valid. Out: checks of [`Rule::Held`] and
//! [`Rule::Never`], each with its field.

use std::collections::BTreeSet;

use super::added::added;
use super::{Check, Question, Review, Rule, field};
use crate::api::{self, AIWorkload};
use crate::scope::{Permission, Scope, Source, Target, Verb, never_grantable};

/// More questions than this for one change are refused rather than asked.
const MOST_QUESTIONS: usize = 500;

impl Review {
    /// Asks the author for what they add.
    pub(super) fn ask(&mut self, before: Option<&Scope>, new: &Scope) {
        for source in added(before, new, false) {
            self.checks.extend(held(&new.workload.namespace, &source));
        }
        let questions: BTreeSet<_> = self.checks.iter().map(|c| &c.question).collect();
        if questions.len() > MOST_QUESTIONS {
            let many = questions.len();
            self.checks.retain(|c| c.rule == Rule::Release);
            self.refuse(
                "dataSources",
                format!(
                    "adds {many} permissions in one change, more than the {MOST_QUESTIONS} that are asked at once; add them in steps, or fewer"
                ),
            );
        }
    }
}

/// What the author of an added source must hold.
fn held(own: &str, source: &Source) -> Vec<Check> {
    let path = field(source);
    let questions = match &source.target {
        Target::Kubernetes(permissions) => permissions.iter().map(Question::of).collect(),
        Target::Service { service, .. } if service.namespace != own => vec![Question::get("services", service)],
        Target::Service { .. } | Target::Host { .. } => Vec::new(),
        Target::ConfigMap(object) => vec![Question::get("configmaps", object)],
        Target::Secret(object) => vec![Question::get("secrets", object)],
        Target::PersistentVolumeClaim { claim, write: _ } => vec![Question::get("persistentvolumeclaims", claim)],
    };
    questions.into_iter().map(|question| Check { path: path.clone(), rule: Rule::Held, question }).collect()
}

/// Secrets declared as objects of the API are refused as such; asked as well, so that the author learns both things at once.
pub(super) fn secrets_as_objects(workload: &AIWorkload) -> Vec<Check> {
    let own = workload.metadata.namespace.as_deref().unwrap_or_default();
    let mut checks = Vec::new();
    for source in &workload.spec.data_sources {
        let Some(api::KubernetesSource { api_groups, resources, resource_names, namespace }) = &source.kubernetes else { continue };
        if !api_groups.iter().any(String::is_empty) || !resources.iter().any(|r| r == "secrets") {
            continue;
        }
        let verbs: &[Verb] = if source.access == api::Access::ReadWrite { &Verb::ALL } else { &Verb::READ };
        let names: Vec<Option<&String>> = if resource_names.is_empty() { vec![None] } else { resource_names.iter().map(Some).collect() };
        for (verb, name) in verbs.iter().flat_map(|verb| names.iter().map(move |name| (verb, name))) {
            let permission = Permission {
                namespace: namespace.clone().unwrap_or_else(|| own.to_owned()),
                group: String::new(),
                resource: "secrets".to_owned(),
                name: name.cloned(),
                verb: *verb,
            };
            if never_grantable(&permission).is_some() && checks.len() < MOST_QUESTIONS {
                let path = format!("dataSources[name={}].kubernetes", source.name);
                checks.push(Check { path, rule: Rule::Never, question: Question::of(&permission) });
            }
        }
    }
    checks
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::review::fixture::{OPEN, all_lacking, ceilings, host, judge, kubernetes, object, of, service};
    use crate::plan::review::{Author, Change};
    use crate::scope::Ceilings;

    #[test]
    fn what_the_author_of_each_kind_of_source_is_asked() {
        let open = ceilings(&[("open", OPEN)]);
        let cases = [
            (
                kubernetes(json!({})),
                ["get", "list", "watch"]
                    .iter()
                    .map(|v| format!("dataSources[name=orders].kubernetes: {v} orders.shop.example.com in support"))
                    .collect(),
            ),
            (
                kubernetes(json!({"resourceNames": ["a"]})),
                ["get", "list", "watch"]
                    .iter()
                    .map(|v| format!("dataSources[name=orders].kubernetes: {v} orders.shop.example.com a in support"))
                    .collect(),
            ),
            (object("s", "Secret", "secret"), vec!["dataSources[name=s].secret: get secrets. thing in support".to_owned()]),
            (object("c", "ConfigMap", "configMap"), vec!["dataSources[name=c].configMap: get configmaps. thing in support".to_owned()]),
            (
                object("p", "PersistentVolumeClaim", "persistentVolumeClaim"),
                vec!["dataSources[name=p].persistentVolumeClaim: get persistentvolumeclaims. thing in support".to_owned()],
            ),
            (service("o", Some("shop"), "orders"), vec!["dataSources[name=o].service: get services. orders in shop".to_owned()]),
            (service("o", None, "own"), vec![]),
            (host("h", "help.example.com"), vec![]),
        ];
        for (source, expected) in cases {
            let new = of(json!([source]));
            let mut expected: Vec<String> = expected;
            expected.sort();
            for author in [Author::Person, Author::Controller] {
                let review = judge(Change::Create(&new), author, &open);
                let mut asked = asked(&review);
                asked.sort();
                assert_eq!((asked, review.refusals), (expected.clone(), vec![]), "{source}");
            }
            let review = judge(Change::Create(&new), Author::Applier, &open);
            assert_eq!((review.checks, review.refusals), (vec![], vec![]), "{source}");
        }
    }

    fn asked(review: &Review) -> Vec<String> {
        review
            .checks
            .iter()
            .map(|Check { path, rule: _, question: Question { namespace, group, resource, subresource, name, verb } }| {
                let sub = subresource.as_ref().map(|s| format!("/{s}")).unwrap_or_default();
                let name = name.as_ref().map(|n| format!(" {n}")).unwrap_or_default();
                format!("{path}: {verb} {resource}.{group}{sub}{name} in {namespace}")
            })
            .collect()
    }

    #[test]
    fn secrets_as_objects_say_the_rule_and_who_could() {
        let new = of(json!([kubernetes(json!({"apiGroups": [""], "resources": ["secrets"]}))]));
        let review = judge(Change::Create(&new), Author::Person, &Ceilings::default());
        assert_eq!(
            all_lacking(&review),
            [
                "dataSources[name=orders].kubernetes.resources: reading secrets is never granted by Remit: its holder reads credentials; declare a data source of type Secret for one that the pods may mount",
                "dataSources[name=orders].kubernetes: needs \"get,list,watch secrets in namespace support\", which dana@example.com does not hold, and which nobody can grant through Remit; for one Secret that the pods may mount, declare a data source of type Secret: someone who holds \"get secrets NAME in namespace support\" can apply it",
            ]
        );
        // Whoever holds it is refused all the same.
        assert_eq!(review.denials(&BTreeSet::new(), "admin").len(), 1);
    }

    #[test]
    fn too_much_at_once_is_refused_before_it_is_listed() {
        let names = |n: usize| (0..n).map(|i| format!("n{i}")).collect::<Vec<_>>();
        let cases = [(2, 32, false), (16, 32, true), (64, 5_000, true)];
        for (resources, count, refused) in cases {
            let new = of(json!([kubernetes(json!({"resources": names(resources), "resourceNames": names(count)}))]));
            let review = judge(Change::Create(&new), Author::Person, &Ceilings::default());
            assert_eq!(!review.refusals.is_empty(), refused, "{resources} × {count}");
            assert!(review.checks.len() <= MOST_QUESTIONS);
        }
    }
}
