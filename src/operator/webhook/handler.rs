//! One AdmissionReview: what is asked, and the answer.
//!
//! Promise: an answer to everything that can be parsed; what cannot be judged is allowed on `/record` and denied everywhere else.
//! In: an endpoint and a body. Out: an answer, or [`Malformed`]. It knows nothing of connections.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use kube::core::{DynamicObject, Status};
use serde_json::Value;

use super::access::{Cluster, Surroundings};
use super::metrics::{Metrics, Outcome};
use super::paths::{Endpoint, Known};
use super::pods::Pods;
use super::recorder::{Recorder, Write};
use crate::api::{self, AIWorkload, AIWorkloadSpec, GROUP, ScopeCeiling};
use crate::operator::Config;
use crate::plan::{Author, Change, Circumstances, Question, review, review_ceiling};

/// Shorter than the webhook's own timeout, so that the author reads why.
const DEADLINE: Duration = Duration::from_secs(4);
/// Lines of a denial; the rest is counted.
const MOST_LINES: usize = 40;
/// Warnings of one answer, and characters of a line of them: the API server cuts what is longer.
const MOST_WARNINGS: usize = 12;
const WIDEST_WARNING: usize = 120;

/// Not an AdmissionReview.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("not an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not an AdmissionReview of admission.k8s.io/v1")]
    Version,
    #[error("an AdmissionReview without request")]
    Empty,
}

/// Who counts as what.
#[derive(Clone, Debug)]
pub(super) struct Authors {
    own: String,
    appliers: BTreeSet<String>,
}

/// Controllers that delete what nobody wants any more, in whichever way the controller manager authenticates.
const CONTROLLERS: [&str; 3] = [
    "system:serviceaccount:kube-system:namespace-controller",
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:kube-controller-manager",
];

impl Authors {
    pub fn new(config: &Config) -> Self {
        Self {
            own: format!("system:serviceaccount:{}:{}", config.namespace, config.service_account),
            appliers: config.appliers.iter().cloned().collect(),
        }
    }

    fn of(&self, user: &str) -> Author {
        if user == self.own || CONTROLLERS.contains(&user) {
            Author::Controller
        } else if self.appliers.contains(user) {
            Author::Applier
        } else {
            Author::Person
        }
    }
}

pub(super) struct Handler<C> {
    pub authors: Authors,
    pub cluster: C,
    pub recorder: Recorder,
    pub paths: Known,
    pub pods: Pods,
    pub metrics: Metrics,
}

/// A judgement.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub denials: Vec<String>,
    pub warnings: Vec<String>,
}

impl Answer {
    /// And this, but nothing twice.
    pub fn add(&mut self, more: Self) {
        let Self { denials, warnings } = more;
        for (all, more) in [(&mut self.denials, denials), (&mut self.warnings, warnings)] {
            for line in more {
                if !all.contains(&line) {
                    all.push(line);
                }
            }
        }
    }
}

