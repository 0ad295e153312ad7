//! The plan: what a scope compiles to, as Kubernetes objects. Pure: no client, clock or randomness.
//!
//! `AIWorkload ─validate─► Scope ─compile(ceilings, facts)─► Plan {objects, refusals}`. One file makes one kind. The plan depends on
//! nothing but its arguments, and not on their order.

mod admit;
mod break_glass;
mod compare;
mod compile;
mod conflict;
mod facts;
#[cfg(test)]
mod fixture;
mod guard;
mod identity;
mod inject;
mod judged;
mod network;
mod object;
mod patch;
pub mod project;
mod rbac;
pub mod replace;
mod review;
mod template;
mod unscoped;
mod validate;

pub use admit::{Admission, Debugging, Subject, admit, admit_ours, admit_unscoped, admit_update, advice, guarded_for};
pub use break_glass::{BreakGlass, plain};
pub use compare::{Difference, differences};
pub use compile::{Plan, Refusal, RefusalReason, compile};
pub use conflict::{Contender, governing, seniority};
pub use facts::{ChannelFact, ClusterRanges, DnsFact, EndpointFact, Facts, PortTarget, ServiceFact, ServicePortFact, Transport};
pub use guard::{Origin, guard_policy, suspended};
pub use inject::{GuardSettings, Injection, ids, inject};
pub use judged::judged_by;
pub use network::{NAMESPACE_NAME_LABEL, label_selector, never_a_destination};
pub use object::{Kind, ManagedObject, ObjectKey, workload_of};
pub use patch::patch;
pub use review::{Author, Change, Check, Circumstances, Question, Review, Rule, review, review_ceiling};
pub use template::{TEMPLATES, Template, read as read_template};
pub use unscoped::{UNSCOPED_POLICY, left_out, unscoped_policy};
pub use validate::{FieldError, ceiling, unscoped, validate};
