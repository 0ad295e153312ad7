//! The guard in a network namespace of its own, as in a pod: real rules, real packets, no Kubernetes. Needs root, `ip` and `nft`.
//!
//! A second namespace is the world: a DNS server, Services, hosts in both families and a metadata server, which count what arrives.

mod attacks;
mod changes;
#[cfg(feature = "operator")]
mod channel;
mod connections;
mod guard_process;
mod http2;
mod http_answers;
mod http_attacks;
mod http_bodies;
mod http_changes;
mod http_proxy;
mod http_records;
mod http_smuggling;
mod http_url;
mod http_wire;
mod inspect;
mod laptop;
mod names;
mod network;
mod redirect;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use remit::policy::pod::{HEALTH_PORT, IDS};
use remit::policy::signed::Signer;
use remit::wire::dns::{self, Query, ResponseCode};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use socket2::SockRef;

pub const ORDERS: &str = "10.96.7.7";
pub const HELP: [&str; 2] = ["203.0.113.10", "2001:db8:ffff::10"];
pub const EVIL: [&str; 2] = ["203.0.113.66", "2001:db8:ffff::66"];
const DNS: &str = "10.96.0.10";
const GATEWAY: [&str; 2] = ["10.244.0.1", "2001:db8:10:244::1"];
const POD: [&str; 2] = ["10.244.0.5", "2001:db8:10:244::5"];

/// Two replicas of the operator.
pub const OPERATORS: [&str; 2] = ["10.244.9.1", "10.244.9.2"];

/// What the DNS server knows.
const NAMES: &[(&str, &[&str])] = &[
    ("orders.shop.svc.cluster.local", &[ORDERS]),
    ("help.example.com", &HELP),
    ("mirror.example.com", &HELP),
    ("rebind.example.com", &[ORDERS]),
    // Nobody is there, and nobody says so.
    ("silent.example.com", &["203.0.113.99"]),
    ("external.support.svc.cluster.local", &[EVIL[0]]),
    ("remit-guards.remit-system.svc.cluster.local", &OPERATORS),
];

/// Every address of the world, and its TCP and UDP ports.
const HOSTS: &[(&str, &[u16], &[u16])] = &[
    (ORDERS, &[5432, 22], &[]),
    (HELP[0], &[443, 80], &[443]),
    (HELP[1], &[443, 80], &[443]),
    (EVIL[0], &[443, 53], &[53, 443, 9999]),
    (EVIL[1], &[443, 53], &[53, 443, 9999]),
    ("203.0.113.30", &[], &[]),
    ("169.254.169.254", &[80], &[]),
    ("10.96.66.66", &[8443], &[]),
    (GATEWAY[0], &[10250], &[]),
    (GATEWAY[1], &[10250], &[]),
];

pub struct World {
    pod: String,
    world: String,
    directory: tempfile::TempDir,
    hits: Arc<Mutex<BTreeMap<String, usize>>>,
    guard: Mutex<Option<Child>>,
    pub uid: u32,
    pub gid: u32,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other side sent back what was sent.
    Echo,
    /// Something else came, or the end.
    Other(usize),
    Error(ErrorKind),
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().expect("`ip` (iproute2) is there");
    assert!(output.status.success(), "ip {args}: {} (root is needed)", String::from_utf8_lossy(&output.stderr));
}

/// Who vouches for policies here.
pub fn signer() -> Signer {
    Signer::from_seed(&[7; 32])
}

