//! What is said of a pod, a template or a connection, by the AIWorkloads of its namespace. Pure.
//!
//! In Enforce what speaks against it refuses, in Observe it warns (of what Enforce would refuse). A pod that no AIWorkload selects may not pose as
//! guarded, and where a ceiling says Deny it may not be.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use super::handler::Answer;
use crate::cluster::{Residents, Selected, Stuck};
use crate::plan::{
    Admission, Debugging, FieldError, GuardSettings, Injection, Subject, admit, admit_ours, admit_unscoped, admit_update, advice, ids,
    inject,
};
use crate::policy::pod::{GUARD_CONTAINER, IDS, REDIRECT_CONTAINER};
use crate::scope::{Mode, Scope, Unscoped};

/// What a cached state is good for.
#[derive(Debug)]
pub(super) enum Verdict {
    /// One in Enforce selects it and nothing speaks against it. No later state is stricter, so the cache may say this.
    Held,
    /// Anything else: a state as of now may say otherwise.
    Said(Answer),
}

/// Judged by.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    pub residents: &'a Residents,
    pub settings: &'a GuardSettings,
    pub now: Timestamp,
}

/// How a connection reaches into a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    /// `exec` or `attach`, into this container; None: the default one.
    Container {
        what: &'static str,
        container: Option<String>,
    },
    PortForward,
    Proxy,
}

impl By<'_> {
    /// A pod or a template at its creation; `prefix` stands before the paths of a template.
    pub fn created(self, metadata: &ObjectMeta, spec: &PodSpec, subject: Subject, prefix: &str) -> Verdict {
        let scope = match self.residents.selected(&labels(metadata)) {
            Selected::By(scope) => scope,
            Selected::Stuck(stuck) => return Verdict::Said(refused(prefix, vec![error("metadata.labels", stuck_message(&stuck))])),
            Selected::Nobody => {
                let mut errors = admit_unscoped(spec);
                errors.extend(self.unscoped());
                errors.extend(self.account(spec));
                return Verdict::Said(refused(prefix, errors));
            }
        };
        match scope.mode {
            Mode::Enforce => match admit(metadata, spec, subject, &self.admission(&scope)) {
                errors if errors.is_empty() => match said(prefix, advice(spec, &scope)) {
                    Answer { denials, warnings } if denials.is_empty() && warnings.is_empty() => Verdict::Held,
                    answer => Verdict::Said(answer),
                },
                errors => Verdict::Said(refused(prefix, errors)),
            },
            Mode::Observe => {
                // What injection would mend is nothing to warn of.
                let enforced = Scope { mode: Mode::Enforce, ..*scope };
                let pod = Pod { metadata: metadata.clone(), spec: Some(spec.clone()), status: None };
                let pod = match subject {
                    Subject::Template => pod,
                    Subject::Pod => {
                        let (uid, gid) = ids(&pod).unwrap_or((*IDS.start(), *IDS.start()));
                        let workload_uid = self.residents.uid(&enforced.workload.name);
                        inject(&pod, &Injection { settings: self.settings, scope: &enforced, workload_uid, uid, gid })
                    }
                };
                let spec = pod.spec.as_ref().unwrap_or(spec);
                let errors = admit(metadata, spec, subject, &self.admission(&enforced));
                let mut answer = warned(&enforced, prefix, errors);
                answer.add(said(prefix, advice(spec, &enforced)));
                Verdict::Said(answer)
            }
        }
    }

    /// A change of a pod: judged by who selects it before, and by who selects it after.
    pub fn updated(self, old: &Pod, new: &Pod) -> Verdict {
        let (before, after) = (labels(&old.metadata), labels(&new.metadata));
        let mut selected = vec![self.residents.selected(&before), self.residents.selected(&after)];
        selected.dedup();
        let mut answer = Answer::default();
        let mut enforced = 0;
        for one in &selected {
            match one {
                Selected::Nobody => answer.add(refused("", admit_update(old, new, None))),
                Selected::Stuck(stuck) => {
                    let mut errors = admit_update(old, new, None);
                    if stuck.selector.matches(&before) != stuck.selector.matches(&after) {
                        errors.push(error("metadata.labels", stuck_message(stuck)));
                    }
                    answer.add(refused("", errors));
                }
                Selected::By(scope) => {
                    let errors = admit_update(old, new, Some(&self.admission(scope)));
                    match scope.mode {
                        Mode::Enforce => {
                            enforced += 1;
                            answer.add(refused("", errors));
                        }
                        Mode::Observe => {
                            // A pod is as it is now when Enforce begins.
                            let ours = admit_ours(old, new);
                            answer.add(warned(scope, "", errors.into_iter().filter(|error| !ours.contains(error)).collect()));
                            answer.add(refused("", ours));
                        }
                    }
                }
            }
        }
        match answer {
            Answer { denials, warnings } if enforced == selected.len() && denials.is_empty() && warnings.is_empty() => Verdict::Held,
            answer => Verdict::Said(answer),
        }
    }

    /// A connection into a running pod.
    pub fn connected(self, pod: &Pod, connection: &Connection) -> Verdict {
        let spec = pod.spec.as_ref();
        let init = spec.into_iter().flat_map(|s| s.init_containers.iter().flatten());
        if !init.map(|c| c.name.as_str()).any(is_ours) {
            return Verdict::Said(Answer::default());
        }
        let message = match connection {
            Connection::Container { what, container } => {
                let named = container.clone().or_else(|| default_container(pod));
                match named.filter(|name| is_ours(name)) {
                    // Whoever is in there is the guard, in Observe as well.
                    Some(name) => return Verdict::Said(Answer { denials: vec![into_ours(what, &name)], ..Answer::default() }),
                    None => return Verdict::Said(Answer::default()),
                }
            }
            Connection::PortForward => {
                "port-forward: it reaches the pod's loopback, past the declared clients and behind the guard; use the Service, or a client pod that the AIWorkload declares"
            }
            Connection::Proxy => {
                "pods/proxy: the API server would reach the pod past the declared clients; use the Service, or a client pod that the AIWorkload declares"
            }
        };
        Verdict::Said(match self.residents.selected(&labels(&pod.metadata)) {
            Selected::By(scope) if *connection == Connection::PortForward && self.admission(&scope).debugging == Debugging::Allowed => {
                Answer::default()
            }
            Selected::By(scope) if scope.mode == Mode::Observe => Answer { warnings: vec![observed(&scope, message)], ..Answer::default() },
            _ => Answer { denials: vec![message.to_owned()], ..Answer::default() },
        })
    }

    fn admission<'b>(&'b self, scope: &'b Scope) -> Admission<'b> {
        let workload = &scope.workload.name;
        Admission {
            scope,
            workload_uid: self.residents.uid(workload),
            settings: self.settings,
            debugging: self.residents.debugging(workload, self.now),
        }
    }

    /// What is bound to the account of an AIWorkload is for its pods.
    fn account(self, spec: &PodSpec) -> Option<FieldError> {
        let account = spec.service_account_name.as_deref().or(spec.service_account.as_deref())?;
        let workload = self.residents.runs_as(account)?;
        let message = format!(
            "`{account}` is the account of AIWorkload `{workload}`, which does not select this pod; use another account, or labels that it selects"
        );
        Some(error("spec.serviceAccountName", message))
    }

    fn unscoped(self) -> Option<FieldError> {
        let ceilings = &self.residents.ceilings;
        if ceilings.unscoped() < Unscoped::Deny {
            return None;
        }
        let names: Vec<String> = ceilings.0.iter().filter(|c| c.unscoped == Unscoped::Deny).map(|c| format!("`{}`", c.name)).collect();
        let message = format!(
            "no AIWorkload selects this pod, and ScopeCeiling {} lets none be without; declare an AIWorkload that selects its labels, or give it labels that one selects",
            names.join(", ")
        );
        Some(error("metadata.labels", message))
    }
}

