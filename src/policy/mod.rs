//! Decisions of the guard: what one pod may reach, as data, and the one place that says yes.
//!
//! [`Document`] is what the operator writes and the guard reads; [`GuardPolicy`] is what a valid one means. A [`Permit`] is made here
//! only, and no connection of the app is made without one. Every no is a [`Reason`] of a closed list. No clock, no sockets.

pub mod channel;
mod decide;
mod document;
pub mod pod;
mod reason;
#[cfg(feature = "signed")]
pub mod signed;
#[cfg(test)]
mod tests;

pub use decide::{Connect, Lookup, Permit, Record, Upstream};
pub use document::{
    Channel, Destination, Document, DocumentError, Edition, FORMAT, GuardPolicy, MOST_DESTINATIONS, Mode, Network, Target, WorkloadId,
    WorkloadIdError, next_serial,
};
pub use reason::{Attempt, RECORD, Reason};
