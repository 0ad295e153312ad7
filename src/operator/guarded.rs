//! Which governed pods have a guard, and whether it enforces the current policy: from the world, and what guards said.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::channel::{Collected, InCluster, Policies};
use super::replace::Replacement;
use crate::api::PodsStatus;
use crate::cluster::{Key, SharedWorld, World};
use crate::policy::Edition;
use crate::scope::ObjectName;

/// How long after the operator's start a silent guard may just not have called yet.
const GRACE: Duration = Duration::from_secs(15);
/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// Names in a message.
const NAMED: usize = 3;
/// By this label the API server refuses pods that the redirect needs, and the levels that do.
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";
const TOO_STRICT: [&str; 2] = ["baseline", "restricted"];

/// The guards of an AIWorkload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guards {
    /// This operator has none.
    None,
    /// It has just begun: what was said before stays.
    NotYet,
    Known(Counted),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    pub matched: usize,
    pub guarded: usize,
    pub stale: usize,
    /// With a guard, and older than Enforce.
    pub unjudged: usize,
    /// Some of those without a guard.
    pub unguarded: Vec<String>,
    /// The level of Pod Security that keeps guards out.
    pub refused_by: Option<String>,
}

/// Said in a condition.
pub struct Words {
    pub holds: bool,
    pub reason: &'static str,
    pub message: String,
}

/// What there is at this moment. `up`: since the operator began.
pub fn guards(
    world: &World,
    collected: &Collected,
    workload: &ObjectName,
    current: Option<&Edition>,
    up: Duration,
    now: Instant,
) -> Guards {
    if world.settings.channel.is_none() {
        return Guards::None;
    }
    let fact = world.workloads.get(workload);
    let selector = fact.and_then(|fact| fact.selector.as_ref());
    let since = fact.and_then(|fact| fact.object.status.as_ref()?.enforced_since.as_ref()).map_or(0, |since| since.0.as_second());
    let Some(selector) = selector.filter(|_| world.pods.is_ready()) else { return Guards::NotYet };
    let label = world.namespaces.get(&workload.namespace).and_then(|namespace| namespace.labels.get(POD_SECURITY));
    let mut counted = Counted {
        matched: 0,
        guarded: 0,
        stale: 0,
        unjudged: 0,
        unguarded: Vec::new(),
        refused_by: label.filter(|level| TOO_STRICT.contains(&level.as_str())).cloned(),
    };
    for (name, pod) in world.pods_of(&workload.namespace).filter(|(_, pod)| selector.matches(&pod.labels)) {
        counted.matched += 1;
        match collected.enforced(&pod.uid, workload, now) {
            Some(enforced) => {
                counted.guarded += 1;
                let stale = current != Some(&enforced);
                counted.stale += usize::from(stale);
                counted.unjudged += usize::from(!stale && pod.created < since);
            }
            None if counted.unguarded.len() < NAMED => counted.unguarded.push(name.name.clone()),
            None => {}
        }
    }
    // Who has not called yet may still.
    if counted.guarded < counted.matched && up < GRACE { Guards::NotYet } else { Guards::Known(counted) }
}

impl Counted {
    pub fn status(&self, replacement: Option<&Replacement>) -> PodsStatus {
        let Self { matched, guarded, stale, unjudged, unguarded: _, refused_by: _ } = self;
        let number = |count: &usize| i32::try_from(*count).unwrap_or(i32::MAX);
        PodsStatus {
            matched: number(matched),
            guarded: number(guarded),
            stale: number(stale),
            unjudged: number(unjudged),
            summary: format!("{}/{matched}", guarded.saturating_sub(*stale).saturating_sub(*unjudged)),
            replacing: replacement.and_then(|replacement| replacement.last.clone()),
        }
    }

