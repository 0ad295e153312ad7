//! A reverse proxy between an operator and the API server: counts, filters, and fails on demand.
//!
//! Plain HTTP on loopback on the operator's side; on the other, the API server with the operator's own credentials, but for requests that bear a
//! token (of its second account). It shows the operator
//! only objects of the namespaces of its world (and the system's), so that many operators can work on one API server without
//! seeing each other. Everything else passes unchanged. It does not rewrite requests, and answers nothing by itself but faults.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Api;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, Failure>>;

/// Every namespace and cluster-scoped object of every world begins with this.
pub(super) const WORLDS: &str = "rt-";

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Apply,
    Update,
    Patch,
    Delete,
}

/// A request that passed.
#[derive(Clone, Debug)]
pub struct Seen {
    pub verb: Verb,
    /// Plural, with the subresource: `aiworkloads/status`.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    /// The API server's answer, or the fault's.
    pub code: u16,
    /// When the answer was there.
    pub at: Instant,
}

/// What the first attempt of every write meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Conflict,
    TooManyRequests,
    InternalError,
    /// The write succeeds, and its answer is lost.
    ReplyLost,
}

/// The API server is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    None,
    /// Connections are closed at once.
    Refuses,
    /// Connections stay open, and nothing is answered until it is back.
    Hangs,
    /// Connections stay open, and what was asked meanwhile is never answered.
    Swallows,
    /// Only the lease cannot be read or written; all other writes take this long to arrive.
    LeaseLost {
        writes: Duration,
    },
}

/// A running proxy.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
    pub port: u16,
}

struct Inner {
    upstream: Api,
    /// Without credentials.
    bare: Api,
    world: String,
    seen: Mutex<Vec<Seen>>,
    outage: watch::Sender<Outage>,
    fault: Mutex<Option<Fault>>,
    refused: Mutex<Option<(Verb, &'static str, u16)>>,
    failed_once: Mutex<HashSet<String>>,
    trap: Mutex<Option<Trap>>,
    /// Held over every write while a trap is set, so that exactly the first `k` are done.
    writes: tokio::sync::Mutex<()>,
}

struct Trap {
    left: usize,
    kill: Option<Box<dyn FnOnce() + Send>>,
}

impl Proxy {
    /// A proxy towards the API server as seen by `upstream`, for the world of this prefix.
    pub(super) async fn start(upstream: Api, world: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let inner = Arc::new(Inner {
            bare: upstream.as_nobody(),
            upstream,
            world: world.to_owned(),
            seen: Mutex::default(),
            outage: watch::channel(Outage::None).0,
            fault: Mutex::default(),
            refused: Mutex::default(),
            failed_once: Mutex::default(),
            trap: Mutex::default(),
            writes: tokio::sync::Mutex::default(),
        });
        tokio::spawn(accept(listener, Arc::clone(&inner)));
        Self { inner, port }
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.inner.seen).clone()
    }

    /// All successful writes so far, but for leases and events.
    pub fn writes(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(Seen::counts).collect()
    }

    /// How many successful writes of each verb and resource.
    pub fn tally(&self) -> BTreeMap<String, usize> {
        tally(&self.writes())
    }

    /// Forgets what was seen.
    pub fn clear(&self) {
        lock(&self.inner.seen).clear();
    }

    /// Calls `kill` as soon as the `k`-th successful write (from now on; leases and events do not count) has been done. Its answer, and
    /// every later request, gets lost.
    pub fn kill_after(&self, k: usize, kill: impl FnOnce() + Send + 'static) {
        assert!(k > 0);
        *lock(&self.inner.trap) = Some(Trap { left: k, kill: Some(Box::new(kill)) });
    }

    /// Whether the trap was sprung.
    pub fn sprung(&self) -> bool {
        self.inner.sprung()
    }

    /// Takes the trap away.
    pub fn disarm(&self) {
        lock(&self.inner.trap).take();
    }

    pub fn set_outage(&self, outage: Outage) {
        self.inner.outage.send_replace(outage);
    }

    /// The first attempt of every write (told apart by verb and path) fails so, from now on.
    pub fn fail_first(&self, fault: Option<Fault>) {
        *lock(&self.inner.fault) = fault;
        lock(&self.inner.failed_once).clear();
    }

