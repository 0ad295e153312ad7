//! Who wrote what can widen a scope: remembered at once in memory, and within a second in one ConfigMap that all replicas read.
//!
//! Promise: never in anybody's way (a full queue loses the record and counts it), bounded, at most one patch per second.
//! In: writes that `/record` saw, and the ConfigMap. Out: [`Writers`], the ConfigMap. Whoever may edit the ConfigMap may lie in it: it
//! names people in findings and decides nothing.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};

use crate::operator::Writers;
use crate::plan::{Kind, ObjectKey};
use crate::scope::ObjectName;

/// The ConfigMap in the operator's namespace.
pub(super) const CONFIG_MAP: &str = "remit-recorded-writes";
const FIELD_MANAGER: &str = "remit-recorder";
/// Entries kept; the oldest go first. (1,000 of them stay below half of what an object may weigh.)
const MOST_ENTRIES: usize = 1_000;
/// Longer names of users are cut.
const LONGEST_USER: usize = 256;
const QUEUE: usize = 1_024;
const PAUSE: Duration = Duration::from_secs(1);

/// A write that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub group: String,
    /// `resource` or `resource/subresource`.
    pub resource: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub operation: String,
    pub user: String,
    pub time: SystemTime,
}

/// A write as it is stored.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Entry {
    group: String,
    resource: String,
    kind: String,
    namespace: String,
    name: String,
    operation: String,
    user: String,
    time: Timestamp,
}

type Entries = BTreeMap<String, Entry>;

impl Entry {
    fn of(write: Write) -> Self {
        let Write { group, resource, kind, namespace, name, operation, mut user, time } = write;
        if let Some((end, _)) = user.char_indices().nth(LONGEST_USER) {
            user.truncate(end);
        }
        let time = Timestamp::try_from(time).ok().and_then(|t| Timestamp::from_second(t.as_second()).ok()).unwrap_or_default();
        Self { group, resource, kind, namespace, name, operation, user, time }
    }

    /// Key in the ConfigMap: the same object, the same key.
    fn key(&self) -> String {
        let reference = [&self.group, &self.resource, &self.namespace, &self.name].map(String::as_str).join("\n");
        Sha256::digest(reference.as_bytes()).iter().take(16).map(|b| format!("{b:02x}")).collect()
    }

    fn object(&self) -> Option<ObjectKey> {
        let kind = Kind::ALL.into_iter().find(|k| k.resource() == (self.group.as_str(), self.resource.as_str()))?;
        Some(ObjectKey { kind, object: ObjectName::new(&self.namespace, &self.name) })
    }
}

/// Where the handler leaves what it saw.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    writers: Writers,
    queue: mpsc::Sender<Entry>,
}

impl Recorder {
    pub fn new(writers: Writers) -> (Self, Queue) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { writers, queue }, Queue(receiver))
    }

    /// Whether there was room.
    pub fn note(&self, write: Write) -> bool {
        let entry = Entry::of(write);
        remember(&self.writers, &entry);
        self.queue.try_send(entry).is_ok()
    }
}

/// The other end of a [`Recorder`].
pub(super) struct Queue(mpsc::Receiver<Entry>);

fn remember(writers: &Writers, entry: &Entry) {
    let Some(key) = entry.object() else { return };
    let time = SystemTime::from(entry.time);
    if writers.last(&key).is_none_or(|known| known.time < time) {
        writers.note(key, entry.user.clone(), time);
    }
}

/// Writes what is queued and reads what other replicas wrote, until told to stop.
pub(super) async fn keep(client: kube::Client, namespace: String, writers: Writers, queue: Queue, mut stop: watch::Receiver<bool>) {
    let Queue(mut queue) = queue;
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let only = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
    let mut seen = pin!(watcher(maps.clone(), only).default_backoff().applied_objects());
    let mut stored = Entries::new();
    let mut pending = Entries::new();
    let mut tick = tokio::time::interval(PAUSE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(entry) = queue.recv() => { pending.insert(entry.key(), entry); }
            Some(seen) = seen.next() => match seen {
                Ok(map) => {
                    stored = read(&map);
                    stored.values().for_each(|entry| remember(&writers, entry));
                }
                Err(error) => tracing::debug!(%error, "the recorded writes cannot be watched"),
            },
            _ = tick.tick(), if !pending.is_empty() => flush(&maps, &stored, &mut pending).await,
            () = crate::operator::tls::told(&mut stop) => break,
        }
        trim(&mut pending);
    }
    while let Ok(entry) = queue.try_recv() {
        pending.insert(entry.key(), entry);
    }
    if !pending.is_empty() {
        let last_try = flush(&maps, &stored, &mut pending);
        if tokio::time::timeout(PAUSE, last_try).await.is_err() {
            tracing::warn!("the last recorded writes could not be kept");
        }
    }
}

fn read(map: &ConfigMap) -> Entries {
    map.data.iter().flatten().filter_map(|(key, text)| Some((key.clone(), serde_json::from_str(text).ok()?))).collect()
}

