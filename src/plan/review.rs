//! Nobody grants what they do not hold, nobody grants above the ceiling, and nobody sets pods free without the right to.
//!
//! Promise: every *added* item of a changed AIWorkload is bounded by the ceilings and asked of its author; whatever sets governed
//! pods free is asked as the verb `release`; everything else passes. In: what changes, the ceilings over the namespace, the kind of
//! author. Out: refusals, and questions for the authorizer, each with the field that needs it; [`Review::denials`] makes messages of
//! the answers. It asks nobody itself: no client, no clock.
//!
//! Three ways round the verb `release` lie in the metadata and are asked as well: the release annotation, an added owner
//! (whoever deletes the owner lets the garbage collector delete the AIWorkload), and our finalizer taken off an AIWorkload that is
//! being deleted. All other updates that leave the spec alone pass without a question.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{FieldError, ceiling, left_out, validate};
use crate::api::{self, AIWorkload, ENROLLED_LABEL, FINALIZER, GROUP, RELEASE_ANNOTATION, RELEASE_VERB, ScopeCeiling};
use crate::scope::{Ceilings, ObjectName, Permission, Scope, Source, Target, Verb, never_grantable};

/// More questions than this for one change are refused rather than asked.
const MOST_QUESTIONS: usize = 500;

/// What happens to an AIWorkload.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    Create(&'a AIWorkload),
    Update { old: &'a AIWorkload, new: &'a AIWorkload },
    Delete(&'a AIWorkload),
}

/// The kind of author.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// Anybody: asked for what they add.
    Person,
    /// Named in the configuration (a GitOps controller, which holds everything): a ceiling must allow what it adds, explicitly.
    Applier,
    /// The namespace controller, the garbage collector, the operator itself: deletes and tidies metadata unasked. A spec that it
    /// writes is a person's.
    Controller,
}

/// What the change is judged against.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    pub author: Author,
    /// The ceilings over the namespace.
    pub ceilings: &'a Ceilings,
    /// Whether the namespace is enrolled.
    pub enrolled: bool,
}

/// The judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// Refused, whoever asks.
    pub refusals: Vec<FieldError>,
    /// Allowed only if the authorizer says yes to each.
    pub checks: Vec<Check>,
    /// Said to the author, and nothing more.
    pub warnings: Vec<String>,
}

/// A question and the field that needs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    pub path: String,
    pub rule: Rule,
    pub question: Question,
}

/// Why a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// An author grants only what they hold.
    Held,
    /// Nobody can grant it in this form; the author does not even hold it.
    Never,
    /// Setting pods free needs the verb `release`.
    Release,
}

/// May the author do this?
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    pub namespace: String,
    pub group: String,
    pub resource: String,
    pub subresource: Option<String>,
    /// One object, or all.
    pub name: Option<String>,
    pub verb: &'static str,
}

impl Question {
    fn of(permission: &Permission) -> Self {
        let Permission { namespace, group, resource, name, verb } = permission;
        let (resource, subresource) = match resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (resource.as_str(), None),
        };
        Self {
            namespace: namespace.clone(),
            group: group.clone(),
            resource: resource.to_owned(),
            subresource,
            name: name.clone(),
            verb: verb.as_str(),
        }
    }

    fn get(resource: &str, object: &ObjectName) -> Self {
        Self {
            namespace: object.namespace.clone(),
            group: String::new(),
            resource: resource.to_owned(),
            subresource: None,
            name: Some(object.name.clone()),
            verb: Verb::Get.as_str(),
        }
    }

    fn release(workload: &AIWorkload) -> Self {
        Self {
            namespace: workload.metadata.namespace.clone().unwrap_or_default(),
            group: GROUP.to_owned(),
            resource: "aiworkloads".to_owned(),
            subresource: None,
            name: workload.metadata.name.clone(),
            verb: RELEASE_VERB,
        }
    }
}

