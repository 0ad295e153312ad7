//! The handler against an authorizer of few words, and the server over TLS on the loopback.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::UserInfo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::access::{Cluster, Surroundings};
use super::certificate::{Step, Stored};
use super::handler::{Authors, Handler};
use super::metrics::Metrics;
use super::recorder::{Queue, Recorder};
use super::server::{self, Certificates, certified};
use crate::api::{FINALIZER, RELEASE_ANNOTATION};
use crate::operator::{Config, Writers};
use crate::plan::{Kind, ObjectKey, Question};
use crate::scope::ObjectName;

/// Allows nothing but `get` to the admin, or is away.
struct Fake {
    away: bool,
}

impl Fake {
    fn trouble(&self) -> Result<(), kube::Error> {
        match self.away {
            true => Err(kube::Error::Service("connection refused".into())),
            false => Ok(()),
        }
    }
}

impl Cluster for Fake {
    async fn surroundings(&self, _: &str) -> Result<Surroundings, kube::Error> {
        self.trouble()?;
        Ok(Surroundings { enrolled: true, ..Surroundings::default() })
    }

    async fn lacking(&self, user: &UserInfo, questions: BTreeSet<Question>) -> Result<BTreeSet<Question>, kube::Error> {
        self.trouble()?;
        Ok(if user.username.as_deref() == Some("admin") { BTreeSet::new() } else { questions })
    }
}

fn handler(away: bool) -> (Handler<Fake>, Writers, Queue) {
    let config: Config =
        serde_json::from_value(json!({"namespace": "remit-system", "appliers": ["system:serviceaccount:argocd:controller"]})).unwrap();
    let writers = Writers::default();
    let (recorder, queue) = Recorder::new(writers.clone());
    let metrics = Metrics::default();
    (Handler { authors: Authors::new(&config), cluster: Fake { away }, recorder, metrics }, writers, queue)
}

fn asked(kind: &str, operation: &str, user: &str, old: Option<Value>, new: Option<Value>) -> Value {
    let group = if kind == "Role" { "rbac.authorization.k8s.io" } else { "remit.dev" };
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": {"group": group, "version": "v1alpha1", "kind": kind},
        "resource": {"group": group, "version": "v1alpha1", "resource": format!("{}s", kind.to_lowercase())},
        "name": "bot", "namespace": "support", "operation": operation, "userInfo": {"username": user, "groups": ["system:authenticated"]},
        "object": new, "oldObject": old, "dryRun": false}})
}

fn workload(metadata: Value, spec: Value) -> Value {
    let mut all = json!({"name": "bot", "namespace": "support"});
    all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    json!({"apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": all, "spec": spec})
}

fn spec(sources: Value) -> Value {
    json!({"selector": {"matchLabels": {"app": "bot"}}, "mode": "Enforce", "dataSources": sources})
}

fn secret() -> Value {
    json!([{"name": "s", "type": "Secret", "secret": {"name": "thing"}}])
}

