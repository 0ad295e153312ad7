//! Connections: each is judged by where it wanted to go and, for hosts, by the server that the client names; then bytes pass both ways.
//!
//! Promise: a connection that is not permitted is reset, with a record; one that a later policy forbids is reset as well, and no byte goes
//! out that the policy of that moment forbids. At most [`MOST`] at once (fewer where the node allows fewer open files); one that waits
//! costs no buffer of the guard's, and [`BUFFER`] bounds the kernel's. A peer that is gone, or that has stopped reading while something
//! waits for it, holds its place for [`GONE`] at most; a living peer that is silent holds it for as long as both directions are open.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::dns::loopback;
use super::gate::{Denied, Gate};
use super::http::{self, Client};
use super::record::Outcome;
use super::resolver::Names;
use super::stream::{HALF_OPEN, SCRATCH, Stream, Waiting, at_once, both, bound, reset};
use super::usage::Slot;
use super::{GuardError, original_destination};
use crate::policy::pod::{HTTP_PORT, TCP_PORT};
use crate::policy::{Arrived, Attempt, Connect, First, GuardPolicy, Permit, Reason, Site};
use crate::scope::DomainName;
use crate::wire::tls::Hello;

pub const MOST: u32 = 4_096;
/// A connection has its client, and its upstream or a question to DNS in either family.
pub const FILES_EACH: u32 = 3;
/// For the whole ClientHello.
const HELLO: Duration = Duration::from_secs(5);
/// After so many reads (1 MiB) others have their turn: however fast both ends are, the keeper soon sees a new policy. It costs nothing that
/// could be measured: 160 to 218 MiB/s through an echo with it, 150 to 169 without, in turns on a busy machine.
const ROUNDS: usize = 16;
/// Connections that wait for a ClientHello or a lookup are a quarter of all at most, but so many in any case.
const FEW: u32 = 32;

pub struct Server {
    listeners: Vec<(TcpListener, Way)>,
    door: Arc<Door>,
}

/// Who is let in, and how many.
pub struct Door {
    gate: Arc<Gate>,
    room: Arc<Semaphore>,
    most: u32,
    /// For those that are not judged yet: who says nothing keeps nobody out who may pass.
    unjudged: Semaphore,
    /// For connections of HTTP/2, of which each may hold as much as many others.
    sessions: Semaphore,
    most_sessions: usize,
}

/// How connections come to a listener.
#[derive(Clone, Copy)]
enum Way {
    Redirected,
    /// To the guard itself.
    Own,
}

/// How many connections are open.
pub struct Open {
    room: Arc<Semaphore>,
    most: u32,
}

impl Open {
    /// Until none is left, or the time is over.
    pub async fn drained(self, limit: Duration) {
        let _ = timeout(limit, self.room.acquire_many(self.most)).await;
    }
}

impl Server {
    /// Where a pod's connections arrive.
    pub async fn listen(gate: Arc<Gate>, most: u32) -> Result<Self, GuardError> {
        let mut listeners = Vec::new();
        for (port, way) in [(TCP_PORT, Way::Redirected), (HTTP_PORT, Way::Own)] {
            for at in loopback(port) {
                listeners.push((listener(at).await?, way));
            }
        }
        Ok(Self::of(listeners, gate, most))
    }

    /// At this address alone, as a base URL and a forward proxy.
    pub async fn listen_at(at: SocketAddr, gate: Arc<Gate>, most: u32) -> Result<Self, GuardError> {
        Ok(Self::of(vec![(listener(at).await?, Way::Own)], gate, most))
    }

    fn of(listeners: Vec<(TcpListener, Way)>, gate: Arc<Gate>, most: u32) -> Self {
        let room = Arc::new(Semaphore::new(most as usize));
        let unjudged = Semaphore::new((most / 4).max(FEW) as usize);
        let most_sessions = (most / 16).max(FEW) as usize;
        let sessions = Semaphore::new(most_sessions);
        Self { listeners, door: Arc::new(Door { gate, room, most, unjudged, sessions, most_sessions }) }
    }

    pub fn open(&self) -> Open {
        Open { room: self.door.room.clone(), most: self.door.most }
    }