/// What this change of an AIWorkload needs.
pub fn review(change: Change<'_>, circumstances: Circumstances<'_>) -> Review {
    let Circumstances { author, ceilings: _, enrolled } = circumstances;
    let mut review = Review::default();
    match change {
        Change::Create(new) => {
            if annotation(new).is_some() {
                review.release(new, format!("metadata.annotations[{RELEASE_ANNOTATION}]"));
            }
            if author != Author::Controller && new.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty()) {
                review.release(new, "metadata.ownerReferences".to_owned());
            }
            review.left_out_of_isolation(None, new, circumstances);
            review.declared(None, new, circumstances);
        }
        Change::Update { old, new } => {
            if author != Author::Controller {
                review.freed_by_metadata(old, new);
            }
            if old.spec != new.spec {
                review.freed_by_spec(old, new);
                review.left_out_of_isolation(Some(old), new, circumstances);
                review.declared(Some(old), new, circumstances);
            }
        }
        Change::Delete(old) => {
            if author != Author::Controller && old.spec.mode == api::Mode::Enforce {
                review.release(old, "deletion".to_owned());
                review.warnings.push(format!(
                    "the pods of {name} stay denied until they are gone; to set them free at once: kubectl annotate aiworkload {name} -n {namespace} {RELEASE_ANNOTATION}=true",
                    name = old.metadata.name.as_deref().unwrap_or_default(),
                    namespace = old.metadata.namespace.as_deref().unwrap_or_default(),
                ));
            }
            return review;
        }
    }
    if !enrolled && let Change::Create(new) | Change::Update { old: _, new } = change {
        let namespace = new.metadata.namespace.as_deref().unwrap_or_default();
        review.warnings.push(format!(
            "namespace {namespace} is not enrolled, so nothing is enforced there; its admin enrols it: kubectl label namespace {namespace} {ENROLLED_LABEL}=true"
        ));
    }
    review
}

/// What a new or changed ScopeCeiling needs.
pub fn review_ceiling(new: &ScopeCeiling) -> Review {
    Review { refusals: ceiling(new).err().unwrap_or_default(), ..Review::default() }
}

impl Review {
    fn release(&mut self, workload: &AIWorkload, path: String) {
        self.checks.push(Check { path, rule: Rule::Release, question: Question::release(workload) });
    }

    fn refuse(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.refusals.push(FieldError { path: path.into(), message: message.into() });
    }

    fn freed_by_metadata(&mut self, old: &AIWorkload, new: &AIWorkload) {
        if annotation(new).is_some() && annotation(new) != annotation(old) {
            self.release(old, format!("metadata.annotations[{RELEASE_ANNOTATION}]"));
        }
        let owners = |w: &AIWorkload| w.metadata.owner_references.clone().unwrap_or_default();
        if !owners(new).iter().all(|owner| owners(old).contains(owner)) {
            self.release(old, "metadata.ownerReferences".to_owned());
        }
        let held = |w: &AIWorkload| w.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
        if old.metadata.deletion_timestamp.is_some() && held(old) && !held(new) {
            self.release(old, "metadata.finalizers".to_owned());
        }
    }

    fn freed_by_spec(&mut self, old: &AIWorkload, new: &AIWorkload) {
        if old.spec.mode != api::Mode::Enforce {
            return;
        }
        if new.spec.mode != api::Mode::Enforce {
            self.release(old, "mode".to_owned());
        }
        let narrowed = match (validate(old), validate(new)) {
            (Ok(old), Ok(new)) => !new.selector.covers(&old.selector),
            _ => old.spec.selector != new.spec.selector,
        };
        if narrowed {
            self.release(old, "selector".to_owned());
        }
    }

    /// Where unscoped pods are isolated, the pods of an Observe workload are left out of the isolation: naming them sets them free.
    /// From Enforce to Observe is asked already.
    fn left_out_of_isolation(&mut self, old: Option<&AIWorkload>, new: &AIWorkload, circumstances: Circumstances<'_>) {
        if new.spec.mode != api::Mode::Observe || !circumstances.ceilings.isolate_unscoped() {
            return;
        }
        let Some(old) = old else { return self.release(new, "mode".to_owned()) };
        if old.spec.mode != api::Mode::Observe {
            return;
        }
        let widened = match (validate(old), validate(new)) {
            (Ok(old), Ok(new)) => !left_out(&old.selector).covers(&left_out(&new.selector)),
            _ => old.spec.selector != new.spec.selector,
        };
        if widened {
            self.release(new, "selector".to_owned());
        }
    }