/// Why there is no judgement.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("{0}")]
    Unknown(String),
    #[error("Remit could not judge this change, so it is refused; try again. The API server said: {0}")]
    Cluster(#[from] kube::Error),
    #[error("Remit could not judge this, because it has not got {0} yet, so it is refused; try again")]
    NotReady(&'static str),
    #[error("Remit could not write its patch, so the pod is refused: {0}")]
    Patch(String),
    #[error("Remit could not judge this change within {} s, so it is refused; try again", DEADLINE.as_secs())]
    Late,
}

impl<C: Cluster> Handler<C> {
    pub async fn answer(&self, endpoint: Endpoint, body: &[u8]) -> Result<AdmissionReview<DynamicObject>, Malformed> {
        let request = parse(body).inspect_err(|_| self.metrics.answered(endpoint, Outcome::Malformed))?;
        let response = AdmissionResponse::from(&request);
        let (response, outcome) = match endpoint {
            Endpoint::Record => {
                if !self.record(&request) {
                    self.metrics.record_lost();
                }
                (response, Outcome::Allowed)
            }
            Endpoint::Scope => answered(response, &request, within(self.scope(&request)).await),
            Endpoint::Admit => {
                let answer =
                    within(self.admit(&request)).await.map(|Answer { denials, warnings }| Answer { denials, warnings: folded(&warnings) });
                answered(response, &request, answer)
            }
            Endpoint::Inject => match within(self.inject(&request)).await.and_then(|patch| patched(response.clone(), patch)) {
                Ok(response) => (response, Outcome::Allowed),
                Err(trouble) => answered(response, &request, Err(trouble)),
            },
        };
        self.metrics.answered(endpoint, outcome);
        Ok(response.into_review())
    }

    async fn scope(&self, request: &AdmissionRequest<DynamicObject>) -> Result<Answer, Trouble> {
        let unknown = || {
            let (kind, operation) = (&request.kind, &request.operation);
            Trouble::Unknown(format!(
                "/scope judges CREATE, UPDATE and DELETE of AIWorkload and ScopeCeiling, not {operation:?} of {}.{}; correct the webhook configuration",
                kind.kind, kind.group
            ))
        };
        if request.kind.group != GROUP {
            return Err(unknown());
        }
        let absent = |what: &str| Trouble::Unknown(format!("the request has no {what}"));
        match (request.kind.kind.as_str(), &request.operation) {
            ("ScopeCeiling", Operation::Delete) => Ok(Answer::default()),
            ("ScopeCeiling", Operation::Create | Operation::Update) => {
                let object = request.object.as_ref().ok_or_else(|| absent("object"))?;
                Ok(match object.clone().try_parse::<ScopeCeiling>() {
                    Ok(object) => Answer { denials: review_ceiling(&object).denials(&BTreeSet::new(), ""), warnings: Vec::new() },
                    Err(error) => Answer { denials: vec![format!("spec: cannot be read: {error}")], warnings: Vec::new() },
                })
            }
            ("AIWorkload", Operation::Create) => {
                let new = request.object.as_ref().ok_or_else(|| absent("object"))?;
                match readable(request, new) {
                    Ok(new) => self.workload(request, Change::Create(&new)).await,
                    Err(answer) => Ok(answer),
                }
            }
            ("AIWorkload", Operation::Update) => {
                let old = request.old_object.as_ref().ok_or_else(|| absent("old object"))?;
                let new = request.object.as_ref().ok_or_else(|| absent("object"))?;
                let unchanged = old.data.get("spec") == new.data.get("spec");
                let old = strictest(request, old);
                match if unchanged { Ok(strictest(request, new)) } else { readable(request, new) } {
                    Ok(new) => self.workload(request, Change::Update { old: &old, new: &new }).await,
                    Err(answer) => Ok(answer),
                }
            }
            ("AIWorkload", Operation::Delete) => {
                let old = request.old_object.as_ref().ok_or_else(|| absent("old object"))?;
                self.workload(request, Change::Delete(&strictest(request, old))).await
            }
            _ => Err(unknown()),
        }
    }

    async fn workload(&self, request: &AdmissionRequest<DynamicObject>, change: Change<'_>) -> Result<Answer, Trouble> {
        let user = request.user_info.username.as_deref().unwrap_or_default();
        // What leaves the spec alone needs nothing of the cluster but, at most, the answer on `release`.
        let declares = match change {
            Change::Create(_) => true,
            Change::Update { old, new } => old.spec != new.spec,
            Change::Delete(_) => false,
        };
        let Surroundings { ceilings, enrolled } = match request.namespace.as_deref() {
            Some(namespace) if declares => self.cluster.surroundings(namespace).await?,
            None if declares => return Err(Trouble::Unknown("the request has no namespace".to_owned())),
            _ => Surroundings { enrolled: true, ..Surroundings::default() },
        };
        let review =
            review(change, Circumstances { author: self.authors.of(user), user, now: Timestamp::now(), ceilings: &ceilings, enrolled });
        let questions: BTreeSet<Question> = review.checks.iter().map(|c| c.question.clone()).collect();
        let lacking = match questions.is_empty() {
            true => BTreeSet::new(),
            false => self.cluster.lacking(&request.user_info, questions).await?,
        };
        let denials = review.denials(&lacking, user);
        Ok(Answer { denials, warnings: review.warnings })
    }

    /// Whether it was kept, or need not be.
    fn record(&self, request: &AdmissionRequest<DynamicObject>) -> bool {
        let user = request.user_info.username.clone().unwrap_or_default();
        let own = user == self.authors.own;
        let status = request.sub_resource.as_deref() == Some("status");
        if request.dry_run || own || status || follows_services(&request.resource.resource, &user) {
            return true;
        }
        let name = if request.name.is_empty() {
            request.object.as_ref().and_then(|o| o.metadata.name.clone()).unwrap_or_default()
        } else {
            request.name.clone()
        };
        self.recorder.note(Write {
            group: request.resource.group.clone(),
            resource: match &request.sub_resource {
                Some(sub) if !sub.is_empty() => format!("{}/{sub}", request.resource.resource),
                _ => request.resource.resource.clone(),
            },
            kind: request.kind.kind.clone(),
            namespace: request.namespace.clone().unwrap_or_default(),
            name,
            operation: format!("{:?}", request.operation),
            user,
            time: SystemTime::now(),
        })
    }
}

/// The controllers that write EndpointSlices all day long: they say nothing of people and would crowd them out.
fn follows_services(resource: &str, user: &str) -> bool {
    matches!(resource, "endpointslices" | "endpoints")
        && (user == "system:kube-controller-manager"
            || ["endpointslice-controller", "endpointslicemirroring-controller", "endpoint-controller"]
                .iter()
                .any(|c| user.strip_prefix("system:serviceaccount:kube-system:") == Some(c)))
}

async fn within<T>(judgement: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    tokio::time::timeout(DEADLINE, judgement).await.unwrap_or(Err(Trouble::Late))
}

fn answered(
    mut response: AdmissionResponse,
    request: &AdmissionRequest<DynamicObject>,
    answer: Result<Answer, Trouble>,
) -> (AdmissionResponse, Outcome) {
    match answer {
        Ok(Answer { denials, warnings }) => {
            response.warnings = (!warnings.is_empty()).then_some(warnings);
            match denials.is_empty() {
                true => (response, Outcome::Allowed),
                false => (refuse(response, &lines(&denials), "Forbidden", 403), Outcome::Denied),
            }
        }
        Err(trouble) => {
            tracing::warn!(user = request.user_info.username, %trouble, "a change could not be judged");
            let (reason, code) = match trouble {
                Trouble::Unknown(_) => ("Forbidden", 403),
                Trouble::Cluster(_) | Trouble::Late | Trouble::NotReady(_) | Trouble::Patch(_) => ("InternalError", 500),
            };
            (refuse(response, &trouble.to_string(), reason, code), Outcome::Error)
        }
    }
}

fn patched(response: AdmissionResponse, patch: Option<Value>) -> Result<AdmissionResponse, Trouble> {
    let Some(patch) = patch else { return Ok(response) };
    let patch = serde_json::from_value(patch).map_err(|error| Trouble::Patch(error.to_string()))?;
    response.with_patch(patch).map_err(|error| Trouble::Patch(error.to_string()))
}

/// Warnings as clients show them: one line each, so cut between words, and no more than they are shown.
fn folded(warnings: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for warning in warnings.iter().take(MOST_WARNINGS) {
        let mut line = String::new();
        for word in warning.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > WIDEST_WARNING && !line.trim().is_empty() {
                all.push(std::mem::replace(&mut line, " ".to_owned()));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        all.push(line);
    }
    if warnings.len() > MOST_WARNINGS {
        all.push(format!("and {} more", warnings.len() - MOST_WARNINGS));
    }
    all
}

fn parse(body: &[u8]) -> Result<AdmissionRequest<DynamicObject>, Malformed> {
    let review: AdmissionReview<DynamicObject> = serde_json::from_slice(body)?;
    if review.types.api_version != "admission.k8s.io/v1" || review.types.kind != "AdmissionReview" {
        return Err(Malformed::Version);
    }
    review.try_into().map_err(|_| Malformed::Empty)
}

fn refuse(mut response: AdmissionResponse, message: &str, reason: &str, code: u16) -> AdmissionResponse {
    response.allowed = false;
    response.result = Status::failure(message, reason).with_code(code);
    response
}

fn lines(denials: &[String]) -> String {
    match denials {
        [one] => one.clone(),
        all => {
            let mut text: Vec<String> = all.iter().take(MOST_LINES).map(|line| format!("\n- {line}")).collect();
            if all.len() > MOST_LINES {
                text.push(format!("\n- and {} more", all.len() - MOST_LINES));
            }
            text.concat()
        }
    }
}

/// The AIWorkload, or why it cannot be read.
fn readable(request: &AdmissionRequest<DynamicObject>, object: &DynamicObject) -> Result<AIWorkload, Answer> {
    match object.clone().try_parse::<AIWorkload>() {
        Ok(mut workload) => {
            place(request, &mut workload);
            Ok(workload)
        }
        Err(error) => Err(Answer { denials: vec![format!("spec: cannot be read: {error}")], warnings: Vec::new() }),
    }
}

/// The AIWorkload; one that cannot be read (stored under another schema) counts as enforced and as allowed nothing.
fn strictest(request: &AdmissionRequest<DynamicObject>, object: &DynamicObject) -> AIWorkload {
    readable(request, object).unwrap_or_else(|_| {
        let spec = AIWorkloadSpec {
            purpose: None,
            selector: api::LabelSelector { match_labels: BTreeMap::new(), match_expressions: Vec::new() },
            mode: api::Mode::Enforce,
            identity: None,
            data_sources: Vec::new(),
            capabilities: None,
            unguarded_pods: crate::api::UnguardedPods::Keep,
            suspend: false,
        };
        let mut workload = AIWorkload { metadata: object.metadata.clone(), spec, status: None };
        place(request, &mut workload);
        workload
    })
}

fn place(request: &AdmissionRequest<DynamicObject>, workload: &mut AIWorkload) {
    workload.metadata.namespace = request.namespace.clone();
    if workload.metadata.name.is_none() {
        workload.metadata.name = Some(request.name.clone());
    }
}
