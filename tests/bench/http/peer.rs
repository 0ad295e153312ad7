//! Who is measured. All permit the same methods, paths and hosts and nothing else, keep connections to the upstream open, and write a log to
//! a stdout that is read, as they are usually set up to. Clients reach the Services and the host by a redirect, and the base URL on the loopback.

use std::ops::Deref;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::beside::pod::{self, Pod};
use super::load::{self, Way};
use super::upstream::{ARTICLES, Certificates, DESK, HELP, LEDGER, SERVERS, Server};

/// Port and data source of the base URL.
pub const BASE_URL: (u16, &str) = (15_474, "help-centre");
/// Where the others listen for what is redirected from ARTICLES, LEDGER and DESK.
const PORTS: [u16; 3] = [15_001, 15_002, 15_003];

pub enum Program {
    Direct,
    Guard {
        name: &'static str,
        path: PathBuf,
    },
    /// The guard, with the Services declared TCP: what passing bytes on costs.
    Copy(PathBuf),
    Nginx(PathBuf),
    HAProxy(PathBuf),
    Envoy(PathBuf),
}

impl Program {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Guard { name, .. } => name,
            Self::Copy(_) => "TCP copy",
            Self::Nginx(_) => "nginx",
            Self::HAProxy(_) => "HAProxy",
            Self::Envoy(_) => "Envoy",
        }
    }

    pub fn is_guard(&self) -> bool {
        matches!(self, Self::Guard { .. })
    }
}

pub struct Peer {
    pub pod: Pod,
    direct: bool,
    /// From exec until a request was answered.
    pub started: Option<Duration>,
}

impl Deref for Peer {
    type Target = Pod;

    fn deref(&self) -> &Pod {
        &self.pod
    }
}

impl Peer {
    /// Whoever was started there.
    pub fn of(pod: Pod) -> Self {
        Self { pod, direct: false, started: None }
    }

