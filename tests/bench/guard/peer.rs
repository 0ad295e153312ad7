//! Who is measured. Each lies in a pod of its own behind a redirect, lets through the same two destinations, and connects where the client
//! wanted to go; one worker each, no log of what is permitted.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use remit::policy::signed::Signer;
use serde_json::{Value, json};

use super::load::{Connection, Mode};
use super::world::{DNS, HELP, HELP_NAME, ORDERS, World};

/// The guard's user and group, and the group that the redirect of the others leaves alone.
const IDS: (u32, u32) = (2_000_000_101, 2_000_000_102);
/// Where the others listen.
const TCP_PORT: u16 = 15_001;
const TLS_PORT: u16 = 15_002;

pub enum Program {
    Direct,
    Guard { name: &'static str, path: PathBuf },
    HAProxy(PathBuf),
    Envoy(PathBuf),
}

impl Program {
    pub fn guard(name: &'static str, path: PathBuf) -> Self {
        Self::Guard { name, path }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Guard { name, .. } => name,
            Self::HAProxy(_) => "HAProxy",
            Self::Envoy(_) => "Envoy",
        }
    }
}

pub struct Peer {
    pub pod: String,
    directory: tempfile::TempDir,
    core: usize,
    child: Option<Child>,
    /// From exec until a connection was served.
    pub started: Option<Duration>,
}

