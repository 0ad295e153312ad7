//! What was refused, or let through by Observe alone, and what changed: JSON lines on stdout, which every cluster collects already.
//!
//! Promise: one line, one record, whatever names a client sends (JSON escapes them). At most [`MOST_A_SECOND`] denials a second for each
//! reason, names, connections and requests apart, so that no flood of one hides another; what is left out is counted, and said within a second.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::Notify;

use crate::policy::{Attempt, GuardPolicy, Reason};

const MOST_A_SECOND: u32 = 25;
/// For how long a record of a request waits for others.
const TOGETHER: Duration = Duration::from_millis(100);
/// Bytes of them that wait at most.
const MOST_WAITING: usize = 16 * 1024;

pub struct Records {
    to: Mutex<Box<dyn Write + Send>>,
    paces: Mutex<BTreeMap<(Reason, Kind), Pace>>,
    totals: Mutex<BTreeMap<(Outcome, Reason), u64>>,
    count: AtomicU64,
    seed: u64,
    /// Lines of requests that wait to be written together.
    waiting: Mutex<Vec<u8>>,
    /// Some wait.
    some: Notify,
}

/// What ends last is written as well: with the guard, requests end that were still under way.
impl Drop for Records {
    fn drop(&mut self) {
        self.written();
    }
}

/// What became of an attempt. Only who decided it knows: also in Observe not everything is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Outcome {
    #[serde(rename = "denied")]
    Refused,
    /// By Observe; Enforce would have refused it.
    #[serde(rename = "would_deny")]
    LetThrough,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Names,
    Connections,
    Requests,
}

struct Pace {
    since: Instant,
    written: u32,
    left_out: u64,
}

/// [`crate::policy::RECORD`] says what its fields mean.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Denial<'a> {
    time: u64,
    event: Outcome,
    request_id: &'a str,
    reason: Reason,
    attempted: &'a Attempt,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    declare: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
}

/// A request that was let through. [`crate::policy::ACCESS`] says what its fields mean.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Access<'a> {
    pub source: &'a str,
    pub method: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub status: u16,
    pub sent: u64,
    pub received: u64,
    pub microseconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<&'a str>,
}

impl Records {
    pub fn stdout() -> Self {
        Self::to(Box::new(io::stdout()))
    }

