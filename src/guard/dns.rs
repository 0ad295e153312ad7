//! The pod's DNS: declared names are resolved, everything else is refused with the reason. Observe passes on what Enforce would refuse.
//!
//! Only this pod is answered, whatever address a query bears.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::newest::Newest;
use super::peer::Own;
use super::record::{Outcome, Records};
use super::resolver::{QUESTIONS, SharedResolver};
use super::{GuardError, Held};
use crate::policy::pod::DNS_PORT;
use crate::policy::{Attempt, GuardPolicy, Lookup, Reason};
use crate::scope::DomainName;
use crate::wire::dns::{NoQuery, Query, ResponseCode};

/// Queries that are being answered.
const AT_ONCE: usize = 256;
/// Questions that one pod's queries put to the cluster's DNS: so many at once, and so many more each second.
const BURST: f64 = 400.0;
const A_SECOND: f64 = 200.0;
/// A query has at most this many bytes (a name of 255, a type, options).
const LARGEST_QUERY: usize = 1_024;
/// TCP clients: how many, how long one may stay, and what it may ask.
const STREAMS: usize = 32;
const STAY: Duration = Duration::from_secs(10);
const QUERIES: usize = 64;
/// The most files that are open at once: the resolver asks in both families, a query that is passed on has one.
pub const FILES: u32 = (2 * QUESTIONS + AT_ONCE + STREAMS) as u32;
/// Bytes of a query that cannot be read, in its record.
const WRITTEN: usize = 64;

pub struct Server {
    sockets: Vec<Arc<UdpSocket>>,
    listeners: Vec<TcpListener>,
    desk: Arc<Desk>,
}

/// What answers one query.
struct Desk {
    held: Held,
    resolver: SharedResolver,
    records: Arc<Records>,
    search: Vec<DomainName>,
    budget: Mutex<Budget>,
    room: Arc<Semaphore>,
    own: Own,
}

struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        self.left = (self.left + now.duration_since(self.at).as_secs_f64() * A_SECOND).min(BURST);
        self.at = now;
        let some = self.left >= 1.0;
        if some {
            self.left -= 1.0;
        }
        some
    }
}

impl Server {
    pub async fn listen(held: Held, resolver: SharedResolver, records: Arc<Records>, search: Vec<DomainName>) -> Result<Self, GuardError> {
        let (mut sockets, mut listeners) = (Vec::new(), Vec::new());
        for at in loopback(DNS_PORT) {
            let failed = |source| GuardError::Listen { at, source };
            sockets.push(Arc::new(UdpSocket::bind(at).await.map_err(failed)?));
            listeners.push(TcpListener::bind(at).await.map_err(failed)?);
        }
        let budget = Mutex::new(Budget { left: BURST, at: Instant::now() });
        let desk = Arc::new(Desk { held, resolver, records, search, budget, room: Arc::new(Semaphore::new(AT_ONCE)), own: Own::default() });
        Ok(Self { sockets, listeners, desk })
    }

    pub async fn serve(self) {
        let Self { sockets, listeners, desk } = self;
        let mut parts = tokio::task::JoinSet::new();
        for socket in sockets {
            parts.spawn(datagrams(socket, desk.clone()));
        }
        let clients = Arc::new(Newest::new(STREAMS));
        for listener in listeners {
            parts.spawn(streams(listener, desk.clone(), clients.clone()));
        }
        while parts.join_next().await.is_some() {}
    }
}

async fn datagrams(socket: Arc<UdpSocket>, desk: Arc<Desk>) {
    let mut buffer = [0; LARGEST_QUERY];
    loop {
        // An error here is one client's (its port was closed): the next one is served.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        if !desk.own.has(client) {
            continue;
        }
        // Full: silence, and the client asks again.
        let Ok(place) = desk.room.clone().try_acquire_owned() else { continue };
        let (query, socket, desk) = (buffer[..length].to_vec(), socket.clone(), desk.clone());
        tokio::spawn(async move {
            if let Some(answer) = desk.answer(&query, false).await {
                let _ = socket.send_to(&answer, client).await;
            }
            drop(place);
        });
    }
}

