//! What guards said of themselves. In memory: guards say it again within half a minute.
//!
//! Promise: a guard's counts are totals of its life, so a report that comes twice, late or over another connection changes nothing; what is
//! kept of names is bounded by what AIWorkloads declare and by the closed list of reasons.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::policy::channel::{OTHER, Report, Requests, Usage};
use crate::policy::{Edition, Reason};
use crate::scope::ObjectName;

/// Who was not heard of for so long is silent.
const SILENT: Duration = Duration::from_secs(60);
/// Lives of one pod's guard that are remembered: a report of the last one may still be on its way when the next begins.
const LIVES: usize = 3;

/// What was last heard of a pod's guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    pub pod: ObjectName,
    pub workload: ObjectName,
    pub version: String,
    /// The newest format of policies that it reads.
    pub reads: u32,
    pub enforced: Option<Edition>,
    /// Of its lives, the newest last.
    lives: Vec<(u64, Totals)>,
    pub seen: Instant,
}

impl Guarded {
    /// What it counted since its last start.
    pub fn totals(&self) -> Totals {
        self.lives.last().map(|(_, totals)| totals.clone()).unwrap_or_default()
    }
}

/// Counts that only grow. [`OTHER`] has the sum of what is not declared, or of no known reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub denials: BTreeMap<&'static str, u64>,
    pub would_deny: BTreeMap<&'static str, u64>,
    pub usage: BTreeMap<String, Usage>,
}

impl Totals {
    fn said(report: &Report, declared: impl Fn(&str) -> bool) -> Self {
        let Report { format: _, version: _, reads: _, life: _, enforced: _, denials, would_deny, usage } = report;
        let known = |counts: &BTreeMap<String, u64>| {
            let mut sums = BTreeMap::new();
            for (code, count) in counts {
                let code = Reason::ALL.into_iter().map(Reason::code).find(|known| known == code).unwrap_or(OTHER);
                grow(sums.entry(code).or_default(), *count);
            }
            sums
        };
        let mut by_source: BTreeMap<String, Usage> = BTreeMap::new();
        for (source, count) in usage {
            let source = if declared(source) { source } else { OTHER };
            add(by_source.entry(source.to_owned()).or_default(), *count);
        }
        Self { denials: known(denials), would_deny: known(would_deny), usage: by_source }
    }

    /// Goes up to `newer` wherever that is more, and says by how much.
    fn rise(&mut self, newer: Self) -> Self {
        let Self { denials, would_deny, usage } = self;
        let usage = newer.usage.into_iter().map(|(source, now)| {
            let before = usage.entry(source.clone()).or_default();
            let mut requests = Requests::default();
            for (class, more) in requests.0.iter_mut().enumerate() {
                *more = rise(&mut before.requests.0[class], now.requests.0[class]);
            }
            let more = Usage {
                connections: rise(&mut before.connections, now.connections),
                sent: rise(&mut before.sent, now.sent),
                received: rise(&mut before.received, now.received),
                requests,
            };
            (source, more)
        });
        let counts = |before: &mut BTreeMap<&'static str, u64>, now: BTreeMap<&'static str, u64>| {
            now.into_iter().map(|(code, now)| (code, rise(before.entry(code).or_default(), now))).collect()
        };
        Self { usage: usage.collect(), denials: counts(denials, newer.denials), would_deny: counts(would_deny, newer.would_deny) }
    }

    fn add(&mut self, more: Self) {
        let Self { denials, would_deny, usage } = more;
        denials.into_iter().for_each(|(code, count)| grow(self.denials.entry(code).or_default(), count));
        would_deny.into_iter().for_each(|(code, count)| grow(self.would_deny.entry(code).or_default(), count));
        usage.into_iter().for_each(|(source, count)| add(self.usage.entry(source).or_default(), count));
    }
}

fn rise(before: &mut u64, now: u64) -> u64 {
    let more = now.saturating_sub(*before);
    *before = now.max(*before);
    more
}

fn grow(total: &mut u64, more: u64) {
    *total = total.saturating_add(more);
}

fn add(total: &mut Usage, more: Usage) {
    let Usage { connections, sent, received, requests } = more;
    grow(&mut total.connections, connections);
    grow(&mut total.sent, sent);
    grow(&mut total.received, received);
    total.requests.0.iter_mut().zip(requests.0).for_each(|(total, more)| grow(total, more));
}

/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Collected(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    /// By the uids of pods.
    guards: HashMap<String, Guarded>,
    /// What the guards of each AIWorkload counted, those included that are gone: since this process began to hear of it.
    sums: BTreeMap<ObjectName, Totals>,
}

