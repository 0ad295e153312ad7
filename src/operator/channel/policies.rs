//! Where the policies come from that guards are given.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::cluster::SharedWorld;
use crate::operator::Keys;
use crate::plan::{Kind, ManagedObject};
use crate::policy::pod::POLICY_FILE;
use crate::policy::signed::Trust;
use crate::policy::{Document, Edition};
use crate::scope::ObjectName;

/// A signed policy, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub text: Arc<str>,
    pub edition: Edition,
}

impl Note {
    /// None: it is not of this key, or no policy. Guards would not take it either.
    pub fn read(text: Arc<str>, trust: &Trust) -> Option<Self> {
        let edition = Document::read(trust.open(&text).ok()?.as_bytes()).ok()?.edition();
        Some(Self { text, edition })
    }
}

pub trait Policies: Send + Sync + 'static {
    /// The newest policy of an AIWorkload.
    fn note(&self, workload: &ObjectName) -> Option<Note>;
    /// Ticks when one of them may be another.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// The signed policy in a generated object.
pub fn note_of(object: &ManagedObject) -> Option<&str> {
    match object {
        ManagedObject::ConfigMap(map) => map.data.as_ref()?.get(POLICY_FILE).map(String::as_str),
        ManagedObject::NetworkPolicy(_) | ManagedObject::ServiceAccount(_) | ManagedObject::Role(_) | ManagedObject::RoleBinding(_) => None,
    }
}

/// Those that lie in the cluster. What bears no signature of ours is passed over: somebody changed it, and it is being put right.
#[derive(Clone)]
pub struct InCluster {
    world: SharedWorld,
    keys: Keys,
    /// As read last: thousands of guards ask for few texts.
    read: Arc<Mutex<HashMap<ObjectName, (String, Note)>>>,
}

impl InCluster {
    pub fn new(world: SharedWorld, keys: Keys) -> Self {
        Self { world, keys, read: Arc::default() }
    }
}

impl Policies for InCluster {
    fn note(&self, workload: &ObjectName) -> Option<Note> {
        let key = self.keys.current()?;
        let objects = self.world.read().objects_of(workload);
        let (_, live) = objects.into_iter().find(|(at, _)| at.kind == Kind::ConfigMap && at.may_be_of(workload))?;
        let text = note_of(&live.object)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((trust, note)) = read.get(workload)
            && trust == key.trust()
            && *note.text == *text
        {
            return Some(note.clone());
        }
        let note = Note::read(text.into(), key.verifier())?;
        // Of workloads that are gone.
        if read.len() >= 1024 {
            read.clear();
        }
        read.insert(workload.clone(), (key.trust().to_owned(), note.clone()));
        Some(note)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.world.read().policies()
    }
}
