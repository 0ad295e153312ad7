//! Reading what comes over the wire, and writing answers: small, strict parsers over bytes. No sockets, no clock.
//!
//! Promise: any bytes give a value or an error, never a panic, and the work is bounded by their number. What could be read in two ways
//! is an error.

pub mod dns;
pub mod form;
pub mod http1;
mod reader;
pub mod tls;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed")]
pub struct Malformed;
