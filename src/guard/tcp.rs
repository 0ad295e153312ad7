//! Connections: each is judged by where it wanted to go and, for hosts, by the server that the client names; then bytes pass both ways.
//!
//! Promise: a connection that is not permitted is reset, with a record; one that a later policy forbids is reset as well, and no byte goes
//! out that the policy of that moment forbids. At most [`MOST`] at once (fewer where the node allows fewer open files); one that waits
//! costs no buffer of the guard's, and [`BUFFER`] bounds the kernel's. A peer that is gone, or that has stopped reading while something
//! waits for it, holds its place for [`GONE`] at most; a living peer that is silent holds it for as long as both directions are open.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::dns::loopback;
use super::record::{Outcome, Records};
use super::resolver::SharedResolver;
use super::usage::{Slot, Usage};
use super::{GuardError, Held, original_destination};
use crate::policy::pod::TCP_PORT;
use crate::policy::{Arrived, Attempt, Connect, First, GuardPolicy, Permit, Reason, Upstream};
use crate::wire::tls::Hello;

pub const MOST: u32 = 4_096;
/// A connection has its client, and its upstream or a question to DNS in either family.
pub const FILES_EACH: u32 = 3;
/// For the whole ClientHello.
const HELLO: Duration = Duration::from_secs(5);
/// For one address of an upstream.
const REACH: Duration = Duration::from_secs(5);
/// Read and written at once.
const CHUNK: usize = 64 * 1024;
/// After so many reads (1 MiB) others have their turn: however fast both ends are, the keeper soon sees a new policy. It costs nothing that
/// could be measured: 160 to 218 MiB/s through an echo with it, 150 to 169 without, in turns on a busy machine.
const ROUNDS: usize = 16;
/// What the kernel keeps for each direction of each socket (it doubles this, for its own bookkeeping): 2 MiB for a connection of which all
/// queues are full, where the kernel's own limits allow 40 MiB and more. On the node nothing is slower (160 to 218 MiB/s through an echo, 144
/// to 154 with the kernel's sizes); far away it is the window: at most 2.5 MiB/s from a host at 100 ms.
const BUFFER: usize = 256 * 1024;
/// When a silent peer is asked whether it is there; then each [`ASK_EVERY`], [`ASK_TIMES`] times.
const SILENT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_secs(15);
const ASK_TIMES: u32 = 4;
/// When a peer that does not answer, or does not take what waits for it, is given up: as long as the questions above take.
const GONE: Duration = Duration::from_secs(120);
/// Once one direction has ended: how long nothing may come in the other. Who has said everything waits for an answer only, and a side that
/// never says its own end would hold its place for ever.
const HALF_OPEN: Duration = Duration::from_secs(120);
/// Connections that wait for a ClientHello or a lookup are a quarter of all at most, but so many in any case.
const FEW: u32 = 32;

pub struct Server {
    listeners: Vec<TcpListener>,
    gate: Arc<Gate>,
}

struct Gate {
    held: Held,
    resolver: SharedResolver,
    records: Arc<Records>,
    usage: Arc<Usage>,
    room: Arc<Semaphore>,
    most: u32,
    /// For those that are not judged yet: who says nothing keeps nobody out who may pass.
    unjudged: Semaphore,
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
    pub async fn listen(
        held: Held,
        resolver: SharedResolver,
        records: Arc<Records>,
        usage: Arc<Usage>,
        most: u32,
    ) -> Result<Self, GuardError> {
        let mut listeners = Vec::new();
        for at in loopback(TCP_PORT) {
            let failed = |source| GuardError::Listen { at, source };
            let listener = TcpListener::bind(at).await.map_err(failed)?;
            // What it accepts inherits it.
            bound(SockRef::from(&listener)).map_err(failed)?;
            listeners.push(listener);
        }
        let room = Arc::new(Semaphore::new(most as usize));
        let unjudged = Semaphore::new((most / 4).max(FEW) as usize);
        Ok(Self { listeners, gate: Arc::new(Gate { held, resolver, records, usage, room, most, unjudged }) })
    }

    pub fn open(&self) -> Open {
        Open { room: self.gate.room.clone(), most: self.gate.most }
    }

    pub async fn serve(self) {
        let Self { listeners, gate } = self;
        let mut parts = tokio::task::JoinSet::new();
        for listener in listeners {
            parts.spawn(accept(listener, gate.clone()));
        }
        while parts.join_next().await.is_some() {}
    }
}