impl Peer {
    /// On this core, and the client and the upstream elsewhere: who shares one with whom would else be drawn anew in each turn.
    pub fn start(world: &World, n: usize, program: &Program, core: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
        let mut peer = Self { pod: world.pods[n].clone(), directory, core, child: None, started: None };
        let (uid, gid) = IDS;
        let began = match program {
            Program::Direct => return peer,
            Program::Guard { path, .. } => {
                // Its user may not read where it was built.
                let path = peer.copy(path, "remit-guard");
                peer.run(&[&path, "redirect", "--uid", &uid.to_string(), "--gid", &gid.to_string()], None);
                peer.policy(&policy(1, |_| ()));
                peer.write("resolv.conf", &format!("nameserver {DNS}\n"));
                let (note, resolv) = (peer.path("policy.note"), peer.path("resolv.conf"));
                let trust = signer().trust().to_string();
                let guard = [&path, "run", "--policy", &note, "--trust", &trust, "--workload", "support/bot/u", "--resolv-conf", &resolv];
                peer.spawn(&["--reuid", &uid.to_string()], &guard)
            }
            Program::HAProxy(path) => {
                peer.redirect();
                peer.write("haproxy.cfg", &haproxy());
                peer.spawn(&[], &[&path.display().to_string(), "-db", "-f", &peer.path("haproxy.cfg")])
            }
            Program::Envoy(path) => {
                peer.redirect();
                peer.write("envoy.json", &envoy().to_string());
                let (path, config) = (path.display().to_string(), peer.path("envoy.json"));
                peer.spawn(&[], &[&path, "-c", &config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"])
            }
        };
        while Connection::open(&peer, Mode::Address).and_then(|mut c| c.ask(0, 1, None)).is_err() {
            let log = || std::fs::read_to_string(peer.path("log")).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(30), "{} does not serve: {}", program.name(), log());
            std::thread::sleep(Duration::from_millis(1));
        }
        peer.started = Some(began.elapsed());
        peer
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file is written");
    }

    fn copy(&self, from: &Path, name: &str) -> String {
        std::fs::copy(from, self.path(name)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        self.path(name)
    }

    /// Swapped as a whole, as the kubelet does.
    pub fn policy(&self, policy: &Value) {
        self.write("policy.new", &signer().sign(&policy.to_string()));
        std::fs::rename(self.path("policy.new"), self.path("policy.note")).expect("the policy is there");
    }

    fn run(&self, words: &[&str], input: Option<&str>) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.pod]).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("`ip` is there");
        child.stdin.take().expect("piped").write_all(input.unwrap_or_default().as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// As the guard's, but by hand: what leaves goes to the proxy, unless it is the proxy's own.
    fn redirect(&self) {
        let rules = format!(
            "table ip bench
            delete table ip bench
            table ip bench {{
                chain out {{
                    type nat hook output priority -100
                    meta skgid {} accept
                    fib daddr type local accept
                    tcp dport {} redirect to :{TLS_PORT}
                    meta l4proto tcp redirect to :{TCP_PORT}
                }}
            }}",
            IDS.1, HELP.1
        );
        self.run(&["nft", "-f", "-"], Some(&rules));
    }

    fn spawn(&mut self, user: &[&str], words: &[&str]) -> Instant {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let began = Instant::now();
        let child = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.pod,
                "taskset",
                "-c",
                &self.core.to_string(),
                "setpriv",
                "--clear-groups",
                "--regid",
                &IDS.1.to_string(),
            ])
            .args(user)
            .args(words)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("`ip` is there");
        self.child = Some(child);
        began
    }

    pub fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn process(&self) -> Option<PathBuf> {
        Some(PathBuf::from(format!("/proc/{}", self.child.as_ref()?.id())))
    }

    /// User and system time of all its threads, by the scheduler's clock: ticks are too coarse.
    fn cpu(&self) -> Option<Duration> {
        let tasks = std::fs::read_dir(self.process()?.join("task")).expect("it runs");
        let of = |task: std::fs::DirEntry| -> Option<u64> {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        Some(Duration::from_nanos(tasks.flatten().filter_map(of).sum()))
    }

    /// What it needs for this, and for clearing up after it. None: nobody is between.
    pub fn cpu_of(&self, work: impl FnOnce()) -> Option<Duration> {
        let before = self.cpu();
        work();
        std::thread::sleep(Duration::from_millis(100));
        Some(self.cpu()?.saturating_sub(before?))
    }

    pub fn resident(&self) -> Option<u64> {
        let status = std::fs::read_to_string(self.process()?.join("status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end();
    }
}

fn signer() -> Signer {
    Signer::from_seed(&[7; 32])
}

/// The scope of the bench: one Service, one host.
pub fn policy(generation: u64, change: impl FnOnce(&mut Value)) -> Value {
    let mut policy = json!({
        "format": 1, "workload": {"namespace": "support", "name": "bot", "uid": "u"}, "generation": generation, "digest": "bench",
        "mode": "Enforce", "suspended": false,
        "network": {"domain": "cluster.local", "dns": [format!("{DNS}:53")], "services": ["10.96.0.0/16"], "own": ["10.96.0.0/16", "10.244.0.0/16"]},
        "destinations": [
            {"source": "orders", "target": {"type": "Service", "name": "orders", "namespace": "shop", "ports": [ORDERS.1]}},
            {"source": "help", "target": {"type": "Host", "name": HELP_NAME, "port": HELP.1}},
        ],
    });
    change(&mut policy);
    policy
}

fn haproxy() -> String {
    format!(
        "global
    nbthread 1
    maxconn 4096
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend tcp
    bind 127.0.0.1:{TCP_PORT}
    tcp-request connection reject unless {{ dst {} }} {{ dst_port {} }}
    default_backend wanted
frontend tls
    bind 127.0.0.1:{TLS_PORT}
    tcp-request inspect-delay 5s
    tcp-request content accept if {{ req.ssl_hello_type 1 }} {{ req.ssl_sni -i {HELP_NAME} }}
    tcp-request content reject if WAIT_END
    default_backend wanted
backend wanted
    # Where the client wanted to go.
    server wanted 0.0.0.0
",
        ORDERS.0, ORDERS.1
    )
}

fn envoy() -> Value {
    let filter = |kind: &str, name: &str, message: &str| json!({"name": format!("envoy.filters.{kind}.{name}"), "typed_config": {"@type": format!("type.googleapis.com/envoy.extensions.filters.{kind}.{name}.v3.{message}")}});
    let original = filter("listener", "original_dst", "OriginalDst");
    let inspector = filter("listener", "tls_inspector", "TlsInspector");
    let mut proxy = filter("network", "tcp_proxy", "TcpProxy");
    proxy["typed_config"]["stat_prefix"] = json!("bench");
    proxy["typed_config"]["cluster"] = json!("wanted");
    let listener = |port: u16, filters: &[&Value], matches: Value| {
        json!({
            "name": port.to_string(), "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "listener_filters": filters, "filter_chains": [{"filter_chain_match": matches, "filters": [proxy]}],
        })
    };
    let many = json!({"max_connections": 4_096, "max_pending_requests": 4_096});
    json!({"static_resources": {
        "listeners": [
            listener(TCP_PORT, &[&original], json!({"prefix_ranges": [{"address_prefix": ORDERS.0, "prefix_len": 32}], "destination_port": ORDERS.1})),
            listener(TLS_PORT, &[&original, &inspector], json!({"server_names": [HELP_NAME], "destination_port": HELP.1})),
        ],
        "clusters": [{
            "name": "wanted", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [many]},
        }],
    }})
}
