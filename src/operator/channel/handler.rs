//! Which AIWorkload governs the pod that asks, whether it is the pod's guard, and what it is given.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use kube::Resource;
use tokio::sync::watch;

use super::cluster::Cluster;
use super::collected::Collected;
use super::enrolled::Enrolled;
use super::metrics::Metrics;
use super::pace::Pace;
use super::policies::Policies;
use super::tokens::{self, PodIdentity, Tokens};
use super::usage;
use crate::cluster::SharedWorld;
use crate::policy::Edition;
use crate::policy::channel::{HOLD_SECONDS, Report};
use crate::scope::ObjectName;

const HOLD: Duration = Duration::from_secs(HOLD_SECONDS);
/// How often it is looked whether the guard was restarted, before another key is refused: the kubelet says so a moment later.
const LOOKS: usize = 4;
const LOOK: Duration = Duration::from_secs(1);
/// A living guard calls more often.
const HEARD: Duration = Duration::from_secs(60);
/// One pod is not warned of more often.
const WARN: Duration = Duration::from_secs(600);
const MOST_WARNED: usize = 4096;

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Nothing,
    Policy(Arc<str>),
    Refused(Refused),
}

/// Why nothing is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub status: StatusCode,
    pub reason: &'static str,
    pub message: String,
}

impl Refused {
    pub fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }

    fn later(error: impl std::fmt::Display) -> Self {
        tracing::warn!(%error, "a guard cannot be answered");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", "the API server did not answer")
    }
}

pub(super) struct Handler<C, P> {
    world: SharedWorld,
    cluster: C,
    policies: P,
    collected: Collected,
    pub metrics: Metrics,
    tokens: Tokens,
    enrolled: Enrolled,
    /// Of pods, by their uids.
    calls: Pace<String>,
    /// Of addresses with tokens that nobody knows.
    strangers: Pace<IpAddr>,
    warned: Mutex<HashMap<String, Instant>>,
    stop: watch::Receiver<bool>,
}

impl<C: Cluster, P: Policies> Handler<C, P> {
    pub fn new(world: SharedWorld, cluster: C, policies: P, collected: Collected, metrics: Metrics, stop: watch::Receiver<bool>) -> Self {
        Self {
            world,
            cluster,
            policies,
            collected,
            metrics,
            tokens: Tokens::default(),
            enrolled: Enrolled::default(),
            calls: Pace::default(),
            strangers: Pace::default(),
            warned: Mutex::default(),
            stop,
        }
    }

    /// Which pod it is.
    pub async fn identify(&self, token: &str, peer: IpAddr) -> Result<PodIdentity, Refused> {
        let unknown = |why: &'static str| Refused::new(StatusCode::UNAUTHORIZED, "TokenRefused", why);
        let known = match self.tokens.get(token, Instant::now()) {
            Some(known) => known,
            None => {
                if !self.strangers.take(peer.to_canonical(), Instant::now()) {
                    return Err(Refused::new(StatusCode::TOO_MANY_REQUESTS, "TooMany", "more unknown tokens than may be asked about"));
                }
                let status = self.cluster.review(token).await.map_err(Refused::later)?;
                let known = tokens::pod_of(&status);
                self.tokens.put(token, known.clone(), Instant::now());
                known
            }
        };
        let pod = known.map_err(unknown)?;
        if !self.calls.take(pod.uid.clone(), Instant::now()) {
            return Err(Refused::new(StatusCode::TOO_MANY_REQUESTS, "TooMany", "more than ten calls in a second"));
        }
        Ok(pod)
    }

    /// Answers a pod that has this key: at once where there is a newer policy, else when there is one, or it is time.
    pub async fn answer(&self, pod: &PodIdentity, key: [u8; 32], report: &Report) -> Answer {
        match self.judged(pod, key, report).await {
            Ok(answer) => answer,
            Err(refused) => Answer::Refused(refused),
        }
    }

