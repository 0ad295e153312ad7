//! Which key each pod has: the first that its guard came with. Another one counts only once the guard's container was restarted: a key
//! lives as long as its process. In memory; each replica keeps its own, for guards speak to every one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::tokens::PodIdentity;
use crate::scope::ObjectName;

#[derive(Default)]
pub(super) struct Enrolled(Mutex<HashMap<String, Enrolment>>);

struct Enrolment {
    pod: ObjectName,
    key: [u8; 32],
    /// Of the guard's container, at that time.
    restarts: i32,
}

impl Enrolled {
    /// Whether this is the pod's key.
    pub fn is(&self, pod: &PodIdentity, key: &[u8; 32]) -> bool {
        self.all().get(&pod.uid).is_some_and(|enrolment| enrolment.key == *key)
    }

    /// Whether this is the pod's key from now on.
    pub fn enrol(&self, pod: &PodIdentity, key: [u8; 32], restarts: i32) -> bool {
        let mut all = self.all();
        let may = all.get(&pod.uid).is_none_or(|before| before.key == key || restarts > before.restarts);
        if may {
            all.insert(pod.uid.clone(), Enrolment { pod: pod.pod.clone(), key, restarts });
        }
        may
    }

    /// Forgets the pods that are gone.
    pub fn retain(&self, is_there: impl Fn(&ObjectName, &str) -> bool) {
        self.all().retain(|uid, enrolment| is_there(&enrolment.pod, uid));
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<String, Enrolment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_for_each_life_of_a_guard() {
        let enrolled = Enrolled::default();
        let pod = |uid: &str| PodIdentity { pod: ObjectName::new("a", "b"), uid: uid.to_owned() };
        let (first, second) = ([1; 32], [2; 32]);
        let table = [
            ("u", first, 0, true),
            ("u", first, 0, true),
            ("u", second, 0, false),
            ("u", second, 1, true), // restarted
            ("u", first, 1, false), // what was before does not come back
            ("v", first, 0, true),  // another pod of that name
        ];
        for (uid, key, restarts, expected) in table {
            assert_eq!(enrolled.enrol(&pod(uid), key, restarts), expected, "{uid} {} {restarts}", key[0]);
        }
        assert!(enrolled.is(&pod("u"), &second) && !enrolled.is(&pod("u"), &first) && !enrolled.is(&pod("w"), &first));
        enrolled.retain(|_, uid| uid == "v");
        assert!(!enrolled.is(&pod("u"), &second) && enrolled.is(&pod("v"), &first));
    }
}
