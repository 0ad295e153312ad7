//! Who governs in each namespace, kept up to date as workloads come and go.
//!
//! The judgement is [`plan::governing`]'s. This only spares it: with hundreds of workloads in a namespace, one that comes or goes
//! rarely touches another.

use std::collections::BTreeMap;

use crate::plan::{self, Contender};
use crate::scope::Selector;

/// The contenders of one namespace.
#[derive(Debug, Default)]
pub struct Conflicts {
    /// By name: seniority (see [`plan::seniority`]) and selector.
    contenders: BTreeMap<String, (i64, Selector)>,
    /// Those that do not govern, each with the one that governs in its place.
    losers: BTreeMap<String, String>,
}

impl Conflicts {
    pub fn is_empty(&self) -> bool {
        self.contenders.is_empty()
    }

    /// The workload that governs in its place (see [`crate::plan::governing`]).
    pub fn older(&self, name: &str) -> Option<&str> {
        self.losers.get(name).map(String::as_str)
    }

    /// A contender is as given, or gone. Returns all whose standing changed.
    pub fn set(&mut self, name: &str, contender: Option<(i64, Selector)>) -> Vec<String> {
        if self.contenders.get(name) == contender.as_ref() {
            return Vec::new();
        }
        let before = self.losers.clone();
        if self.contenders.remove(name).is_some() && self.losers.remove(name).is_none() && before.values().any(|older| older == name) {
            self.judge();
        }
        if let Some((created, selector)) = contender {
            let age = |n: &str, (created, _): &(i64, Selector)| (*created, n.to_owned());
            let mine = (created, name.to_owned());
            let overlapping = self.contenders.iter().filter(|(_, (_, theirs))| !theirs.disjoint(&selector));
            let (mut older, mut younger) = (None, false);
            for (other, theirs) in overlapping {
                if age(other, theirs) > mine {
                    younger = true;
                } else if !self.losers.contains_key(other) {
                    older = older.max(Some(std::cmp::Reverse(age(other, theirs))));
                }
            }
            self.contenders.insert(name.to_owned(), (created, selector));
            match older {
                Some(std::cmp::Reverse((_, older))) => _ = self.losers.insert(name.to_owned(), older),
                None if younger => self.judge(),
                None => {}
            }
        }
        let changed = |n: &&String| before.get(*n) != self.losers.get(*n);
        let mut names: Vec<String> = before.keys().chain(self.losers.keys()).filter(changed).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    fn judge(&mut self) {
        let contenders: Vec<_> =
            self.contenders.iter().map(|(name, (created, selector))| Contender { name, created: *created, selector }).collect();
        self.losers = plan::governing(&contenders).into_iter().map(|(loser, older)| (loser.to_owned(), older.to_owned())).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However workloads come and go, the standing is what judging all at once gives.
        #[test]
        fn steps_give_what_the_whole_gives(steps in proptest::collection::vec((0u8..6, 0i64..4, 0u8..3, any::<bool>()), 0..30)) {
            let mut conflicts = Conflicts::default();
            let mut all: BTreeMap<String, (i64, Selector)> = BTreeMap::new();
            for (name, created, label, present) in steps {
                let name = format!("w{name}");
                let key = ["app", "app", "tier"][usize::from(label)];
                let contender = present.then(|| (created, Selector::labels([(key, format!("v{label}"))]).unwrap()));
                match &contender {
                    Some(contender) => _ = all.insert(name.clone(), contender.clone()),
                    None => _ = all.remove(&name),
                }
                let before = conflicts.losers.clone();
                let changed = conflicts.set(&name, contender);
                let whole: Vec<_> = all.iter().map(|(name, (created, selector))| Contender { name, created: *created, selector }).collect();
                let whole: BTreeMap<String, String> = plan::governing(&whole).into_iter().map(|(a, b)| (a.into(), b.into())).collect();
                prop_assert_eq!(&conflicts.losers, &whole);
                for name in before.keys().chain(whole.keys()) {
                    prop_assert_eq!(before.get(name) != whole.get(name), changed.contains(name));
                }
            }
        }
    }
}