async fn accept(listener: TcpListener, gate: Arc<Gate>) {
    loop {
        let mut client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(_) => {
                // For example no file descriptor left: not at full speed into the same wall.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(to) = original_destination(SockRef::from(&client)) else {
            reset(&client);
            continue;
        };
        let Ok(place) = gate.room.clone().try_acquire_owned() else {
            gate.records.judged(Outcome::Refused, Reason::TooManyConnections, &Attempt::Address(to), gate.held.borrow().as_deref());
            reset(&client);
            continue;
        };
        let gate = gate.clone();
        tokio::spawn(async move {
            gate.connection(&mut client, to).await;
            drop(place);
        });
    }
}

/// Ends it so that the other side sees an error and not an end.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Bounds what a peer can make this socket cost: memory, and time. What is small waits for no acknowledgement.
fn bound(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENT).with_interval(ASK_EVERY).with_retries(ASK_TIMES))?;
    socket.set_tcp_user_timeout(Some(GONE))
}

/// Why not, and by which policy.
struct Denied {
    reason: Reason,
    /// None: there is none.
    policy: Option<Arc<GuardPolicy>>,
}

impl Denied {
    fn by(policy: Arc<GuardPolicy>, reason: Reason) -> Self {
        Self { reason, policy: Some(policy) }
    }
}

impl Gate {
    /// Until it has ended, or was refused.
    async fn connection(&self, client: &mut TcpStream, to: SocketAddr) {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let mut attempt = Attempt::Address(to);
        if let Err(Denied { reason, policy }) = self.judged_and_passed(client, to, &mut attempt).await {
            self.records.judged(Outcome::Refused, reason, &attempt, policy.as_deref());
            reset(client);
        }
    }

    async fn judged_and_passed(&self, client: &mut TcpStream, to: SocketAddr, attempt: &mut Attempt) -> Result<(), Denied> {
        let mut hello = Vec::new();
        let (permit, policy) = {
            // In a box, as is what reaches: what they need is given back before the long part begins.
            let mut judged = Box::pin(self.judge(client, to, &mut hello, attempt));
            tokio::select! {
                biased;
                permit = &mut judged => permit?,
                // It must wait.
                () = std::future::ready(()) => {
                    let full = |_| Denied { reason: Reason::TooManyConnections, policy: self.held.borrow().clone() };
                    let _place = self.unjudged.try_acquire().map_err(full)?;
                    judged.await?
                }
            }
        };
        if let Some(reason) = permit.observed() {
            self.records.judged(Outcome::LetThrough, reason, attempt, Some(&policy));
        }
        // The connection may outlive it.
        drop(policy);
        let (mut upstream, reached) = self.while_permitted(&permit, None, Box::pin(self.reach(&permit, to))).await??;
        let slot = self.usage.of(permit.source());
        slot.connections.fetch_add(1, Ordering::Relaxed);
        let passed = async {
            write_all(&upstream, &hello, &slot.sent).await?;
            pass_both(client, &mut upstream, HALF_OPEN, &slot).await
        };
        let ended = self.while_permitted(&permit, Some(reached), passed).await;
        if !matches!(ended, Ok(Ok(()))) {
            // What one side broke off, the other sees broken off.
            reset(client);
            reset(&upstream);
        }
        ended.map(drop)
    }

    /// What the policy says that holds when the judgement is made. `hello`: what was read for it.
    async fn judge(
        &self,
        client: &TcpStream,
        to: SocketAddr,
        hello: &mut Vec<u8>,
        attempt: &mut Attempt,
    ) -> Result<(Permit, Arc<GuardPolicy>), Denied> {
        let mut first = None;
        loop {
            let policy = self.policy()?;
            let names = self.resolver.names_of(&policy, to.ip()).await;
            if !Arc::ptr_eq(&policy, &self.policy()?) {
                continue;
            }
            let arrived = Arrived::At { to, names: &names.found };
            match policy.connect(arrived, first.as_ref()) {
                Connect::Permitted(permit) => return Ok((permit, policy)),
                // Perhaps it leads to a Service that DNS did not answer for.
                Connect::Denied(Reason::DestinationNotDeclared) if !names.complete => {
                    return Err(Denied::by(policy, Reason::ResolutionFailed));
                }
                Connect::Denied(reason) => return Err(Denied::by(policy, reason)),
                Connect::Http(_) => return Err(Denied::by(policy, Reason::DestinationNotDeclared)),
                Connect::ReadFirst => {
                    let read = timeout(HELLO, read_hello(client, hello)).await.unwrap_or(Err(Reason::TooSlow));
                    if let Ok(name) = &read {
                        *attempt = Attempt::Server { name: name.clone(), port: to.port() };
                    }
                    first = Some(First::Hello(read));
                }
            }
        }
    }

