//! What passed, by data source: totals since the guard's start.
//!
//! Promise: at most [`MOST_SOURCES`] are told apart, whatever policies come and go; what else passes is counted as [`OTHER`]. Counting a
//! byte takes no lock and no allocation: a connection looks its slot up once.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::policy::channel::{self, CLASSES, LONGEST_SOURCE, MOST_SOURCES, OTHER, Requests};

pub struct Usage {
    life: u64,
    sources: Mutex<BTreeMap<String, Arc<Slot>>>,
    other: Arc<Slot>,
}

/// Of one data source.
#[derive(Debug, Default)]
pub struct Slot {
    pub connections: AtomicU64,
    /// Bytes, from the app.
    pub sent: AtomicU64,
    /// Bytes, to the app.
    pub received: AtomicU64,
    /// As [`Requests`].
    pub requests: [AtomicU64; CLASSES.len()],
}

impl Slot {
    fn total(&self) -> channel::Usage {
        let Self { connections, sent, received, requests } = self;
        let [connections, sent, received] = [connections, sent, received].map(|count| count.load(Ordering::Relaxed));
        channel::Usage { connections, sent, received, requests: Requests(requests.each_ref().map(|count| count.load(Ordering::Relaxed))) }
    }
}

impl Default for Usage {
    /// A new life.
    fn default() -> Self {
        Self { life: RandomState::new().hash_one(0u8), sources: Mutex::default(), other: Arc::default() }
    }
}

impl Usage {
    /// Tells these totals from those of a guard that was here before.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Of a data source; empty for what Observe alone lets through.
    pub fn of(&self, source: &str) -> Arc<Slot> {
        // As the API server holds the names of data sources; a report bears no others.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if source.is_empty() || source.len() > LONGEST_SOURCE || !source.bytes().all(plain) {
            return self.other.clone();
        }
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = sources.get(source) {
            return slot.clone();
        }
        if sources.len() + 1 >= MOST_SOURCES {
            return self.other.clone();
        }
        sources.entry(source.to_owned()).or_default().clone()
    }

    /// Of those that were used.
    pub fn totals(&self) -> BTreeMap<String, channel::Usage> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let named = sources.iter().map(|(source, slot)| (source.clone(), slot.total()));
        named.chain([(OTHER.to_owned(), self.other.total())]).filter(|(_, total)| *total != channel::Usage::default()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_told_apart() {
        let usage = Usage::default();
        assert_eq!(usage.totals(), BTreeMap::new());
        let use_once = |source: &str| usage.of(source).connections.fetch_add(1, Ordering::Relaxed);
        for _ in 0..2 {
            (0..MOST_SOURCES + 5).for_each(|n| _ = use_once(&format!("source-{n}")));
        }
        ["", "a b", "\u{e9}", &"a".repeat(64), OTHER].into_iter().for_each(|odd| _ = use_once(odd));
        let totals = usage.totals();
        assert_eq!(totals.len(), MOST_SOURCES);
        assert_eq!((totals["source-0"].connections, totals[OTHER].connections), (2, 12 + 5));
        assert_ne!(usage.life(), Usage::default().life());
    }
}
