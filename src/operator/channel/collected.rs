//! What guards said of themselves. In memory: guards say it again within half a minute.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::policy::channel::{Enforced, Report};
use crate::scope::ObjectName;

/// Who was not heard of for so long is silent.
const SILENT: Duration = Duration::from_secs(60);

/// What was last heard of a pod's guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    pub pod: ObjectName,
    pub workload: ObjectName,
    pub version: String,
    pub enforced: Option<Enforced>,
    /// All that was reported since this process began.
    pub denials: BTreeMap<String, u64>,
    pub seen: Instant,
}

/// By the uids of pods; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Collected(Arc<Mutex<HashMap<String, Guarded>>>);

impl Collected {
    pub fn report(&self, uid: &str, pod: &ObjectName, workload: &ObjectName, report: &Report, now: Instant) {
        let Report { format: _, version, enforced, denials: new, up_seconds: _ } = report;
        let mut all = self.all();
        // A pod that changes its AIWorkload begins anew.
        let mut denials = all.remove(uid).filter(|before| before.workload == *workload).map(|before| before.denials).unwrap_or_default();
        for (reason, count) in new {
            if denials.len() < 64 || denials.contains_key(reason) {
                let total = denials.entry(reason.clone()).or_default();
                *total = total.saturating_add(*count);
            }
        }
        let guarded = Guarded {
            pod: pod.clone(),
            workload: workload.clone(),
            version: version.clone(),
            enforced: enforced.clone(),
            denials,
            seen: now,
        };
        all.insert(uid.to_owned(), guarded);
    }

    /// What the guard of this pod enforces, if it was heard of lately.
    pub fn enforced(&self, uid: &str, workload: &ObjectName, now: Instant) -> Option<Enforced> {
        let all = self.all();
        let guarded = all.get(uid).filter(|guarded| guarded.workload == *workload && now.duration_since(guarded.seen) <= SILENT)?;
        guarded.enforced.clone()
    }

    pub fn get(&self, uid: &str) -> Option<Guarded> {
        self.all().get(uid).cloned()
    }

    /// Forgets the pods that are gone.
    pub fn retain(&self, is_there: impl Fn(&ObjectName, &str, Instant) -> bool) {
        self.all().retain(|uid, guarded| is_there(&guarded.pod, uid, guarded.seen));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Guarded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::channel::REPORT_FORMAT;
    use crate::policy::{Edition, Mode};

    #[test]
    fn what_is_known_of_a_pod() {
        let (collected, now) = (Collected::default(), Instant::now());
        let (pod, bot, other) = (ObjectName::new("a", "bot-1"), ObjectName::new("a", "bot"), ObjectName::new("a", "other"));
        let enforced = Enforced { edition: Edition { uid: "w".into(), generation: 1, serial: 1, digest: "d".into() }, mode: Mode::Enforce };
        let report = |count: u64| Report {
            format: REPORT_FORMAT,
            version: "1".into(),
            enforced: Some(enforced.clone()),
            denials: [("suspended".to_owned(), count)].into(),
            up_seconds: 0,
        };
        collected.report("u", &pod, &bot, &report(2), now);
        collected.report("u", &pod, &bot, &report(3), now);
        assert_eq!(collected.get("u").unwrap().denials["suspended"], 5);
        assert_eq!(collected.enforced("u", &bot, now + SILENT), Some(enforced.clone()));
        assert_eq!(collected.enforced("u", &bot, now + SILENT + Duration::from_secs(1)), None, "silent");
        assert_eq!(collected.enforced("u", &other, now), None);
        collected.report("u", &pod, &other, &report(u64::MAX), now);
        collected.report("u", &pod, &other, &report(1), now);
        assert_eq!(collected.get("u").unwrap().denials["suspended"], u64::MAX);
        collected.retain(|_, uid, _| uid != "u");
        assert!(collected.get("u").is_none());
    }
}