    fn policy(&self) -> Result<Arc<GuardPolicy>, Denied> {
        self.held.borrow().clone().ok_or(Denied { reason: Reason::NoPolicy, policy: None })
    }

    /// The policy is asked first, so nothing of the work is done, however ready it is, that a new policy forbids.
    async fn while_permitted<T>(&self, permit: &Permit, reached: Option<IpAddr>, work: impl Future<Output = T>) -> Result<T, Denied> {
        tokio::select! {
            biased;
            denied = self.forbidden(permit, reached) => Err(denied),
            done = work => Ok(done),
        }
    }

    async fn reach(&self, permit: &Permit, wanted: SocketAddr) -> Result<(TcpStream, IpAddr), Denied> {
        let policy = self.policy()?;
        let addresses: Vec<SocketAddr> = match permit.upstream() {
            Upstream::Service { name: _, address } | Upstream::Kubernetes(address) | Upstream::Anywhere(address) => vec![*address],
            Upstream::Named { name, port } => {
                let found = match self.resolver.resolve(&policy, name).await {
                    Ok(found) => found,
                    Err(reason) => return Err(Denied::by(policy, reason)),
                };
                let mut all: Vec<SocketAddr> = found.addresses.into_iter().map(|address| SocketAddr::new(address, *port)).collect();
                // Where the client wanted to go first, if that is where the host is; then its family.
                all.sort_by_key(|address| (*address != wanted, address.is_ipv4() != wanted.is_ipv4()));
                all
            }
        };
        if addresses.is_empty() {
            return Err(Denied::by(policy, Reason::ResolutionFailed));
        }
        for address in addresses {
            if let Ok(Ok(stream)) = timeout(REACH, connect(address)).await {
                return Ok((stream, address.ip()));
            }
        }
        Err(Denied::by(policy, Reason::Unreachable))
    }

    /// Resolves when the policy forbids what it permitted.
    async fn forbidden(&self, permit: &Permit, reached: Option<IpAddr>) -> Denied {
        let mut held = self.held.clone();
        loop {
            if let Some(policy) = &*held.borrow_and_update()
                && let Err(reason) = policy.still(permit, reached)
            {
                return Denied::by(policy.clone(), reason);
            }
            if held.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    // `TcpSocket::new` names the protocol, and the filter lets nobody name one.
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
    bound(SockRef::from(&socket))?;
    TcpSocket::from_std_stream(socket.into()).connect(to).await
}

/// Reads into `hello` until the server is known, or that it is too long for one. What was read is sent on as it came.
async fn read_hello(client: &TcpStream, hello: &mut Vec<u8>) -> Result<crate::scope::DomainName, Reason> {
    let mut chunk = [0; 4096];
    loop {
        client.readable().await.map_err(|_| Reason::ServerNameMissing)?;
        match client.try_read(&mut chunk) {
            Ok(0) => return Err(if hello.is_empty() { Reason::TlsRequired } else { Reason::HelloMalformed }),
            Ok(length) => hello.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(_) => return Err(Reason::HelloMalformed),
        }
        if let Some(server) = Hello::read(hello).server() {
            return server;
        }
    }
}

thread_local! {
    /// One for all connections of the thread: it is empty whenever a task waits.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// Both directions, until both have ended. Once one has, the other may be silent for `half_open` (noticed within twice that).
async fn pass_both(client: &mut TcpStream, upstream: &mut TcpStream, half_open: Duration, slot: &Slot) -> io::Result<()> {
    let passed = AtomicU64::new(0);
    let ((from_client, to_client), (from_upstream, to_upstream)) = (client.split(), upstream.split());
    let mut there = pin!(pass(from_client, to_upstream, &passed, &slot.sent));
    let mut back = pin!(pass(from_upstream, to_client, &passed, &slot.received));
    let mut other = tokio::select! {
        ended = &mut there => ended.map(|()| back)?,
        ended = &mut back => ended.map(|()| there)?,
    };
    loop {
        let before = passed.load(Ordering::Relaxed);
        match timeout(half_open, &mut other).await {
            Ok(ended) => return ended,
            Err(_) if passed.load(Ordering::Relaxed) == before => return Err(ErrorKind::TimedOut.into()),
            Err(_) => {}
        }
    }
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
            Some(rest) => write_all(to, &rest, count).await?,
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
    let mut read = ReadBuf::new(scratch);
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
    use crate::guard::record::tests::{Log, policy};
    use crate::guard::resolver::Resolver;
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
            room: Arc::new(Semaphore::new(1)),
            most: 1,
            unjudged: Semaphore::new(1),
        };
        let (_app, mut client) = pair().await;
        gate.connection(&mut client, to.parse().unwrap()).await;
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
