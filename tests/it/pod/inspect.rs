//! The app's TLS, ended by the guard: a real server behind it, real clients before it, and what each side sees.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::{HELP, Outcome, World, changed, connect, policy};

/// A host that speaks HTTPS behind the guard, and what arrived there: the first line of each request.
pub struct Inspected {
    pub world: World,
    arrived: Arc<Mutex<Vec<String>>>,
    pub policy: Value,
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().expect("certificates")
}

/// A private authority and what a server has from it.
fn pki(server: &str) -> (String, ServerConfig) {
    let key = || KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "upstream authority");
    let authority_key = key();
    let root = authority.self_signed(&authority_key).expect("a certificate");
    let own_key = key();
    let mut own = CertificateParams::new(vec![server.to_owned()]).expect("a name");
    own.use_authority_key_identifier_extension = true;
    let certificate = own.signed_by(&own_key, &Issuer::new(authority, authority_key)).expect("a certificate");
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(own_key.serialize_der()).into())
        .expect("a certificate");
    (root.pem(), config)
}

impl Inspected {
    const PORT: u16 = 8443;

    /// Without a guard.
    pub fn unguarded() -> Self {
        let world = World::new();
        let (roots, config) = pki("help.example.com");
        let http = json!({"scheme": "Https", "inspect": "Intercept", "port": Self::PORT, "access": "Read"});
        let mut policy = policy();
        policy["format"] = json!(2);
        policy["network"]["roots"] = json!({"public": false, "certificates": [roots]});
        policy["destinations"] = json!([
            {"source": "help", "target": {"type": "Host", "name": "help.example.com", "port": Self::PORT, "http": http}},
            {"source": "rebind", "target": {"type": "Host", "name": "rebind.example.com", "port": Self::PORT, "http": http}},
            {"source": "mirror", "target": {"type": "Host", "name": "mirror.example.com", "port": Self::PORT, "http": http}},
        ]);
        let made = Self { world, arrived: Arc::default(), policy };
        made.serve(config);
        made
    }

    fn new() -> Self {
        let made = Self::unguarded();
        made.world.policy(&made.policy);
        let user = |path: &str, mode| {
            std::fs::create_dir(path).expect("a directory");
            std::os::unix::fs::chown(path, Some(made.world.uid), Some(made.world.gid)).expect("root");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
        };
        // As the kubelet makes them.
        user(&made.world.path("trust"), 0o777);
        user(&made.world.path("ca"), 0o777);
        made.world.redirect();
        made.start();
        made
    }

    fn start(&self) {
        self.world.start_and(&["--trust-store", &self.world.path("trust"), "--ca", &self.world.path("ca")]);
        self.world.ready();
    }

    fn serve(&self, config: ServerConfig) {
        let (config, arrived) = (Arc::new(config), self.arrived.clone());
        self.world.in_world(|| {
            let listener = TcpListener::bind((HELP[0], Self::PORT)).expect("a port");
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (config, arrived) = (config.clone(), arrived.clone());
                    std::thread::spawn(move || {
                        let mut stream = StreamOwned::new(ServerConnection::new(config).expect("a connection"), stream);
                        loop {
                            let mut head = Vec::new();
                            let mut byte = [0];
                            while !head.ends_with(b"\r\n\r\n") {
                                match stream.read(&mut byte) {
                                    Ok(1) => head.push(byte[0]),
                                    _ => return,
                                }
                            }
                            let head = String::from_utf8_lossy(&head).into_owned();
                            let server = stream.conn.server_name().unwrap_or_default().to_owned();
                            arrived.lock().expect("no panic").push(format!("{} of {server}", head.lines().next().unwrap_or_default()));
                            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").is_err() {
                                return;
                            }
                        }
                    });
                }
            });
        });
    }

    /// A connection of an app that trusts these, to this server; it says these requests, one after the other.
    fn talk(&self, trusted: &[CertificateDer<'static>], server: &str, requests: &[&str]) -> Result<Vec<String>, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("versions");
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let server = ServerName::try_from(server.to_owned()).expect("a name");
        self.world.in_pod(|| {
            let stream = connect(HELP[0], Self::PORT).map_err(|e| e.to_string())?;
            let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), server).map_err(|e| e.to_string())?, stream);
            let mut answers = Vec::new();
            for request in requests {
                stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
                answers.push(answer(&mut stream).map_err(|e| e.to_string())?);
            }
            assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
            Ok(answers)
        })
    }

    /// What the guard left for apps.
    fn trusted(&self, file: &str) -> Vec<CertificateDer<'static>> {
        certificates(&std::fs::read(self.world.path(&format!("trust/{file}"))).expect("it lies there"))
    }

    pub fn arrived(&self) -> Vec<String> {
        std::mem::take(&mut *self.arrived.lock().expect("no panic"))
    }
}