    pub fn words(&self, replacement: Option<&Replacement>) -> Words {
        let Self { matched, guarded, stale, unjudged, unguarded, refused_by } = self;
        let without = matched.saturating_sub(*guarded);
        let more = without.saturating_sub(unguarded.len());
        let names = unguarded.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() };
        let (holds, reason, message) = match (matched, without, stale, refused_by) {
            (0, _, _, Some(level)) => (
                false,
                "PodSecurity",
                format!("Pods with a guard are refused: the namespace's Pod Security level is {level}. Label it {POD_SECURITY}=privileged"),
            ),
            (0, _, _, None) => (true, "NoPods", "No pod is governed at the moment".to_owned()),
            (_, 1.., _, Some(level)) => (
                false,
                "PodSecurity",
                format!(
                    "No guard enforces the scope of {names}, and new pods with a guard are refused: the namespace's Pod Security level is {level}. Label it {POD_SECURITY}=privileged, then restart the pods: kubectl rollout restart"
                ),
            ),
            (_, 1.., _, None) => {
                let remedy = replacement.map_or("restart them: kubectl rollout restart", |replacement| &replacement.words);
                (false, "Unguarded", format!("No guard enforces the scope of {names}; {remedy}"))
            }
            (_, 0, 1.., _) => (false, "Stale", format!("{stale} of {guarded} guards do not enforce the current policy yet")),
            (_, 0, 0, _) if *unjudged > 0 => {
                let remedy = replacement.map_or("restart them: kubectl rollout restart", |replacement| &replacement.words);
                (
                    false,
                    "NotJudged",
                    format!(
                        "{unjudged} of {matched} pods are older than mode Enforce: their guards enforce the scope, and nothing that their templates ask for was refused; {remedy}"
                    ),
                )
            }
            (_, 0, 0, _) => (true, "Guarded", "A guard enforces the scope of every governed pod".to_owned()),
        };
        Words { holds, reason, message }
    }
}

/// Looks at the guards for the reconciler, and wakes it when what it saw is not so any more. Clones are the same one.
#[derive(Clone)]
pub struct Watcher {
    world: SharedWorld,
    collected: Collected,
    policies: InCluster,
    began: Instant,
    /// What reconciles saw last.
    seen: Arc<Mutex<HashMap<ObjectName, Guards>>>,
}

impl Watcher {
    pub fn new(world: SharedWorld, collected: Collected, policies: InCluster) -> Self {
        Self { world, collected, policies, began: Instant::now(), seen: Arc::default() }
    }

    /// For a reconcile, which says it in the status.
    pub fn guards(&self, workload: &ObjectName) -> Guards {
        let guards = self.look(workload);
        self.seen().insert(workload.clone(), guards.clone());
        guards
    }