impl Collected {
    /// `declared`: whether the AIWorkload has a data source of this name.
    pub fn report(
        &self,
        uid: &str,
        pod: &ObjectName,
        workload: &ObjectName,
        report: &Report,
        declared: impl Fn(&str) -> bool,
        now: Instant,
    ) {
        let said = Totals::said(report, declared);
        let mut all = self.all();
        let All { guards, sums } = &mut *all;
        let guarded = guards.entry(uid.to_owned()).or_insert_with(|| Guarded {
            pod: pod.clone(),
            workload: workload.clone(),
            version: String::new(),
            reads: 0,
            enforced: None,
            lives: Vec::new(),
            seen: now,
        });
        let life = match guarded.lives.iter().position(|(life, _)| *life == report.life) {
            Some(known) => known,
            None => {
                if guarded.lives.len() >= LIVES {
                    guarded.lives.remove(0);
                }
                guarded.lives.push((report.life, Totals::default()));
                // It begins with what its file says.
                guarded.enforced = None;
                guarded.lives.len() - 1
            }
        };
        sums.entry(workload.clone()).or_default().add(guarded.lives[life].1.rise(said));
        if life + 1 < guarded.lives.len() {
            // What a guard said that is gone counts; what it enforced does not.
            return;
        }
        (guarded.workload, guarded.version, guarded.reads, guarded.seen) = (workload.clone(), report.version.clone(), report.reads, now);
        // A guard never goes back within its life: what says so comes late.
        let late = |before: &Edition| report.enforced.as_ref().is_none_or(|now| !now.may_follow(before));
        if !guarded.enforced.as_ref().is_some_and(late) {
            guarded.enforced.clone_from(&report.enforced);
        }
    }

    /// What the guard of this pod enforces, if it was heard of lately.
    pub fn enforced(&self, uid: &str, workload: &ObjectName, now: Instant) -> Option<Edition> {
        let all = self.all();
        let guarded = all.guards.get(uid).filter(|guarded| guarded.workload == *workload && now.duration_since(guarded.seen) <= SILENT)?;
        guarded.enforced.clone()
    }

    pub fn get(&self, uid: &str) -> Option<Guarded> {
        self.all().guards.get(uid).cloned()
    }

    /// What the guards of each AIWorkload counted.
    pub fn sums(&self) -> BTreeMap<ObjectName, Totals> {
        self.all().sums.clone()
    }

    /// How many guards were heard of lately, by their versions and the formats that they read.
    pub fn versions(&self, now: Instant) -> BTreeMap<(String, u32), u64> {
        let mut versions = BTreeMap::new();
        for guarded in self.all().guards.values().filter(|guarded| now.duration_since(guarded.seen) <= SILENT) {
            grow(versions.entry((guarded.version.clone(), guarded.reads)).or_default(), 1);
        }
        versions
    }

    /// Forgets the pods that are gone. What their guards counted stays.
    pub fn retain(&self, is_there: impl Fn(&ObjectName, &str, Instant) -> bool) {
        self.all().guards.retain(|uid, guarded| is_there(&guarded.pod, uid, guarded.seen));
    }

