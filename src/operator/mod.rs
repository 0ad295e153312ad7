//! The operator: AIWorkloads become what the cluster holds.

pub mod config;
pub mod webhook;
pub mod writers;

pub use config::Config;
pub use writers::{Writer, Writers};
