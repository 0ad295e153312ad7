//! Names → addresses, asked of the cluster's DNS only, filtered by the policy, and kept for as long as DNS says (within bounds).
//!
//! What was resolved is also what addresses are known by: a connection to an address is one to a declared Service only if the guard itself
//! found that address under its name.
//!
//! A name is asked for once at a time, however many wait for it. What DNS said is kept as it was said: the policy of the moment filters it
//! whenever it is used. While DNS fails, the last good answer serves for [`LONGER`] beyond its time.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::Held;
use crate::policy::{Channel, GuardPolicy, MOST_DESTINATIONS, Reason};
use crate::scope::DomainName;
use crate::wire::dns::{self, Answer};

/// A name that flips with every answer is held still for this long; one that cannot be found is not asked for again sooner.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
/// How much longer than DNS said a good answer serves, while there is no newer one.
const LONGER: Duration = Duration::from_secs(60);
/// For one server's answer.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// For the declared Services, when nobody knows an address.
const REFRESH: Duration = Duration::from_secs(2);
/// Names that are kept: pods of a headless Service may have any name, and must not crowd out what is declared by its own.
const MOST_KNOWN: usize = 2 * MOST_DESTINATIONS;
/// Names that are asked for at once, each in both families.
pub const QUESTIONS: usize = 128;

pub struct Resolver {
    held: Held,
    memory: Mutex<Memory>,
    /// Ticks when an address is found that was not known before.
    found: watch::Sender<()>,
    room: Semaphore,
    random: RandomState,
    count: AtomicU64,
}

#[derive(Default)]
struct Memory {
    /// Who was asked: the answers of others do not count.
    servers: Vec<SocketAddr>,
    known: BTreeMap<DomainName, Known>,
    /// What is being asked. Each closes when there is an answer, or none.
    questions: BTreeMap<DomainName, watch::Receiver<()>>,
    refresh: Option<watch::Receiver<()>>,
}

#[derive(Clone, Debug)]
struct Known {
    /// As DNS said.
    found: Found,
    /// Not asked again before.
    fresh: Instant,
    /// No answer after that.
    usable: Instant,
    /// The last question was not answered.
    failed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Both families. Empty: the name has none, or does not exist.
    pub addresses: Vec<IpAddr>,
    pub exists: bool,
    /// Seconds that clients may keep it.
    pub ttl: u32,
}

/// What an address is known by.
#[derive(Debug)]
pub struct Names {
    pub found: Vec<DomainName>,
    /// Every declared Service was found or is not there. Otherwise the address may be one of those that DNS did not answer for.
    pub complete: bool,
}

impl Memory {
    fn of(&mut self, servers: &[SocketAddr]) -> &mut Self {
        if self.servers != servers {
            *self = Self { servers: servers.to_vec(), ..Self::default() };
        }
        self
    }

    fn fresh(&self, name: &DomainName, now: Instant) -> bool {
        self.known.get(name).is_some_and(|known| known.fresh > now)
    }

    /// Returns whether there is an address that was not known before. None: nobody answered.
    fn keep(&mut self, name: DomainName, found: Option<Found>, now: Instant) -> bool {
        let before = self.known.remove(&name).filter(|known| known.usable > now);
        let (known, new) = match (found, before) {
            (Some(found), before) => {
                let life = Duration::from_secs(found.ttl.into());
                let was = |address| before.as_ref().is_some_and(|before| before.found.addresses.contains(address));
                let new = !found.addresses.iter().all(was);
                (Known { found, fresh: now + life, usable: now + life + LONGER, failed: false }, new)
            }
            (None, Some(before)) => (Known { fresh: now + SHORTEST, failed: true, ..before }, false),
            (None, None) => {
                let found = Found { addresses: Vec::new(), exists: false, ttl: 0 };
                (Known { found, fresh: now + SHORTEST, usable: now, failed: true }, false)
            }
        };
        if self.known.len() >= MOST_KNOWN {
            self.known.retain(|_, known| known.fresh.max(known.usable) > now);
        }
        if self.known.len() >= MOST_KNOWN {
            // Names that are nowhere cost nothing to invent, so they go first.
            let least = self.known.iter().min_by_key(|(_, known)| (!known.found.addresses.is_empty(), known.fresh));
            let least = least.map(|(name, _)| name.clone());
            least.and_then(|name| self.known.remove(&name));
        }
        self.known.insert(name, known);
        new
    }
}

impl Resolver {
    pub fn new(held: Held) -> Self {
        Self {
            held,
            memory: Mutex::default(),
            found: watch::Sender::new(()),
            room: Semaphore::new(QUESTIONS),
            random: RandomState::new(),
            count: AtomicU64::new(0),
        }
    }

