//! Programs side by side, for `bench-guard` and `bench-http`: each in a pod (a network namespace) of its own, one worker on a core that
//! neither client nor upstream has, measured in turns.
//!
//! `world`: namespaces and DNS. `pod`: who is measured. `figures`: medians, spread, and ratios within the turn.

pub mod figures;
pub mod pod;
pub mod world;

use std::time::Duration;

/// A percentile of what is sorted.
pub fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
