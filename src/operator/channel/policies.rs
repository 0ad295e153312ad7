//! Where the policies come from that guards are given.

use std::sync::Arc;

use tokio::sync::watch;

use crate::policy::signed::Trust;
use crate::policy::{Document, Edition};
use crate::scope::ObjectName;

/// A signed policy, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub text: Arc<str>,
    pub edition: Edition,
}

impl Note {
    /// None: it is not of this key, or no policy. Guards would not take it either.
    pub fn read(text: Arc<str>, trust: &Trust) -> Option<Self> {
        let edition = Document::read(trust.open(&text).ok()?.as_bytes()).ok()?.edition();
        Some(Self { text, edition })
    }
}

pub trait Policies: Send + Sync + 'static {
    /// The newest policy of an AIWorkload.
    fn note(&self, workload: &ObjectName) -> Option<Note>;
    /// Ticks when one of them may be another.
    fn changed(&self) -> watch::Receiver<u64>;
}
