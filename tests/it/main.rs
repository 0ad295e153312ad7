//! The one integration test binary: tests of the whole, from outside. A single binary links once.
//!
//! `layers`, `generated`, `channel`, `cli`, `guard_cli` and `chart` need no cluster (`make check` runs them); `access` needs its oracle (`tests/access/setup.sh`). Tests below `node` need the node tier, those below
//! `pod` root and network namespaces, all others the API tier; they say so at their head and fail without it. `make test` brings both up.

#![cfg(feature = "cli")]

mod access;
#[cfg(feature = "operator")]
mod api_access;
#[cfg(feature = "operator")]
mod api_admission;
#[cfg(feature = "operator")]
mod api_break_glass;
#[cfg(all(feature = "operator", feature = "guard"))]
mod api_channel;
#[cfg(feature = "operator")]
mod api_faults;
#[cfg(feature = "operator")]
mod api_pods;
#[cfg(feature = "operator")]
mod api_policies;
#[cfg(feature = "operator")]
mod api_reconcile;
#[cfg(feature = "operator")]
mod api_replace;
#[cfg(feature = "operator")]
mod api_schema;
#[cfg(feature = "operator")]
mod api_tamper;
#[cfg(feature = "operator")]
#[path = "../bench/mod.rs"]
mod bench;
#[cfg(feature = "operator")]
#[path = "../bench/policy.rs"]
mod bench_policy;
#[cfg(all(feature = "operator", feature = "guard"))]
mod channel;
mod chart;
mod cli;
mod draw;
mod generated;
#[cfg(feature = "guard")]
mod guard_cli;
#[cfg(feature = "guard")]
mod http_cases;
mod layers;
#[cfg(feature = "operator")]
mod node;
#[cfg(feature = "guard")]
mod pod;
#[cfg(feature = "operator")]
mod support;

use std::path::PathBuf;

/// A path of the repository.
fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of the repository.
fn text(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Compares a file of the repository with what it should be; with `REMIT_GENERATE=1` writes it instead.
fn assert_generated(path: &str, expected: &str) {
    let file = repository(path);
    if std::env::var_os("REMIT_GENERATE").is_some_and(|v| v == "1") {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    if let Some(line) = (found != expected).then(|| found.lines().zip(expected.lines()).take_while(|(a, b)| a == b).count()) {
        panic!(
            "{path} is out of step from line {} on:\n  is:        {:?}\n  should be: {:?}\nhint: `make generate` writes it",
            line + 1,
            found.lines().nth(line),
            expected.lines().nth(line)
        );
    }
}