/// Into our containers nobody goes, whatever selects the pod.
pub(super) fn into_ours(what: &str, container: &str) -> String {
    format!("{what}: container `{container}` is Remit's own, and whoever is in it passes the guard; name a container of the app (-c NAME)")
}

pub(super) fn is_ours(container: &str) -> bool {
    container == GUARD_CONTAINER || container == REDIRECT_CONTAINER
}

/// What is meant where no container is named.
fn default_container(pod: &Pod) -> Option<String> {
    let annotated = pod.metadata.annotations.as_ref().and_then(|a| a.get("kubectl.kubernetes.io/default-container")).cloned();
    annotated.or_else(|| pod.spec.as_ref()?.containers.first().map(|c| c.name.clone()))
}

fn labels(metadata: &ObjectMeta) -> BTreeMap<String, String> {
    metadata.labels.clone().unwrap_or_default()
}

fn stuck_message(Stuck { workload, selector: _, why }: &Stuck) -> String {
    format!("AIWorkload `{workload}`, which selects the pod, {why}")
}

fn error(path: &str, message: String) -> FieldError {
    FieldError { path: path.to_owned(), message }
}

fn refused(prefix: &str, errors: Vec<FieldError>) -> Answer {
    Answer { denials: errors.iter().map(|error| format!("{prefix}{error}")).collect(), warnings: Vec::new() }
}

/// What is no offence.
fn said(prefix: &str, advice: Vec<FieldError>) -> Answer {
    Answer { denials: Vec::new(), warnings: advice.iter().map(|advice| format!("{prefix}{advice}")).collect() }
}

fn warned(scope: &Scope, prefix: &str, errors: Vec<FieldError>) -> Answer {
    Answer { denials: Vec::new(), warnings: errors.iter().map(|error| observed(scope, &format!("{prefix}{error}"))).collect() }
}

fn observed(scope: &Scope, message: &str) -> String {
    format!("AIWorkload {} in Enforce would refuse: {message}", scope.workload.name)
}
