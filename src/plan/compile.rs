//! `Scope` + `Ceilings` + `Facts` → `Plan`.

use std::fmt;

use super::{Facts, ManagedObject};
use super::{identity, network, rbac};
use crate::scope::{Ceilings, Mode, Scope};

/// Everything that the cluster must hold for one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The scope that is held: what was declared, narrowed by the ceilings.
    pub scope: Scope,
    pub digest: String,
    /// In the order of [`super::Kind`], then by namespace and name. Empty in Observe: it writes nothing.
    pub objects: Vec<ManagedObject>,
    /// What was declared and is not in the plan, and why. Sorted.
    pub refusals: Vec<Refusal>,
}

/// Something declared that is not in the plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    pub reason: RefusalReason,
    /// Where it was declared, e.g. `dataSources[name=orders-db].service`.
    pub path: String,
    pub message: String,
}

/// Why something declared is not in the plan. The name is the reason of the condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalReason {
    /// A ceiling does not allow it.
    CeilingExceeded,
    /// It leads to addresses that no scope may reach.
    AddressNotAllowed,
    /// An ExternalName Service leads anywhere its editors say.
    ExternalName,
    /// The cluster's pod ranges are unknown, so that the outside cannot be told from a pod.
    ClusterRangesUnknown,
    /// It is not there (yet).
    NotFound,
}

impl RefusalReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CeilingExceeded => "CeilingExceeded",
            Self::AddressNotAllowed => "AddressNotAllowed",
            Self::ExternalName => "ExternalName",
            Self::ClusterRangesUnknown => "ClusterRangesUnknown",
            Self::NotFound => "NotFound",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason: _, path, message } = self;
        write!(f, "{path}: {message}")
    }
}

/// What this scope compiles to. `uid` is the AIWorkload's, for owner references; None offline.
pub fn compile(scope: &Scope, uid: Option<&str>, ceilings: &Ceilings, facts: &Facts) -> Plan {
    let (scope, excesses) = ceilings.narrow(scope);
    let mut refusals: Vec<Refusal> = excesses
        .iter()
        .map(|excess| Refusal {
            reason: RefusalReason::CeilingExceeded,
            path: format!("dataSources[name={}]", excess.source),
            message: excess.message(),
        })
        .collect();
    let mut objects = vec![network::policy(&scope, uid, ceilings, facts, &mut refusals)];
    objects.extend(identity::service_account(&scope, uid));
    objects.extend(rbac::roles_and_bindings(&scope, uid));
    if scope.mode == Mode::Observe {
        objects.clear();
    }
    objects.sort_by_key(ManagedObject::key);
    refusals.sort();
    refusals.dedup();
    Plan { digest: scope.digest(), scope, objects, refusals }
}
