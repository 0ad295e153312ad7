//! Holds the newest valid policy, whoever brought it: the file, or the operator. A bad one is refused and the last good one stays; one
//! that is gone as well.
//!
//! Promise: [`Keeper::offer`] is the only way to a policy that holds, and never goes back. The file lags behind the operator by a minute;
//! what it says then is older, and passed over without a word.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::sync::watch;

use super::Held;
use super::record::Records;
use crate::policy::signed::{SignedError, Trust};
use crate::policy::{Document, GuardPolicy, WorkloadId};

/// How often the file is looked at. (The kubelet swaps a whole directory; there is nothing to be told by.)
const EVERY: Duration = Duration::from_millis(500);
/// A file that was there and cannot be read for so long is trouble: what the operator narrows meanwhile does not hold.
const UNREADABLE: Duration = Duration::from_secs(3);
/// As long as it lasts, so often is it said.
const AGAIN: Duration = Duration::from_secs(60);

/// Whose policies count.
#[derive(Clone, Debug)]
pub enum Authority {
    /// Those that this key signed, for this AIWorkload.
    Signed(Trust, WorkloadId),
    /// Whoever can write the file: outside of a cluster, where its user wrote it.
    File,
}

impl Authority {
    /// The policy that these bytes are.
    pub fn read(&self, bytes: &[u8]) -> Result<GuardPolicy, String> {
        let document = match self {
            Self::File => Document::by_hand(bytes),
            Self::Signed(trust, _) => {
                let note = std::str::from_utf8(bytes).map_err(|_| format!("the policy: {}", SignedError::Form))?;
                Document::read(trust.open(note).map_err(|e| format!("the policy: {e}"))?.as_bytes())
            }
        };
        document.and_then(GuardPolicy::try_from).map_err(|e| e.to_string())
    }

    /// Whether a guard may begin with it. The key signs for every AIWorkload of the cluster, and some let everything pass. Of the uid as
    /// well: an earlier AIWorkload of that name may have been one of those. (A guard that runs goes on with a later one: its texts are newer.)
    fn begin(&self, policy: &GuardPolicy) -> Result<(), String> {
        let (found, own) = match self {
            Self::Signed(_, own) if policy.workload != *own => (&policy.workload, own),
            Self::Signed(..) | Self::File => return Ok(()),
        };
        let hint = match (&found.namespace, &found.name) == (&own.namespace, &own.name) {
            true => "; hint: the AIWorkload was made again; delete the pod, and it is made for this one",
            false => "",
        };
        Err(format!("the policy is of AIWorkload {found}, and this guard was made for {own}{hint}"))
    }
}

/// Who brings policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    File,
    Channel,
}

/// What became of a policy that was brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It holds from now on.
    Taken,
    /// It holds already.
    Same,
    /// An older one holds on, or none.
    Refused,
}

pub struct Keeper {
    authority: Authority,
    /// Who is asked for names where the policy does not say it.
    nameservers: Vec<SocketAddr>,
    held: watch::Sender<Option<Arc<GuardPolicy>>>,
    records: Arc<Records>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// Who brought what holds.
    from: Option<Source>,
    /// What was said last of each source: each trouble is said once, however often it is met.
    said: BTreeMap<Source, String>,
}

impl Keeper {
    pub fn new(authority: Authority, records: Arc<Records>) -> Self {
        Self { authority, nameservers: Vec::new(), held: watch::Sender::new(None), records, memory: Mutex::default() }
    }

    /// For names, where the policy does not say who is asked.
    pub fn asking(self, nameservers: Vec<SocketAddr>) -> Self {
        Self { nameservers, ..self }
    }

    pub fn held(&self) -> Held {
        self.held.subscribe()
    }

    /// A policy; signed, where a key says whose count.
    pub fn offer(&self, source: Source, note: &[u8]) -> Offered {
        let next = match self.authority.read(note) {
            Ok(mut next) => {
                if next.dns.is_empty() {
                    next.dns = self.nameservers.clone();
                }
                next
            }
            Err(error) => return self.refused(source, error),
        };
        let now = self.held.borrow().clone();
        if let (None, Err(error)) = (&now, self.authority.begin(&next)) {
            return self.refused(source, error);
        }
        match now {
            Some(now) if *now == next => Offered::Same,
            Some(now) if !now.may_become(&next) => {
                if source == Source::File && self.memory().from == Some(Source::Channel) && next.workload.name == now.workload.name {
                    // The operator was faster.
                    return Offered::Refused;
                }
                let shown = |policy: &GuardPolicy| match next.generation == now.generation {
                    true => format!("{}, serial {}", policy.generation, policy.serial),
                    false => policy.generation.to_string(),
                };
                let what = format!(
                    "generation {} of {}/{} is older than the one that holds ({}), or of another AIWorkload",
                    shown(&next),
                    next.workload.namespace,
                    next.workload.name,
                    shown(&now)
                );
                self.refused(source, what)
            }
            _ => {
                self.records.policy(&next);
                self.held.send_replace(Some(Arc::new(next)));
                let mut memory = self.memory();
                memory.from = Some(source);
                memory.said.remove(&source);
                Offered::Taken
            }
        }
    }