    /// Every request of this verb for this resource is answered with this code, from now on.
    pub fn refuse(&self, what: Option<(Verb, &'static str, u16)>) {
        *lock(&self.inner.refused) = what;
    }
}

/// How many of each verb and resource.
pub fn tally(seen: &[Seen]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for seen in seen {
        *counts.entry(format!("{:?} {}", seen.verb, seen.resource).to_lowercase()).or_default() += 1;
    }
    counts
}

impl Seen {
    pub fn is_write(&self) -> bool {
        // A review is a question which happens to be posted, and so is one for a token.
        let question = self.resource.ends_with("reviews") || self.resource == "serviceaccounts/token";
        !matches!(self.verb, Verb::Get | Verb::List | Verb::Watch) && !question
    }

    fn counts(&self) -> bool {
        self.is_write() && (200..300).contains(&self.code) && !matches!(self.resource.as_str(), "leases" | "events")
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    while let Ok((stream, _)) = listener.accept().await {
        let inner = Arc::clone(&inner);
        tokio::spawn(async move {
            let mut outage = inner.outage.subscribe();
            let service = service_fn(|request| answer(Arc::clone(&inner), request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // An error means that one side hung up.
                _ = connection => {}
                _ = outage.wait_for(|o| *o == Outage::Refuses) => {}
            }
        });
    }
}

async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Answer, Failure> {
    inner.hang().await;
    let (mut head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let content = head.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let mut seen = classify(head.method.as_str(), &path, &query, &content);
    let write = seen.is_write() && !query.contains("dryRun");
    let outage = *inner.outage.borrow();
    let delay = match outage {
        Outage::LeaseLost { .. } if seen.resource == "leases" => std::future::pending().await,
        Outage::LeaseLost { writes } if write => writes,
        _ => Duration::ZERO,
    };

    // Held over the write, so that writes are done one after the other while somebody counts them.
    let armed = write && lock(&inner.trap).is_some();
    let _turn = if armed { Some(inner.writes.lock().await) } else { None };
    if armed && inner.sprung() {
        return Err("the operator was killed".into());
    }

    let fault = if write && seen.resource != "leases" { *lock(&inner.fault) } else { None };
    let fault = fault.filter(|_| lock(&inner.failed_once).insert(format!("{:?} {path}", seen.verb)));
    let refused = *lock(&inner.refused);
    let refused = refused.filter(|(verb, resource, _)| (*verb, *resource) == (seen.verb, seen.resource.as_str()));
    if let Some((code, reason)) = refused.map(|(.., code)| (code, "Refused")).or_else(|| refusal(fault?)) {
        let response = failure(code, reason);
        seen.code = response.status().as_u16();
        lock(&inner.seen).push(seen);
        return Ok(response);
    }

    for hop in ["host", "connection", "accept-encoding", "content-length", "transfer-encoding"] {
        head.headers.remove(hop);
    }
    head.uri = head.uri.path_and_query().expect("a path").clone().into();
    let (verb, counting) = (seen.verb, write);
    let passed = tokio::spawn({
        let inner = Arc::clone(&inner);
        // Goes on when the operator hangs up meanwhile: what was sent was sent.
        async move {
            tokio::time::sleep(delay).await;
            let upstream = if head.headers.contains_key("authorization") { &inner.bare } else { &inner.upstream };
            let response = upstream.client.send(Request::from_parts(head, Body::from(body.to_vec()))).await?;
            (seen.code, seen.at) = (response.status().as_u16(), Instant::now());
            let counts = counting && seen.counts();
            if counting || !seen.is_write() {
                lock(&inner.seen).push(seen);
            }
            Ok::<_, kube::Error>((response, counts))
        }
    });
    let (response, counts) = passed.await??;
    if armed && counts && inner.spring() {
        return Err("the operator was killed".into());
    }
    if fault == Some(Fault::ReplyLost) {
        return Err("the answer was lost".into());
    }
    let (mut head, body) = response.into_parts();
    head.headers.remove("content-length");
    head.headers.remove("transfer-encoding");
    let body = match verb {
        Verb::Watch => inner.watched(body),
        Verb::List => whole(inner.listed(body.collect_bytes().await?)),
        _ => whole(body.collect_bytes().await?),
    };
    inner.hang().await;
    Ok(Response::from_parts(head, body))
}

impl Inner {
    async fn hang(&self) {
        let mut outage = self.outage.subscribe();
        if *outage.borrow() == Outage::Swallows {
            std::future::pending::<()>().await;
        }
        // The sender lives in self: it cannot be gone.
        let _ = outage.wait_for(|o| *o != Outage::Hangs).await;
    }

    fn sprung(&self) -> bool {
        lock(&self.trap).as_ref().is_some_and(|trap| trap.kill.is_none())
    }

    /// Counts one write; true if it was the one that kills.
    fn spring(&self) -> bool {
        let mut trap = lock(&self.trap);
        let Some(trap) = trap.as_mut() else { return false };
        trap.left = trap.left.saturating_sub(1);
        if trap.left == 0
            && let Some(kill) = trap.kill.take()
        {
            kill();
            return true;
        }
        false
    }

    fn belongs(&self, object: &Head) -> bool {
        let Metadata { name, namespace } = &object.metadata;
        let place = if namespace.is_empty() { name } else { namespace };
        !place.starts_with(WORLDS) || place.starts_with(&self.world)
    }

    fn listed(&self, bytes: Bytes) -> Bytes {
        let Ok(mut list) = serde_json::from_slice::<Value>(&bytes) else { return bytes };
        let Some(items) = list.get_mut("items").and_then(Value::as_array_mut) else { return bytes };
        items.retain(|item| Head::deserialize(item).is_ok_and(|head| self.belongs(&head)));
        serde_json::to_vec(&list).expect("JSON").into()
    }

    /// A watch, line by line.
    fn watched(self: &Arc<Self>, body: Body) -> UnsyncBoxBody<Bytes, Failure> {
        let inner = Arc::clone(self);
        let frames = BodyStream::new(body);
        let lines = stream::unfold((frames, Vec::new(), inner), |(mut frames, mut rest, inner)| async move {
            loop {
                let frame = match frames.next().await? {
                    Ok(frame) => frame,
                    Err(e) => return Some((Err(Failure::from(e)), (frames, rest, inner))),
                };
                inner.hang().await;
                let Ok(data) = frame.into_data() else { continue };
                rest.extend_from_slice(&data);
                let Some(end) = rest.iter().rposition(|b| *b == b'\n') else { continue };
                let after = rest.split_off(end + 1);
                let kept: Vec<u8> = rest.split_inclusive(|b| *b == b'\n').filter(|line| inner.passes(line)).flatten().copied().collect();
                rest = after;
                if !kept.is_empty() {
                    return Some((Ok(Frame::data(Bytes::from(kept))), (frames, rest, inner)));
                }
            }
        });
        StreamBody::new(lines).boxed_unsync()
    }

    fn passes(&self, line: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Event {
            #[serde(rename = "type")]
            type_: String,
            object: Head,
        }
        match serde_json::from_slice::<Event>(line) {
            Ok(event) => matches!(event.type_.as_str(), "BOOKMARK" | "ERROR") || self.belongs(&event.object),
            Err(_) => true,
        }
    }
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

fn whole(bytes: Bytes) -> UnsyncBoxBody<Bytes, Failure> {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// What a fault answers instead of the API server.
fn refusal(fault: Fault) -> Option<(u16, &'static str)> {
    match fault {
        Fault::Conflict => Some((409, "Conflict")),
        Fault::TooManyRequests => Some((429, "TooManyRequests")),
        Fault::InternalError => Some((500, "InternalError")),
        Fault::ReplyLost => None,
    }
}

fn failure(code: u16, reason: &str) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": "injected by the test"});
    let response = Response::builder().status(code).header("content-type", "application/json");
    let response = if code == 429 { response.header("retry-after", "1") } else { response };
    response.body(whole(serde_json::to_vec(&status).expect("JSON").into())).expect("a response")
}

fn classify(method: &str, path: &str, query: &str, content: &str) -> Seen {
    let mut parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    parts.drain(..parts.len().min(if parts.first() == Some(&"api") { 2 } else { 3 }));
    let mut namespace = "";
    if parts.first() == Some(&"namespaces") && parts.len() > 2 {
        namespace = parts[1];
        parts.drain(..2);
    }
    let name = parts.get(1).copied().unwrap_or_default();
    let verb = match method {
        "POST" => Verb::Create,
        "PUT" => Verb::Update,
        "PATCH" if content.starts_with("application/apply-patch") => Verb::Apply,
        "PATCH" => Verb::Patch,
        "DELETE" => Verb::Delete,
        _ if query.split('&').any(|p| p == "watch=true" || p == "watch=1" || p == "watch") => Verb::Watch,
        _ if name.is_empty() => Verb::List,
        _ => Verb::Get,
    };
    let mut resource = parts.first().copied().unwrap_or_default().to_owned();
    if let Some(subresource) = parts.get(2) {
        resource = format!("{resource}/{subresource}");
    }
    Seen { verb, resource, namespace: namespace.to_owned(), name: name.to_owned(), code: 0, at: Instant::now() }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no panic while locked")
}
