//! One workload: gather → validate → compile → apply → status.
//!
//! In: the key of a workload. Out: the cluster as its plan says, its status, and when to look again. A reconcile with nothing to do writes
//! nothing. What was applied before is never widened by something that went wrong: an invalid spec keeps it, a kill switch narrows it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use tokio::time::Instant;

use super::events::Events;
use super::guarded::{Guards, Watcher};
use super::metrics::Metrics;
use super::replace;
use super::standing::{Course, Standing, validate};
use super::status::{self, Outcome};
use super::{Keys, Writers, channel, deletion};
use crate::api::{self, AIWorkload};
use crate::cluster::apply::Changed;
use crate::cluster::{self, Failure, Gathered, Hands, Key, Known, Live, Report, SharedWorld, WorkloadFact, gather};
use crate::plan::{self, ManagedObject, ObjectKey, Refusal};
use crate::policy::pod::POLICY_FILE;
use crate::policy::{self, Document};
use crate::scope::ObjectName;

/// Somebody who edits again and again is answered at most this often, and each edit lives no longer.
pub const REPAIR_INTERVAL: Duration = Duration::from_secs(1);

/// Everything that reconciles share.
pub struct Reconciler {
    pub hands: Hands,
    pub world: SharedWorld,
    pub metrics: Metrics,
    pub events: Events,
    pub writers: Writers,
    pub keys: Keys,
    pub watcher: Watcher,
    /// What each reconcile left, by key. In memory: it tells tampering from a changed plan, and decides nothing else.
    memory: Mutex<HashMap<Key, Memory>>,
    requeue: Box<dyn Fn(std::collections::BTreeSet<Key>) + Send + Sync>,
}

/// What the last reconcile left.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The objects as they were planned and then held.
    pub plan: BTreeMap<ObjectKey, ManagedObject>,
    pub known: Known,
    pub repaired: Option<Instant>,
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something changes.
    Change,
    After(Duration),
    /// With growing delay.
    Retry,
    /// With growing delay, but after so long at the latest.
    RetryWithin(Duration),
}

impl Next {
    /// What serves both.
    pub fn and(self, other: Self) -> Self {
        use Next::{After, Change, Retry, RetryWithin};
        match (self, other) {
            (Change, next) | (next, Change) => next,
            (After(one), After(two)) => After(one.min(two)),
            (Retry, Retry) => Retry,
            (Retry, After(most) | RetryWithin(most)) | (After(most) | RetryWithin(most), Retry) => RetryWithin(most),
            (RetryWithin(one), After(two) | RetryWithin(two)) | (After(one), RetryWithin(two)) => RetryWithin(one.min(two)),
        }
    }
}

/// Step 3's result: what the cluster should hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub objects: Vec<ManagedObject>,
    pub digest: Option<String>,
    /// What judges each data source.
    pub sources: Vec<api::SourceStatus>,
    pub refusals: Vec<Refusal>,
}

impl Reconciler {
    pub fn new(
        hands: Hands,
        metrics: Metrics,
        events: Events,
        writers: Writers,
        keys: Keys,
        watcher: Watcher,
        requeue: impl Fn(std::collections::BTreeSet<Key>) + Send + Sync + 'static,
    ) -> Self {
        let (world, memory) = (hands.world.clone(), Mutex::default());
        Self { hands, world, metrics, events, writers, keys, watcher, memory, requeue: Box::new(requeue) }
    }

    pub fn memory(&self, key: &Key) -> Memory {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned().unwrap_or_default()
    }

    pub fn remember(&self, key: Key, memory: Option<Memory>) {
        let mut all = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        match memory {
            Some(memory) => _ = all.insert(key, memory),
            None => _ = all.remove(&key),
        }
    }

    pub fn changed(&self, keys: std::collections::BTreeSet<Key>) {
        if !keys.is_empty() {
            (self.requeue)(keys);
        }
    }

    /// One reconcile of one workload.
    pub async fn workload(&self, name: &ObjectName) -> Next {
        let exception = self.break_glass(name).await;
        self.scope(name).await.and(exception)
    }

