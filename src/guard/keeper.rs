//! Holds the newest valid policy of the file. A bad one is refused and the last good one stays; one that is gone as well.
//!
//! An app that uses up the guard's descriptors cannot stop a narrowing: one is kept free for the file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::sync::watch;

use super::record::Records;
use crate::policy::signed::{SignedError, Trust};
use crate::policy::{Document, GuardPolicy};

/// How often the file is looked at. (The kubelet swaps a whole directory; there is nothing to be told by.)
const EVERY: Duration = Duration::from_millis(500);
/// A file that was there and cannot be read for so long is trouble: what the operator narrows meanwhile does not hold.
const UNREADABLE: Duration = Duration::from_secs(3);
/// As long as it lasts, so often is it said.
const AGAIN: Duration = Duration::from_secs(60);

/// Whose policies count.
#[derive(Clone, Debug)]
pub enum Authority {
    /// Those that this key signed.
    Signed(Trust),
    /// Whoever can write the file: outside of a cluster, where its user wrote it.
    File,
}

impl Authority {
    /// The policy that these bytes are.
    pub fn read(&self, bytes: &[u8]) -> Result<GuardPolicy, String> {
        let document = match self {
            Self::File => Document::read(bytes),
            Self::Signed(trust) => {
                let note = std::str::from_utf8(bytes).map_err(|_| format!("the policy: {}", SignedError::Form))?;
                Document::read(trust.open(note).map_err(|e| format!("the policy: {e}"))?.as_bytes())
            }
        };
        document.and_then(GuardPolicy::try_from).map_err(|e| e.to_string())
    }
}

pub async fn keep(file: PathBuf, authority: Authority, held: watch::Sender<Option<Arc<GuardPolicy>>>, records: Arc<Records>) {
    let mut seen: Option<Vec<u8>> = None;
    let mut trouble: Option<String> = None;
    let mut say: Option<Instant> = None;
    let mut spare = descriptor();
    loop {
        // Nobody else can take it: there is one thread, and it reads before it does anything else.
        drop(spare.take());
        let read = std::fs::read(&file);
        spare = descriptor();
        // Without a thread of its own: the file is small and in memory, and the guard may start none.
        let next = match read {
            Ok(bytes) if seen.as_ref() == Some(&bytes) => {
                say = None;
                None
            }
            Ok(bytes) => {
                say = None;
                let read = authority.read(&bytes);
                seen = Some(bytes);
                Some(read)
            }
            Err(error) => {
                let now = Instant::now();
                let say = say.get_or_insert(now + if seen.is_some() { UNREADABLE } else { Duration::ZERO });
                if now >= *say {
                    *say = now + AGAIN;
                    records.trouble("policy", &format!("{}: {error}", file.display()));
                }
                None
            }
        };
        let now = held.borrow().clone();
        let refused = match next {
            None => None,
            Some(Err(error)) => Some(error),
            Some(Ok(next)) => match now {
                Some(now) if !now.may_become(&next) => Some(format!(
                    "generation {} of {}/{} is older than the one that holds ({}), or of another AIWorkload",
                    next.generation, next.workload.namespace, next.workload.name, now.generation
                )),
                _ => {
                    records.policy(&next);
                    held.send_replace(Some(Arc::new(next)));
                    trouble = None;
                    None
                }
            },
        };
        // Each trouble is said once, however often it is met.
        if let Some(refused) = refused
            && trouble.as_ref() != Some(&refused)
        {
            records.trouble("policy", &refused);
            trouble = Some(refused);
        }
        if held.is_closed() {
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// One of no use but its place. (No file: those cannot be opened any more.)
fn descriptor() -> Option<Socket> {
    Socket::new(Domain::IPV4, Type::DGRAM, None).ok()
}