async fn flush(maps: &Api<ConfigMap>, stored: &Entries, pending: &mut Entries) {
    let data = changes(stored, pending);
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let answer = match maps.patch_metadata(CONFIG_MAP, &params, &Patch::Merge(json!({"data": data}))).await {
        Err(error) if is(&error, 404) => {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(CONFIG_MAP.to_owned()),
                    labels: Some([("app.kubernetes.io/part-of".to_owned(), "remit".to_owned())].into()),
                    ..ObjectMeta::default()
                },
                data: Some(data.into_iter().filter_map(|(key, text)| Some((key, text?))).collect()),
                ..ConfigMap::default()
            };
            let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            maps.create(&params, &map).await.map(|_| ())
        }
        answer => answer.map(|_| ()),
    };
    match answer {
        Ok(()) => pending.clear(),
        Err(error) => tracing::warn!(%error, "recorded writes could not be kept yet"),
    }
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// The patch: what is pending, and `null` for the oldest beyond the bound.
fn changes(stored: &Entries, pending: &Entries) -> BTreeMap<String, Option<String>> {
    let mut after: Vec<(&Timestamp, &String, bool)> = pending.iter().map(|(key, entry)| (&entry.time, key, true)).collect();
    after.extend(stored.iter().filter(|(key, _)| !pending.contains_key(*key)).map(|(key, entry)| (&entry.time, key, false)));
    after.sort();
    let excess = after.len().saturating_sub(MOST_ENTRIES);
    let mut patch: BTreeMap<String, Option<String>> =
        pending.iter().filter_map(|(key, entry)| Some((key.clone(), Some(serde_json::to_string(entry).ok()?)))).collect();
    for (_, key, new) in after.into_iter().take(excess) {
        if new {
            patch.remove(key)
        } else {
            patch.insert(key.clone(), None)
        };
    }
    patch
}

fn trim(pending: &mut Entries) {
    while pending.len() > MOST_ENTRIES {
        let oldest = pending.iter().min_by_key(|(_, entry)| entry.time).map(|(key, _)| key.clone());
        let Some(oldest) = oldest else { return };
        pending.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: usize, second: i64) -> (String, Entry) {
        let entry = Entry {
            group: "rbac.authorization.k8s.io".into(),
            resource: "roles".into(),
            kind: "Role".into(),
            namespace: "support".into(),
            name: format!("r{n}"),
            operation: "Update".into(),
            user: "dana".into(),
            time: Timestamp::from_second(second).unwrap(),
        };
        (entry.key(), entry)
    }

    #[test]
    fn the_oldest_go_first() {
        let stored: Entries = (0..MOST_ENTRIES).map(|n| entry(n, 1_000 + n as i64)).collect();
        let pending: Entries = [entry(5, 9_000), entry(MOST_ENTRIES, 9_001), entry(MOST_ENTRIES + 1, 9_002)].into();
        let patch = changes(&stored, &pending);
        let mut gone: Vec<&String> = patch.iter().filter(|(_, v)| v.is_none()).map(|(k, _)| k).collect();
        let mut oldest = [entry(0, 0).0, entry(1, 0).0];
        oldest.sort();
        gone.sort();
        assert_eq!(gone, oldest.iter().collect::<Vec<_>>());
        assert_eq!(patch.len(), 5);
        assert_eq!(changes(&Entries::new(), &pending).len(), 3);
        let mut many: Entries = (0..MOST_ENTRIES + 7).map(|n| entry(n, n as i64)).collect();
        trim(&mut many);
        assert_eq!(many.len(), MOST_ENTRIES);
        assert!(!many.contains_key(&entry(6, 0).0));
    }

    #[test]
    fn stored_and_read_again_and_the_later_write_counts() {
        let write = |user: &str, second| Write {
            group: "rbac.authorization.k8s.io".into(),
            resource: "rolebindings".into(),
            kind: "RoleBinding".into(),
            namespace: "support".into(),
            name: "all".into(),
            operation: "Create".into(),
            user: user.into(),
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
        };
        let (first, later) = (Entry::of(write("dana", 1)), Entry::of(write(&"é".repeat(300), 2)));
        assert_eq!(first.key(), later.key());
        assert_eq!(later.user.chars().count(), LONGEST_USER);
        let data = [(first.key(), serde_json::to_string(&first).unwrap()), ("junk".to_owned(), "{".to_owned())].into();
        let map = ConfigMap { data: Some(data), ..ConfigMap::default() };
        assert_eq!(read(&map), [(first.key(), first.clone())].into());
        let writers = Writers::default();
        remember(&writers, &later);
        remember(&writers, &first);
        let key = ObjectKey { kind: Kind::RoleBinding, object: ObjectName::new("support", "all") };
        assert_eq!(writers.last(&key).map(|w| w.user), Some(later.user));
    }

    #[tokio::test]
    async fn a_full_queue_is_nobodys_delay() {
        let (recorder, _queue) = Recorder::new(Writers::default());
        let write = Write {
            group: String::new(),
            resource: "services".into(),
            kind: "Service".into(),
            namespace: "a".into(),
            name: "b".into(),
            operation: "Update".into(),
            user: "dana".into(),
            time: SystemTime::now(),
        };
        let kept = (0..QUEUE + 3).filter(|_| recorder.note(write.clone())).count();
        assert_eq!(kept, QUEUE);
    }
}