    pub fn to(writer: Box<dyn Write + Send>) -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self {
            to: Mutex::new(writer),
            paces: Mutex::default(),
            totals: Mutex::default(),
            count: AtomicU64::new(0),
            seed: RandomState::new().hash_one(0u8),
            waiting: Mutex::default(),
            some: Notify::new(),
        }
    }

    /// `policy`: the one that it was judged by. Returns the id under which it was written down.
    pub fn judged(&self, outcome: Outcome, reason: Reason, attempted: &Attempt, policy: Option<&GuardPolicy>) -> String {
        let id = self.id();
        *self.totals.lock().unwrap_or_else(|e| e.into_inner()).entry((outcome, reason)).or_default() += 1;
        let kind = match attempted {
            Attempt::Name(_) | Attempt::Question(_) => Kind::Names,
            Attempt::Address(_) | Attempt::Server { .. } => Kind::Connections,
            Attempt::Request { .. } => Kind::Requests,
        };
        if !self.may_write(reason, kind) {
            return id;
        }
        self.write(&Denial {
            time: now(),
            event: outcome,
            request_id: &id,
            reason,
            attempted,
            retryable: reason.retryable(),
            declare: policy.filter(|_| reason.declarable()).and_then(|policy| attempted.declaration(&policy.domain)),
            workload: policy.map(|policy| format!("{}/{}", policy.workload.namespace, policy.workload.name)),
            digest: policy.map(|policy| policy.digest.as_str()),
        });
        id
    }

    /// How many of them there were since the start by the codes of their reasons, written down or not.
    pub fn totals(&self, outcome: Outcome) -> BTreeMap<String, u64> {
        let totals = self.totals.lock().unwrap_or_else(|e| e.into_inner());
        let of = totals.iter().filter(|((found, _), _)| *found == outcome);
        of.map(|((_, reason), count)| (reason.code().to_owned(), *count)).collect()
    }

    /// A policy begins to hold.
    pub fn policy(&self, policy: &GuardPolicy) {
        self.write(&serde_json::json!({
            "time": now(), "event": "policy", "workload": format!("{}/{}", policy.workload.namespace, policy.workload.name),
            "generation": policy.generation, "serial": policy.serial, "digest": policy.digest, "mode": policy.mode, "suspended": policy.suspended,
        }));
    }

    /// What protects the guard itself.
    pub fn hardened(&self, hardened: &impl Serialize) {
        #[derive(Serialize)]
        struct Hardened<'a, T> {
            time: u64,
            event: &'static str,
            #[serde(flatten)]
            hardened: &'a T,
        }
        self.write(&Hardened { time: now(), event: "hardened", hardened });
    }

    pub fn trouble(&self, what: &str, message: &str) {
        self.write(&serde_json::json!({"time": now(), "event": "trouble", "what": what, "message": message}));
    }

    /// A request that was let through: written with others, within [`TOGETHER`].
    pub fn access(&self, access: &Access<'_>) {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Line<'a, 'b> {
            time: u64,
            event: &'static str,
            request_id: String,
            #[serde(flatten)]
            access: &'a Access<'b>,
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(|e| e.into_inner());
        let before = waiting.len();
        let line = Line { time: now(), event: "request", request_id: self.id(), access };
        if serde_json::to_writer(&mut *waiting, &line).is_err() {
            waiting.truncate(before);
            return;
        }
        waiting.push(b'\n');
        let full = waiting.len() >= MOST_WAITING;
        drop(waiting);
        if full {
            self.written();
        } else if before == 0 {
            self.some.notify_one();
        }
    }

    /// Writes what waits.
    pub fn written(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(|e| e.into_inner()));
        if !waiting.is_empty() {
            let mut to = self.to.lock().unwrap_or_else(|e| e.into_inner());
            let _ = to.write_all(&waiting).and_then(|()| to.flush());
        }
    }

    /// Writes, together, what came within a moment.
    pub async fn write_together(&self) {
        loop {
            self.some.notified().await;
            tokio::time::sleep(TOGETHER).await;
            self.written();
        }
    }

    fn write(&self, record: &impl Serialize) {
        let Ok(mut line) = serde_json::to_vec(record) else { return };
        line.push(b'\n');
        // In their order.
        self.written();
        let mut to = self.to.lock().unwrap_or_else(|e| e.into_inner());
        // Who reads stdout may be gone; what is refused stays refused.
        let _ = to.write_all(&line).and_then(|()| to.flush());
    }

    fn may_write(&self, reason: Reason, kind: Kind) -> bool {
        let mut paces = self.paces.lock().unwrap_or_else(|e| e.into_inner());
        let pace = paces.entry((reason, kind)).or_insert_with(|| Pace { since: Instant::now(), written: 0, left_out: 0 });
        if pace.since.elapsed() >= Duration::from_secs(1) {
            (pace.since, pace.written) = (Instant::now(), 0);
        }
        let may = pace.written < MOST_A_SECOND;
        if may {
            pace.written += 1;
        } else {
            pace.left_out += 1;
        }
        may
    }

    /// Says every second how many denials were not written.
    pub async fn count(&self) {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        loop {
            every.tick().await;
            self.left_out();
        }
    }

    fn left_out(&self) {
        let mut paces = self.paces.lock().unwrap_or_else(|e| e.into_inner());
        let some = paces.iter_mut().filter(|(_, pace)| pace.left_out > 0);
        let counts: Vec<_> = some.map(|(of, pace)| (*of, std::mem::take(&mut pace.left_out))).collect();
        drop(paces);
        for ((reason, of), count) in counts {
            self.write(&serde_json::json!({"time": now(), "event": "left_out", "reason": reason, "of": of, "count": count}));
        }
    }

    /// Time first, so that ids sort; then what tells two of one millisecond, and two guards, apart.
    fn id(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{:011x}-{:08x}", now(), (self.seed.wrapping_add(count) & 0xffff_ffff) as u32)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_millis()).ok()).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::policy::{Document, RECORD};

    /// What was written.
    #[derive(Clone, Default)]
    pub struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        pub fn records(&self) -> Vec<Value> {
            self.0.lock().unwrap().split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
        }
    }

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// It declares one host.
    pub fn policy(mode: &str, digest: &str) -> GuardPolicy {
        let document: Document = serde_json::from_value(json!({
            "format": 1, "workload": {"namespace": "support", "name": "bot", "uid": "u"}, "generation": 1, "digest": digest, "mode": mode,
            "suspended": false, "network": {"domain": "cluster.local", "dns": [], "services": ["10.244.0.0/16"], "own": ["10.244.0.0/16"]},
            "destinations": [{"source": "help", "target": {"type": "Host", "name": "help.example.com", "port": 443}}],
        }))
        .unwrap();
        document.try_into().unwrap()
    }

    #[test]
    fn a_record_says_what_happened_and_by_which_policy() {
        let log = Log::default();
        let records = Records::to(Box::new(log.clone()));
        let observe = policy("Observe", "d");
        let undeclared = Attempt::Name("evil.example".parse().unwrap());
        let forbidden = Attempt::Address("169.254.169.254:80".parse().unwrap());
        let id = records.judged(Outcome::LetThrough, Reason::NameNotDeclared, &undeclared, Some(&observe));
        // In Observe as well.
        records.judged(Outcome::Refused, Reason::AddressForbidden, &forbidden, Some(&observe));
        records.judged(Outcome::Refused, Reason::NoPolicy, &forbidden, None);
        let [let_through, refused, without] = &log.records()[..] else { panic!("{:?}", log.records()) };
        let fields = |record: &Value| record.as_object().unwrap().keys().cloned().collect::<Vec<String>>();
        let mut all: Vec<&str> = RECORD.iter().map(|(field, _)| *field).collect();
        all.sort();
        assert_eq!(fields(let_through), all, "docs/reasons.md lists these");
        assert_eq!((let_through["event"].as_str(), let_through["requestId"].as_str()), (Some("would_deny"), Some(id.as_str())));
        assert_eq!(let_through["attempted"], json!({"name": "evil.example"}));
        assert_eq!(
            (&refused["event"], &refused["reason"], &refused["digest"]),
            (&json!("denied"), &json!("address_forbidden"), &json!("d"))
        );
        assert_eq!((&without["event"], &without["workload"], &without["digest"]), (&json!("denied"), &Value::Null, &Value::Null));
        assert_eq!((records.totals(Outcome::Refused).len(), records.totals(Outcome::LetThrough).len()), (2, 1));
    }
}
