//! Names → addresses, asked of the cluster's DNS only, filtered by the policy, and kept for as long as DNS says (within bounds).
//!
//! What was resolved is also what addresses are known by: a connection to an address is one to a declared Service only if the guard itself
//! found that address under its name.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::Held;
use crate::policy::{GuardPolicy, Reason};
use crate::scope::DomainName;
use crate::wire::dns::{self, Answer};

/// A name that flips with every answer is held still for this long.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
/// For one server's answer.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// At most this often are all declared Services looked up because of an address that nobody knows.
const REFRESH: Duration = Duration::from_secs(1);

pub struct Resolver {
    held: Held,
    known: Mutex<BTreeMap<DomainName, Known>>,
    refreshed: tokio::sync::Mutex<Option<Instant>>,
    random: RandomState,
    count: AtomicU64,
}

#[derive(Clone, Debug)]
struct Known {
    found: Found,
    until: Instant,
    /// The policy it was filtered by.
    digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Both families. Empty: the name has none, or does not exist.
    pub addresses: Vec<IpAddr>,
    pub exists: bool,
    /// Seconds that clients may keep it.
    pub ttl: u32,
}

impl Resolver {
    pub fn new(held: Held) -> Self {
        Self {
            held,
            known: Mutex::default(),
            refreshed: tokio::sync::Mutex::new(None),
            random: RandomState::new(),
            count: AtomicU64::new(0),
        }
    }

    /// The addresses that a declared name has.
    pub async fn resolve(&self, policy: &GuardPolicy, name: &DomainName) -> Result<Found, Reason> {
        let now = Instant::now();
        if let Some(known) = self.known().get(name).filter(|known| known.until > now && known.digest == policy.digest) {
            return Ok(known.found.clone());
        }
        let (four, six) = tokio::join!(self.ask(policy, name, false), self.ask(policy, name, true));
        let mut addresses = Vec::new();
        let (mut exists, mut life, mut failed) = (false, u32::MAX, 0);
        for answer in [four, six] {
            match answer {
                Some(Answer::Addresses(found, ttl)) => {
                    exists = true;
                    if !found.is_empty() {
                        life = life.min(ttl);
                    }
                    addresses.extend(found);
                }
                Some(Answer::NoSuchName) => {}
                Some(Answer::Truncated | Answer::Failed) | None => failed += 1,
            }
        }
        // One family is enough to go on with; none is no answer.
        if failed == 2 || (failed == 1 && addresses.is_empty()) {
            return Err(Reason::ResolutionFailed);
        }
        let addresses = policy.addresses(name, &addresses)?;
        let life = Duration::from_secs(life.into()).clamp(SHORTEST, if addresses.is_empty() { SHORTEST } else { LONGEST });
        let found = Found { addresses, exists, ttl: life.as_secs() as u32 };
        let mut known = self.known();
        // Only declared names come here, so it is bounded; what a former policy declared goes.
        known.retain(|_, k| k.until > now && k.digest == policy.digest);
        known.insert(name.clone(), Known { found: found.clone(), until: now + life, digest: policy.digest.clone() });
        Ok(found)
    }

    /// The declared names that this address was found under. Where there is none, all declared Services are looked up first.
    pub async fn names_of(&self, policy: &GuardPolicy, address: IpAddr) -> Vec<DomainName> {
        let address = address.to_canonical();
        let names = self.remembered(policy, address);
        if !names.is_empty() || !policy.may_be_a_service(address) {
            return names;
        }
        let mut refreshed = self.refreshed.lock().await;
        if refreshed.is_none_or(|at| at.elapsed() >= REFRESH) {
            for name in policy.services() {
                // One that cannot be found does not hide the others.
                let _ = self.resolve(policy, name).await;
            }
            *refreshed = Some(Instant::now());
        }
        self.remembered(policy, address)
    }

    fn remembered(&self, policy: &GuardPolicy, address: IpAddr) -> Vec<DomainName> {
        let now = Instant::now();
        let fits = |known: &Known| known.until > now && known.digest == policy.digest && known.found.addresses.contains(&address);
        self.known().iter().filter(|(_, known)| fits(known)).map(|(name, _)| name.clone()).collect()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<DomainName, Known>> {
        self.known.lock().unwrap_or_else(|e| e.into_inner())
    }

    async fn ask(&self, policy: &GuardPolicy, name: &DomainName, six: bool) -> Option<Answer> {
        for _ in 0..ATTEMPTS {
            for server in &policy.dns {
                let id = (self.random.hash_one(self.count.fetch_add(1, Ordering::Relaxed)) & 0xffff) as u16;
                match timeout(PATIENCE, over_udp(*server, id, name, six)).await {
                    Ok(Ok(Answer::Truncated)) => {
                        if let Ok(Ok(answer)) = timeout(PATIENCE, over_tcp(*server, id, name, six)).await {
                            return Some(answer);
                        }
                    }
                    Ok(Ok(Answer::Failed)) | Ok(Err(_)) | Err(_) => {}
                    Ok(Ok(answer)) => return Some(answer),
                }
            }
            // The policy may have changed the servers meanwhile.
            if self.held.borrow().as_ref().is_none_or(|held| held.digest != policy.digest) {
                return None;
            }
        }
        None
    }

    /// A query as it is, and the answer as it comes: for Observe.
    pub async fn pass_on(&self, policy: &GuardPolicy, query: &[u8]) -> Option<Vec<u8>> {
        let server = *policy.dns.first()?;
        let asked = async {
            let socket = connected(server).await?;
            socket.send(query).await?;
            let mut buffer = vec![0; 4096];
            let length = socket.recv(&mut buffer).await?;
            buffer.truncate(length);
            io::Result::Ok(buffer)
        };
        timeout(PATIENCE, asked).await.ok()?.ok()
    }
}

/// A socket of its own for each question: the port is as hard to guess as the id, and answers of others never arrive.
async fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    Ok(socket)
}

async fn over_udp(server: SocketAddr, id: u16, name: &DomainName, six: bool) -> io::Result<Answer> {
    let socket = connected(server).await?;
    socket.send(&dns::question(id, name, six)).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What is no answer to this question is somebody's guess.
        if let Ok(answer) = dns::answer(&buffer[..length], id, name, six) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, id: u16, name: &DomainName, six: bool) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let question = dns::question(id, name, six);
    let mut framed = (question.len() as u16).to_be_bytes().to_vec();
    framed.extend(question);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    dns::answer(&buffer, id, name, six).map_err(io::Error::other)
}

/// The `search` line of a resolv.conf.
pub fn search_list(resolv_conf: &str) -> Vec<DomainName> {
    let mut lists = resolv_conf.lines().filter_map(|line| line.trim_start().strip_prefix("search"));
    lists.next_back().into_iter().flat_map(str::split_whitespace).filter_map(|name| name.parse().ok()).take(32).collect()
}

/// Held by the servers.
pub type SharedResolver = Arc<Resolver>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_list() {
        let text = "nameserver 10.96.0.10\nsearch support.svc.cluster.local svc.cluster.local cluster.local .\noptions ndots:5\n";
        let names: Vec<String> = search_list(text).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["support.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
        assert!(search_list("nameserver ::1\n").is_empty());
    }
}
