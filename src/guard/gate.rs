//! What every way in shares: the policy that holds, and what was refused by it.

use std::net::IpAddr;
use std::sync::Arc;

use super::Held;
use super::authority::Inspection;
use super::record::Records;
use super::resolver::SharedResolver;
use super::upstream::Upstreams;
use super::usage::Usage;
use crate::policy::{GuardPolicy, Permit, Reason};

pub struct Gate {
    pub held: Held,
    pub resolver: SharedResolver,
    pub records: Arc<Records>,
    pub usage: Arc<Usage>,
    pub upstreams: Upstreams,
    /// Where the guard may end the app's TLS.
    pub inspection: Option<Arc<Inspection>>,
}

/// Why not, and by which policy.
#[derive(Clone, Debug)]
pub struct Denied {
    pub reason: Reason,
    /// None: there is none.
    pub policy: Option<Arc<GuardPolicy>>,
}

impl Denied {
    pub fn by(policy: Arc<GuardPolicy>, reason: Reason) -> Self {
        Self { reason, policy: Some(policy) }
    }
}

impl Gate {
    pub fn policy(&self) -> Result<Arc<GuardPolicy>, Denied> {
        self.held.borrow().clone().ok_or(Denied { reason: Reason::NoPolicy, policy: None })
    }

    /// For this reason, by the policy of this moment, if there is one.
    pub fn denied(&self, reason: Reason) -> Denied {
        Denied { reason, policy: self.held.borrow().clone() }
    }

    /// The policy is asked first, so nothing of the work is done, however ready it is, that a new policy forbids.
    pub async fn while_still<T>(
        &self,
        still: impl Fn(&GuardPolicy) -> Result<(), Reason>,
        work: impl Future<Output = T>,
    ) -> Result<T, Denied> {
        tokio::select! {
            biased;
            denied = self.forbidden(still) => Err(denied),
            done = work => Ok(done),
        }
    }

    /// The same, of a connection that was permitted. `reached`: where it goes, once that is known.
    pub async fn while_permitted<T>(&self, permit: &Permit, reached: Option<IpAddr>, work: impl Future<Output = T>) -> Result<T, Denied> {
        self.while_still(|policy| policy.still(permit, reached), work).await
    }

    /// Resolves when the policy forbids what it permitted.
    async fn forbidden(&self, still: impl Fn(&GuardPolicy) -> Result<(), Reason>) -> Denied {
        let mut held = self.held.clone();
        loop {
            if let Some(policy) = &*held.borrow_and_update()
                && let Err(reason) = still(policy)
            {
                return Denied::by(policy.clone(), reason);
            }
            if held.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