    async fn scope(&self, name: &ObjectName) -> Next {
        let gathered = gather(&self.world.read(), name);
        let Some(workload) = gathered.workload.clone() else { return self.orphans(&gathered).await };
        let standing = match validate(&gathered, &workload) {
            Course::Stand(standing) => standing,
            Course::Hold(standing) => return deletion::hold(self, &gathered, &workload, standing).await,
            Course::LetGo => return deletion::let_go(self, &gathered).await,
        };
        // Nothing can be created in a namespace that is going; what is there goes with it.
        if gathered.terminating {
            return Next::Change;
        }
        let key = Key::Workload(name.clone());
        let memory = self.memory(&key);
        let Some(planned) = compile(&gathered, &workload, &standing, &memory, &self.keys) else {
            tracing::info!(workload = %name, "waiting for the key that signs policies");
            return Next::Retry;
        };
        if let Some(wait) = self.too_soon(&planned, &gathered.live, &memory) {
            return Next::After(wait);
        }
        if matches!(standing, Standing::Enforce(_))
            && let Err(failure) = self.hold_finalizer(&workload.object).await
        {
            tracing::warn!(workload = %name, error = failure, "could not add the finalizer");
            self.metrics.failed("Finalizer");
            return Next::Retry;
        }
        let objects = planned.objects.len();
        let report = cluster::apply::apply(&self.hands, name, &planned.objects, &gathered.live, &memory.known).await;
        let failures = self.applied(key, &workload.object, planned.objects, memory, report).await;
        let guards = self.guards(name);
        let step = match &standing {
            Standing::Enforce(_) | Standing::Observe(_) if failures.is_empty() => replace::step(self, &workload, &guards).await,
            _ => None,
        };
        let outcome = Outcome {
            generation: workload.object.metadata.generation,
            created: workload.object.metadata.creation_timestamp.as_ref().map(|time| time.0),
            digest: planned.digest,
            sources: planned.sources,
            suspended: workload.object.spec.suspend,
            refusals: &planned.refusals,
            failures: &failures,
            objects,
            waiting: None,
            guards,
            replacement: None,
            standing,
        };
        let (written, next) = replace::take(self, name, &workload, step, outcome).await;
        if failures.is_empty() && written { next } else { Next::Retry }
    }

    /// The guards of its pods, and what they enforce.
    pub fn guards(&self, workload: &ObjectName) -> Guards {
        self.watcher.guards(workload)
    }

    /// Objects of a workload that does not exist (any more).
    async fn orphans(&self, gathered: &Gathered) -> Next {
        self.remember(Key::Workload(gathered.name.clone()), None);
        let report = cluster::prune::remove_all(&self.hands, &gathered.name, &gathered.live).await;
        self.count(&report.failures);
        if report.failures.is_empty() { Next::Change } else { Next::Retry }
    }

    /// Whether what is to be repaired was repaired a moment ago.
    fn too_soon(&self, planned: &Planned, live: &BTreeMap<ObjectKey, Arc<Live>>, memory: &Memory) -> Option<Duration> {
        let since = memory.repaired?.elapsed();
        let tampered = planned.objects.iter().any(|object| {
            let key = object.key();
            memory.plan.get(&key) == Some(object) && live.get(&key).is_none_or(|live| !plan::differences(object, &live.object).is_empty())
        });
        (tampered && since < REPAIR_INTERVAL).then(|| REPAIR_INTERVAL - since)
    }

    async fn hold_finalizer(&self, workload: &AIWorkload) -> Result<(), String> {
        let mut finalizers = workload.metadata.finalizers.clone().unwrap_or_default();
        if finalizers.iter().any(|f| f == api::FINALIZER) {
            return Ok(());
        }
        finalizers.push(api::FINALIZER.to_owned());
        self.hands.set_finalizers(workload, &finalizers).await.map(|keys| self.changed(keys)).map_err(|e| e.message())
    }

    /// Remembers what an apply left, and reports what it had to revert.
    pub async fn applied(&self, key: Key, workload: &AIWorkload, plan: Vec<ManagedObject>, before: Memory, report: Report) -> Vec<Failure> {
        let Report { changes, failures, held } = report;
        let about = workload.object_ref(&());
        let repaired = self.reverted(&about, &plan, &before, &changes).await;
        // What could not be written this time is ours still; where its plan did not change, it is still tampered with.
        let mut known = held;
        let failed = |key: &ObjectKey| failures.iter().any(|f| f.key == *key);
        let kept = |object: &ManagedObject| known.contains_key(&object.key()) || before.plan.get(&object.key()) == Some(object);
        let plan = plan.into_iter().filter(kept).map(|object| (object.key(), object)).collect();
        known.extend(before.known.into_iter().filter(|(key, _)| failed(key)));
        self.count(&failures);
        self.remember(key, Some(Memory { plan, known, repaired: if repaired { Some(Instant::now()) } else { before.repaired } }));
        failures
    }

