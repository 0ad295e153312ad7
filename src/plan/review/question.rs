//! What the authorizer is asked: may the author do this, for which field, and why it is asked.
//!
//! Promise: a question says no more and no less than what it was made of. In: a permission, an object to read, or an AIWorkload
//! whose pods would be set free. Out: [`Question`]. Whether it must be asked is decided elsewhere.

use crate::api::{AIWorkload, BREAK_GLASS_VERB, GROUP, RELEASE_VERB};
use crate::scope::{ObjectName, Permission, Verb};

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
    /// Having pods evicted needs the right to evict them.
    Evict,
    /// Setting pods free needs the verb `release`.
    Release,
    /// An exception for debugging needs the verb `break-glass`.
    BreakGlass,
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
    pub(super) fn of(permission: &Permission) -> Self {
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

    pub(super) fn get(resource: &str, object: &ObjectName) -> Self {
        Self {
            namespace: object.namespace.clone(),
            group: String::new(),
            resource: resource.to_owned(),
            subresource: None,
            name: Some(object.name.clone()),
            verb: Verb::Get.as_str(),
        }
    }

    pub(super) fn evict(workload: &AIWorkload) -> Self {
        Self {
            namespace: workload.metadata.namespace.clone().unwrap_or_default(),
            group: String::new(),
            resource: "pods".to_owned(),
            subresource: Some("eviction".to_owned()),
            name: None,
            verb: Verb::Create.as_str(),
        }
    }

    pub(super) fn release(workload: &AIWorkload) -> Self {
        Self::on(workload, RELEASE_VERB)
    }

    pub(super) fn break_glass(workload: &AIWorkload) -> Self {
        Self::on(workload, BREAK_GLASS_VERB)
    }

    fn on(workload: &AIWorkload, verb: &'static str) -> Self {
        Self {
            namespace: workload.metadata.namespace.clone().unwrap_or_default(),
            group: GROUP.to_owned(),
            resource: "aiworkloads".to_owned(),
            subresource: None,
            name: workload.metadata.name.clone(),
            verb,
        }
    }
}
