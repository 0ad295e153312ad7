//! Step 2, validate: what a workload may have, before its plan is made. Pure.

use crate::api::{self, AIWorkload};
use crate::cluster::{Gathered, WorkloadFact};
use crate::plan::FieldError;
use crate::scope::{Mode, Scope};

/// How a workload stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing<'a> {
    /// Its plan is held.
    Enforce(&'a Scope),
    /// Its plan is computed and shown.
    Observe(&'a Scope),
    /// It cannot be understood: what was applied before stays.
    Invalid(&'a [FieldError]),
    /// The namespace is not enrolled: nothing is generated.
    NotEnrolled,
    /// Another workload governs (in Enforce before in Observe, then the older): nothing is generated.
    Conflict { older: &'a str },
}

/// What is done about a workload.
#[derive(Clone, Debug, PartialEq)]
pub enum Course<'a> {
    Stand(Standing<'a>),
    /// It is being deleted, and its pods stay denied until they are gone.
    Hold(Standing<'a>),
    /// It is being deleted, and nothing needs to be held.
    LetGo,
}

pub fn validate<'a>(gathered: &'a Gathered, workload: &'a WorkloadFact) -> Course<'a> {
    let standing = match (&workload.scope, &gathered.older) {
        _ if !gathered.enrolled => Standing::NotEnrolled,
        (_, Some(older)) => Standing::Conflict { older },
        (Err(errors), None) => Standing::Invalid(errors),
        (Ok(scope), None) => match scope.mode {
            Mode::Observe => Standing::Observe(scope),
            Mode::Enforce => Standing::Enforce(scope),
        },
    };
    if workload.object.metadata.deletion_timestamp.is_none() {
        return Course::Stand(standing);
    }
    match standing {
        _ if released(&workload.object) => Course::LetGo,
        Standing::Observe(_) | Standing::NotEnrolled => Course::LetGo,
        _ if workload.object.spec.mode == api::Mode::Observe => Course::LetGo,
        standing @ (Standing::Enforce(_) | Standing::Invalid(_) | Standing::Conflict { older: _ }) => Course::Hold(standing),
    }
}

fn released(workload: &AIWorkload) -> bool {
    workload.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(api::RELEASE_ANNOTATION))
}
