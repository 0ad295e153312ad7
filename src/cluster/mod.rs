//! The hands: what is read from and written to a cluster.
//!
//! Reading: [`watch`] feeds [`world`], [`gather`] takes from it what one plan needs. Writing: [`apply`] and [`prune`], through [`hands`],
//! which is the only place that changes anything.

pub mod apply;
mod conflicts;
pub mod facts;
pub mod gather;
pub mod hands;
pub mod prune;
mod selected;
pub mod table;
pub mod watch;
pub mod world;

pub use apply::{Failure, FailureReason, Known, Report};
pub use facts::{FIELD_MANAGER, Live, WorkloadFact};
pub use gather::{Gathered, GatheredNamespace, gather, gather_namespace};
pub use hands::{Clients, Hands, RequestError};
pub use selected::{Residents, Selected, Stuck};
pub use world::{Key, Settings, SharedWorld, World};