#[tokio::test]
async fn answers() {
    let plain = || workload(json!({}), spec(json!([])));
    let labelled = || workload(json!({"labels": {"a": "b"}, "finalizers": [FINALIZER]}), spec(json!([])));
    let freed = || workload(json!({"annotations": {RELEASE_ANNOTATION: "now"}}), spec(json!([])));
    let with_secret = || workload(json!({}), spec(secret()));
    let unreadable = |labels: Value| workload(json!({"labels": labels}), json!({"mode": "Perhaps"}));
    let ceiling = |host: &str| {
        json!({"apiVersion": "remit.dev/v1alpha1", "kind": "ScopeCeiling", "metadata": {"name": "c"},
        "spec": {"namespaceSelector": {}, "hosts": [{"name": "h", "host": host, "ports": [443]}]}})
    };
    let collector = "system:serviceaccount:kube-system:generic-garbage-collector";
    let own = "system:serviceaccount:remit-system:remit";
    // (what, kind, operation, user, old, new, code: 200 is allowed, part of the message); judged twice: with the API server and without.
    #[rustfmt::skip]
    let cases: Vec<(&str, &str, &str, &str, Option<Value>, Option<Value>, [u16; 2], &str)> = vec![
        ("nothing declared", "AIWorkload", "CREATE", "dana", None, Some(plain()), [200, 500], ""),
        ("a Secret", "AIWorkload", "CREATE", "dana", None, Some(with_secret()), [403, 500], "get secrets thing in namespace support\", which dana does not hold"),
        ("a Secret by who holds it", "AIWorkload", "CREATE", "admin", None, Some(with_secret()), [200, 500], ""),
        ("a Secret by an applier without ceiling", "AIWorkload", "CREATE", "system:serviceaccount:argocd:controller", None, Some(with_secret()), [403, 500], "there is none"),
        ("a Secret added by the operator itself", "AIWorkload", "UPDATE", own, Some(plain()), Some(with_secret()), [403, 500], "does not hold"),
        ("metadata", "AIWorkload", "UPDATE", "dana", Some(plain()), Some(labelled()), [200, 200], ""),
        ("metadata of what cannot be read", "AIWorkload", "UPDATE", "dana", Some(unreadable(json!({}))), Some(unreadable(json!({"a": "b"}))), [200, 200], ""),
        ("mending what cannot be read", "AIWorkload", "UPDATE", "admin", Some(unreadable(json!({}))), Some(plain()), [200, 500], ""),
        ("mending it without release", "AIWorkload", "UPDATE", "dana", Some(unreadable(json!({}))), Some(plain()), [403, 500], "release"),
        ("a spec that cannot be read", "AIWorkload", "UPDATE", "admin", Some(plain()), Some(unreadable(json!({}))), [403, 403], "cannot be read"),
        ("release", "AIWorkload", "UPDATE", "dana", Some(plain()), Some(freed()), [403, 500], "release aiworkloads.remit.dev bot"),
        ("release by who may", "AIWorkload", "UPDATE", "admin", Some(plain()), Some(freed()), [200, 500], ""),
        ("removal of a source", "AIWorkload", "UPDATE", "dana", Some(with_secret()), Some(plain()), [200, 500], ""),
        ("delete", "AIWorkload", "DELETE", "dana", Some(plain()), None, [403, 500], "release"),
        ("delete of what cannot be read", "AIWorkload", "DELETE", "dana", Some(unreadable(json!({}))), None, [403, 500], "release"),
        ("delete by the garbage collector", "AIWorkload", "DELETE", collector, Some(plain()), None, [200, 200], ""),
        ("a ceiling", "ScopeCeiling", "CREATE", "dana", None, Some(ceiling("help.example.com")), [200, 200], ""),
        ("a bad ceiling", "ScopeCeiling", "UPDATE", "dana", Some(ceiling("help.example.com")), Some(ceiling("10.0.0.1")), [403, 403], "hosts[name=h].host"),
        ("a ceiling deleted", "ScopeCeiling", "DELETE", "dana", Some(ceiling("help.example.com")), None, [200, 200], ""),
        ("another kind", "Role", "CREATE", "admin", None, Some(plain()), [403, 403], "correct the webhook configuration"),
        ("a connection", "AIWorkload", "CONNECT", "admin", None, Some(plain()), [403, 403], "correct the webhook configuration"),
        ("no object", "AIWorkload", "CREATE", "admin", None, None, [403, 403], "no object"),
    ];
    for (what, kind, operation, user, old, new, codes, message) in cases {
        for (away, code) in [false, true].into_iter().zip(codes) {
            let body = serde_json::to_vec(&asked(kind, operation, user, old.clone(), new.clone())).unwrap();
            let answer = serde_json::to_value(handler(away).0.answer("/scope", &body).await.unwrap()).unwrap();
            let response = &answer["response"];
            assert_eq!((&answer["apiVersion"], &response["uid"]), (&json!("admission.k8s.io/v1"), &json!("u-1")), "{what}");
            assert_eq!(response["allowed"], json!(code == 200), "{what}, away {away}: {response}");
            if code != 200 {
                assert_eq!(response["status"]["code"], json!(code), "{what}, away {away}: {response}");
                let said = response["status"]["message"].as_str().unwrap();
                assert!(said.contains(if code == 500 { "could not judge" } else { message }), "{what}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn malformed_reviews_are_no_reviews() {
    let (handler, ..) = handler(false);
    let bodies = [
        "",
        "{",
        "[]",
        "{}",
        "null",
        r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}"#,
        r#"{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {}}"#,
    ];
    for path in ["/scope", "/record", "/"] {
        for body in bodies {
            assert!(handler.answer(path, body.as_bytes()).await.is_err(), "{path} {body}");
        }
    }
    let body = serde_json::to_vec(&asked("AIWorkload", "DELETE", "admin", Some(workload(json!({}), spec(json!([])))), None)).unwrap();
    let answer = serde_json::to_value(handler.answer("/other", &body).await.unwrap()).unwrap();
    assert_eq!(answer["response"]["allowed"], json!(false));
}

#[tokio::test]
async fn the_recorder_remembers_and_never_refuses() {
    let key = ObjectKey { kind: Kind::Role, object: ObjectName::new("support", "bot") };
    let cases = [
        ("dana", false, None, true),
        ("dana", true, None, false),
        ("dana", false, Some("status"), false),
        ("system:serviceaccount:remit-system:remit", false, None, false),
    ];
    for (user, dry_run, subresource, noted) in cases {
        let (handler, writers, _queue) = handler(true);
        let mut review = asked("Role", "DELETE", user, Some(json!({"metadata": {"name": "bot"}})), None);
        review["request"]["dryRun"] = json!(dry_run);
        review["request"]["subResource"] = json!(subresource);
        let answer = serde_json::to_value(handler.answer("/record", &serde_json::to_vec(&review).unwrap()).await.unwrap()).unwrap();
        assert_eq!(answer["response"]["allowed"], json!(true));
        assert_eq!(writers.last(&key).map(|w| w.user), noted.then(|| user.to_owned()), "{user} {dry_run} {subresource:?}");
    }
}

struct Served {
    port: u16,
    stored: Stored,
    certificates: Certificates,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
    _queue: Queue,
}

fn names() -> Vec<String> {
    vec!["remit-webhook.remit-system.svc".to_owned()]
}

fn now() -> i64 {
    k8s_openapi::jiff::Timestamp::now().as_second()
}

async fn served() -> Served {
    let stored = Stored::after(None, &Step::Begin, &names(), now()).unwrap().unwrap();
    let certificates = Certificates::default();
    certificates.set(certified(stored.current.certificate.as_bytes(), stored.current.key.as_bytes()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = watch::channel(false);
    let (handler, _, _queue) = handler(false);
    let tls = server::tls(certificates.clone()).unwrap();
    let server = tokio::spawn(server::serve(listener, tls, Arc::new(handler), stopped));
    Served { port, stored, certificates, stop, server, _queue }
}

async fn connect(port: u16, bundle: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(names()[0].clone()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(("127.0.0.1", port)).await?).await
}

fn head(path: &str, length: usize) -> String {
    format!("POST {path}?timeout=5s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
}

/// What comes back until the first answer is whole, or the server closes.
async fn answer(stream: &mut TlsStream<TcpStream>) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = read(stream, &mut buffer).await {
        text.extend_from_slice(&buffer[..n]);
        let so_far = String::from_utf8_lossy(&text);
        if let Some((head, body)) = so_far.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse::<usize>().ok()));
            if length.is_some_and(|length| body.len() >= length) {
                break;
            }
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut buffer = ReadBuf::new(buffer);
    poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut buffer)).await?;
    Ok(buffer.filled().len())
}

async fn write_all(stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|context| Pin::new(&mut *stream).poll_write(context, bytes)).await?;
        bytes = &bytes[written..];
    }
    poll_fn(|context| Pin::new(&mut *stream).poll_flush(context)).await
}