    fn look(&self, workload: &ObjectName) -> Guards {
        let current = self.policies.note(workload).map(|note| note.edition);
        guards(&self.world.read(), &self.collected, workload, current.as_ref(), self.began.elapsed(), Instant::now())
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<ObjectName, Guards>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once a second at most for each AIWorkload.
    pub async fn watch(self, wake: impl Fn(BTreeSet<Key>) + Send) {
        loop {
            tokio::time::sleep(LOOK).await;
            let workloads: BTreeSet<ObjectName> = self.world.read().workloads.iter().map(|(name, _)| name.clone()).collect();
            self.seen().retain(|name, _| workloads.contains(name));
            let mut keys = BTreeSet::new();
            for name in workloads {
                let (now, before) = (self.look(&name), self.seen().get(&name).cloned());
                // What was never reconciled will be.
                if before.is_some_and(|before| before != now) {
                    keys.insert(Key::Workload(name));
                }
            }
            if !keys.is_empty() {
                wake(keys);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::cluster::facts::{self, NamespaceFact, PodFact};
    use crate::cluster::{Settings, SharedWorld};
    use crate::plan::ChannelFact;
    use crate::policy::channel::{REPORT_FORMAT, Report};

    fn edition(serial: u64) -> Edition {
        Edition { uid: "w".into(), generation: 1, serial, digest: "d".into() }
    }

    fn report(serial: u64) -> Report {
        Report {
            format: REPORT_FORMAT,
            version: "1".into(),
            reads: 1,
            life: 1,
            enforced: Some(edition(serial)),
            denials: Default::default(),
            would_deny: Default::default(),
            usage: Default::default(),
        }
    }

    fn world(level: &str, channel: Option<ChannelFact>) -> SharedWorld {
        let world = SharedWorld::new(Settings { channel, ..Settings::default() });
        let workload = json!({"metadata": {"namespace": "a", "name": "bot"}, "spec": {"mode": "Enforce", "selector": {"matchLabels": {"app": "bot"}}}});
        let labels = [(POD_SECURITY.to_owned(), level.to_owned())].into();
        let mut held = world.write();
        held.on_namespace(Event::Apply(("a".to_owned(), NamespaceFact { labels, ..NamespaceFact::default() })));
        held.on_workload(Event::Apply(facts::workload(serde_json::from_value(workload).unwrap())));
        held.on_pod(Event::Init);
        held.on_pod(Event::InitDone);
        drop(held);
        world
    }

    #[test]
    fn what_is_older_than_enforce_was_not_judged() {
        let (bot, now, collected) = (ObjectName::new("a", "bot"), Instant::now(), Collected::default());
        let channel = ChannelFact { service: ObjectName::new("remit-system", "remit-guards"), port: 9444 };
        let world = world("privileged", Some(channel));
        let workload = json!({"metadata": {"namespace": "a", "name": "bot"}, "spec": {"mode": "Enforce", "selector": {"matchLabels": {"app": "bot"}}},
            "status": {"enforcedSince": "1970-01-01T00:00:02Z"}});
        world.write().on_workload(Event::Apply(facts::workload(serde_json::from_value(workload).unwrap())));
        for (made, unjudged, reason, summary) in [(3, 0, "Guarded", "1/1"), (2, 0, "Guarded", "2/2"), (1, 1, "NotJudged", "2/3")] {
            let (name, uid) = (ObjectName::new("a", format!("bot-{made}")), format!("u{made}"));
            let labels = [("app".to_owned(), "bot".to_owned())].into();
            world.write().on_pod(Event::Apply((name.clone(), PodFact { uid: uid.clone(), created: made, labels })));
            collected.report(&uid, &name, &bot, &report(7), |_| false, now);
            let Guards::Known(counted) = guards(&world.read(), &collected, &bot, Some(&edition(7)), GRACE, now) else { panic!("{made}") };
            let said = counted.words(None);
            assert_eq!((counted.unjudged, said.reason, counted.status(None).summary.as_str()), (unjudged, reason, summary));
        }
    }

    #[test]
    fn what_is_said_of_pods() {
        let bot = ObjectName::new("a", "bot");
        let channel = || Some(ChannelFact { service: ObjectName::new("remit-system", "remit-guards"), port: 9444 });
        // Of each pod, what its guard enforces; the level of Pod Security; what is said.
        let table: &[(&[Option<u64>], &str, &str, &str, &str)] = &[
            (&[], "privileged", "NoPods", "0/0", "No pod"),
            (&[Some(7), Some(7)], "privileged", "Guarded", "2/2", "every governed pod"),
            (&[Some(7), Some(6)], "privileged", "Stale", "1/2", "1 of 2 guards"),
            (&[Some(7), None], "privileged", "Unguarded", "1/2", "scope of bot-1; restart"),
            (&[], "baseline", "PodSecurity", "0/0", "level is baseline"),
            (&[], "restricted", "PodSecurity", "0/0", "pod-security.kubernetes.io/enforce=privileged"),
            (&[None; 5], "privileged", "Unguarded", "0/5", "bot-0, bot-1, bot-2 and 2 more"),
            (&[None], "baseline", "PodSecurity", "0/1", "level is baseline"),
            (&[None], "restricted", "PodSecurity", "0/1", "pod-security.kubernetes.io/enforce=privileged"),
            (&[Some(7)], "restricted", "Guarded", "1/1", "every"),
        ];
        for (pods, level, reason, summary, message) in table {
            let (world, collected, now) = (world(level, channel()), Collected::default(), Instant::now());
            for (n, serial) in pods.iter().enumerate() {
                let (name, uid) = (ObjectName::new("a", format!("bot-{n}")), format!("u{n}"));
                let labels = [("app".to_owned(), "bot".to_owned())].into();
                world.write().on_pod(Event::Apply((name.clone(), PodFact { uid: uid.clone(), created: n as i64, labels })));
                if let Some(serial) = serial {
                    collected.report(&uid, &name, &bot, &report(*serial), |_| false, now);
                }
            }
            let found = |up, at| guards(&world.read(), &collected, &bot, Some(&edition(7)), up, at);
            let Guards::Known(counted) = found(GRACE, now) else { panic!("{reason}") };
            let Words { holds, reason: said, message: words } = counted.words(None);
            assert_eq!((said, counted.status(None).summary.as_str()), (*reason, *summary));
            assert_eq!(holds, ["NoPods", "Guarded"].contains(reason));
            assert!(words.contains(message), "{words}");
            let waits = pods.contains(&None);
            assert_eq!(found(Duration::ZERO, now) == Guards::NotYet, waits, "it has just begun");
            if let Guards::Known(later) = found(GRACE, now + Duration::from_secs(61)) {
                assert_eq!(later.guarded, 0, "they are silent");
            }
        }
        assert_eq!(guards(&world("", None).read(), &Collected::default(), &bot, None, GRACE, Instant::now()), Guards::None);
    }
}
