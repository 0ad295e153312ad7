//! Remit: least privilege for AI services on Kubernetes.
//!
//! Permission is data; programs are only the ways in which data meets the world. The layers, in order; each uses only
//! earlier ones (`tests/layers.rs` holds this):
//!
//! 1. [`scope`]: the words. Names, addresses, selectors, permissions, the validated [`scope::Scope`], the ceiling.
//! 2. [`api`], [`plan`]: Kubernetes as data. The custom resources; what a scope compiles to. No client.
//! 3. [`cluster`]: the hands. What is read from and written to a cluster.
//! 4. [`operator`], [`cli`]: the programs.

pub mod scope;

#[cfg(feature = "k8s")]
pub mod api;
#[cfg(feature = "k8s")]
pub mod plan;

#[cfg(feature = "client")]
pub mod cluster;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "operator")]
pub mod operator;
