//! Which of several AIWorkloads governs, where one pod could be selected by two.
//!
//! NetworkPolicies only ever add up: two plans over one pod would allow the union of two scopes. So one
//! governs (in Enforce before in Observe, then the older), and the other generates nothing. Judged on selectors (see
//! [`Selector::disjoint`]): a pod that both select may come at any time.

use std::collections::BTreeMap;

use crate::scope::{Mode, Selector};

/// What a workload is sorted by: in Enforce before in Observe, then by creation. One in Observe generates nothing, so it loses nothing by
/// standing back, and must not keep another from being enforced.
pub fn seniority(mode: Mode, created: i64) -> i64 {
    match mode {
        Mode::Enforce => created.min(i64::MAX / 2),
        Mode::Observe => created.min(i64::MAX / 2 - 1) + i64::MAX / 2 + 1,
    }
}

/// An AIWorkload of a namespace, as far as conflict goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contender<'a> {
    pub name: &'a str,
    /// Its [`seniority`], which "older" here goes by; of equals, the smaller name is older.
    pub created: i64,
    pub selector: &'a Selector,
}

/// Those of one namespace that do not govern, each with the name of the older one that keeps it from governing.
pub fn governing<'a>(contenders: &[Contender<'a>]) -> BTreeMap<&'a str, &'a str> {
    let mut by_age: Vec<&Contender<'a>> = contenders.iter().collect();
    by_age.sort_by_key(|c| (c.created, c.name));
    let mut governs: Vec<&Contender<'a>> = Vec::new();
    let mut losers = BTreeMap::new();
    for contender in by_age {
        match governs.iter().find(|older| !older.selector.disjoint(contender.selector)) {
            Some(older) => _ = losers.insert(contender.name, older.name),
            None => governs.push(contender),
        }
    }
    losers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_governs() {
        let bot = Selector::labels([("app", "bot")]).unwrap();
        let shop = Selector::labels([("app", "shop")]).unwrap();
        let tier = Selector::labels([("tier", "ai")]).unwrap();
        let contender = |name, created, selector| Contender { name, created, selector };
        let all = [contender("young", 3, &bot), contender("old", 1, &bot), contender("other", 2, &shop), contender("broad", 4, &tier)];
        let expected: BTreeMap<&str, &str> = [("young", "old"), ("broad", "old")].into();
        assert_eq!(governing(&all), expected);
        let mut reversed = all.to_vec();
        reversed.reverse();
        assert_eq!(governing(&reversed), expected, "independent of order");
        // One that does not govern keeps nobody from governing.
        let chain = [contender("a", 1, &bot), contender("b", 2, &tier), contender("c", 3, &shop)];
        assert_eq!(governing(&chain), [("b", "a")].into());
        // Of equal age the smaller name.
        // One in Observe keeps nobody from being enforced, however old.
        assert!(seniority(Mode::Observe, 0) > seniority(Mode::Enforce, i64::MAX - 1));
        assert!(seniority(Mode::Observe, 1) < seniority(Mode::Observe, 2));
        assert_eq!(governing(&[contender("y", 1, &bot), contender("x", 1, &bot)]), [("y", "x")].into());
    }
}
