//! Fixtures of the tests: the errors of a spec.

use super::validate;
use crate::plan::fixture;

pub(super) const BASE: &str = "selector: {matchLabels: {app: a}}\nmode: Enforce\n";

pub(super) fn errors(spec: &str) -> Vec<String> {
    validate(&fixture::workload(&format!("{BASE}{spec}"))).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}
