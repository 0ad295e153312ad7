//! Label selectors: what they match, whether two could match one pod, whether one contains another.
//!
//! `disjoint` and `covers` are judged on the selectors alone, never on the pods of the moment: a pod that would match both can be
//! created at any time. Both answers are cautious: "no" may mean "not provable".

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// All requirements must hold. No requirement matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Selector(BTreeMap<String, BTreeSet<Requirement>>);

/// A requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Requirement {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("label key `{0}` is not valid: use [prefix/]name with letters, digits, '-', '_' and '.'")]
    Key(String),
    #[error("label value `{0}` is not valid: use at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit")]
    Value(String),
    #[error("`{0}`: In and NotIn need at least one value, Exists and DoesNotExist take none")]
    Values(String),
}

impl Selector {
    pub fn new(requirements: impl IntoIterator<Item = (String, Requirement)>) -> Result<Self, SelectorError> {
        let mut map: BTreeMap<String, BTreeSet<Requirement>> = BTreeMap::new();
        for (key, requirement) in requirements {
            if !valid_key(&key) {
                return Err(SelectorError::Key(key));
            }
            if let Requirement::In(values) | Requirement::NotIn(values) = &requirement {
                if values.is_empty() {
                    return Err(SelectorError::Values(key));
                }
                if let Some(bad) = values.iter().find(|v| !valid_value(v)) {
                    return Err(SelectorError::Value(bad.clone()));
                }
            }
            map.entry(key).or_default().insert(requirement);
        }
        Ok(Self(map))
    }

    /// `key: value` for each pair.
    pub fn labels<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, SelectorError> {
        Self::new(pairs.into_iter().map(|(k, v)| (k.into(), Requirement::In([v.into()].into()))))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every requirement, in a fixed order.
    pub fn requirements(&self) -> impl Iterator<Item = (&str, &Requirement)> {
        self.0.iter().flat_map(|(key, set)| set.iter().map(move |r| (key.as_str(), r)))
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements().all(|(key, requirement)| requirement.holds(labels.get(key).map(String::as_str)))
    }

    /// Whether provably no pod matches both.
    pub fn disjoint(&self, other: &Self) -> bool {
        self.0.iter().any(|(key, mine)| match other.0.get(key) {
            Some(theirs) => Values::of(mine.iter().chain(theirs)).is_empty(),
            None => Values::of(mine.iter()).is_empty(),
        }) || other.0.values().any(|theirs| Values::of(theirs.iter()).is_empty())
    }

    /// Whether provably every pod that `other` matches, this matches too.
    pub fn covers(&self, other: &Self) -> bool {
        self.0.iter().all(|(key, mine)| {
            let theirs = Values::of(other.0.get(key).into_iter().flatten());
            theirs.within(&Values::of(mine.iter()))
        })
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::In(values), Some(v)) => values.contains(v),
            (Self::In(_), None) | (Self::Exists, None) => false,
            (Self::NotIn(values), Some(v)) => !values.contains(v),
            (Self::NotIn(_), None) | (Self::Exists, Some(_)) | (Self::DoesNotExist, None) => true,
            (Self::DoesNotExist, Some(_)) => false,
        }
    }

    /// The requirement that holds exactly where this does not.
    pub fn negated(&self) -> Self {
        match self {
            Self::In(values) => Self::NotIn(values.clone()),
            Self::NotIn(values) => Self::In(values.clone()),
            Self::Exists => Self::DoesNotExist,
            Self::DoesNotExist => Self::Exists,
        }
    }
}

/// What the requirements on one label leave possible: absent or not, and either these values only or all but these.
struct Values {
    absent: bool,
    only: Option<BTreeSet<String>>,
    except: BTreeSet<String>,
}

impl Values {
    fn of<'a>(requirements: impl Iterator<Item = &'a Requirement>) -> Self {
        let mut all = Self { absent: true, only: None, except: BTreeSet::new() };
        for requirement in requirements {
            match requirement {
                Requirement::In(values) => {
                    all.absent = false;
                    all.only = Some(match all.only {
                        Some(only) => only.intersection(values).cloned().collect(),
                        None => values.clone(),
                    });
                }
                Requirement::NotIn(values) => all.except.extend(values.iter().cloned()),
                Requirement::Exists => all.absent = false,
                Requirement::DoesNotExist => all.only = Some(BTreeSet::new()),
            }
        }
        if let Some(only) = &mut all.only {
            only.retain(|v| !all.except.contains(v));
        }
        all
    }

    fn is_empty(&self) -> bool {
        !self.absent && self.only.as_ref().is_some_and(BTreeSet::is_empty)
    }

    fn within(&self, wider: &Self) -> bool {
        if self.absent && !wider.absent {
            return false;
        }
        match (&self.only, &wider.only) {
            (Some(mine), Some(theirs)) => mine.is_subset(theirs),
            (Some(mine), None) => mine.is_disjoint(&wider.except),
            (None, Some(_)) => false,
            (None, None) => wider.except.is_subset(&self.except),
        }
    }
}

