//! Conditions, as Kubernetes and kstatus read them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Condition types of an AIWorkload.
pub const ACCEPTED: &str = "Accepted";
pub const APPLIED: &str = "Applied";
pub const READY: &str = "Ready";
/// A guard enforces the scope of every pod that it governs. Absent where the operator has no guards.
pub const GUARDED: &str = "Guarded";
/// Present only while true: an exception for debugging lasts.
pub const BREAK_GLASS: &str = "BreakGlass";
/// Present only while true (kstatus).
pub const RECONCILING: &str = "Reconciling";
/// Present only while true (kstatus): nothing moves until somebody changes something.
pub const STALLED: &str = "Stalled";

/// The condition of this type, if there is one.
pub fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}
