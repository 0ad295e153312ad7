//! The operator: AIWorkloads become what the cluster holds.

mod break_glass;
pub mod channel;
pub mod config;
mod deletion;
mod events;
mod guarded;
mod http;
mod keys;
mod lease;
mod metrics;
mod policies;
mod queue;
mod reconcile;
mod replace;
pub mod run;
pub mod selftest;
mod shares;
mod standing;
mod status;
mod tls;
pub mod uninstall;
mod unscoped;
pub mod webhook;
pub mod writers;

pub use config::Config;
pub use keys::{Key, Keys};
pub use writers::{Writer, Writers};