fn valid_value(value: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    value.is_empty()
        || (value.len() <= 63
            && value.starts_with(edge)
            && value.ends_with(edge)
            && value.chars().all(|c| edge(c) || matches!(c, '-' | '_' | '.')))
}

fn valid_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let dns = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !name.is_empty()
        && valid_value(name)
        && prefix.is_none_or(|p| {
            p.len() <= 253
                && p.split('.').all(|part| part.starts_with(dns) && part.ends_with(dns) && part.chars().all(|c| dns(c) || c == '-'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(|v| v.to_string()).collect()
    }

    fn selector(requirements: &[(&str, Requirement)]) -> Selector {
        Selector::new(requirements.iter().map(|(k, r)| (k.to_string(), r.clone()))).unwrap()
    }

    #[test]
    fn disjoint_table() {
        use Requirement::*;
        let a = || selector(&[("app", In(set(&["a"])))]);
        let cases = [
            (a(), selector(&[("app", In(set(&["b"])))]), true),
            (a(), selector(&[("app", In(set(&["a", "b"])))]), false),
            (a(), selector(&[("tier", In(set(&["x"])))]), false), // a pod may bear both labels
            (a(), selector(&[("app", NotIn(set(&["a"])))]), true),
            (a(), selector(&[("app", DoesNotExist)]), true),
            (a(), selector(&[("app", Exists)]), false),
            (a(), Selector::default(), false),
            (selector(&[("app", Exists)]), selector(&[("app", DoesNotExist)]), true),
            (selector(&[("app", NotIn(set(&["a"])))]), selector(&[("app", NotIn(set(&["b"])))]), false),
            (selector(&[("app", In(set(&["a"]))), ("app", NotIn(set(&["a"])))]), Selector::default(), true), // matches nothing
        ];
        for (x, y, expected) in cases {
            assert_eq!(x.disjoint(&y), expected, "{x:?} {y:?}");
            assert_eq!(y.disjoint(&x), expected, "{y:?} {x:?}");
        }
    }

    #[test]
    fn covers_table() {
        use Requirement::*;
        let a = || selector(&[("app", In(set(&["a"])))]);
        let ab = || selector(&[("app", In(set(&["a", "b"])))]);
        let cases = [
            (a(), a(), true),
            (ab(), a(), true),
            (a(), ab(), false),
            (Selector::default(), a(), true),
            (a(), Selector::default(), false),
            (a(), selector(&[("app", In(set(&["a"]))), ("tier", Exists)]), true),
            (selector(&[("app", In(set(&["a"]))), ("tier", Exists)]), a(), false),
            (selector(&[("app", NotIn(set(&["b"])))]), a(), true),
            (selector(&[("app", NotIn(set(&["a"])))]), a(), false),
            (selector(&[("app", Exists)]), a(), true),
        ];
        for (wide, narrow, expected) in cases {
            assert_eq!(wide.covers(&narrow), expected, "{wide:?} {narrow:?}");
        }
    }

    #[test]
    fn refuses_what_the_api_server_refuses() {
        for (key, value) in [
            ("a b", "x"),
            ("", "x"),
            ("a/b/c", "x"),
            ("UP/name", "x"),
            ("a..b/x", "x"),
            ("a-.b/x", "x"),
            ("/x", "x"),
            ("app", "-x"),
            ("app", "x y"),
        ] {
            assert!(Selector::labels([(key, value)]).is_err(), "{key}={value}");
        }
        assert!(Selector::new([("app".into(), Requirement::In(BTreeSet::new()))]).is_err());
    }

    fn any_requirement() -> impl Strategy<Value = Requirement> {
        let values = || proptest::collection::btree_set("[ab]", 1..3);
        prop_oneof![
            values().prop_map(Requirement::In),
            values().prop_map(Requirement::NotIn),
            Just(Requirement::Exists),
            Just(Requirement::DoesNotExist)
        ]
    }

    fn any_selector() -> impl Strategy<Value = Selector> {
        proptest::collection::vec(("[xy]", any_requirement()), 0..4).prop_map(|r| Selector::new(r).unwrap())
    }

    proptest! {
        /// The cautious answers are never wrong: checked against every pod over two labels and three values.
        #[test]
        fn disjoint_and_covers_hold_for_every_pod(a in any_selector(), b in any_selector()) {
            let values = [None, Some("a"), Some("b"), Some("c")];
            for x in values { for y in values {
                let labels: BTreeMap<String, String> =
                    [("x", x), ("y", y)].into_iter().filter_map(|(k, v)| Some((k.to_string(), v?.to_string()))).collect();
                prop_assert!(!(a.disjoint(&b) && a.matches(&labels) && b.matches(&labels)));
                prop_assert!(!(a.covers(&b) && b.matches(&labels) && !a.matches(&labels)));
            }}
        }

        #[test]
        fn negation_is_exact(r in any_requirement(), v in proptest::option::of("[abc]")) {
            prop_assert_ne!(r.holds(v.as_deref()), r.negated().holds(v.as_deref()));
        }
    }
}
