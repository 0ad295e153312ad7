//! What people wrote → what it means.
//!
//! Promise: all errors are collected, each with the path of its field and the remedy. In: an AIWorkload or a ScopeCeiling, as stored or as
//! read from a file. Out: a [`Scope`](crate::scope::Scope) or a [`Ceiling`](crate::scope::Ceiling), or the errors.
//!
//! The schema's own rules are repeated here where a wrong value could reach a plan (offline rendering has no API server, and an
//! object may have been stored under an older schema).
//!
//! `workload` → `source` (→ `permissions`, `requests`) and `client`; `ceiling`; all of them read single values by `field`.

mod ceiling;
mod client;
mod field;
#[cfg(test)]
mod fixture;
mod permissions;
mod requests;
mod source;
mod workload;

use std::fmt;

pub use self::ceiling::{ceiling, unscoped};
pub use self::workload::validate;

/// Something wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldError {
    /// The field, from `spec` on, e.g. `dataSources[name=orders-db].service.port`.
    pub path: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Collects errors under paths.
#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn push(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError { path: path.into(), message: message.into() });
    }

    fn finish<T>(self, value: T) -> Result<T, Vec<FieldError>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{self, FULL, WIDE};

    #[test]
    fn the_full_example_is_valid() {
        assert!(validate(&fixture::workload(FULL)).is_ok());
        assert!(ceiling(&fixture::ceiling("wide", WIDE)).is_ok());
    }
}
