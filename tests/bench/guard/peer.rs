//! Who is measured. Each lies in a pod of its own behind a redirect, lets through the same two destinations, and connects where the client
//! wanted to go; one worker each, no log of what is permitted.

use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::beside::pod::{self, Pod};
use super::beside::world::World;
use super::load::{Connection, Mode};
use super::upstream::{HELP, HELP_NAME, ORDERS};

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
    pub pod: Pod,
    /// From exec until a connection was served.
    pub started: Option<Duration>,
}

impl Deref for Peer {
    type Target = Pod;

    fn deref(&self) -> &Pod {
        &self.pod
    }
}

impl Peer {
    pub fn start(world: &World, n: usize, program: &Program, core: usize) -> Self {
        let mut pod = Pod::new(world, n, core);
        let redirect = [format!("tcp dport {} redirect to :{TLS_PORT}", HELP.1), format!("meta l4proto tcp redirect to :{TCP_PORT}")];
        let began = match program {
            Program::Direct => return Self { pod, started: None },
            Program::Guard { path, .. } => pod.guard(path, &policy(1, |_| ())),
            Program::HAProxy(path) => {
                pod.redirect(&redirect);
                pod.write("haproxy.cfg", &haproxy());
                pod.proxy(&[&path.display().to_string(), "-db", "-f", &pod.path("haproxy.cfg")])
            }
            Program::Envoy(path) => {
                pod.redirect(&redirect);
                pod.write("envoy.json", &envoy().to_string());
                let (path, config) = (path.display().to_string(), pod.path("envoy.json"));
                pod.proxy(&[&path, "-c", &config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"])
            }
        };
        let mut peer = Self { pod, started: None };
        while Connection::open(&peer, Mode::Address).and_then(|mut c| c.ask(0, 1, None)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "{} does not serve: {}", program.name(), peer.said());
            std::thread::sleep(Duration::from_millis(1));
        }
        peer.started = Some(began.elapsed());
        peer
    }
}

/// The scope of the bench: one Service, one host.
pub fn policy(generation: u64, change: impl FnOnce(&mut Value)) -> Value {
    let destinations = json!([
        {"source": "orders", "target": {"type": "Service", "name": "orders", "namespace": "shop", "ports": [ORDERS.1]}},
        {"source": "help", "target": {"type": "Host", "name": HELP_NAME, "port": HELP.1}},
    ]);
    let mut policy = pod::policy(1, generation, &destinations);
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
