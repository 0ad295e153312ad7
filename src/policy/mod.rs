//! Decisions of the guard: what one pod may reach, as data, and the one place that says yes.
//!
//! [`Document`] is what the operator writes and the guard reads; [`GuardPolicy`] is what a valid one means. A [`Permit`] is made here
//! only, and no connection of the app is made without one. Every no is a [`Reason`] of a closed list. No clock, no sockets.

mod by_hand;
pub mod channel;
mod decide;
mod document;
mod http;
pub mod pod;
mod reason;
#[cfg(feature = "signed")]
pub mod signed;
#[cfg(test)]
mod tests;

pub use decide::{Arrived, Connect, First, Forms, Leg, Lookup, Permit, Record, Site, Upstream};
pub use document::{
    Channel, Destination, Document, DocumentError, Edition, FORMAT, GuardPolicy, MOST_DESTINATIONS, Mode, Network, Proxy, Roots, Target,
    WorkloadId, WorkloadIdError, next_serial,
};
pub use http::{Http, HttpAccess, HttpRule, Inspect, MOST_OF_A_RULE, MOST_RULES, MethodField, Of, Request, Scheme};
pub use reason::{ACCESS, Attempt, RECORD, Reason};