    /// An error: it does not answer within this time.
    pub fn start(pod: Pod, program: &Program, certificates: &Certificates, within: Duration) -> Result<Self, String> {
        let mut peer = Self::of(pod);
        let began = match program {
            Program::Direct => {
                peer.direct = true;
                return Ok(peer);
            }
            Program::Guard { path, .. } => peer.pod.guard(path, &policy(&certificates.authority, &METHODS)),
            Program::Copy(path) => peer.pod.guard(path, &copying()),
            other => peer.proxy(other, certificates),
        };
        while let Err(error) = load::served(&peer, Way::Service) {
            if began.elapsed() > within {
                return Err(format!("{} does not serve ({error}): {}", program.name(), peer.said()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        peer.started = Some(began.elapsed());
        Ok(peer)
    }

    pub fn is_direct(&self) -> bool {
        self.direct
    }

    fn proxy(&mut self, program: &Program, certificates: &Certificates) -> Instant {
        let pod = &mut self.pod;
        let to = |(server, port): (Server, u16)| format!("ip daddr {} tcp dport {} redirect to :{port}", server.address, server.port);
        pod.redirect(&[ARTICLES, LEDGER, DESK].into_iter().zip(PORTS).map(to).collect::<Vec<_>>());
        pod.write("authority.pem", &certificates.authority);
        pod.write("certificate.pem", &certificates.certificate);
        pod.write("key.pem", &certificates.key);
        pod.write("both.pem", &[certificates.certificate.as_str(), &certificates.key].concat());
        let here = pod.path("");
        match program {
            Program::Nginx(path) => {
                pod.write("nginx.conf", &nginx());
                pod.proxy(&[&path.display().to_string(), "-e", "stderr", "-p", &here, "-c", "nginx.conf"])
            }
            Program::HAProxy(path) => {
                pod.write("haproxy.cfg", &haproxy(&here));
                pod.proxy(&[&path.display().to_string(), "-db", "-f", &pod.path("haproxy.cfg")])
            }
            Program::Envoy(path) => {
                pod.write("envoy.json", &envoy(&here).to_string());
                let (path, config) = (path.display().to_string(), pod.path("envoy.json"));
                pod.proxy(&[&path, "-c", &config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"])
            }
            Program::Direct | Program::Guard { .. } | Program::Copy(_) => unreachable!("none of ours"),
        }
    }
}

/// What all permit.
const METHODS: [&str; 2] = ["GET", "OPTIONS"];

/// The scope of the bench.
pub fn policy(authority: &str, methods: &[&str]) -> Value {
    let http = |scheme: &str, inspect: &str| {
        json!({"scheme": scheme, "inspect": inspect, "access": "Read", "rules": [{
            "methods": methods, "paths": [{"type": "PathPrefix", "value": "/articles"}],
        }]})
    };
    let mut destinations = copying()["destinations"].clone();
    for service in destinations.as_array_mut().expect("a list") {
        service["target"]["http"] = http("Http", "BaseUrl");
    }
    let hosts = [(BASE_URL.1, HELP, "BaseUrl"), ("desk", DESK, "Intercept")];
    destinations.as_array_mut().expect("a list").extend(hosts.into_iter().map(|(source, host, inspect)| {
        json!({"source": source, "target": {"type": "Host", "name": host.name, "port": host.port, "http": http("Https", inspect)}})
    }));
    let mut policy = pod::policy(2, 1, &destinations);
    policy["network"]["roots"] = json!({"public": false, "certificates": [authority]});
    policy
}

fn copying() -> Value {
    let service = |server: Server| {
        let name = server.name.split('.').next();
        json!({"source": name, "target": {"type": "Service", "name": name, "namespace": "shop", "ports": [server.port]}})
    };
    pod::policy(1, 1, &json!([service(ARTICLES), service(LEDGER)]))
}

fn nginx() -> String {
    let [one, two, tls] = PORTS;
    let (port, source) = BASE_URL;
    let upstreams: String = SERVERS
        .iter()
        .map(|Server { name, address, port }| {
            format!("    upstream {name} {{ server {address}:{port}; keepalive 128; keepalive_requests 1000000; }}\n")
        })
        .collect();
    let tls_of = |server: &Server| format!("proxy_ssl_name {0}; proxy_set_header Host {0}; proxy_pass https://{0}/articles/;", server.name);
    let location = |path: &str, pass: &str| {
        format!("location / {{ return 403; }} location {path} {{ limit_except GET OPTIONS {{ deny all; }} {pass} }}")
    };
    format!(
        "daemon off;
# One process, as the others are.
master_process off;
worker_processes 1;
error_log stderr error;
pid nginx.pid;
events {{ worker_connections 8192; }}
http {{
    access_log /dev/stdout combined buffer=64k flush=1s;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    keepalive_requests 1000000;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    proxy_set_header Host $host;
    proxy_ssl_server_name on;
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate authority.pem;
    proxy_ssl_protocols TLSv1.3;
    ssl_protocols TLSv1.3;
    ssl_certificate certificate.pem;
    ssl_certificate_key key.pem;
{upstreams}
    server {{ listen 127.0.0.1:{one} default_server; return 421; }}
    server {{ listen 127.0.0.1:{one}; server_name {}; {} }}
    server {{ listen 127.0.0.1:{two} http2 default_server; return 421; }}
    server {{ listen 127.0.0.1:{two} http2; server_name {}; {} }}
    server {{ listen 127.0.0.1:{tls} ssl default_server; return 421; }}
    server {{ listen 127.0.0.1:{tls} ssl; server_name {}; {} }}
    server {{ listen 127.0.0.1:{port}; server_name 127.0.0.1; {} }}
}}
",
        ARTICLES.name,
        location("/articles/", &format!("proxy_pass http://{};", ARTICLES.name)),
        LEDGER.name,
        location("/articles/", &format!("grpc_pass grpc://{};", LEDGER.name)),
        DESK.name,
        location("/articles/", &tls_of(&DESK)),
        location(&format!("/{source}/articles/"), &tls_of(&HELP)),
    )
}

fn haproxy(here: &str) -> String {
    let [one, two, tls] = PORTS;
    let (port, source) = BASE_URL;
    let permit = |host: &str, path: &str| {
        format!("    http-request deny unless {{ method GET HEAD OPTIONS }} {{ path_beg {path} }} {{ hdr(host) -i {host} }}\n")
    };
    let frontend = |bind: u16, more: &str, rules: &str, to: &Server| {
        format!("frontend {bind}\n    bind 127.0.0.1:{bind}{more}\n{rules}    default_backend {0}\nbackend {0}\n", to.name)
    };
    let to = |Server { address, port, .. }: &Server, more: &str| format!("    server it {address}:{port}{more}\n");
    let verified = |server: &Server| {
        let (name, alpn) = (server.name, "alpn http/1.1");
        to(server, &format!(" ssl verify required ca-file {here}/authority.pem sni str({name}) verifyhost {name} {alpn}"))
    };
    [
        "global
    nbthread 1
    maxconn 4096
    log stdout format raw local0
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-server-options ssl-min-ver TLSv1.3
defaults
    mode http
    log global
    option httplog
    http-reuse always
    # Else it holds events back until there are more.
    option http-no-delay
    timeout connect 5s
    timeout client 1h
    timeout server 1h
",
        &frontend(one, "", &permit(ARTICLES.name, "/articles/"), &ARTICLES),
        &to(&ARTICLES, ""),
        &frontend(two, "", &permit(LEDGER.name, "/articles/"), &LEDGER),
        &to(&LEDGER, " proto h2"),
        &frontend(tls, &format!(" ssl crt {here}/both.pem alpn http/1.1"), &permit(DESK.name, "/articles/"), &DESK),
        &verified(&DESK),
        &frontend(
            port,
            "",
            &format!(
                "{}    http-request set-header Host {}\n    http-request replace-path /{source}(/.*) \\1\n",
                permit("127.0.0.1:15474", &format!("/{source}/articles/")),
                HELP.name
            ),
            &HELP,
        ),
        &verified(&HELP),
    ]
    .concat()
}

fn envoy(here: &str) -> Value {
    let typed = |name: &str, kind: &str, mut fields: Value| {
        fields["@type"] = json!(format!("type.googleapis.com/{kind}"));
        json!({"name": name, "typed_config": fields})
    };
    let listener = |port: u16, to: &Server, host: &str, path: &str, mut route: Value, tls: Option<Value>| {
        route["cluster"] = json!(to.name);
        let methods: Vec<Value> =
            ["GET", "HEAD", "OPTIONS"].map(|method| json!({"header": {"name": ":method", "string_match": {"exact": method}}})).to_vec();
        let permission = json!({"and_rules": {"rules": [
            {"or_rules": {"rules": methods}},
            {"url_path": {"path": {"prefix": path}}},
            {"header": {"name": ":authority", "string_match": {"exact": host, "ignore_case": true}}},
        ]}});
        let rules = json!({"action": "ALLOW", "policies": {"articles": {"permissions": [permission], "principals": [{"any": true}]}}});
        let manager = json!({
            "stat_prefix": "bench",
            "access_log": [typed("stdout", "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog", json!({}))],
            "route_config": {"virtual_hosts": [{"name": "it", "domains": ["*"], "routes": [{"match": {"prefix": path}, "route": route}]}]},
            "http_filters": [
                typed("rbac", "envoy.extensions.filters.http.rbac.v3.RBAC", json!({"rules": rules})),
                typed("router", "envoy.extensions.filters.http.router.v3.Router", json!({})),
            ],
        });
        let kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        let mut chain = json!({"filters": [typed("http", kind, manager)]});
        if let Some(tls) = tls {
            chain["transport_socket"] = typed("tls", "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", tls);
        }
        let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
        json!({"name": port.to_string(), "address": address, "filter_chains": [chain]})
    };
    let cluster = |server: &Server, two: bool| {
        let Server { name, address, port } = server;
        let many = json!({"max_connections": 4_096, "max_pending_requests": 4_096, "max_requests": 4_096});
        let at = json!({"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}});
        let mut cluster = json!({
            "name": name, "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [many]},
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [at]}]},
        });
        if two {
            cluster["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }});
        }
        if *port == 443 {
            let named = json!([{"san_type": "DNS", "matcher": {"exact": name}}]);
            let whom = json!({"trusted_ca": {"filename": format!("{here}/authority.pem")}, "match_typed_subject_alt_names": named});
            let common = json!({"validation_context": whom, "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"}});
            let kind = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
            cluster["transport_socket"] = typed("tls", kind, json!({"sni": name, "common_tls_context": common}));
        }
        cluster
    };
    let [one, two, tls] = PORTS;
    let (port, source) = BASE_URL;
    let pair = json!({"certificate_chain": {"filename": format!("{here}/certificate.pem")}, "private_key": {"filename": format!("{here}/key.pem")}});
    let ends = json!({"common_tls_context": {
        "tls_certificates": [pair], "alpn_protocols": ["http/1.1"], "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
    }});
    let rewrite = json!({"prefix_rewrite": "/articles/", "host_rewrite_literal": HELP.name});
    json!({"static_resources": {
        "listeners": [
            listener(one, &ARTICLES, ARTICLES.name, "/articles/", json!({}), None),
            listener(two, &LEDGER, LEDGER.name, "/articles/", json!({}), None),
            listener(tls, &DESK, DESK.name, "/articles/", json!({}), Some(ends)),
            listener(port, &HELP, &format!("127.0.0.1:{port}"), &format!("/{source}/articles/"), rewrite, None),
        ],
        "clusters": [cluster(&ARTICLES, false), cluster(&LEDGER, true), cluster(&HELP, false), cluster(&DESK, false)],
    }})
}