    fn declared(&mut self, old: Option<&AIWorkload>, new: &AIWorkload, circumstances: Circumstances<'_>) {
        let Circumstances { author, ceilings, enrolled: _ } = circumstances;
        let scope = match validate(new) {
            Ok(scope) => scope,
            Err(errors) => {
                self.refusals.extend(errors);
                if author != Author::Applier {
                    self.checks.extend(secrets_as_objects(new));
                }
                return;
            }
        };
        let before = old
            .and_then(|old| validate(old).ok())
            // Lifting the kill switch gives everything again.
            .filter(|before| !before.suspended || scope.suspended)
            .filter(|before| before.selector.covers(&scope.selector) && before.account == scope.account);
        let added = added(before.as_ref(), &scope, true);
        for source in &added {
            self.bounded(&scope, source, author, ceilings);
        }
        if author != Author::Applier {
            for source in self::added(before.as_ref(), &scope, false) {
                self.checks.extend(held(&scope.workload.namespace, &source));
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
        let (_, whole) = ceilings.narrow(&scope);
        let (_, new_ones) = ceilings.narrow(&Scope { sources: added, ..scope.clone() });
        let stays: BTreeSet<String> = whole
            .iter()
            .filter(|excess| !new_ones.contains(excess))
            .map(|excess| format!("dataSources[name={}]: {}; it is left out of what is applied", excess.source, excess.message()))
            .collect();
        self.warnings.extend(stays);
    }

    /// An added source against each ceiling, with the remedy for each that does not allow it.
    fn bounded(&mut self, scope: &Scope, source: &Source, author: Author, ceilings: &Ceilings) {
        let namespace = &scope.workload.namespace;
        let path = format!("dataSources[name={}].{}", source.name, member(&source.target));
        if ceilings.0.is_empty() {
            let without_ceiling = match (&source.target, author) {
                (Target::Service { service, port: _ }, _) => service.namespace == *namespace,
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

    /// All that speaks against the change, once it is known which questions were answered with no. Empty: allowed.
    pub fn denials(&self, lacking: &BTreeSet<Question>, user: &str) -> Vec<String> {
        let Self { refusals, checks, warnings: _ } = self;
        let mut lines: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        // Verbs of one object are joined, then objects with equal verbs.
        type Thing<'a> = (&'a str, Rule, &'a str, &'a str, &'a str, Option<&'a str>);
        let mut verbs: BTreeMap<(Thing<'_>, Option<&str>), BTreeSet<Spoken>> = BTreeMap::new();
        for Check { path, rule, question } in checks.iter().filter(|c| lacking.contains(&c.question)) {
            let Question { namespace, group, resource, subresource, name, verb } = question;
            let thing = (path.as_str(), *rule, namespace.as_str(), group.as_str(), resource.as_str(), subresource.as_deref());
            verbs.entry((thing, name.as_deref())).or_default().insert(Spoken(verb));
        }
        let mut names: BTreeMap<(Thing<'_>, bool, Vec<Spoken>), Vec<&str>> = BTreeMap::new();
        for ((thing, name), verbs) in verbs {
            names.entry((thing, name.is_some(), verbs.into_iter().collect())).or_default().extend(name);
        }
        for (((path, rule, namespace, group, resource, subresource), _, verbs), names) in names {
            let verbs = verbs.iter().map(|v| v.0).collect::<Vec<_>>().join(",");
            let mut what = resource.to_owned();
            if !group.is_empty() {
                what = format!("{what}.{group}");
            }
            if let Some(subresource) = subresource {
                what = format!("{what}/{subresource}");
            }
            let named = if names.is_empty() { String::new() } else { format!(" {}", names.join(",")) };
            let right = format!("\"{verbs} {what}{named} in namespace {namespace}\"");
            lines.push(match rule {
                Rule::Never => format!(
                    "{path}: needs {right}, which {user} does not hold, and which nobody can grant through Remit; for one Secret that the pods may mount, declare a data source of type Secret: someone who holds \"get secrets NAME in namespace {namespace}\" can apply it"
                ),
                Rule::Held => format!(
                    "{path}: needs {right}, which {user} does not hold (nobody grants what they do not hold); someone who holds it can apply this, or an admin grants it: {}",
                    grant(user, namespace, &verbs, &what, &names)
                ),
                Rule::Release => format!(
                    "{path}: this sets pods free and needs {right}, which {user} does not hold; someone who holds it can do this, or an admin grants it: {}",
                    grant(user, namespace, &verbs, &what, &names)
                ),
            });
        }
        lines
    }
}

/// A verb, ordered as people say them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Spoken(&'static str);

impl Spoken {
    fn rank(self) -> (usize, &'static str) {
        (Verb::ALL.iter().position(|v| v.as_str() == self.0).unwrap_or(usize::MAX), self.0)
    }
}

impl Ord for Spoken {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Spoken {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The command by which an admin grants a right.
fn grant(user: &str, namespace: &str, verbs: &str, what: &str, names: &[&str]) -> String {
    let role = format!("{}-{}", verbs.split(',').next().unwrap_or_default(), what.split(['.', '/']).next().unwrap_or_default());
    let names: String = names.iter().map(|n| format!(" --resource-name={n}")).collect();
    let subject = match user.strip_prefix("system:serviceaccount:") {
        Some(account) => format!("--serviceaccount={account}"),
        None => format!("--user={}", shell_word(user)),
    };
    format!(
        "kubectl create role {role} -n {namespace} --verb={verbs} --resource={what}{names} && kubectl create rolebinding {role} -n {namespace} --role={role} {subject}"
    )
}

fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '@' | '.' | '-' | '_' | ':' | '/' | '+' | '=' | ',');
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn annotation(workload: &AIWorkload) -> Option<&String> {
    workload.metadata.annotations.as_ref()?.get(RELEASE_ANNOTATION)
}

/// The sources of `new` with what `old` declares taken out. A changed class counts as new only where the class matters.
fn added(old: Option<&Scope>, new: &Scope, class_matters: bool) -> Vec<Source> {
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
                target => (!before.any(|t| t == target)).then(|| target.clone()),
            };
            target.map(|target| Source { target, ..source.clone() })
        })
        .collect()
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

/// What the author of an added source must hold.
fn held(own: &str, source: &Source) -> Vec<Check> {
    let path = format!("dataSources[name={}].{}", source.name, member(&source.target));
    let questions = match &source.target {
        Target::Kubernetes(permissions) => permissions.iter().map(Question::of).collect(),
        Target::Service { service, port: _ } if service.namespace != own => vec![Question::get("services", service)],
        Target::Service { .. } | Target::Host { .. } => Vec::new(),
        Target::ConfigMap(object) => vec![Question::get("configmaps", object)],
        Target::Secret(object) => vec![Question::get("secrets", object)],
        Target::PersistentVolumeClaim { claim, write: _ } => vec![Question::get("persistentvolumeclaims", claim)],
    };
    questions.into_iter().map(|question| Check { path: path.clone(), rule: Rule::Held, question }).collect()
}

/// Secrets declared as objects of the API are refused as such; asked as well, so that the author learns both things at once.
fn secrets_as_objects(workload: &AIWorkload) -> Vec<Check> {
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

fn member(target: &Target) -> &'static str {
    match target {
        Target::Service { .. } => "service",
        Target::Host { .. } => "host",
        Target::Kubernetes(_) => "kubernetes",
        Target::ConfigMap(_) => "configMap",
        Target::Secret(_) => "secret",
        Target::PersistentVolumeClaim { .. } => "persistentVolumeClaim",
    }
}

fn describe(target: &Target) -> String {
    match target {
        Target::Service { service, port } => format!("Service {service} port {port}"),
        Target::Host { host, port } => format!("host {host} port {port}"),
        Target::ConfigMap(object) => format!("ConfigMap {object}"),
        Target::Secret(object) => format!("Secret {object}"),
        Target::PersistentVolumeClaim { claim, write: _ } => format!("PersistentVolumeClaim {claim}"),
        Target::Kubernetes(permissions) => {
            let verbs: BTreeSet<Verb> = permissions.iter().map(|p| p.verb).collect();
            let things: BTreeSet<String> = permissions
                .iter()
                .map(|p| {
                    let Permission { namespace: _, group, resource, name, verb: _ } = p;
                    let group = if group.is_empty() { String::new() } else { format!(".{group}") };
                    let name = name.as_ref().map(|n| format!(" {n}")).unwrap_or_default();
                    format!("{resource}{group}{name}")
                })
                .collect();
            let namespaces: BTreeSet<&str> = permissions.iter().map(|p| p.namespace.as_str()).collect();
            format!(
                "{} {} in namespace {}",
                verbs.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(","),
                things.into_iter().collect::<Vec<_>>().join(", "),
                List(&namespaces)
            )
        }
    }
}

/// The lines of a ceiling that would allow this source.
fn remedy(own: &str, source: &Source, with_class: bool) -> String {
    let name = &source.name;
    let namespace = |namespace: &str| if namespace == own { String::new() } else { format!(" namespace: {namespace},") };
    let allow = match &source.target {
        Target::Service { service, port } => {
            Some(format!("services: [{{name: {name},{} services: [{}], ports: [{port}]}}]", namespace(&service.namespace), service.name))
        }
        Target::Host { host, port } => Some(format!("hosts: [{{name: {name}, host: {host}, ports: [{port}]}}]")),
        Target::Kubernetes(permissions) => {
            let set = |f: fn(&Permission) -> &str| -> BTreeSet<&str> { permissions.iter().map(f).collect() };
            let groups = set(|p| if p.group.is_empty() { "\"\"" } else { &p.group });
            let resources = set(|p| &p.resource);
            let names: Option<BTreeSet<&str>> = permissions.iter().map(|p| p.name.as_deref()).collect();
            let names = names.map(|n| format!(" resourceNames: [{}],", List(&n))).unwrap_or_default();
            let access = if permissions.iter().all(|p| p.verb.reads()) { "Read" } else { "ReadWrite" };
            let of = permissions.first().map(|p| namespace(&p.namespace)).unwrap_or_default();
            Some(format!(
                "kubernetes: [{{name: {name},{of} apiGroups: [{}], resources: [{}],{names} access: {access}}}]",
                List(&groups),
                List(&resources)
            ))
        }
        Target::ConfigMap(_) | Target::Secret(_) | Target::PersistentVolumeClaim { .. } => None,
    };
    let class = (with_class || allow.is_none()).then(|| format!("classes: [{:?}]", source.class));
    allow.into_iter().chain(class).collect::<Vec<_>>().join(", ")
}

/// `a, b`
struct List<'a, 'b>(&'a BTreeSet<&'b str>);

impl fmt::Display for List<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const OPEN: &str = "services: [{name: all, services: ['*']}, {name: shop, namespace: shop, services: [orders]}]
hosts: [{name: help, host: help.example.com, ports: [443]}]
kubernetes: [{name: orders, apiGroups: [shop.example.com], resources: [orders], access: Read}]
classes: [Internal, Restricted]";

    fn workload(metadata: Value, spec: Value) -> AIWorkload {
        let mut all = json!({"name": "bot", "namespace": "support"});
        merge(&mut all, metadata);
        let mut whole = json!({"selector": {"matchLabels": {"app": "bot"}}, "mode": "Enforce"});
        merge(&mut whole, spec);
        serde_json::from_value(json!({"apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": all, "spec": whole})).unwrap()
    }

    fn merge(into: &mut Value, from: Value) {
        for (key, value) in from.as_object().unwrap() {
            into[key] = value.clone();
        }
    }

    fn of(sources: Value) -> AIWorkload {
        workload(json!({}), json!({"dataSources": sources}))
    }

    fn ceilings(specs: &[(&str, &str)]) -> Ceilings {
        let read = |(name, text): &(&str, &str)| {
            let mut spec: Value = serde_saphyr::from_str(text).unwrap();
            spec["namespaceSelector"] = json!({});
            let object = serde_json::from_value(
                json!({"apiVersion": "remit.dev/v1alpha1", "kind": "ScopeCeiling", "metadata": {"name": name}, "spec": spec}),
            );
            ceiling(&object.unwrap()).unwrap().1
        };
        Ceilings(specs.iter().map(read).collect())
    }

    fn judge(change: Change<'_>, author: Author, ceilings: &Ceilings) -> Review {
        review(change, Circumstances { author, ceilings, enrolled: true })
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

    fn all_lacking(review: &Review) -> Vec<String> {
        review.denials(&review.checks.iter().map(|c| c.question.clone()).collect(), "dana@example.com")
    }

    fn kubernetes(more: Value) -> Value {
        let mut kubernetes = json!({"apiGroups": ["shop.example.com"], "resources": ["orders"]});
        merge(&mut kubernetes, more);
        json!({"name": "orders", "type": "Kubernetes", "kubernetes": kubernetes})
    }

    fn object(name: &str, type_: &str, member: &str) -> Value {
        json!({"name": name, "type": type_, member: {"name": "thing"}})
    }

    fn service(name: &str, namespace: Option<&str>, service: &str) -> Value {
        let mut source =
            json!({"name": name, "type": "Service", "access": "ReadWrite", "service": {"name": service, "port": 80, "protocol": "TCP"}});
        if let Some(namespace) = namespace {
            source["service"]["namespace"] = json!(namespace);
        }
        source
    }

    fn host(name: &str, host: &str) -> Value {
        json!({"name": name, "type": "Host", "access": "ReadWrite", "host": {"name": host, "port": 443}})
    }

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
    fn what_sets_pods_free_needs_release() {
        let none = Ceilings::default();
        let enforce = workload(json!({}), json!({}));
        let observe = workload(json!({}), json!({"mode": "Observe"}));
        let labels = |labels: Value| workload(json!({}), json!({"selector": {"matchLabels": labels}}));
        let annotated = |value: &str| workload(json!({"annotations": {RELEASE_ANNOTATION: value}}), json!({}));
        let owned = workload(json!({"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]}), json!({}));
        let going = |finalizers: Value| workload(json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers}), json!({}));
        let suspended = workload(json!({}), json!({"suspend": true, "identity": {"serviceAccountName": "x"}}));
        let cases = [
            ("Enforce to Observe", Change::Update { old: &enforce, new: &observe }, vec!["mode"]),
            ("Observe to Enforce", Change::Update { old: &observe, new: &enforce }, vec![]),
            ("narrowed selector", Change::Update { old: &enforce, new: &labels(json!({"app": "bot", "x": "y"})) }, vec!["selector"]),
            ("widened selector", Change::Update { old: &labels(json!({"app": "bot", "x": "y"})), new: &enforce }, vec![]),
            ("moved selector", Change::Update { old: &enforce, new: &labels(json!({"app": "other"})) }, vec!["selector"]),
            ("identity and suspend", Change::Update { old: &enforce, new: &suspended }, vec![]),
            ("delete Enforce", Change::Delete(&enforce), vec!["deletion"]),
            ("delete Observe", Change::Delete(&observe), vec![]),
            ("annotate", Change::Update { old: &enforce, new: &annotated("true") }, vec!["metadata.annotations[remit.dev/release]"]),
            (
                "change the annotation",
                Change::Update { old: &annotated("true"), new: &annotated("now") },
                vec!["metadata.annotations[remit.dev/release]"],
            ),
            ("remove the annotation", Change::Update { old: &annotated("true"), new: &enforce }, vec![]),
            ("create annotated", Change::Create(&annotated("true")), vec!["metadata.annotations[remit.dev/release]"]),
            ("add an owner", Change::Update { old: &enforce, new: &owned }, vec!["metadata.ownerReferences"]),
            ("remove an owner", Change::Update { old: &owned, new: &enforce }, vec![]),
            ("add the finalizer", Change::Update { old: &enforce, new: &workload(json!({"finalizers": [FINALIZER]}), json!({})) }, vec![]),
            (
                "our finalizer while it goes",
                Change::Update { old: &going(json!([FINALIZER, "x/y"])), new: &going(json!(["x/y"])) },
                vec!["metadata.finalizers"],
            ),
            (
                "another's finalizer while it goes",
                Change::Update { old: &going(json!([FINALIZER, "x/y"])), new: &going(json!([FINALIZER])) },
                vec![],
            ),
        ];
        for (what, change, expected) in cases {
            for author in [Author::Person, Author::Applier] {
                let review = judge(change, author, &none);
                let paths: Vec<&str> = review.checks.iter().map(|c| c.path.as_str()).collect();
                assert_eq!((paths, &review.refusals), (expected.clone(), &vec![]), "{what}");
                assert!(review.checks.iter().all(|c| c.rule == Rule::Release && c.question == Question::release(&enforce)), "{what}");
            }
            let unchanged = match change {
                Change::Create(_) => false,
                Change::Update { old, new } => old.spec == new.spec,
                Change::Delete(_) => true,
            };
            if unchanged {
                assert_eq!(judge(change, Author::Controller, &none).checks, vec![], "{what}");
            }
        }
    }

    #[test]
    fn metadata_of_an_invalid_workload_is_never_held_up() {
        let broken = |labels: Value| {
            workload(
                json!({"labels": labels, "finalizers": []}),
                json!({"selector": {}, "dataSources": [kubernetes(json!({"apiGroups": [""], "resources": ["secrets"]})), host("h", "evil.example.com")]}),
            )
        };
        let (old, new) = (broken(json!({})), broken(json!({"a": "b"})));
        assert_eq!(
            judge(Change::Update { old: &old, new: &new }, Author::Person, &ceilings(&[("tight", "classes: []")])),
            Review::default()
        );
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
    fn a_denial_names_field_right_user_and_remedy() {
        let new = of(json!([
            kubernetes(json!({"resources": ["orders", "orders/status"], "resourceNames": ["a", "b"]})),
            object("s", "Secret", "secret")
        ]));
        let review = judge(Change::Create(&new), Author::Person, &Ceilings::default());
        let grant = |what: &str| {
            format!(
                "kubectl create role get-orders -n support --verb=get,list,watch --resource={what} --resource-name=a --resource-name=b && kubectl create rolebinding get-orders -n support --role=get-orders --user=dana@example.com"
            )
        };
        let line = |what: &str| {
            format!(
                "dataSources[name=orders].kubernetes: needs \"get,list,watch {what} a,b in namespace support\", which dana@example.com does not hold (nobody grants what they do not hold); someone who holds it can apply this, or an admin grants it: {}",
                grant(what)
            )
        };
        assert_eq!(
            all_lacking(&review),
            [
                line("orders.shop.example.com"),
                line("orders.shop.example.com/status"),
                "dataSources[name=s].secret: needs \"get secrets thing in namespace support\", which dana@example.com does not hold (nobody grants what they do not hold); someone who holds it can apply this, or an admin grants it: kubectl create role get-secrets -n support --verb=get --resource=secrets --resource-name=thing && kubectl create rolebinding get-secrets -n support --role=get-secrets --user=dana@example.com".to_owned(),
            ]
        );
        // Only what is lacking.
        let lacking = review.checks.iter().filter(|c| c.question.verb == "list").map(|c| c.question.clone()).collect();
        assert_eq!(review.denials(&lacking, "dana").len(), 2);
        let review = judge(Change::Delete(&new), Author::Person, &Ceilings::default());
        let lines = review.denials(&[Question::release(&new)].into(), "system:serviceaccount:support:ci");
        assert_eq!(
            lines,
            [
                "deletion: this sets pods free and needs \"release aiworkloads.remit.dev bot in namespace support\", which system:serviceaccount:support:ci does not hold; someone who holds it can do this, or an admin grants it: kubectl create role release-aiworkloads -n support --verb=release --resource=aiworkloads.remit.dev --resource-name=bot && kubectl create rolebinding release-aiworkloads -n support --role=release-aiworkloads --serviceaccount=support:ci"
            ]
        );
    }

    #[test]
    fn a_users_name_is_one_word_of_a_command() {
        for (user, word) in
            [("dana@example.com", "dana@example.com"), ("a b; rm -rf /", "'a b; rm -rf /'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(shell_word(user), word);
        }
    }

    #[test]
    fn an_owner_from_the_start_needs_release_as_well() {
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "mine", "uid": "u"});
        let owned = workload(json!({"ownerReferences": [owner]}), json!({}));
        let checks = |change| judge(change, Author::Person, &Ceilings::default()).checks;
        assert_eq!(checks(Change::Create(&owned))[0].path, "metadata.ownerReferences");
        // The same uid under another name leads the garbage collector elsewhere.
        let mut renamed = owned.clone();
        renamed.metadata.owner_references.as_mut().unwrap()[0].name = "nowhere".into();
        assert_eq!(checks(Change::Update { old: &owned, new: &renamed })[0].path, "metadata.ownerReferences");
        assert_eq!(checks(Change::Update { old: &owned, new: &owned }), vec![]);
    }

    #[test]
    fn lifting_the_kill_switch_counts_as_adding_everything() {
        let sources = json!([object("s", "Secret", "secret")]);
        let (off, on) =
            (workload(json!({}), json!({"dataSources": sources, "suspend": true})), workload(json!({}), json!({"dataSources": sources})));
        let checks = |old, new| judge(Change::Update { old, new }, Author::Person, &Ceilings::default()).checks.len();
        assert_eq!((checks(&off, &on), checks(&on, &off)), (1, 0));
    }

    #[test]
    fn an_observe_workload_in_an_isolated_namespace_needs_release() {
        let observed = |app: &str| workload(json!({}), json!({"mode": "Observe", "selector": {"matchLabels": {"app": app}}}));
        let (bot, both) = (
            observed("bot"),
            workload(json!({}), json!({"mode": "Observe", "selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}})),
        );
        let within = workload(json!({}), json!({"mode": "Observe", "selector": {"matchLabels": {"app": "bot", "tier": "ai"}}}));
        let other = workload(json!({}), json!({"mode": "Observe", "selector": {"matchLabels": {"a": "b", "app": "bot"}}}));
        let isolated = ceilings(&[("c", "unscopedPods: Isolate")]);
        let open = ceilings(&[("c", "unscopedPods: Allow")]);
        let release = |change, ceilings| judge(change, Author::Person, ceilings).checks.iter().filter(|c| c.rule == Rule::Release).count();
        let enforced = workload(json!({}), json!({}));
        let cases = [
            (Change::Create(&bot), &isolated, 1),
            (Change::Create(&bot), &open, 0),
            (Change::Create(&enforced), &isolated, 0),
            (Change::Update { old: &bot, new: &both }, &isolated, 1), // leaves more pods out
            (Change::Update { old: &bot, new: &within }, &isolated, 0),
            (Change::Update { old: &bot, new: &other }, &isolated, 1), // narrower by one label, but other pods are left out
            (Change::Update { old: &both, new: &bot }, &isolated, 0),
            (Change::Update { old: &bot, new: &both }, &open, 0),
            (Change::Update { old: &bot, new: &enforced }, &isolated, 0),
            (Change::Update { old: &enforced, new: &bot }, &isolated, 1),
        ];
        for (change, ceilings, expected) in cases {
            assert_eq!(release(change, ceilings), expected, "{change:?}");
        }
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

    #[test]
    fn a_ceiling_must_be_valid() {
        let object = |classes: Value| {
            serde_json::from_value::<ScopeCeiling>(json!({"apiVersion": "remit.dev/v1alpha1", "kind": "ScopeCeiling", "metadata": {"name": "c"}, "spec": {"namespaceSelector": {}, "hosts": classes}})).unwrap()
        };
        assert_eq!(review_ceiling(&object(json!([{"name": "h", "host": "help.example.com", "ports": [443]}]))).refusals, vec![]);
        assert_eq!(review_ceiling(&object(json!([{"name": "h", "host": "10.0.0.1", "ports": [0]}]))).refusals.len(), 2);
    }

    fn any_source() -> impl Strategy<Value = Value> {
        prop_oneof![
            (0..3u8, 0..3u8).prop_map(|(s, n)| service(
                &format!("s{s}{n}"),
                [None, Some("shop"), Some("finance")][n as usize],
                &format!("s{s}")
            )),
            (0..4u8).prop_map(|h| host(&format!("h{h}"), &format!("h{h}.example.com"))),
            (0..3u8, any::<bool>(), proptest::collection::btree_set(0..3u8, 0..3)).prop_map(|(r, write, names)| {
                let names: Vec<String> = names.into_iter().map(|n| format!("n{n}")).collect();
                let mut source = kubernetes(json!({"resources": [format!("r{r}")], "resourceNames": names}));
                source["name"] = json!(format!("k{r}{write}{}", names.len()));
                source["access"] = json!(if write { "ReadWrite" } else { "Read" });
                source
            }),
            (0..3u8, any::<bool>()).prop_map(|(i, write)| {
                let mut source = object(
                    &format!("o{i}{write}"),
                    ["Secret", "ConfigMap", "PersistentVolumeClaim"][i as usize],
                    ["secret", "configMap", "persistentVolumeClaim"][i as usize],
                );
                if write && i == 2 {
                    source["access"] = json!("ReadWrite");
                }
                source
            }),
        ]
    }

    proptest! {
        /// Taking things away asks nothing but release, and no ceiling stands in its way.
        #[test]
        fn a_removal_asks_nothing(sources in proptest::collection::vec((any_source(), any::<bool>()), 0..8), purpose in any::<bool>(), applier in any::<bool>(), over in 0..3usize) {
            let mut named: BTreeMap<String, (Value, bool)> = BTreeMap::new();
            for (source, keep) in sources {
                named.insert(source["name"].to_string(), (source, keep));
            }
            let all: Vec<Value> = named.values().map(|(s, _)| s.clone()).collect();
            let rest: Vec<Value> = named.values().filter(|(_, keep)| *keep).map(|(s, _)| s.clone()).collect();
            let old = of(json!(all));
            let new = workload(json!({}), json!({"dataSources": rest, "purpose": if purpose { "less" } else { "as before" }}));
            let over = [vec![], vec![("none", "classes: []")], vec![("open", OPEN), ("none", "classes: []")]][over].clone();
            let author = if applier { Author::Applier } else { Author::Person };
            let review = judge(Change::Update { old: &old, new: &new }, author, &ceilings(&over));
            prop_assert!(review.checks.iter().all(|c| c.rule == Rule::Release), "{:?}", review);
            prop_assert_eq!(review.refusals, vec![]);
        }

        /// Whatever a person adds that is not bounded away is asked: creating asks at least what updating asks.
        #[test]
        fn an_update_asks_no_more_than_a_creation(before in proptest::collection::vec(any_source(), 0..6), after in proptest::collection::vec(any_source(), 0..6)) {
            let unique = |sources: Vec<Value>| of(json!(sources.into_iter().map(|s| (s["name"].to_string(), s)).collect::<BTreeMap<_, _>>().into_values().collect::<Vec<_>>()));
            let (old, new) = (unique(before), unique(after));
            let open = ceilings(&[]);
            let update: BTreeSet<Check> = judge(Change::Update { old: &old, new: &new }, Author::Person, &open).checks.into_iter().collect();
            let create: BTreeSet<Check> = judge(Change::Create(&new), Author::Person, &open).checks.into_iter().collect();
            prop_assert!(update.is_subset(&create));
            // What is not asked on the update, the old one declared (which its author was asked).
            let asked_before: BTreeSet<Question> = judge(Change::Create(&old), Author::Person, &open).checks.into_iter().map(|c| c.question).collect();
            for check in create.difference(&update) {
                let all_names = Question { name: None, ..check.question.clone() };
                prop_assert!(asked_before.contains(&check.question) || asked_before.contains(&all_names), "{:?}", check);
            }
        }
    }
}
