//! The pod's DNS: declared names are resolved, everything else is refused with the reason.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::record::Records;
use super::resolver::SharedResolver;
use super::{GuardError, Held};
use crate::policy::pod::DNS_PORT;
use crate::policy::{Attempt, GuardPolicy, Lookup, Reason};
use crate::scope::DomainName;
use crate::wire::dns::{NoQuery, Query, ResponseCode};

/// Queries that are being answered.
const AT_ONCE: usize = 256;
/// Queries of one pod: so many at once, and so many more each second.
const BURST: f64 = 400.0;
const A_SECOND: f64 = 200.0;
/// A query has at most this many bytes (a name of 255, a type, options).
const LARGEST_QUERY: usize = 1_024;
/// TCP clients: how many, and how long one may say nothing.
const STREAMS: usize = 32;
/// The most files that are open at once: a query asks in both families.
pub const FILES: u32 = (2 * AT_ONCE + STREAMS) as u32;
const IDLE: Duration = Duration::from_secs(5);

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
        let desk = Arc::new(Desk { held, resolver, records, search, budget, room: Arc::new(Semaphore::new(AT_ONCE)) });
        Ok(Self { sockets, listeners, desk })
    }

    pub async fn serve(self) {
        let Self { sockets, listeners, desk } = self;
        let mut parts = tokio::task::JoinSet::new();
        for socket in sockets {
            parts.spawn(datagrams(socket, desk.clone()));
        }
        let room = Arc::new(Semaphore::new(STREAMS));
        for listener in listeners {
            parts.spawn(streams(listener, desk.clone(), room.clone()));
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

async fn streams(listener: TcpListener, desk: Arc<Desk>, room: Arc<Semaphore>) {
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let desk = desk.clone();
        tokio::spawn(async move {
            while let Ok(Some(())) = timeout(IDLE, one_of_stream(&mut stream, &desk)).await {}
            drop(place);
        });
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
        let query = match Query::read(bytes) {
            Ok(query) => query,
            Err(NoQuery::Ignore) => return None,
            Err(NoQuery::Answer(answer)) => return Some(answer),
        };
        let Some(policy) = self.held.borrow().clone() else { return Some(self.refuse(&query, Reason::NoPolicy, None, over_tcp)) };
        if !self.budget.lock().unwrap_or_else(|e| e.into_inner()).take(Instant::now()) {
            return Some(self.refuse(&query, Reason::TooManyQueries, Some(&policy), over_tcp));
        }
        let Some(name) = query.name() else { return Some(self.refuse(&query, Reason::NameNotDeclared, Some(&policy), over_tcp)) };
        Some(match policy.lookup(name, query.record(), &self.search) {
            Lookup::Empty => query.answer(ResponseCode::Ok, &[], 0, None, over_tcp),
            Lookup::NotThere => query.answer(ResponseCode::NoSuchName, &[], 0, None, over_tcp),
            Lookup::Refuse(reason) => self.refuse(&query, reason, Some(&policy), over_tcp),
            Lookup::Observed(reason) => {
                self.records.denied(reason, &Attempt::Name(name.clone()), Some(&policy));
                match self.resolver.pass_on(&policy, bytes).await {
                    Some(answer) => answer,
                    None => query.answer(ResponseCode::Failure, &[], 0, None, over_tcp),
                }
            }
            Lookup::Resolve => match self.resolver.resolve(&policy, name).await {
                Ok(found) if !found.exists => query.answer(ResponseCode::NoSuchName, &[], 0, None, over_tcp),
                Ok(found) => query.answer(ResponseCode::Ok, &found.addresses, found.ttl, None, over_tcp),
                Err(reason) => {
                    let why = self.written(name, reason, &policy);
                    let code = if reason.retryable() { ResponseCode::Failure } else { ResponseCode::Refused };
                    query.answer(code, &[], 0, Some(&why), over_tcp)
                }
            },
        })
    }

    fn refuse(&self, query: &Query, reason: Reason, policy: Option<&GuardPolicy>, over_tcp: bool) -> Vec<u8> {
        let why = match query.name() {
            Some(name) => match policy {
                Some(policy) => self.written(name, reason, policy),
                None => {
                    let id = self.records.denied(reason, &Attempt::Name(name.clone()), None);
                    format!("{reason}: {}; request {id}", reason.means())
                }
            },
            None => format!("{reason}: {}", reason.means()),
        };
        query.answer(ResponseCode::Refused, &[], 0, Some(&why), over_tcp)
    }

    fn written(&self, name: &DomainName, reason: Reason, policy: &GuardPolicy) -> String {
        let attempt = Attempt::Name(name.clone());
        let id = self.records.denied(reason, &attempt, Some(policy));
        let declare = Some(&attempt).filter(|_| reason.declarable()).and_then(|attempt| attempt.declaration(&policy.domain));
        let declare = declare.map(|lines| format!("; to declare it: {lines}")).unwrap_or_default();
        format!("{reason}: {}; request {id}{declare}", reason.means())
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
