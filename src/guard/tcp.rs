//! Connections: each is judged by where it wanted to go and, for hosts, by the server that the client names; then bytes pass both ways.
//!
//! Promise: a connection that is not permitted is reset, with a record; one that a later policy forbids is reset as well. At most
//! [`MOST`] at once (fewer where the node allows fewer open files); one that waits costs no buffer.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::dns::loopback;
use super::record::Records;
use super::resolver::SharedResolver;
use super::{GuardError, Held, original_destination};
use crate::policy::pod::TCP_PORT;
use crate::policy::{Attempt, Connect, GuardPolicy, Permit, Reason, Upstream};
use crate::wire::tls::{Hello, LARGEST_HELLO};

pub const MOST: u32 = 4_096;
/// A connection has its client, and its upstream or a question to DNS in either family.
pub const FILES_EACH: u32 = 3;
/// For the whole ClientHello.
const HELLO: Duration = Duration::from_secs(5);
/// For one address of an upstream.
const REACH: Duration = Duration::from_secs(5);
/// Read and written at once.
const CHUNK: usize = 64 * 1024;

pub struct Server {
    listeners: Vec<TcpListener>,
    gate: Arc<Gate>,
}

struct Gate {
    held: Held,
    resolver: SharedResolver,
    records: Arc<Records>,
    room: Arc<Semaphore>,
    most: u32,
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
    pub async fn listen(held: Held, resolver: SharedResolver, records: Arc<Records>, most: u32) -> Result<Self, GuardError> {
        let mut listeners = Vec::new();
        for at in loopback(TCP_PORT) {
            listeners.push(TcpListener::bind(at).await.map_err(|source| GuardError::Listen { at, source })?);
        }
        Ok(Self { listeners, gate: Arc::new(Gate { held, resolver, records, room: Arc::new(Semaphore::new(most as usize)), most }) })
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
        let client = match listener.accept().await {
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
            gate.records.denied(Reason::TooManyConnections, &Attempt::Address(to), gate.held.borrow().as_deref());
            reset(&client);
            continue;
        };
        let gate = gate.clone();
        tokio::spawn(async move {
            if let Err((reason, attempt)) = gate.connection(&client, to).await {
                gate.records.denied(reason, &attempt, gate.held.borrow().as_deref());
                reset(&client);
            }
            drop(place);
        });
    }
}

/// Ends it so that the other side sees an error and not an end.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

type Denied = (Reason, Attempt);

impl Gate {
    async fn connection(&self, client: &TcpStream, to: SocketAddr) -> Result<(), Denied> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let mut attempt = Attempt::Address(to);
        let Some(policy) = self.held.borrow().clone() else { return Err((Reason::NoPolicy, attempt)) };
        let names = self.resolver.names_of(&policy, to.ip()).await;
        let mut hello = Vec::new();
        let permit = match policy.connect(to, &names.found) {
            Connect::ReadHello => {
                let server = match timeout(HELLO, read_hello(client, &mut hello)).await {
                    Ok(server) => server,
                    Err(_) => Err(Reason::TooSlow),
                };
                if let Ok(name) = &server {
                    attempt = Attempt::Server { name: name.clone(), port: to.port() };
                }
                match self.current(&policy).hello(to, server) {
                    Connect::Permitted(permit) => permit,
                    Connect::Denied(reason) => return Err((reason, attempt)),
                    Connect::ReadHello => return Err((Reason::HelloMalformed, attempt)),
                }
            }
            Connect::Permitted(permit) => permit,
            // Perhaps it leads to a Service that DNS did not answer for.
            Connect::Denied(Reason::DestinationNotDeclared) if !names.complete => return Err((Reason::ResolutionFailed, attempt)),
            Connect::Denied(reason) => return Err((reason, attempt)),
        };
        if let Some(reason) = permit.observed() {
            self.records.denied(reason, &attempt, Some(&policy));
        }
        let upstream = match self.reach(&policy, &permit, to).await {
            Ok(upstream) => upstream,
            Err(reason) => return Err((reason, attempt)),
        };
        let passed = async {
            write_all(&upstream, &hello).await?;
            tokio::try_join!(pass(client, &upstream), pass(&upstream, client)).map(|_| ())
        };
        tokio::select! {
            ended = passed => {
                if ended.is_err() {
                    // What one side broke off, the other sees broken off.
                    reset(client);
                    reset(&upstream);
                }
                Ok(())
            }
            reason = self.forbidden(&permit) => {
                reset(&upstream);
                Err((reason, attempt))
            }
        }
    }

    /// The policy of now, for what was begun under an older one.
    fn current(&self, begun: &Arc<GuardPolicy>) -> Arc<GuardPolicy> {
        self.held.borrow().clone().unwrap_or_else(|| begun.clone())
    }

    async fn reach(&self, policy: &GuardPolicy, permit: &Permit, wanted: SocketAddr) -> Result<TcpStream, Reason> {
        let addresses: Vec<SocketAddr> = match permit.upstream() {
            Upstream::Service { name: _, address } | Upstream::Kubernetes(address) | Upstream::Anywhere(address) => vec![*address],
            Upstream::Host { name, port } => {
                let found = self.resolver.resolve(policy, name).await?;
                let mut all: Vec<SocketAddr> = found.addresses.into_iter().map(|address| SocketAddr::new(address, *port)).collect();
                // Where the client wanted to go first, if that is where the host is; then its family.
                all.sort_by_key(|address| (*address != wanted, address.is_ipv4() != wanted.is_ipv4()));
                all
            }
        };
        if addresses.is_empty() {
            return Err(Reason::ResolutionFailed);
        }
        for address in addresses {
            if let Ok(Ok(stream)) = timeout(REACH, TcpStream::connect(address)).await {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
        }
        Err(Reason::Unreachable)
    }

    /// Resolves when the policy forbids what it permitted.
    async fn forbidden(&self, permit: &Permit) -> Reason {
        let mut held = self.held.clone();
        loop {
            if let Some(policy) = held.borrow_and_update().as_ref()
                && !policy.still(permit)
            {
                return if policy.suspended { Reason::Suspended } else { Reason::DestinationNotDeclared };
            }
            if held.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// Reads into `hello` until the server is known. What was read is sent on as it came.
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
        if hello.len() > 2 * LARGEST_HELLO {
            return Err(Reason::HelloMalformed);
        }
    }
}

thread_local! {
    /// One for all connections of the thread: it is empty whenever a task waits.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// One direction, until its end.
async fn pass(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    loop {
        from.readable().await?;
        let rest = SCRATCH.with_borrow_mut(|scratch| -> io::Result<Option<Vec<u8>>> {
            let length = match from.try_read(scratch) {
                Ok(0) => return Ok(None),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Some(Vec::new())),
                Err(error) => return Err(error),
            };
            let sent = match to.try_write(&scratch[..length]) {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            Ok(Some(scratch[sent..length].to_vec()))
        })?;
        match rest {
            None => break,
            Some(rest) => write_all(to, &rest).await?,
        }
    }
    match SockRef::from(to).shutdown(Shutdown::Write) {
        // It is gone already.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
        done => done,
    }
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
