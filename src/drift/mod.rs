//! What is really reachable, whoever made it so: effective access, over a snapshot of the cluster or a folder of manifests.
//!
//! Promise: pure. The answer is computed on the union of everything that selects a pod or binds an account, and it names what allows it. What
//! is there and is not analysed is said, not passed over.

pub mod network;
mod pairs;
pub mod rbac;
mod snapshot;

pub use pairs::{Pair, pairs};
pub use snapshot::{Omitted, PodFact, Snapshot};