async fn streams(listener: TcpListener, desk: Arc<Desk>, clients: Arc<Newest>) {
    loop {
        let Ok((mut stream, client)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if !desk.own.has(client) {
            continue;
        }
        let desk = desk.clone();
        let talk = async move {
            let all = async {
                for _ in 0..QUERIES {
                    if one_of_stream(&mut stream, &desk).await.is_none() {
                        return;
                    }
                }
            };
            let _ = timeout(STAY, all).await;
        };
        clients.spawn(talk).await;
    }
}

async fn one_of_stream(stream: &mut TcpStream, desk: &Desk) -> Option<()> {
    let length = usize::from(stream.read_u16().await.ok()?);
    if length > LARGEST_QUERY {
        return None;
    }
    let mut query = vec![0; length];
    stream.read_exact(&mut query).await.ok()?;
    let answer = desk.answer(&query, true).await?;
    let mut framed = u16::try_from(answer.len()).ok()?.to_be_bytes().to_vec();
    framed.extend(answer);
    stream.write_all(&framed).await.ok()
}

impl Desk {
    async fn answer(&self, bytes: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let policy = self.held.borrow().clone();
        let query = match Query::read(bytes) {
            Ok(query) => query,
            Err(NoQuery::Ignore) => return None,
            Err(NoQuery::Answer(answer)) => {
                let text = bytes[..bytes.len().min(WRITTEN)].escape_ascii().to_string();
                let lets_through = policy.as_ref().is_some_and(|policy| policy.observes() && self.may_ask());
                let outcome = if lets_through { Outcome::LetThrough } else { Outcome::Refused };
                self.records.judged(outcome, Reason::QueryMalformed, &Attempt::Question(text), policy.as_deref());
                return match policy.filter(|_| lets_through) {
                    Some(policy) => self.resolver.pass_on(&policy, bytes, over_tcp).await,
                    None => Some(answer),
                };
            }
        };
        let asked = Asked { query: &query, bytes, over_tcp };
        let Some(policy) = policy else { return Some(self.refuse(&asked, Reason::NoPolicy, None)) };
        let observed = policy.observes();
        let Some(name) = query.name() else {
            let reason = if policy.suspended { Reason::Suspended } else { Reason::NameNotDeclared };
            return Some(if observed {
                self.observe(&asked, Some(reason), &policy).await
            } else {
                self.refuse(&asked, reason, Some(&policy))
            });
        };
        Some(match policy.lookup(name, query.record(), &self.search) {
            // Enforce says that there is none.
            Lookup::Empty | Lookup::NotThere if observed => self.observe(&asked, None, &policy).await,
            Lookup::Empty => asked.answer(ResponseCode::Ok, None),
            Lookup::NotThere => asked.answer(ResponseCode::NoSuchName, None),
            Lookup::Refuse(reason) => self.refuse(&asked, reason, Some(&policy)),
            Lookup::Observed(reason) => self.observe(&asked, Some(reason), &policy).await,
            Lookup::Resolve => {
                if self.resolver.would_ask(&policy, name) && !self.may_ask() {
                    return Some(self.refuse(&asked, Reason::TooManyQueries, Some(&policy)));
                }
                match self.resolver.resolve(&policy, name).await {
                    Ok(found) if !found.exists => asked.answer(ResponseCode::NoSuchName, None),
                    Ok(found) => query.answer(ResponseCode::Ok, &found.addresses, found.ttl, None, over_tcp),
                    Err(reason) if observed => self.observe(&asked, Some(reason), &policy).await,
                    Err(reason) => self.refuse(&asked, reason, Some(&policy)),
                }
            }
        })
    }

    /// Whether one more question may be put to the cluster's DNS.
    fn may_ask(&self) -> bool {
        self.budget.lock().unwrap_or_else(|e| e.into_inner()).take(Instant::now())
    }

    /// Passes query and answer on. `reason`: why Enforce would refuse.
    async fn observe(&self, asked: &Asked<'_>, reason: Option<Reason>, policy: &GuardPolicy) -> Vec<u8> {
        if !self.may_ask() {
            return self.refuse(asked, Reason::TooManyQueries, Some(policy));
        }
        if let Some(reason) = reason {
            self.records.judged(Outcome::LetThrough, reason, &asked.attempt(), Some(policy));
        }
        match self.resolver.pass_on(policy, asked.bytes, asked.over_tcp).await {
            Some(answer) => answer,
            None => asked.answer(ResponseCode::Failure, None),
        }
    }

    fn refuse(&self, asked: &Asked<'_>, reason: Reason, policy: Option<&GuardPolicy>) -> Vec<u8> {
        let attempt = asked.attempt();
        let id = self.records.judged(Outcome::Refused, reason, &attempt, policy);
        let declare = policy.filter(|_| reason.declarable()).and_then(|policy| attempt.declaration(&policy.domain));
        let declare = declare.map(|lines| format!("; to declare it: {lines}")).unwrap_or_default();
        // A refusal ends a resolver's search; what DNS did not answer may be asked again.
        let code = if reason == Reason::ResolutionFailed { ResponseCode::Failure } else { ResponseCode::Refused };
        asked.answer(code, Some(&format!("{reason}: {}; request {id}{declare}", reason.means())))
    }
}

/// A query, and how it came.
struct Asked<'a> {
    query: &'a Query,
    bytes: &'a [u8],
    over_tcp: bool,
}

impl Asked<'_> {
    fn attempt(&self) -> Attempt {
        self.query.name().cloned().map_or_else(|| Attempt::Question(self.query.text()), Attempt::Name)
    }

    /// Without addresses.
    fn answer(&self, code: ResponseCode, why: Option<&str>) -> Vec<u8> {
        self.query.answer(code, &[], 0, why, self.over_tcp)
    }
}

/// The loopback addresses of the families that there are.
pub(super) fn loopback(port: u16) -> Vec<SocketAddr> {
    let six = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
    let mut all = vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)];
    // Without the family there is no such address, and nothing to be redirected to it.
    if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        all.push(six);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_burst_and_a_pace() {
        let at = Instant::now();
        let mut budget = Budget { left: BURST, at };
        assert_eq!((0..1_000).filter(|_| budget.take(at)).count(), 400);
        assert_eq!((0..1_000).filter(|_| budget.take(at + Duration::from_millis(500))).count(), 100);
        assert_eq!((0..1_000).filter(|_| budget.take(at + Duration::from_secs(3_600))).count(), 400);
    }
}