async fn post(port: u16, bundle: &str, path: &str, body: &[u8]) -> String {
    let mut stream = connect(port, bundle).await.unwrap();
    write_all(&mut stream, head(path, body.len()).as_bytes()).await.unwrap();
    // The server may answer and close before it has read all.
    let _ = write_all(&mut stream, body).await;
    answer(&mut stream).await
}

#[tokio::test]
async fn a_round_trip_over_tls() {
    let Served { port, stored, stop, server, .. } = &mut served().await;
    let good = serde_json::to_vec(&asked("AIWorkload", "CREATE", "dana", None, Some(workload(json!({}), spec(secret()))))).unwrap();
    let text = post(*port, &stored.bundle, "/scope", &good).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("\"allowed\":false") && text.contains("dana does not hold"), "{text}");
    // Two on one connection.
    let mut stream = connect(*port, &stored.bundle).await.unwrap();
    for _ in 0..2 {
        write_all(&mut stream, head("/record", good.len()).as_bytes()).await.unwrap();
        write_all(&mut stream, &good).await.unwrap();
        let text = answer(&mut stream).await;
        assert!(text.contains("\"allowed\":true"), "{text}");
    }
    for (body, status) in [(&b"{"[..], "400"), (b"", "400"), (&vec![b' '; 4 * 1024 * 1024], "400")] {
        let text = post(*port, &stored.bundle, "/scope", body).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{} bytes: {text}", body.len());
    }
    // Too much without saying how much.
    let mut many = connect(*port, &stored.bundle).await.unwrap();
    write_all(&mut many, b"POST /scope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    for chunk in [4 * 1024 * 1024, 1] {
        write_all(&mut many, format!("{chunk:x}\r\n{}\r\n", " ".repeat(chunk)).as_bytes()).await.unwrap();
    }
    assert!(answer(&mut many).await.starts_with("HTTP/1.1 413"));
    // A length that is a lie is refused by it, not by what comes.
    write_all(&mut stream, head("/scope", usize::MAX / 2).as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 413"));
    let mut stream = connect(*port, &stored.bundle).await.unwrap();
    write_all(&mut stream, b"GET /scope HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 405"));
    // An authority of no concern is not enough.
    let stranger = Stored::after(None, &Step::Begin, &names(), now()).unwrap().unwrap();
    assert!(connect(*port, &stranger.bundle).await.is_err());
    // Told to stop, it ends although a connection is open and idle.
    stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
}