    fn refused(&self, source: Source, what: String) -> Offered {
        let mut memory = self.memory();
        if memory.said.get(&source) != Some(&what) {
            self.records.trouble("policy", &what);
            memory.said.insert(source, what);
        }
        Offered::Refused
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Brings what the file says, whenever it says something else.
    ///
    /// An app that uses up the guard's descriptors cannot stop a narrowing: one is kept free for the file.
    pub async fn follow(&self, file: PathBuf) {
        let mut seen: Option<Vec<u8>> = None;
        let mut say: Option<Instant> = None;
        let mut spare = descriptor();
        loop {
            // Nobody else can take it: there is one thread, and it reads before it does anything else.
            drop(spare.take());
            let read = std::fs::read(&file);
            spare = descriptor();
            // Without a thread of its own: the file is small and in memory, and the guard may start none.
            match read {
                Ok(bytes) => {
                    say = None;
                    if seen.as_ref() != Some(&bytes) {
                        self.offer(Source::File, &bytes);
                        seen = Some(bytes);
                    }
                }
                Err(error) => {
                    let now = Instant::now();
                    let say = say.get_or_insert(now + if seen.is_some() { UNREADABLE } else { Duration::ZERO });
                    if now >= *say {
                        *say = now + AGAIN;
                        self.records.trouble("policy", &format!("{}: {error}", file.display()));
                    }
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// One of no use but its place. (No file: those cannot be opened any more.)
fn descriptor() -> Option<Socket> {
    Socket::new(Domain::IPV4, Type::DGRAM, None).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::signed::Signer;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn signer() -> Signer {
        Signer::from_seed(&[7; 32])
    }

    fn note(generation: i64, serial: u64, digest: &str) -> Vec<u8> {
        note_of("support/bot/u", generation, serial, digest)
    }

    fn note_of(workload: &str, generation: i64, serial: u64, digest: &str) -> Vec<u8> {
        let workload: WorkloadId = workload.parse().unwrap();
        let document: Value = json!({
            "format": 1, "workload": workload, "generation": generation, "serial": serial,
            "digest": digest, "mode": "Enforce", "suspended": false,
            "network": {"domain": "cluster.local", "dns": [], "services": [], "own": []}, "destinations": [],
        });
        signer().sign(&document.to_string()).into_bytes()
    }

    fn keeper(log: &Log) -> Keeper {
        let authority = Authority::Signed(signer().trust().clone(), "support/bot/u".parse().unwrap());
        Keeper::new(authority, Arc::new(Records::to(Box::new(log.clone()))))
    }

    /// A note of another AIWorkload is a good one for another guard: it does not become this one's by coming first.
    #[test]
    fn a_guard_begins_with_the_policy_of_its_own_aiworkload() {
        use Offered::{Refused, Taken};
        for source in [Source::File, Source::Channel] {
            let log = Log::default();
            let keeper = keeper(&log);
            for other in ["support/other/u", "elsewhere/bot/u", "support/bot/earlier"] {
                assert_eq!(keeper.offer(source, &note_of(other, 9, 90, "a")), Refused, "{other}");
                assert!(keeper.held().borrow().is_none(), "nothing holds, so nothing passes: {other}");
            }
            let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            assert_eq!((said.matches("made for support/bot/u").count(), said.matches("was made again").count()), (3, 1), "{said}");
            assert_eq!(keeper.offer(source, &note(1, 10, "b")), Taken, "its own is taken all the same");
            assert_eq!(keeper.offer(source, &note_of("support/bot/earlier", 9, 9, "a")), Refused, "older");
            // Made again while the pod runs: refusing it would leave what the one before allowed in force.
            assert_eq!(keeper.offer(source, &note_of("support/bot/later", 1, 20, "c")), Taken);
            assert_eq!(keeper.offer(source, &note(9, 19, "d")), Refused, "and not back");
        }
    }

    #[test]
    fn without_a_key_the_file_is_believed() {
        let text = crate::policy::signed::text(std::str::from_utf8(&note(1, 1, "a")).unwrap()).unwrap().to_owned();
        let keeper = Keeper::new(Authority::File, Arc::new(Records::to(Box::new(Log::default()))));
        assert_eq!(keeper.offer(Source::File, text.as_bytes()), Offered::Taken);
    }

    #[test]
    fn two_sources_and_one_decision() {
        let log = Log::default();
        let keeper = keeper(&log);
        use Offered::{Refused, Same, Taken};
        use Source::{Channel, File};
        let unsigned = signer().sign("{}").replace("{}", "{ }");
        let (first, second, third) = (note(1, 10, "a"), note(1, 20, "b"), note(2, 30, "c"));
        let table: &[(Source, &[u8], Offered, usize, &str)] = &[
            (File, &first, Taken, 0, "the file begins"),
            (Channel, &first, Same, 0, "what holds already"),
            (Channel, &second, Taken, 0, "the same generation, said anew"),
            (File, &first, Refused, 0, "a file that lags behind is not worth a word"),
            (File, &second, Same, 0, "it has come"),
            (Channel, &first, Refused, 1, "a replica that is behind"),
            (Channel, &first, Refused, 1, "said once"),
            (Channel, unsigned.as_bytes(), Refused, 2, "another text under the signature"),
            (File, &third, Taken, 2, "the file may be faster, where the operator is away"),
            (File, &second, Refused, 3, "a file that goes back"),
            (Channel, &second, Refused, 4, "nor by the channel"),
        ];
        for (source, note, expected, troubles, what) in table {
            assert_eq!(keeper.offer(*source, note), *expected, "{what}");
            let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.matches("\"trouble\"").count(), *troubles, "{what}: {text}");
        }
        assert_eq!(keeper.held().borrow().as_ref().unwrap().digest, "c");
    }
}