    pub async fn serve(self) {
        let Self { listeners, door } = self;
        let mut parts = tokio::task::JoinSet::new();
        for (listener, way) in listeners {
            parts.spawn(accept(listener, way, door.clone()));
        }
        while parts.join_next().await.is_some() {}
    }
}

async fn listener(at: SocketAddr) -> Result<TcpListener, GuardError> {
    let failed = |source| GuardError::Listen { at, source };
    let listener = TcpListener::bind(at).await.map_err(failed)?;
    // What it accepts inherits it.
    bound(SockRef::from(&listener)).map_err(failed)?;
    Ok(listener)
}

async fn accept(listener: TcpListener, way: Way, door: Arc<Door>) {
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(_) => {
                // For example no file descriptor left: not at full speed into the same wall.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let to = match way {
            Way::Redirected => original_destination(SockRef::from(&client)).ok(),
            Way::Own => client.local_addr().ok(),
        };
        let Some(to) = to else {
            reset(&client);
            continue;
        };
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let Ok(place) = door.room.clone().try_acquire_owned() else {
            let Gate { records, held, .. } = &*door.gate;
            records.judged(Outcome::Refused, Reason::TooManyConnections, &Attempt::Address(to), held.borrow().as_deref());
            reset(&client);
            continue;
        };
        let door = door.clone();
        tokio::spawn(async move {
            match way {
                Way::Redirected => door.redirected(client, to).await,
                Way::Own => Box::pin(http::serve(&door, Stream::Tcp(client), BytesMut::new(), Client::own())).await,
            }
            drop(place);
        });
    }
}

/// How a connection goes on.
enum Judged {
    Bytes(Permit, Arc<GuardPolicy>),
    Requests(Site),
}

/// How a connection came, and what was asked of the guard itself.
enum Asked {
    Address(SocketAddr),
    Name(DomainName, u16),
}

impl Asked {
    fn attempt(&self) -> Attempt {
        match self {
            Self::Address(to) => Attempt::Address(*to),
            Self::Name(name, port) => Attempt::Server { name: name.clone(), port: *port },
        }
    }

    fn wanted(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(to) => Some(*to),
            Self::Name(..) => None,
        }
    }
}

impl Door {
    async fn redirected(self: &Arc<Self>, client: TcpStream, to: SocketAddr) {
        self.connection(client, BytesMut::new(), Asked::Address(to)).await;
    }