    /// The addresses that a declared name has.
    pub async fn resolve(self: &Arc<Self>, policy: &GuardPolicy, name: &DomainName) -> Result<Found, Reason> {
        if let Some(mut question) = self.ask_for(policy, name) {
            // It ends by closing.
            let _ = question.changed().await;
        }
        let now = Instant::now();
        let known = self.memory().of(&policy.dns).known.get(name).filter(|known| known.usable > now).cloned();
        let Some(Known { mut found, failed, .. }) = known else { return Err(Reason::ResolutionFailed) };
        found.addresses = policy.addresses(name, &found.addresses)?;
        if failed {
            found.ttl = SHORTEST.as_secs() as u32;
        }
        Ok(found)
    }

    /// Whether [`Self::resolve`] would put a question to DNS.
    pub fn would_ask(&self, policy: &GuardPolicy, name: &DomainName) -> bool {
        let mut memory = self.memory();
        let memory = memory.of(&policy.dns);
        !memory.fresh(name, Instant::now()) && !memory.questions.contains_key(name)
    }

    /// The declared names that this address was found under. Where there is none, all declared Services are looked up first.
    pub async fn names_of(self: &Arc<Self>, policy: &GuardPolicy, address: IpAddr) -> Names {
        let address = address.to_canonical();
        let mut ticks = self.found.subscribe();
        let found = self.remembered(policy, address);
        if !policy.may_be_a_service(address) {
            return Names { found, complete: true };
        }
        if !found.is_empty() {
            // What serves beyond its time is asked for again, and nobody waits for it.
            for name in &found {
                self.ask_for(policy, name);
            }
            return Names { found, complete: true };
        }
        let Some(mut refresh) = self.refresh(policy) else { return self.names_now(policy, address) };
        loop {
            tokio::select! {
                _ = refresh.changed() => return self.names_now(policy, address),
                _ = ticks.changed() => {
                    let found = self.remembered(policy, address);
                    if !found.is_empty() {
                        return Names { found, complete: true };
                    }
                }
            }
        }
    }

    fn names_now(&self, policy: &GuardPolicy, address: IpAddr) -> Names {
        let found = self.remembered(policy, address);
        let now = Instant::now();
        let mut memory = self.memory();
        let known = &memory.of(&policy.dns).known;
        let complete = policy.services().all(|name| known.get(name).is_some_and(|known| !known.failed && known.fresh > now));
        Names { found, complete }
    }

    fn remembered(&self, policy: &GuardPolicy, address: IpAddr) -> Vec<DomainName> {
        let now = Instant::now();
        let mut memory = self.memory();
        let fits = |name: &DomainName, known: &Known| {
            let has = |all: &[IpAddr]| all.iter().any(|found| found.to_canonical() == address);
            known.usable > now
                && has(&known.found.addresses)
                && policy.addresses(name, &known.found.addresses).is_ok_and(|allowed| has(&allowed))
        };
        memory.of(&policy.dns).known.iter().filter(|(name, known)| fits(name, known)).map(|(name, _)| name.clone()).collect()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Closes when all declared Services were asked for, or their time is over. None: there is nothing to ask.
    fn refresh(self: &Arc<Self>, policy: &GuardPolicy) -> Option<watch::Receiver<()>> {
        let now = Instant::now();
        let names: Vec<DomainName> = {
            let mut memory = self.memory();
            let memory = memory.of(&policy.dns);
            if let Some(refresh) = memory.refresh.as_ref().filter(|refresh| refresh.has_changed().is_ok()) {
                return Some(refresh.clone());
            }
            policy.services().filter(|name| !memory.fresh(name, now)).cloned().collect()
        };
        let questions: Vec<watch::Receiver<()>> = names.iter().filter_map(|name| self.ask_for(policy, name)).collect();
        if questions.is_empty() {
            return None;
        }
        let (ends, refresh) = watch::channel(());
        self.memory().refresh = Some(refresh.clone());
        tokio::spawn(async move {
            let all = async {
                for mut question in questions {
                    let _ = question.changed().await;
                }
            };
            let _ = timeout(REFRESH, all).await;
            drop(ends);
        });
        Some(refresh)
    }

    /// Closes when the name is known, or not to be found. None: there is nothing to ask.
    fn ask_for(self: &Arc<Self>, policy: &GuardPolicy, name: &DomainName) -> Option<watch::Receiver<()>> {
        let mut memory = self.memory();
        let memory = memory.of(&policy.dns);
        if memory.fresh(name, Instant::now()) {
            return None;
        }
        if let Some(question) = memory.questions.get(name).filter(|question| question.has_changed().is_ok()) {
            return Some(question.clone());
        }
        let (ends, question) = watch::channel(());
        memory.questions.insert(name.clone(), question.clone());
        let (resolver, servers, name) = (self.clone(), policy.dns.clone(), name.clone());
        // A task of its own: it goes on when whoever asked first gives up.
        tokio::spawn(async move {
            let found = match resolver.room.acquire().await {
                Ok(_place) => resolver.both_families(&servers, &name).await,
                Err(_) => None,
            };
            let mut memory = resolver.memory();
            let new = memory.servers == servers && {
                memory.questions.remove(&name);
                memory.keep(name, found, Instant::now())
            };
            drop(memory);
            if new {
                resolver.found.send_replace(());
            }
            drop(ends);
        });
        Some(question)
    }

    async fn both_families(&self, servers: &[SocketAddr], name: &DomainName) -> Option<Found> {
        let (four, six) = tokio::join!(self.ask(servers, name, false), self.ask(servers, name, true));
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
            return None;
        }
        let life = Duration::from_secs(life.into()).clamp(SHORTEST, if addresses.is_empty() { SHORTEST } else { LONGEST });
        Some(Found { addresses, exists, ttl: life.as_secs() as u32 })
    }

