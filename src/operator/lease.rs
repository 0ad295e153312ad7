//! Leader election over one Lease.
//!
//! One process at a time holds the Lease. A holder believes so only for the Lease's duration after it *sent* its last successful renewal, on its
//! own monotonic clock; others take over only after they have watched the Lease unchanged for that duration, on theirs. So no clocks are
//! compared. Updates carry the resource version: of two that take over at once, one fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

use crate::scope::ObjectName;

/// Until when this process holds the Lease.
#[derive(Clone, Debug, Default)]
pub struct Hold(Arc<Mutex<Option<Instant>>>);

impl Hold {
    /// Whether the Lease is held for at least so long.
    pub fn lasts(&self, margin: Duration) -> bool {
        self.until().is_some_and(|until| Instant::now() + margin < until)
    }

    fn until(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    duration: Duration,
    hold: Hold,
    /// The Lease as last seen, and since when it has looked like that.
    seen: Option<(Lease, Instant)>,
}

#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error(transparent)]
    Kube(#[from] kube::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("{0} holds the lease")]
    Held(String),
}

impl Election {
    pub fn new(client: Client, lease: &ObjectName, identity: String, duration: Duration) -> Self {
        let api = Api::namespaced(client, &lease.namespace);
        Self { api, name: lease.name.clone(), identity, duration, hold: Hold::default(), seen: None }
    }

    pub fn hold(&self) -> Hold {
        self.hold.clone()
    }

    /// How often the Lease is tried and renewed; also the most that one request may take.
    fn step(&self) -> Duration {
        self.duration / 4
    }

    /// Returns once this process holds the Lease.
    pub async fn acquire(&mut self) {
        let mut last = String::new();
        loop {
            match self.attempt().await {
                Ok(()) => return,
                Err(error) => {
                    let message = error.to_string();
                    if message != last {
                        tracing::info!(lease = self.name, reason = message, "not the leader yet");
                        last = message;
                    }
                }
            }
            tokio::time::sleep(self.step()).await;
        }
    }

    /// Renews until the Lease is lost, and returns then.
    pub async fn keep(&mut self) {
        while let Some(until) = self.hold.until() {
            tokio::time::sleep(self.step()).await;
            match tokio::time::timeout_at(until, self.attempt()).await {
                Ok(Ok(())) => {}
                Ok(Err(LeaseError::Held(holder))) => {
                    tracing::error!(lease = self.name, holder, "lost the lease");
                    break;
                }
                Ok(Err(error)) => tracing::warn!(lease = self.name, error = %error, "could not renew the lease"),
                Err(_) => {}
            }
            if !self.hold.lasts(Duration::ZERO) {
                tracing::error!(lease = self.name, "the lease ran out");
                break;
            }
        }
        self.hold.set(None);
    }

    /// Lets others take over at once.
    pub async fn release(&mut self) {
        if self.hold.until().is_none() {
            return;
        }
        self.hold.set(None);
        let Some((mut lease, _)) = self.seen.take() else { return };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let released = tokio::time::timeout(self.step(), self.api.replace(&self.name, &PostParams::default(), &lease)).await;
        match released {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "released the lease"),
            Ok(Err(error)) => tracing::warn!(lease = self.name, error = %error, "could not release the lease"),
            Err(_) => tracing::warn!(lease = self.name, "could not release the lease in time"),
        }
    }

    /// Takes or renews the Lease, if it is free, ours or run out.
    async fn attempt(&mut self) -> Result<(), LeaseError> {
        let (limit, sent) = (self.step(), Instant::now());
        let renewed = tokio::time::timeout(limit, self.write()).await.map_err(|_| LeaseError::Timeout).flatten();
        match renewed {
            Ok(lease) => {
                self.seen = Some((lease, sent));
                self.hold.set(Some(sent + self.duration));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn write(&mut self) -> Result<Lease, LeaseError> {
        let parameters = PostParams { dry_run: false, field_manager: Some(crate::cluster::FIELD_MANAGER.to_owned()) };
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.claim(None, now)) };
            return Ok(self.api.create(&parameters, &lease).await?);
        };
        let unchanged = |seen: &&(Lease, Instant)| seen.0.spec == lease.spec;
        let since = self.seen.as_ref().filter(unchanged).map_or_else(Instant::now, |(_, since)| *since);
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let theirs = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(0).try_into().unwrap_or(0));
        if !holder.is_empty() && holder != self.identity && since.elapsed() < theirs {
            self.seen = Some((lease, since));
            return Err(LeaseError::Held(holder));
        }
        lease.spec = Some(self.claim(Some(spec), now));
        Ok(self.api.replace(&self.name, &parameters, &lease).await?)
    }

    fn claim(&self, before: Option<LeaseSpec>, now: MicroTime) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let renewal = before.holder_identity.as_ref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.duration.as_secs().try_into().unwrap_or(i32::MAX)),
            acquire_time: if renewal { before.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!renewal)),
            ..before
        }
    }
}