impl World {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let short = format!("{:x}{number}", std::process::id() & 0xffff);
        let (pod, world) = (format!("rmtp{short}"), format!("rmtw{short}"));
        for name in [&pod, &world] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        ip(&format!("link add p{short} netns {pod} type veth peer name w{short} netns {world}"));
        for (name, device, addresses) in [(&pod, format!("p{short}"), POD), (&world, format!("w{short}"), GATEWAY)] {
            ip(&format!("-n {name} addr add {}/24 dev {device}", addresses[0]));
            ip(&format!("-n {name} addr add {}/64 dev {device} nodad", addresses[1]));
            ip(&format!("-n {name} link set {device} up"));
        }
        ip(&format!("-n {pod} route add default via {}", GATEWAY[0]));
        ip(&format!("-n {pod} -6 route add default via {}", GATEWAY[1]));
        let known = HOSTS.iter().map(|(address, _, _)| *address).chain([DNS]).chain(OPERATORS).filter(|a| !GATEWAY.contains(a));
        for address in known {
            // An IPv6 address that others might bear is there only a moment later.
            let (length, alone) = if address.contains(':') { (128, " nodad") } else { (32, "") };
            ip(&format!("-n {world} addr add {address}/{length} dev lo{alone}"));
        }
        let ids = || IDS.start() + (std::process::id() * 31 + number * 7) % (IDS.end() - IDS.start());
        let made = Self {
            pod,
            world,
            directory: tempfile::tempdir().expect("a directory"),
            hits: Arc::default(),
            guard: Mutex::new(None),
            uid: ids(),
            gid: ids() + 1,
        };
        made.serve();
        std::fs::write(
            made.path("resolv.conf"),
            "nameserver 10.96.0.10\nsearch support.svc.cluster.local svc.cluster.local cluster.local\n",
        )
        .expect("resolv.conf");
        made
    }

    /// A pod of which nothing gets out but through the guard, which enforces this.
    pub fn guarded(policy: &Value) -> Self {
        let world = Self::new();
        world.redirect();
        world.policy(policy);
        world.start();
        world.ready();
        world
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    pub fn policy(&self, policy: &Value) {
        self.note(&signer().sign(&policy.to_string()));
    }

    /// Whatever it is, in the policy's place.
    pub fn note(&self, note: &str) {
        // Swapped as a whole, as the kubelet does.
        let new = self.path("policy.new");
        std::fs::write(&new, note).expect("the note is written");
        std::fs::rename(new, self.path("policy.note")).expect("the note is there");
    }

    /// The pod's network namespace.
    pub fn pod_name(&self) -> &str {
        &self.pod
    }

    /// The pod's network device.
    pub fn device(&self) -> String {
        self.pod.replacen("rmtp", "p", 1)
    }

    /// The init container, which succeeds.
    pub fn redirect(&self) -> String {
        let (code, said) = self.redirected();
        assert_eq!(code, Some(0), "{said}");
        said
    }

    /// How the init container ends, and what it says.
    pub fn redirected(&self) -> (Option<i32>, String) {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.pod, env!("CARGO_BIN_EXE_remit-guard"), "redirect"])
            .args(["--uid", &self.uid.to_string(), "--gid", &self.gid.to_string()])
            .output()
            .expect("the init container starts");
        (output.status.code(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    /// The sidecar.
    pub fn start(&self) {
        self.start_with(&[], &["--reuid", &self.uid.to_string()]);
    }

    /// The sidecar, with more arguments.
    pub fn start_and(&self, more: &[&str]) {
        self.begin(&[], &["--reuid", &self.uid.to_string()], more);
    }

    /// The sidecar, by these words, as this user.
    pub fn start_with(&self, by: &[&str], user: &[&str]) {
        self.begin(by, user, &[]);
    }

    fn begin(&self, by: &[&str], user: &[&str], more: &[&str]) {
        // Its files must be readable for the guard's user.
        std::fs::set_permissions(self.directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
        let log = std::fs::File::options().create(true).append(true).open(self.path("guard.log")).expect("a log");
        let guard = Command::new("ip")
            .args(["netns", "exec", &self.pod])
            .args(by)
            .args(["setpriv", "--clear-groups", "--regid", &self.gid.to_string()])
            .args(user)
            .args([env!("CARGO_BIN_EXE_remit-guard"), "run", "--policy", &self.path("policy.note")])
            .args(["--trust", &signer().trust().to_string(), "--workload", "support/bot/u", "--token", &self.path("token")])
            .args(["--resolv-conf", &self.path("resolv.conf"), "--drain-seconds", "1"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the guard starts");
        *self.guard.lock().expect("no panic while locked") = Some(guard);
    }

    pub fn ready(&self) {
        self.eventually("the guard is ready", || match self.health() {
            Some(text) if text.starts_with("HTTP/1.1 200") => Ok(()),
            other => Err(format!("{other:?}; log: {}", self.log())),
        });
    }

    /// What `/readyz` says, from outside the pod.
    pub fn health(&self) -> Option<String> {
        in_namespace(&self.world, || {
            let at = SocketAddr::new(POD[0].parse().expect("an address"), HEALTH_PORT);
            let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\n\r\n").ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text)
        })
    }

    pub fn pid(&self) -> u32 {
        self.guard.lock().expect("no panic while locked").as_ref().expect("it runs").id()
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid().to_string()]).status().expect("kill");
        assert!(sent.success());
    }

    pub fn kill(&self) {
        if let Some(mut guard) = self.guard.lock().expect("no panic while locked").take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("guard.log")).unwrap_or_default()
    }

    /// The records of this reason.
    pub fn denials(&self, reason: &str) -> Vec<Value> {
        self.records("reason", reason)
    }

    /// The records of which this field is so.
    pub fn records(&self, field: &str, value: &str) -> Vec<Value> {
        let records = self.log();
        let records = records.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|r| r[field] == value).collect()
    }

    /// What arrived anywhere in the world, but for DNS questions.
    pub fn arrived(&self) -> BTreeMap<String, usize> {
        self.hits.lock().expect("no panic while locked").clone()
    }

    pub fn forget(&self) {
        self.hits.lock().expect("no panic while locked").clear();
    }

    /// Where upstreams are.
    pub fn in_world<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.world, act)
    }

    pub fn in_pod<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.pod, act)
    }

    /// Says something to a TCP port, from inside the pod.
    pub fn tcp(&self, to: &str, port: u16, say: &[u8]) -> Outcome {
        self.in_pod(|| {
            let talk = || -> std::io::Result<Outcome> {
                let mut stream = connect(to, port)?;
                stream.write_all(say)?;
                let mut got = vec![0; say.len()];
                let mut length = 0;
                while length < got.len() {
                    match stream.read(&mut got[length..])? {
                        0 => return Ok(Outcome::Other(length)),
                        n => length += n,
                    }
                }
                Ok(if got == say { Outcome::Echo } else { Outcome::Other(length) })
            };
            talk().unwrap_or_else(|error| Outcome::Error(error.kind()))
        })
    }

    /// Sends a datagram from inside the pod and waits for its echo.
    pub fn udp(&self, to: &str, port: u16) -> Outcome {
        self.in_pod(|| {
            let talk = || -> std::io::Result<Outcome> {
                let to: IpAddr = to.parse().expect("an address");
                let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind((any, 0))?;
                socket.set_read_timeout(Some(Duration::from_millis(700)))?;
                socket.send_to(b"datagram", (to, port))?;
                let mut got = [0; 64];
                let (length, _) = socket.recv_from(&mut got)?;
                Ok(if &got[..length] == b"datagram" { Outcome::Echo } else { Outcome::Other(length) })
            };
            talk().unwrap_or_else(|error| Outcome::Error(error.kind()))
        })
    }

    /// Asks the pod's DNS for the IPv4 addresses of a name.
    pub fn lookup(&self, name: &str) -> (dns::Answer, String) {
        self.in_pod(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.set_read_timeout(Some(Duration::from_secs(6))).expect("a timeout");
            let name = name.parse().expect("a name");
            socket.send_to(&dns::question(7, &name, false), (DNS, 53)).expect("sent");
            let mut got = [0; 2048];
            let (length, from) = socket.recv_from(&mut got).expect("an answer");
            assert_eq!(from.to_string(), format!("{DNS}:53"), "it comes from whom was asked");
            (
                dns::answer(&got[..length], 7, &name, false).expect("an answer to the question"),
                String::from_utf8_lossy(&got[..length]).into_owned(),
            )
        })
    }

    pub fn eventually<T>(&self, what: &str, mut look: impl FnMut() -> Result<T, String>) -> (T, Duration) {
        let began = Instant::now();
        loop {
            match look() {
                Ok(value) => return (value, began.elapsed()),
                Err(complaint) => assert!(began.elapsed() < Duration::from_secs(20), "{what}: {complaint}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn serve(&self) {
        in_namespace(&self.world, || {
            let socket = UdpSocket::bind((DNS, 53)).expect("the DNS server");
            std::thread::spawn(move || name_server(&socket));
            for (address, tcp, udp) in HOSTS {
                for port in *tcp {
                    let listener = TcpListener::bind((*address, *port)).expect("a TCP port");
                    let (hits, what) = (self.hits.clone(), format!("tcp {address} {port}"));
                    std::thread::spawn(move || {
                        for stream in listener.incoming().flatten() {
                            note(&hits, &what);
                            std::thread::spawn(move || echo(stream));
                        }
                    });
                }
                for port in *udp {
                    let socket = UdpSocket::bind((*address, *port)).expect("a UDP port");
                    let (hits, what) = (self.hits.clone(), format!("udp {address} {port}"));
                    std::thread::spawn(move || {
                        let mut buffer = [0; 2048];
                        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                            note(&hits, &what);
                            let _ = socket.send_to(&buffer[..length], from);
                        }
                    });
                }
            }
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- guard.log\n{}", self.log());
        }
        self.kill();
        for name in [&self.pod, &self.world] {
            ip(&format!("netns del {name}"));
        }
    }
}

fn note(hits: &Mutex<BTreeMap<String, usize>>, what: &str) {
    *hits.lock().expect("no panic while locked").entry(what.to_owned()).or_default() += 1;
}

/// Sends back what comes; `RESET` breaks off.
fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if &buffer[..length] == b"RESET" {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return;
        }
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn name_server(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let Ok(query) = Query::read(&buffer[..length]) else { continue };
        let known = NAMES.iter().find(|(name, _)| query.name().is_some_and(|asked| asked.as_str() == *name));
        let addresses: Vec<IpAddr> = known.iter().flat_map(|(_, all)| all.iter()).map(|a| a.parse().expect("an address")).collect();
        let code = if known.is_some() { ResponseCode::Ok } else { ResponseCode::NoSuchName };
        let _ = socket.send_to(&query.answer(code, &addresses, 1, None, false), from);
    }
}

pub fn connect(to: &str, port: u16) -> std::io::Result<TcpStream> {
    let to = SocketAddr::new(to.parse().expect("an address"), port);
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    Ok(stream)
}

/// On a thread in this namespace; the threads that it starts are there as well.
fn in_namespace<T: Send>(name: &str, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let file = std::fs::File::open(format!("/run/netns/{name}")).expect("the namespace");
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).expect("root");
            act()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A scope with a Service, hosts, and names that lie.
pub fn policy() -> Value {
    let service = |source: &str, namespace: &str, port: u16| json!({"source": source, "target": {"type": "Service", "name": source, "namespace": namespace, "ports": [port]}});
    let host = |source: &str| json!({"source": source, "target": {"type": "Host", "name": format!("{source}.example.com"), "port": 443}});
    json!({
        "format": 1, "workload": {"namespace": "support", "name": "bot", "uid": "u"}, "generation": 1, "digest": "one",
        "mode": "Enforce", "suspended": false,
        "network": {
            "domain": "cluster.local", "dns": [format!("{DNS}:53")],
            "services": ["10.96.0.0/16", "10.244.0.0/16", "2001:db8:10:244::/64"],
            "own": ["10.96.0.0/16", "10.244.0.0/16", "2001:db8:10:244::/64"],
        },
        "destinations": [service("orders", "shop", 5432), service("external", "support", 443), host("help"), host("rebind")],
    })
}

/// The next policy of the same AIWorkload.
pub fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut policy = policy();
    policy["generation"] = json!(2);
    policy["digest"] = json!("two");
    change(&mut policy);
    policy
}

/// A ClientHello that names this server.
pub fn hello(server: &str) -> Vec<u8> {
    hello_with(&server_name(server))
}

fn long(data: &[u8]) -> Vec<u8> {
    [&(data.len() as u16).to_be_bytes()[..], data].concat()
}

/// The extension that names a server.
pub fn server_name(server: &str) -> Vec<u8> {
    extension(0, &long(&[&[0u8][..], &long(server.as_bytes())].concat()))
}

pub fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &long(data)].concat()
}

/// A ClientHello with these extensions.
pub fn hello_with(extensions: &[u8]) -> Vec<u8> {
    let body = [&[3u8, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &long(extensions)].concat();
    let message = [&[1u8, 0][..], &long(&body)].concat();
    [&[22u8, 3, 1][..], &long(&message)].concat()
}