/// A head and its body, of a known length.
fn answer(stream: &mut impl Read) -> std::io::Result<String> {
    let (mut text, mut byte) = (Vec::new(), [0]);
    let mut missing = None;
    loop {
        stream.read_exact(&mut byte)?;
        text.push(byte[0]);
        if missing.is_none() && text.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&text);
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            missing = Some(text.len() + length.unwrap_or_default());
        }
        if missing == Some(text.len()) {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: help.example.com:8443\r\n\r\n";

#[test]
fn whoever_trusts_the_guard_gets_through_and_is_judged_by_request() {
    let pod = Inspected::new();
    for file in ["ca.pem", "bundle.pem"] {
        let answers = pod.talk(&pod.trusted(file), "help.example.com", &[GET, GET]).expect("answers");
        assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello")), "{answers:?}");
        assert_eq!(pod.arrived(), ["GET /a HTTP/1.1 of help.example.com"; 2], "{file}");
    }
    let post = "POST /a HTTP/1.1\r\nHost: help.example.com:8443\r\nContent-Length: 0\r\n\r\n";
    let elsewhere = "GET /a HTTP/1.1\r\nHost: rebind.example.com:8443\r\n\r\n";
    for (request, status, reason) in [(post, "403", "method_not_declared"), (elsewhere, "421", "host_mismatch")] {
        let answers = pod.talk(&pod.trusted("ca.pem"), "help.example.com", &[request]).expect("an answer");
        assert!(answers[0].starts_with(&format!("HTTP/1.1 {status} ")), "{answers:?}");
        let problem: Value = serde_json::from_str(answers[0].split("\r\n\r\n").nth(1).expect("a body")).expect("a document");
        assert_eq!((problem["reason"].as_str(), problem["attempted"]["path"].as_str()), (Some(reason), Some("/a")));
        assert_eq!(pod.world.denials(reason).len(), 1);
    }
    assert_eq!(pod.arrived(), Vec::<String>::new());
    // An upstream that is not who it should be is said in words, and not as a broken connection.
    for (server, status, reason) in
        [("mirror.example.com", "502", "upstream_untrusted"), ("rebind.example.com", "403", "resolves_to_forbidden_address")]
    {
        let request = format!("GET /a HTTP/1.1\r\nHost: {server}:8443\r\n\r\n");
        let answers = pod.talk(&pod.trusted("ca.pem"), server, &[&request]).expect("an answer");
        assert!(answers[0].starts_with(&format!("HTTP/1.1 {status} ")) && answers[0].contains(reason), "{answers:?}");
    }
    assert_eq!(pod.arrived(), Vec::<String>::new());
}

#[test]
fn who_does_not_trust_the_guard_is_told_in_its_log() {
    let pod = Inspected::new();
    let public: Vec<_> = webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec();
    for _ in 0..3 {
        let said = pod.talk(&public, "help.example.com", &[GET]).expect_err("it trusts others");
        assert!(said.contains("invalid peer certificate"), "{said}");
    }
    let said = pod.world.eventually("the guard says it", || {
        let said = pod.world.records("what", "inspection");
        if said.is_empty() { Err("nothing".to_owned()) } else { Ok(said) }
    });
    let message = said.0[0]["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("does not trust") && message.contains("help.example.com") && message.contains("SSL_CERT_FILE"), "{message}");
    assert_eq!(said.0.len(), 1, "once");
    assert_eq!(pod.arrived(), Vec::<String>::new());
}

#[test]
fn the_authority_outlives_the_guard_and_its_key_is_nobody_elses() {
    let pod = Inspected::new();
    let before = pod.trusted("ca.pem");
    pod.world.kill();
    pod.start();
    assert_eq!(pod.trusted("ca.pem"), before);
    assert_eq!(pod.talk(&before, "help.example.com", &[GET]).expect("an answer").len(), 1);
    // Whoever is not the guard: the app.
    let ids = [(pod.world.uid + 2).to_string(), (pod.world.gid + 2).to_string()];
    let user = |file: &str| {
        let arguments = ["--clear-groups", "--reuid", &ids[0], "--regid", &ids[1], "cat", &pod.world.path(file)];
        Command::new("setpriv").args(arguments).output().expect("it runs").status.success()
    };
    for file in ["trust/ca.pem", "trust/bundle.pem", "trust/truststore.jks"] {
        assert!(user(file), "{file} is for the app");
    }
    assert!(!user("ca/authority.json"));
}

#[test]
fn what_is_declared_later_is_not_inspected() {
    let pod = Inspected::new();
    let mut later = changed(|policy| {
        policy["format"] = json!(2);
        policy["network"] = pod.policy["network"].clone();
        policy["destinations"] = pod.policy["destinations"].clone();
    });
    let mut other = later["destinations"][0].clone();
    other["source"] = json!("other");
    other["target"]["name"] = json!("other.example.com");
    later["destinations"].as_array_mut().expect("a list").push(other);
    pod.world.policy(&later);
    let (said, _) = pod.world.eventually("the guard says it", || {
        let said = pod.world.records("what", "inspection");
        if said.is_empty() { Err("nothing".to_owned()) } else { Ok(said) }
    });
    let message = said[0]["message"].as_str().expect("a message");
    assert!(message.contains("TLS to other.example.com is refused") && message.contains("make the pod anew"), "{message}");
    assert_eq!(said.len(), 1, "once");
    assert!(pod.talk(&pod.trusted("ca.pem"), "other.example.com", &[GET]).is_err());
    assert_eq!(pod.world.denials("not_inspected").len(), 1);
    assert_eq!(pod.talk(&pod.trusted("ca.pem"), "help.example.com", &[GET]).expect("the others are").len(), 1);
    pod.arrived();
    // Nor without any authority.
    pod.world.kill();
    pod.world.start();
    pod.world.ready();
    assert!(pod.talk(&pod.trusted("ca.pem"), "help.example.com", &[GET]).is_err());
    assert_eq!(pod.world.denials("not_inspected").len(), 2);
    assert_eq!(pod.arrived(), Vec::<String>::new());
    assert_eq!(pod.world.tcp(HELP[0], Inspected::PORT, b"GET / HTTP/1.1\r\n\r\n"), Outcome::Error(std::io::ErrorKind::ConnectionReset));
}
