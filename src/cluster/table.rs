//! A cache of one kind: what the watch said last, as projections.
//!
//! In: watch events, already projected. Out: what changed, by content: an event that leaves the projection as it was is no change.
//! A relist replaces the whole at once, and never empties the cache in between. Own writes are put in directly (`put`), so that
//! the next decision does not rest on a state before them; an older event that arrives later is passed over, and so is the answer to a
//! write that arrives after the event of the object's end.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::runtime::watcher::Event;

/// What is kept of an object.
pub trait Projection {
    /// Its resource version, where order matters; 0 where it does not.
    fn version(&self) -> u64 {
        0
    }
    /// Whether nothing changed that anybody here depends on.
    fn same(&self, other: &Self) -> bool;
}

/// One entry that is not as it was.
#[derive(Clone, Debug)]
pub struct Change<K, V> {
    pub key: K,
    pub old: Option<Arc<V>>,
    pub new: Option<Arc<V>>,
}

/// So many ends are remembered: an answer is overtaken by few events.
const ENDS: usize = 1000;

#[derive(Debug)]
pub struct Table<K, V> {
    entries: BTreeMap<K, Arc<V>>,
    incoming: BTreeMap<K, Arc<V>>,
    /// The versions with which objects ended, lately.
    ended: BTreeMap<K, u64>,
    ready: bool,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), incoming: BTreeMap::new(), ended: BTreeMap::new(), ready: false }
    }
}

impl<K: Ord + Clone, V: Projection> Table<K, V> {
    /// Whether one whole list has been seen.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The kind is not served by this cluster: known to be empty.
    pub fn absent(&mut self) {
        self.ready = true;
    }

    pub fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.entries.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.entries.iter()
    }

    /// From this key on.
    pub fn starting_at(&self, key: K) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.entries.range(key..)
    }

    /// Take in a watch event.
    pub fn handle(&mut self, event: Event<(K, V)>) -> Vec<Change<K, V>> {
        match event {
            Event::Init => {
                self.incoming = BTreeMap::new();
                Vec::new()
            }
            Event::InitApply((key, value)) => {
                self.incoming.insert(key, Arc::new(value));
                Vec::new()
            }
            Event::InitDone => {
                self.ready = true;
                let mut old = std::mem::replace(&mut self.entries, std::mem::take(&mut self.incoming));
                let mut changes = Vec::new();
                for (key, new) in &self.entries {
                    let old = old.remove(key);
                    if !old.as_ref().is_some_and(|old| old.same(new)) {
                        changes.push(Change { key: key.clone(), old, new: Some(new.clone()) });
                    }
                }
                changes.extend(old.into_iter().map(|(key, old)| Change { key, old: Some(old), new: None }));
                changes
            }
            Event::Apply((key, value)) => self.put(key, value).into_iter().collect(),
            Event::Delete((key, value)) => match self.entries.get(&key) {
                // Of an earlier object of that name.
                Some(known) if known.version() > value.version() => Vec::new(),
                _ => {
                    let change = self.remove(&key);
                    self.end(key, value.version());
                    change.into_iter().collect()
                }
            },
        }
    }

    fn end(&mut self, key: K, version: u64) {
        if version > 0 {
            self.ended.insert(key, version);
        }
        if self.ended.len() > ENDS {
            let mut versions: Vec<u64> = self.ended.values().copied().collect();
            versions.sort_unstable();
            let middle = versions[versions.len() / 2];
            self.ended.retain(|_, version| *version > middle);
        }
    }

    /// The entry as it is now.
    pub fn put(&mut self, key: K, value: V) -> Option<Change<K, V>> {
        if self.entries.get(&key).is_some_and(|old| old.version() > value.version()) {
            return None;
        }
        // The answer to a write that ended an object (the last finalizer) bears the same version as that end.
        if value.version() > 0 && self.ended.get(&key).is_some_and(|end| *end >= value.version()) {
            return None;
        }
        let new = Arc::new(value);
        let old = self.entries.insert(key.clone(), new.clone());
        let same = old.as_ref().is_some_and(|old| old.same(&new));
        (!same).then_some(Change { key, old, new: Some(new) })
    }

    /// The entry is gone.
    pub fn remove(&mut self, key: &K) -> Option<Change<K, V>> {
        let (key, old) = self.entries.remove_entry(key)?;
        Some(Change { key, old: Some(old), new: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Row(u64, &'static str);
    impl Projection for Row {
        fn version(&self) -> u64 {
            self.0
        }
        fn same(&self, other: &Self) -> bool {
            self.1 == other.1
        }
    }

    fn names(changes: &[Change<u8, Row>]) -> Vec<(u8, bool, bool)> {
        changes.iter().map(|c| (c.key, c.old.is_some(), c.new.is_some())).collect()
    }

    #[test]
    fn only_content_counts_as_change() {
        let mut table = Table::default();
        assert!(table.handle(Event::Init).is_empty() && !table.is_ready());
        table.handle(Event::InitApply((1, Row(1, "a"))));
        assert_eq!(names(&table.handle(Event::InitDone)), [(1, false, true)]);
        assert!(table.is_ready());
        assert_eq!(names(&table.handle(Event::Apply((1, Row(2, "a"))))), []);
        assert_eq!(names(&table.handle(Event::Apply((1, Row(3, "b"))))), [(1, true, true)]);
        // An event from before our own write.
        assert_eq!(names(&table.handle(Event::Apply((1, Row(2, "a"))))), []);
        assert_eq!(table.get(&1).map(|row| row.1), Some("b"));
        assert_eq!(names(&table.handle(Event::Delete((1, Row(2, "a"))))), []);
        assert_eq!(names(&table.handle(Event::Delete((1, Row(4, "b"))))), [(1, true, false)]);
    }

    #[test]
    fn an_answer_that_arrives_after_the_end_brings_nothing_back() {
        let mut table = Table::default();
        table.put(1, Row(1, "a"));
        assert_eq!(names(&table.handle(Event::Delete((1, Row(4, "a"))))), [(1, true, false)]);
        // The answers to two writes: one from before the end, and the one that was the end.
        assert!(table.put(1, Row(3, "b")).is_none() && table.put(1, Row(4, "b")).is_none());
        assert!(table.get(&1).is_none());
        // A new object of that name.
        assert!(table.put(1, Row(5, "c")).is_some());
        let mut many: Table<u32, Row> = Table::default();
        for n in 0..3000 {
            many.handle(Event::Delete((n, Row(u64::from(n) + 1, "a"))));
        }
        assert!(many.ended.len() <= ENDS && many.ended.contains_key(&2999), "the last ones are remembered");
    }

    #[test]
    fn a_relist_replaces_the_whole_at_once() {
        let mut table = Table::default();
        table.put(1, Row(1, "a"));
        table.put(2, Row(1, "b"));
        table.handle(Event::Init);
        table.handle(Event::InitApply((2, Row(5, "b"))));
        table.handle(Event::InitApply((3, Row(5, "c"))));
        assert_eq!(table.iter().count(), 2, "nothing is missing in between");
        assert_eq!(names(&table.handle(Event::InitDone)), [(3, false, true), (1, true, false)]);
    }
}