    /// What CONNECT led to. `before`: what came right after it.
    pub async fn asked_for(self: &Arc<Self>, client: TcpStream, before: BytesMut, name: DomainName, port: u16) {
        self.connection(client, before, Asked::Name(name, port)).await;
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// A place for a connection of HTTP/2, and how many there are, this one included. None: there are too many.
    pub fn session(&self) -> Option<(SemaphorePermit<'_>, usize)> {
        let place = self.sessions.try_acquire().ok()?;
        Some((place, self.most_sessions.saturating_sub(self.sessions.available_permits())))
    }

    /// Whether a connection to this host may begin: what CONNECT asks.
    pub fn may_ask_for(&self, name: &DomainName, port: u16) -> Result<(), Denied> {
        let policy = self.gate.policy()?;
        match policy.connect(Arrived::For { name, port }, None) {
            Connect::Denied(reason) => Err(Denied::by(policy, reason)),
            Connect::Permitted(_) | Connect::Http(_) | Connect::ReadFirst => Ok(()),
        }
    }

    /// Until it has ended, or was refused.
    async fn connection(self: &Arc<Self>, mut client: TcpStream, before: BytesMut, asked: Asked) {
        let mut attempt = asked.attempt();
        let mut first = before;
        let judged = async {
            // In a box, as is what reaches: what they need is given back before the long part begins.
            let mut judged = Box::pin(self.judge(&client, &asked, &mut first, &mut attempt));
            tokio::select! {
                biased;
                judged = &mut judged => judged,
                // It must wait.
                () = std::future::ready(()) => {
                    let full = |_| self.gate.denied(Reason::TooManyConnections);
                    let _place = self.unjudged.try_acquire().map_err(full)?;
                    judged.await
                }
            }
        };
        let ended = match judged.await {
            Ok(Judged::Bytes(permit, policy)) => self.pass(&mut client, &permit, policy, &first, asked.wanted(), &attempt).await,
            Ok(Judged::Requests(site)) => {
                let server = if let Attempt::Server { name, .. } = attempt { Some(name) } else { None };
                let who = Client { site, wanted: asked.wanted(), server, greeted: None };
                // In a box: a connection of which bytes pass does not pay for it.
                return Box::pin(http::begin(self, client, first, who)).await;
            }
            Err(denied) => Err(denied),
        };
        if let Err(Denied { reason, policy }) = ended {
            self.gate.records.judged(Outcome::Refused, reason, &attempt, policy.as_deref());
            reset(&client);
        }
    }

    /// Bytes, as they come. `first`: what was read of them.
    async fn pass(
        &self,
        client: &mut TcpStream,
        permit: &Permit,
        policy: Arc<GuardPolicy>,
        first: &[u8],
        wanted: Option<SocketAddr>,
        attempt: &Attempt,
    ) -> Result<(), Denied> {
        let gate = &*self.gate;
        if let Some(reason) = permit.observed() {
            gate.records.judged(Outcome::LetThrough, reason, attempt, Some(&policy));
        }
        // The connection may outlive it.
        drop(policy);
        let (mut upstream, reached) = gate.while_permitted(permit, None, Box::pin(gate.reach(permit, wanted))).await??;
        let slot = gate.usage.of(permit.source());
        slot.connections.fetch_add(1, Ordering::Relaxed);
        let passed = async {
            write_all(&upstream, first, &slot.sent).await?;
            pass_both(client, &mut upstream, HALF_OPEN, &slot).await
        };
        let ended = gate.while_permitted(permit, Some(reached), passed).await;
        if !matches!(ended, Ok(Ok(()))) {
            // What one side broke off, the other sees broken off.
            reset(client);
            reset(&upstream);
        }
        ended.map(drop)
    }

    /// What the policy says that holds when the judgement is made. `first`: what was read for it.
    async fn judge(&self, client: &TcpStream, asked: &Asked, first: &mut BytesMut, attempt: &mut Attempt) -> Result<Judged, Denied> {
        let gate = &*self.gate;
        let mut read = None;
        loop {
            let policy = gate.policy()?;
            let names = match asked {
                Asked::Address(to) => gate.resolver.names_of(&policy, to.ip()).await,
                Asked::Name(..) => Names { found: Vec::new(), complete: true },
            };
            if !Arc::ptr_eq(&policy, &gate.policy()?) {
                continue;
            }
            let arrived = match asked {
                Asked::Address(to) => Arrived::At { to: *to, names: &names.found },
                Asked::Name(name, port) => Arrived::For { name, port: *port },
            };
            match policy.connect(arrived, read.as_ref()) {
                Connect::Permitted(permit) => return Ok(Judged::Bytes(permit, policy)),
                Connect::Http(site) => return Ok(Judged::Requests(site)),
                // Perhaps it leads to a Service that DNS did not answer for.
                Connect::Denied(Reason::DestinationNotDeclared) if !names.complete => {
                    return Err(Denied::by(policy, Reason::ResolutionFailed));
                }
                Connect::Denied(reason) => return Err(Denied::by(policy, reason)),
                Connect::ReadFirst => {
                    let begins = match timeout(HELLO, read_first(client, first)).await {
                        Ok(begins) => begins,
                        Err(_) => First::Hello(Err(Reason::TooSlow)),
                    };
                    if let First::Hello(Ok(name)) = &begins {
                        let port = match asked {
                            Asked::Address(to) => to.port(),
                            Asked::Name(_, port) => *port,
                        };
                        *attempt = Attempt::Server { name: name.clone(), port };
                    }
                    read = Some(begins);
                }
            }
        }
    }
}

/// Reads into `first` until it is known what begins here. What was read is sent on as it came.
async fn read_first(client: &TcpStream, first: &mut BytesMut) -> First {
    let mut chunk = [0; 4096];
    loop {
        match Hello::read(first).server() {
            Some(Err(Reason::TlsRequired)) => return First::Other,
            Some(server) => return First::Hello(server),
            None => {}
        }
        if client.readable().await.is_err() {
            return First::Hello(Err(Reason::ServerNameMissing));
        }
        match client.try_read(&mut chunk) {
            Ok(0) if first.is_empty() => return First::Other,
            Ok(0) => return First::Hello(Err(Reason::HelloMalformed)),
            Ok(length) => first.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return First::Hello(Err(Reason::HelloMalformed)),
        }
    }
}

/// Both directions, until both have ended: see [`both`].
async fn pass_both(client: &mut TcpStream, upstream: &mut TcpStream, half_open: Duration, slot: &Slot) -> io::Result<()> {
    let passed = AtomicU64::new(0);
    let ((from_client, to_client), (from_upstream, to_upstream)) = (client.split(), upstream.split());
    let there = pass(from_client, to_upstream, &passed, &slot.sent);
    let back = pass(from_upstream, to_client, &passed, &slot.received);
    let ended = both(there, back, || passed.load(Ordering::Relaxed), half_open).await;
    ended.map_err(|error| error.unwrap_or_else(|| ErrorKind::TimedOut.into()))
}

/// One direction, until its end. `passed` grows with what comes, `count` with what the other side's socket took.
async fn pass(mut from: ReadHalf<'_>, to: WriteHalf<'_>, passed: &AtomicU64, count: &AtomicU64) -> io::Result<()> {
    let to: &TcpStream = to.as_ref();
    let mut rounds = 0;
    loop {
        rounds += 1;
        if rounds % ROUNDS == 0 {
            tokio::task::yield_now().await;
        }
        // Polled, not tried: a read that does not fill the buffer has emptied the socket, and the runtime asks the kernel no second time.
        let rest = poll_fn(|context| SCRATCH.with_borrow_mut(|scratch| read_and_write(&mut from, to, scratch, [passed, count], context)));
        match rest.await? {
            None => break,
            Some(rest) => {
                let _waiting = Waiting::of(rest.len());
                write_all(to, &rest, count).await?;
            }
        }
    }
    match SockRef::from(to).shutdown(Shutdown::Write) {
        // It is gone already.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
        done => done,
    }
}

/// What could not be written yet. None: the end.
fn read_and_write(
    from: &mut ReadHalf<'_>,
    to: &TcpStream,
    scratch: &mut [u8],
    [passed, count]: [&AtomicU64; 2],
    context: &mut Context<'_>,
) -> Poll<io::Result<Option<Vec<u8>>>> {
    let mut read = ReadBuf::new(&mut scratch[..at_once()]);
    ready!(Pin::new(from).poll_read(context, &mut read))?;
    let read = read.filled();
    if read.is_empty() {
        return Poll::Ready(Ok(None));
    }
    passed.fetch_add(read.len() as u64, Ordering::Relaxed);
    let sent = match to.try_write(read) {
        Ok(sent) => sent,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => return Poll::Ready(Err(error)),
    };
    count.fetch_add(sent as u64, Ordering::Relaxed);
    Poll::Ready(Ok(Some(read[sent..].to_vec())))
}

async fn write_all(to: &TcpStream, mut bytes: &[u8], count: &AtomicU64) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(sent) => {
                count.fetch_add(sent as u64, Ordering::Relaxed);
                bytes = &bytes[sent..];
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::record::Records;
    use crate::guard::record::tests::{Log, policy};
    use crate::guard::resolver::Resolver;
    use crate::guard::stream::{ASK_EVERY, ASK_TIMES, BUFFER, CHUNK, GONE, SILENT, connect};
    use crate::guard::upstream::Upstreams;
    use tokio::io::AsyncReadExt;

    /// Two ends that are connected, with the options of [`bound`].
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        bound(SockRef::from(&listener)).unwrap();
        let (near, far) = tokio::join!(connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn what_is_accepted_is_as_bound_as_what_is_reached() {
        let (near, far) = pair().await;
        for socket in [SockRef::from(&near), SockRef::from(&far)] {
            assert!(socket.keepalive().unwrap());
            assert!(socket.tcp_nodelay().unwrap(), "small events of a stream wait for nothing");
            assert_eq!(socket.tcp_keepalive_time().unwrap(), SILENT);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), ASK_EVERY);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), ASK_TIMES);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(GONE));
            assert!(socket.recv_buffer_size().unwrap() <= 2 * BUFFER);
            assert!(socket.send_buffer_size().unwrap() <= 2 * BUFFER);
        }
        assert_eq!(SILENT + ASK_EVERY * ASK_TIMES, GONE);
    }

    /// A connection to this address, judged by this policy: what was written of it.
    async fn written(to: &str, policy: GuardPolicy) -> Vec<serde_json::Value> {
        let log = Log::default();
        let (_keeper, held) = tokio::sync::watch::channel(Some(Arc::new(policy)));
        let gate = Gate {
            resolver: Arc::new(Resolver::new(held.clone())),
            held,
            records: Arc::new(Records::to(Box::new(log.clone()))),
            usage: Arc::default(),
            upstreams: Upstreams::default(),
            inspection: None,
        };
        let door = Server::of(Vec::new(), Arc::new(gate), 1).door;
        let (_app, client) = pair().await;
        let to: SocketAddr = to.parse().unwrap();
        door.redirected(client, SocketAddr::new(to.ip().to_canonical(), to.port())).await;
        log.records()
    }

    #[tokio::test]
    async fn what_observe_refuses_is_written_as_refused() {
        for to in ["169.254.169.254:80", "[::ffff:169.254.169.254]:80", "127.0.0.1:15001"] {
            let records = written(to, policy("Observe", "watched")).await;
            let [record] = &records[..] else { panic!("{to}: {records:?}") };
            let words = ["event", "reason", "digest"].map(|field| record[field].as_str().unwrap_or_default());
            assert_eq!(words, ["denied", "address_forbidden", "watched"], "{to}");
        }
    }

    #[tokio::test]
    async fn a_half_open_connection_lasts_while_something_comes() {
        const LIMIT: Duration = Duration::from_millis(300);
        let (app, mut client) = pair().await;
        let (mut upstream, mut server) = pair().await;
        let slot = Arc::new(Slot::default());
        let guard = tokio::spawn({
            let slot = slot.clone();
            async move { pass_both(&mut client, &mut upstream, LIMIT, &slot).await }
        });
        SockRef::from(&app).shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0, "the end is passed on");
        for _ in 0..8 {
            tokio::time::sleep(LIMIT / 3).await;
            write_all(&server, b"more", &AtomicU64::new(0)).await.unwrap();
        }
        assert!(!guard.is_finished());
        let ended = timeout(10 * LIMIT, guard).await.expect("silence ends it").unwrap();
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!((slot.sent.load(Ordering::Relaxed), slot.received.load(Ordering::Relaxed)), (0, 8 * 4));
    }

    #[tokio::test]
    async fn a_fast_transfer_gives_others_their_turn() {
        // Room for more on every way than may pass in one turn.
        let pair = || async {
            let (near, far) = pair().await;
            for socket in [SockRef::from(&near), SockRef::from(&far)] {
                socket.set_recv_buffer_size(8 * ROUNDS * CHUNK).unwrap();
                socket.set_send_buffer_size(8 * ROUNDS * CHUNK).unwrap();
            }
            (near, far)
        };
        let ((app, mut client), (mut upstream, server)) = (pair().await, pair().await);
        let mut waiting = 0;
        app.writable().await.unwrap();
        while let Ok(sent) = app.try_write(&[0; CHUNK]) {
            waiting += sent;
        }
        assert!(waiting > 2 * ROUNDS * CHUNK, "{waiting}");
        client.peek(&mut [0]).await.unwrap();
        upstream.writable().await.unwrap();
        let (passed, count) = (AtomicU64::new(0), AtomicU64::new(0));
        tokio::select! {
            biased;
            _ = pass(client.split().0, upstream.split().1, &passed, &count) => panic!("it goes on"),
            () = std::future::ready(()) => {}
        }
        let passed = passed.into_inner() as usize;
        assert!((1..=ROUNDS * CHUNK).contains(&passed), "{passed} of {waiting} in one turn");
        assert_eq!(count.into_inner() as usize, passed, "all of it was written");
        drop(server);
    }
}