    /// Forgets what was counted of AIWorkloads that are gone, and of sources that are not declared any more.
    pub fn retain_counts(&self, is_there: impl Fn(&ObjectName) -> bool, declared: impl Fn(&ObjectName, &str) -> bool) {
        let mut all = self.all();
        all.sums.retain(|workload, _| is_there(workload));
        for (workload, totals) in &mut all.sums {
            totals.usage.retain(|source, _| source == OTHER || declared(workload, source));
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::channel::REPORT_FORMAT;

    fn report(life: u64, count: u64) -> Report {
        Report {
            format: REPORT_FORMAT,
            version: "1".into(),
            reads: 1,
            life,
            enforced: Some(edition(count)),
            denials: [("suspended".to_owned(), count), ("of_tomorrow".to_owned(), 1), ("of_next_week".to_owned(), 1)].into(),
            would_deny: [("too_slow".to_owned(), 10 * count)].into(),
            usage: [("orders".to_owned(), usage(count)), ("gone".to_owned(), usage(1)), ("never".to_owned(), usage(2))].into(),
        }
    }

    fn edition(serial: u64) -> Edition {
        Edition { uid: "w".into(), generation: 1, serial, digest: "d".into() }
    }

    fn usage(count: u64) -> Usage {
        Usage { connections: count, sent: 100 * count, received: 1000 * count, requests: Requests([0, 0, 10 * count, 0, count, 0]) }
    }

    fn declared(source: &str) -> bool {
        source == "orders"
    }

    /// Reports of pods, as they come; how much of it is counted.
    #[test]
    fn each_life_is_counted_once() {
        type Said<'a> = (&'a str, u64, u64);
        // Pod, life, count; then the sum; then the serial that pod `u` enforces.
        let table: &[(&str, &[Said], u64, u64)] = &[
            ("one", &[("u", 7, 2)], 2, 2),
            ("repeated, as when another replica's task or a broken call says it again", &[("u", 7, 2), ("u", 7, 2), ("u", 7, 2)], 2, 2),
            ("grown", &[("u", 7, 2), ("u", 7, 5)], 5, 5),
            ("reordered", &[("u", 7, 5), ("u", 7, 2), ("u", 7, 6)], 6, 6),
            ("late", &[("u", 7, 5), ("u", 7, 2)], 5, 5),
            ("restarted", &[("u", 7, 5), ("u", 8, 1), ("u", 8, 2)], 7, 2),
            ("the last life's report comes late", &[("u", 7, 5), ("u", 8, 1), ("u", 7, 6), ("u", 8, 2)], 8, 2),
            ("and says what it said before", &[("u", 7, 5), ("u", 8, 1), ("u", 7, 5)], 6, 1),
            ("two pods", &[("u", 7, 5), ("v", 8, 3), ("u", 7, 6), ("v", 8, 3)], 9, 6),
            ("one life in two pods is two", &[("u", 7, 5), ("v", 7, 5)], 10, 5),
        ];
        let (pod, bot, now) = (ObjectName::new("a", "bot-1"), ObjectName::new("a", "bot"), Instant::now());
        for (what, said, expected, serial) in table {
            let collected = Collected::default();
            let pods: std::collections::BTreeSet<_> = said.iter().map(|(uid, life, _)| (uid, life)).collect();
            for (uid, life, count) in *said {
                collected.report(uid, &pod, &bot, &report(*life, *count), declared, now);
            }
            let lives = pods.len() as u64;
            let sums = &collected.sums()[&bot];
            assert_eq!(sums.usage, [("orders".to_owned(), usage(*expected)), (OTHER.to_owned(), usage(3 * lives))].into(), "{what}");
            assert_eq!(sums.denials, [("suspended", *expected), (OTHER, 2 * lives)].into(), "{what}");
            assert_eq!(sums.would_deny, [("too_slow", 10 * expected)].into(), "{what}");
            assert_eq!(collected.enforced("u", &bot, now), Some(edition(*serial)), "{what}");
        }
    }

    #[test]
    fn what_is_known_of_a_pod() {
        let (collected, now) = (Collected::default(), Instant::now());
        let (pod, bot, other) = (ObjectName::new("a", "bot-1"), ObjectName::new("a", "bot"), ObjectName::new("a", "other"));
        collected.report("u", &pod, &bot, &report(7, 2), declared, now);
        assert_eq!(collected.get("u").unwrap().totals().usage["orders"], usage(2));
        assert_eq!(collected.enforced("u", &bot, now + SILENT), Some(edition(2)));
        assert_eq!(collected.enforced("u", &bot, now + SILENT + Duration::from_secs(1)), None, "silent");
        assert_eq!(collected.enforced("u", &other, now), None);
        assert_eq!(collected.versions(now), [(("1".to_owned(), 1), 1)].into());
        assert_eq!(collected.versions(now + SILENT + Duration::from_secs(1)), [].into());
        // Restarted, and nothing valid lies in its file.
        collected.report("u", &pod, &bot, &Report { enforced: None, ..report(8, 1) }, declared, now);
        assert_eq!(collected.enforced("u", &bot, now), None);
        // Another AIWorkload's from now on: it gets what is counted from now on.
        collected.report("u", &pod, &other, &report(8, 4), declared, now);
        assert_eq!((collected.sums()[&bot].denials["suspended"], collected.sums()[&other].denials["suspended"]), (3, 3));
        // Whoever lies, and however often it begins anew: it is bounded, and nothing overflows.
        for life in 0..100 {
            collected.report(
                "u",
                &pod,
                &bot,
                &Report { denials: [("suspended".to_owned(), u64::MAX)].into(), ..report(life, 1) },
                declared,
                now,
            );
        }
        assert_eq!((collected.get("u").unwrap().lives.len(), collected.sums()[&bot].denials["suspended"]), (LIVES, u64::MAX));
        collected.retain(|_, uid, _| uid != "u");
        assert!(collected.get("u").is_none());
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (collected, now) = (Collected::default(), Instant::now());
        let (pod, bot, other) = (ObjectName::new("a", "bot-1"), ObjectName::new("a", "bot"), ObjectName::new("a", "other"));
        collected.report("u", &pod, &bot, &report(7, 2), |_| true, now);
        collected.report("v", &pod, &other, &report(7, 2), |_| true, now);
        collected.retain(|_, _, _| false);
        assert_eq!(collected.sums()[&bot].usage.len(), 3, "what guards counted that are gone was counted");
        collected.retain_counts(|workload| *workload == bot, |_, source| source == "orders");
        assert_eq!(collected.sums().keys().collect::<Vec<_>>(), [&bot]);
        assert_eq!(collected.sums()[&bot].usage, [("orders".to_owned(), usage(2))].into());
    }
}
