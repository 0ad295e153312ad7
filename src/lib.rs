//! Remit: least privilege for AI services on Kubernetes.
//!
//! Permission is data; programs are only the ways in which data meets the world. The layers, in order; each uses only
//! earlier ones (`tests/it/layers.rs` holds this):
//!
//! 1. [`scope`]: the words. Names, addresses, selectors, permissions, the validated [`scope::Scope`], the ceiling.
//! 2. [`policy`]: the guard's decisions, and the document that carries them.
//! 3. [`wire`]: reading what comes over the wire.
//! 4. [`api`], [`plan`], [`drift`]: Kubernetes as data. The custom resources; what a scope compiles to; what is really reachable. No client.
//! 5. [`cluster`]: the hands. What is read from and written to a cluster.
//! 6. [`operator`], [`guard`], [`cli`]: the programs.

pub mod policy;
pub mod scope;
pub mod wire;

#[cfg(feature = "k8s")]
pub mod api;
#[cfg(feature = "k8s")]
pub mod drift;
#[cfg(feature = "k8s")]
pub mod plan;

#[cfg(feature = "client")]
pub mod cluster;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "guard")]
pub mod guard;
#[cfg(feature = "operator")]
pub mod operator;