#[tokio::test]
async fn slow_clients_are_let_go_and_keep_nobody_waiting() {
    let Served { port, stored, stop, server, .. } = &mut served().await;
    // One that never speaks TLS, one that stops in its body.
    let mut silent = TcpStream::connect(("127.0.0.1", *port)).await.unwrap();
    let mut slow = connect(*port, &stored.bundle).await.unwrap();
    write_all(&mut slow, head("/scope", 100).as_bytes()).await.unwrap();
    write_all(&mut slow, b"{").await.unwrap();
    let begun = std::time::Instant::now();
    let text = post(*port, &stored.bundle, "/scope", b"{").await;
    assert!(text.starts_with("HTTP/1.1 400") && begun.elapsed() < Duration::from_secs(2), "others are served meanwhile");
    let text = tokio::time::timeout(Duration::from_secs(15), answer(&mut slow)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    let closed = tokio::time::timeout(Duration::from_secs(15), read(&mut silent, &mut [0])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
    stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_rotation_refuses_nobody_who_holds_the_published_bundle() {
    let Served { port, stored, certificates, .. } = &served().await;
    let staged = Stored::after(Some(stored), &Step::Stage, &names(), now()).unwrap().unwrap();
    let promoted = Stored::after(Some(&staged), &Step::Promote, &names(), now()).unwrap().unwrap();
    assert!(connect(*port, &staged.bundle).await.is_ok(), "the old certificate, the new bundle");
    let mut open = connect(*port, &stored.bundle).await.unwrap();
    assert!(certificates.set(certified(promoted.current.certificate.as_bytes(), promoted.current.key.as_bytes()).unwrap()));
    assert!(connect(*port, &staged.bundle).await.is_ok(), "the new certificate, the new bundle");
    assert!(connect(*port, &stored.bundle).await.is_err(), "the new certificate is another authority's");
    write_all(&mut open, head("/scope", 1).as_bytes()).await.unwrap();
    write_all(&mut open, b"{").await.unwrap();
    assert!(answer(&mut open).await.starts_with("HTTP/1.1 400"), "open connections stay");
}
