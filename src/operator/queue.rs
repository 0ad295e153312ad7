//! What is to be reconciled, and when.
//!
//! A key is handed to one worker at a time; what is added meanwhile comes once more afterwards. The earliest time that was asked for counts. No
//! clock of its own beside tokio's, no backoff: that is the worker's.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

#[derive(Debug)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<K> {
    due: HashMap<K, Instant>,
    running: HashSet<K>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { state: Mutex::new(State { due: HashMap::new(), running: HashSet::new() }), changed: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reconcile this after so long, or earlier if somebody asks for earlier.
    pub fn add(&self, keys: impl IntoIterator<Item = K>, after: Duration) {
        let at = Instant::now() + after;
        let mut state = self.state();
        for key in keys {
            let due = state.due.entry(key).or_insert(at);
            *due = at.min(*due);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The next key that is due; it is running until [`Queue::done`].
    pub async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let wake = {
                let mut state = self.state();
                let State { due, running } = &*state;
                let next = due.iter().filter(|(key, _)| !running.contains(*key)).min_by_key(|(_, at)| **at);
                match next.map(|(key, at)| (key.clone(), *at)) {
                    Some((key, at)) if at <= Instant::now() => {
                        state.due.remove(&key);
                        state.running.insert(key.clone());
                        drop(state);
                        // Another worker may find the next one due as well.
                        self.changed.notify_one();
                        return key;
                    }
                    next => next.map(|(_, at)| at),
                }
            };
            match wake {
                Some(at) => _ = tokio::time::timeout_at(at, changed).await,
                None => changed.await,
            }
        }
    }

    pub fn done(&self, key: &K) {
        self.state().running.remove(key);
        self.changed.notify_one();
    }

    /// How many keys wait or run.
    pub fn len(&self) -> usize {
        let state = self.state();
        state.due.len() + state.running.len()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_worker_per_key_and_the_earliest_time_counts() {
        let queue = Queue::default();
        queue.add(["a", "a"], Duration::from_secs(60));
        queue.add(["a"], Duration::ZERO);
        assert_eq!(queue.next().await, "a");
        queue.add(["a"], Duration::ZERO);
        let waiting = tokio::time::timeout(Duration::from_millis(20), queue.next()).await;
        assert!(waiting.is_err(), "it runs already");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a", "what was added meanwhile comes once more");
        queue.done(&"a");
        assert!(queue.is_empty());
        queue.add(["later"], Duration::from_millis(30));
        let start = Instant::now();
        assert_eq!(queue.next().await, "later");
        assert!(start.elapsed() >= Duration::from_millis(30));
    }
}