    /// Counts and reports the changes that made good what somebody else had done: the plan had not changed, or the object was not ours.
    /// Returns whether there were any.
    pub async fn reverted(
        &self,
        about: &k8s_openapi::api::core::v1::ObjectReference,
        plan: &[ManagedObject],
        before: &Memory,
        changes: &[Changed],
    ) -> bool {
        let mut any = false;
        for Changed { key, fields, manager, foreign } in changes {
            let tampered = before.plan.get(key).is_some_and(|planned| plan.contains(planned));
            if !tampered && !foreign {
                continue;
            }
            any = true;
            if tampered {
                self.metrics.reverted(key.kind);
            }
            let paths = || fields.iter().map(|plan::Difference(path)| *path).collect::<Vec<_>>().join(", ");
            let what = match (foreign, fields.is_empty()) {
                (true, _) => format!("was not Remit's and said otherwise ({}); last written", paths()),
                (false, true) => "was deleted".to_owned(),
                (false, false) => format!("was changed ({})", paths()),
            };
            let who = match (self.writers.last(key), manager) {
                (Some(writer), _) => format!("by {}", writer.user),
                (None, Some(manager)) if manager != cluster::FIELD_MANAGER => format!("by a client that calls itself {manager}"),
                (None, _) => "by somebody unknown".to_owned(),
            };
            let (reason, action, done) =
                if *foreign { ("TakenOver", "TakeOver", "taken over") } else { ("TamperingReverted", "Restore", "restored") };
            let note = format!("{key} {what} {who}; {done}");
            tracing::warn!(object = %key, about = about.name, reason, note, "what somebody else had written is undone");
            self.events.warn(about, Some(key), reason, action, &note).await;
        }
        any
    }

    pub fn count(&self, failures: &[Failure]) {
        for failure in failures {
            tracing::warn!(object = %failure.key, reason = failure.reason.as_str(), message = failure.message, "write failed");
            self.metrics.failed(failure.reason.as_str());
        }
    }

    pub async fn write_status(&self, workload: &AIWorkload, status: &api::AIWorkloadStatus) -> Written {
        match self.hands.set_status(workload, status).await {
            Ok(keys) => {
                self.changed(keys);
                Written::Yes
            }
            Err(error) if error.is_not_found() => Written::Gone,
            Err(error) => {
                tracing::warn!(workload = %cluster::facts::name(&workload.metadata), error = error.message(), "could not write the status");
                self.metrics.failed("Status");
                Written::Failed
            }
        }
    }

    /// Writes the status if it is not so already. Returns whether it is so now.
    pub async fn say(&self, workload: &AIWorkload, outcome: &Outcome<'_>) -> bool {
        let current = workload.status.as_ref();
        let wanted = status::status(outcome, current, Timestamp::now());
        if status::is_written(&wanted, current) {
            return true;
        }
        match self.write_status(workload, &wanted).await {
            Written::Yes => {}
            Written::Gone => return true,
            Written::Failed => return false,
        }
        let ready = |status: &api::AIWorkloadStatus| api::condition(&status.conditions, api::READY).cloned();
        if let Some(now) = ready(&wanted).filter(|now| now.status != "True" && outcome.waiting.is_none())
            && current.and_then(ready).is_none_or(|before| before.reason != now.reason)
        {
            self.events.warn(&workload.object_ref(&()), None, &now.reason, "Reconcile", &now.message).await;
        }
        true
    }
}

/// What came of writing a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Yes,
    /// There is no such AIWorkload any more.
    Gone,
    Failed,
}

/// Step 3, compile: what the cluster should hold. Pure but for the key. None: there is no key yet to sign with.
pub fn compile(gathered: &Gathered, workload: &WorkloadFact, standing: &Standing<'_>, memory: &Memory, keys: &Keys) -> Option<Planned> {
    Some(match standing {
        Standing::Enforce(scope) | Standing::Observe(scope) => {
            let origin = workload.origin();
            let plan::Plan { scope, digest, objects, refusals } = plan::compile(scope, Some(&origin), &gathered.ceilings, &gathered.facts);
            let sources = plan::judged_by(&scope);
            Planned { objects: signed(objects, keys, gathered, memory)?, digest: Some(digest), sources, refusals }
        }
        Standing::Invalid(_) => {
            let status = workload.object.status.as_ref();
            let before = status.and_then(|s| s.scope_digest.clone());
            let sources = status.map(|s| s.sources.clone()).unwrap_or_default();
            // What was last planned and held; of what we know no plan, what is there (never signed: it may be anybody's).
            let live = gathered.live.iter().filter(|(key, _)| key.may_be_of(&gathered.name));
            let mut last: BTreeMap<ObjectKey, ManagedObject> =
                live.map(|(key, live)| (key.clone(), deletion::planned(&live.object))).collect();
            last.extend(memory.plan.clone());
            let mut objects: Vec<ManagedObject> = last.into_values().collect();
            if workload.object.spec.suspend {
                objects =
                    signed(objects.iter().map(|object| deletion::denied(gathered, workload, object)).collect(), keys, gathered, memory)?;
            }
            Planned { objects, digest: before, sources, refusals: Vec::new() }
        }
        // What denies stays, emptied: whoever makes an older one overlap with it must not set its pods free by that.
        Standing::Conflict { older: _ } if workload.object.spec.mode == api::Mode::Enforce => {
            let live = gathered.live.iter().filter(|(key, _)| cluster::apply::denies(key.kind) && key.may_be_of(&gathered.name));
            let objects = live.map(|(_, live)| deletion::denied(gathered, workload, &deletion::planned(&live.object))).collect();
            Planned { objects: signed(objects, keys, gathered, memory)?, digest: None, sources: Vec::new(), refusals: Vec::new() }
        }
        Standing::NotEnrolled | Standing::Conflict { older: _ } => {
            Planned { objects: Vec::new(), digest: None, sources: Vec::new(), refusals: Vec::new() }
        }
    })
}

