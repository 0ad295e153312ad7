//! The custom resources of `remit.dev/v1alpha1`: what people write, exactly as it is stored.
//!
//! Doc comments here become the descriptions that `kubectl explain` shows: they are written for users. A field stands here
//! only when something enforces it. What the schema cannot say (a permission that may never be granted, a ceiling) is judged
//! by [`crate::plan::validate`].

mod ceiling;
mod condition;
mod workload;

pub use ceiling::*;
pub use condition::*;
pub use workload::*;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// Group of all custom resources.
pub const GROUP: &str = "remit.dev";

/// Label by which the admin of a namespace enrols it.
pub const ENROLLED_LABEL: &str = "remit.dev/enrolled";
/// Label on every generated object, with the value [`MANAGED_BY`].
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
pub const MANAGED_BY: &str = "remit";
/// Label on every generated object of a workload: the AIWorkload's name.
pub const WORKLOAD_LABEL: &str = "remit.dev/workload";
/// Label on every generated object of a workload: the AIWorkload's namespace.
pub const WORKLOAD_NAMESPACE_LABEL: &str = "remit.dev/workload-namespace";
/// Finalizer of AIWorkloads: pods stay denied until they are gone or released.
pub const FINALIZER: &str = "remit.dev/deny-until-gone";
/// Annotation which, on an AIWorkload that is being deleted, sets its pods free at once. Setting it needs the verb `release`.
pub const RELEASE_ANNOTATION: &str = "remit.dev/release";
/// The verb that setting pods free needs on `aiworkloads.remit.dev`.
pub const RELEASE_VERB: &str = "release";

/// Annotation which lets the pods of an AIWorkload be debugged for a bounded time (JSON: `until`, `by`, `reason`). Setting it needs the verb
/// `break-glass`.
pub const BREAK_GLASS_ANNOTATION: &str = "remit.dev/break-glass";
/// The verb that an exception for debugging needs on `aiworkloads.remit.dev`.
pub const BREAK_GLASS_VERB: &str = "break-glass";

/// All custom resource definitions, in the order in which they are shipped.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![AIWorkload::crd(), ScopeCeiling::crd()]
}
