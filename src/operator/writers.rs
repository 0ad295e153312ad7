//! Who wrote an object last, as far as the recording webhook saw it.
//!
//! managedFields name a manager, which the client chooses, and nothing names a deleter; the recorder sees the user. In memory
//! only, bounded, and lost with the process: it names people in findings, it decides nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::plan::ObjectKey;

/// Objects remembered at most; beyond that, the oldest are forgotten.
const CAPACITY: usize = 4096;
/// How long a write counts as the last one that was seen.
const LIFETIME: Duration = Duration::from_secs(3600);

/// A write that the recorder saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    pub user: String,
    pub time: SystemTime,
}

/// The last writers. Clones share one memory.
#[derive(Clone, Debug, Default)]
pub struct Writers(Arc<Mutex<HashMap<ObjectKey, Writer>>>);

impl Writers {
    /// Remember a write.
    pub fn note(&self, key: ObjectKey, user: impl Into<String>, time: SystemTime) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= CAPACITY && !seen.contains_key(&key) {
            seen.retain(|_, writer| time.duration_since(writer.time).is_ok_and(|age| age < LIFETIME));
            if seen.len() >= CAPACITY {
                let oldest = seen.iter().min_by_key(|(_, writer)| writer.time).map(|(key, _)| key.clone());
                oldest.map(|key| seen.remove(&key));
            }
        }
        seen.insert(key, Writer { user: user.into(), time });
    }

    /// Who wrote the object last, if that was seen.
    pub fn last(&self, key: &ObjectKey) -> Option<Writer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Kind;
    use crate::scope::ObjectName;

    #[test]
    fn the_last_writer_counts_and_memory_is_bounded() {
        let writers = Writers::default();
        let key = |n: usize| ObjectKey { kind: Kind::Role, object: ObjectName::new("a", format!("r{n}")) };
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        writers.note(key(0), "alice", at(1));
        writers.note(key(0), "bob", at(2));
        assert_eq!(writers.last(&key(0)), Some(Writer { user: "bob".into(), time: at(2) }));
        for n in 1..=CAPACITY {
            writers.note(key(n), "carol", at(3));
        }
        assert_eq!(writers.last(&key(0)), None);
        assert!(writers.last(&key(CAPACITY)).is_some());
    }
}