    async fn ask(&self, servers: &[SocketAddr], name: &DomainName, six: bool) -> Option<Answer> {
        for _ in 0..ATTEMPTS {
            for server in servers {
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
            if self.held.borrow().as_ref().is_none_or(|held| held.dns != servers) {
                return None;
            }
        }
        None
    }

    /// Where the operator is asked, of the policy's own servers. Nothing is kept: it is looked up rarely. None: nobody answered.
    pub async fn operators(&self, policy: &GuardPolicy) -> Option<Vec<SocketAddr>> {
        let Some(Channel { name, port: _ }) = &policy.channel else { return Some(Vec::new()) };
        let found = self.both_families(&policy.dns, name).await?;
        Some(policy.operators(&found.addresses))
    }

    /// A query as it is, and the answer as it comes, over what it came over: for Observe.
    pub async fn pass_on(&self, policy: &GuardPolicy, query: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let server = *policy.dns.first()?;
        let asked = async {
            if over_tcp {
                return framed(server, query).await;
            }
            let socket = connected(server).await?;
            socket.send(query).await?;
            let mut buffer = vec![0; 4096];
            let length = socket.recv(&mut buffer).await?;
            buffer.truncate(length);
            Ok(buffer)
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
    let buffer = framed(server, &dns::question(id, name, six)).await?;
    dns::answer(&buffer, id, name, six).map_err(io::Error::other)
}

/// One message to a server over TCP, and one back.
async fn framed(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    Ok(buffer)
}

/// The `search` line of a resolv.conf.
pub fn search_list(resolv_conf: &str) -> Vec<DomainName> {
    let mut lists = resolv_conf.lines().filter_map(|line| line.trim_start().strip_prefix("search"));
    lists.next_back().into_iter().flat_map(str::split_whitespace).filter_map(|name| name.parse().ok()).take(32).collect()
}

/// Those of `resolv.conf`, as most programs take them.
pub fn nameservers(resolv_conf: &str) -> Vec<SocketAddr> {
    const MOST: usize = 3;
    let named = resolv_conf.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    named.filter_map(|address| address.trim().parse().ok()).map(|address: IpAddr| SocketAddr::new(address, 53)).take(MOST).collect()
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
        assert_eq!(nameservers(text), ["10.96.0.10:53".parse().unwrap()]);
        let many = "# nameserver 192.0.2.9\n nameserver ::1 \nnameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        assert_eq!(nameservers(many), ["[::1]:53", "192.0.2.1:53", "192.0.2.2:53"].map(|at| at.parse().unwrap()));
    }

    #[test]
    fn names_that_are_nowhere_do_not_crowd_out_what_was_found() {
        let now = Instant::now();
        let found = |addresses: &[&str]| Found { addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(), exists: true, ttl: 5 };
        let mut memory = Memory::default();
        let orders: DomainName = "orders.shop.svc.cluster.local".parse().unwrap();
        assert!(memory.keep(orders.clone(), Some(found(&["10.96.7.7"])), now));
        for n in 0..2 * MOST_KNOWN {
            let junk = format!("junk-{n}.orders.shop.svc.cluster.local").parse().unwrap();
            memory.keep(junk, (n % 2 == 0).then(|| found(&[])), now + Duration::from_millis(1));
            assert!(memory.known.len() <= MOST_KNOWN);
        }
        assert!(memory.known.contains_key(&orders));
    }

    #[test]
    fn a_good_answer_serves_until_there_is_a_newer_one_or_for_a_minute() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let found = |address: &str| Some(Found { addresses: vec![address.parse().unwrap()], exists: true, ttl: 5 });
        let name: DomainName = "orders.shop.svc.cluster.local".parse().unwrap();
        let mut memory = Memory::default();
        assert!(memory.keep(name.clone(), found("10.96.7.7"), now));
        assert!(!memory.keep(name.clone(), None, now + 6 * second));
        let known = &memory.known[&name];
        assert!(known.failed && known.usable == now + 65 * second && known.fresh == now + 11 * second);
        assert!(!memory.keep(name.clone(), found("10.96.7.7"), now + 12 * second), "nothing new");
        assert!(memory.keep(name.clone(), found("10.96.7.8"), now + 18 * second));
        assert!(!memory.keep(name.clone(), None, now + 90 * second), "too old");
        let known = &memory.known[&name];
        assert!(known.found.addresses.is_empty() && known.usable == now + 90 * second && known.fresh == now + 95 * second);
    }
}