    async fn judged(&self, pod: &PodIdentity, key: [u8; 32], report: &Report) -> Result<Answer, Refused> {
        // Subscribed first: what changes from here on is seen.
        let mut changed = self.policies.changed();
        let workload = self.governing(pod).await?;
        self.prove(pod, key, &workload).await?;
        self.collect(pod, &workload, report);
        let mut stop = self.stop.clone();
        let deadline = tokio::time::sleep(HOLD);
        tokio::pin!(deadline);
        loop {
            if let Some(note) = self.policies.note(&workload) {
                let newer = |enforced: &Edition| note.edition != *enforced && note.edition.may_follow(enforced);
                if report.enforced.as_ref().is_none_or(newer) {
                    return Ok(Answer::Policy(note.text));
                }
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return Ok(Answer::Nothing) },
                () = &mut deadline => return Ok(Answer::Nothing),
                () = crate::operator::tls::told(&mut stop) => return Ok(Answer::Nothing),
            }
        }
    }

    fn collect(&self, pod: &PodIdentity, workload: &ObjectName, report: &Report) {
        let fact = self.world.read().workloads.get(workload).cloned();
        let declared = |source: &str| fact.as_deref().is_some_and(|fact| usage::declared(fact).any(|known| known == source));
        self.collected.report(&pod.uid, &pod.pod, workload, report, declared, Instant::now());
    }

    /// The AIWorkload that governs the pod.
    async fn governing(&self, pod: &PodIdentity) -> Result<ObjectName, Refused> {
        let forbidden = |reason, message: &str| Refused::new(StatusCode::FORBIDDEN, reason, message);
        let known = self.world.read().pods.get(&pod.pod).filter(|known| known.uid == pod.uid).map(|known| known.labels.clone());
        let labels = match known {
            Some(labels) => labels,
            // It was made a moment ago, or is gone.
            None => match self.cluster.pod(&pod.pod).await.map_err(Refused::later)? {
                Some(seen) if seen.uid == pod.uid => seen.labels,
                _ => return Err(forbidden("NotGuarded", "there is no such pod")),
            },
        };
        let world = self.world.read();
        if !world.enrolled(&pod.pod.namespace) {
            return Err(forbidden("NotEnrolled", "the namespace is not enrolled"));
        }
        world.governing(&pod.pod.namespace, &labels).cloned().ok_or_else(|| forbidden("NotGuarded", "no AIWorkload governs this pod"))
    }

    /// Whether it is the pod's guard that asks.
    async fn prove(&self, pod: &PodIdentity, key: [u8; 32], workload: &ObjectName) -> Result<(), Refused> {
        if self.enrolled.is(pod, &key) {
            return Ok(());
        }
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(LOOK).await;
            }
            let seen = self.cluster.pod(&pod.pod).await.map_err(Refused::later)?;
            let guard = seen.filter(|seen| seen.uid == pod.uid).and_then(|seen| seen.guard).filter(|guard| guard.workload == *workload);
            let Some(guard) = guard else {
                return Err(Refused::new(StatusCode::FORBIDDEN, "NotGuarded", "the pod has no guard that was made for its AIWorkload"));
            };
            if self.enrolled.enrol(pod, key, guard.restarts) {
                return Ok(());
            }
        }
        self.metrics.key_refused();
        tracing::warn!(pod = %pod.pod, %workload, "somebody came with the pod's token and another key than its guard's");
        self.warn(pod, workload).await;
        Err(Refused::new(StatusCode::FORBIDDEN, "KeyRefused", "the pod's guard has another key"))
    }

    async fn warn(&self, pod: &PodIdentity, workload: &ObjectName) {
        let first = {
            let (mut warned, now) = (self.warned.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
            warned.retain(|_, when| now.duration_since(*when) < WARN);
            warned.len() < MOST_WARNED && warned.insert(pod.uid.clone(), now).is_none()
        };
        let about = self.world.read().workloads.get(workload).map(|fact| fact.object.object_ref(&()));
        if let Some(about) = about.filter(|_| first) {
            let note = format!(
                "Somebody came with the token of pod {} and another key than its guard's, and was refused. Somebody may have taken the token: look at who can enter the pod, and delete it",
                pod.pod
            );
            self.cluster.warn(about, "GuardKeyRefused", note).await;
        }
    }

    /// Forgets the pods that are gone, and the counts of what is not declared any more.
    pub fn sweep(&self) {
        let world = self.world.read();
        if world.workloads.is_ready() {
            let fact = |workload: &ObjectName| world.workloads.get(workload);
            let declared =
                |workload: &ObjectName, source: &str| fact(workload).is_some_and(|fact| usage::declared(fact).any(|known| known == source));
            self.collected.retain_counts(|workload| fact(workload).is_some(), declared);
        }
        if world.pods.is_ready() {
            let now = Instant::now();
            // Who was heard of is there, even if the watch does not know yet.
            let heard = |uid: &str| self.collected.get(uid).is_some_and(|guarded| now.duration_since(guarded.seen) < HEARD);
            let known = |pod: &ObjectName, uid: &str| world.pods.get(pod).is_some_and(|known| known.uid == uid);
            self.enrolled.retain(|pod, uid| known(pod, uid) || heard(uid));
            self.collected.retain(|pod, uid, seen| known(pod, uid) || now.duration_since(seen) < HEARD);
        }
    }
}