/// The guards' policies among these, numbered after what lay there before, and signed. None: there is no key yet.
pub fn signed(mut objects: Vec<ManagedObject>, keys: &Keys, gathered: &Gathered, memory: &Memory) -> Option<Vec<ManagedObject>> {
    for object in &mut objects {
        let at = object.key();
        let ManagedObject::ConfigMap(map) = object else { continue };
        let key = keys.current()?;
        if let Some(text) = map.data.as_mut().and_then(|data| data.get_mut(POLICY_FILE)) {
            // Ours, as we remember it, or as it lies there under our signature.
            let remembered = memory.plan.get(&at).and_then(channel::note_of).and_then(policy::signed::text);
            let live = gathered.live.get(&at).and_then(|live| channel::note_of(&live.object));
            let live = live.and_then(|note| key.verifier().open(note).ok());
            let before = remembered.into_iter().chain(live).filter_map(|text| Document::read(text.as_bytes()).ok());
            let numbered = numbered(text, before.max_by_key(|document| document.serial).as_ref());
            *text = key.sign(numbered.as_deref().unwrap_or(text));
        }
    }
    Some(objects)
}

/// The text, with the serial that it has among those of its place.
fn numbered(text: &str, before: Option<&Document>) -> Option<String> {
    let mut document = Document::read(text.as_bytes()).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_millis()).ok()).unwrap_or_default();
    policy::next_serial(before, &mut document, now);
    Some(serde_json::to_string_pretty(&document).ok()? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Origin;
    use crate::policy::signed::Trust;

    #[test]
    fn the_sooner_of_two_counts() {
        use Next::{After, Change, Retry, RetryWithin};
        let [one, two] = [1, 2].map(Duration::from_secs);
        for (a, b, both) in [
            (Change, Change, Change),
            (Change, After(one), After(one)),
            (Change, Retry, Retry),
            (After(one), After(two), After(one)),
            (After(one), Retry, RetryWithin(one)),
            (Retry, Retry, Retry),
            (RetryWithin(two), After(one), RetryWithin(one)),
            (RetryWithin(one), Retry, RetryWithin(one)),
        ] {
            assert_eq!((a.and(b), b.and(a)), (both, both), "{a:?}, {b:?}");
        }
    }

    #[test]
    fn policies_are_signed_and_nothing_else_needs_the_key() {
        let workload = ObjectName::new("support", "bot");
        let policy = plan::suspended(&workload, &Origin::default(), &plan::Facts::default());
        let other = ManagedObject::NetworkPolicy(plan::unscoped_policy("support", &[]));
        let (keys, mut memory) = (Keys::default(), Memory::default());
        let gathered = gather(&SharedWorld::new(cluster::Settings::default()).read(), &workload);
        let sign =
            |objects: &[&ManagedObject], memory: &Memory| signed(objects.iter().copied().cloned().collect(), &keys, &gathered, memory);
        assert_eq!(sign(&[&other], &memory), Some(vec![other.clone()]));
        assert_eq!(sign(&[&other, &policy], &memory), None, "there is no key yet");
        keys.set([7; 32]);
        let all = sign(&[&other, &policy], &memory).unwrap();
        assert_eq!(all[0], other);
        let text = |object: &ManagedObject| channel::note_of(object).unwrap().to_owned();
        let trust: Trust = keys.current().unwrap().trust().parse().unwrap();
        let document = |text: &str| Document::read(text.as_bytes()).unwrap();
        let (note, plain) = (text(&all[1]), text(&policy));
        let said = document(trust.open(&note).unwrap());
        assert!(said.serial > 0, "it bears the time");
        assert_eq!(Document { serial: 0, ..said }, document(&plain));
        memory.plan.insert(all[1].key(), all[1].clone());
        assert_eq!(sign(&[&policy], &memory).unwrap()[0], all[1], "with nothing changed it is the same");
    }
}
