//! HTTP/2: requests side by side, each judged on its own; upstreams are spoken to in HTTP/2 as well.
//!
//! Promise: what a stream holds is bounded by its window; a stream that one side ends is ended on the other.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, HeaderValue, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Client;
use super::answer::{PROBLEM, refuse, refuse_grpc};
use super::exchange::{Content, Exchange, Refused, Said, To};
use super::pipeline::{ANSWER, Broken, MOST_INTERIM, Sink, Source, USUAL_HEAD, Whole, pass};
use crate::guard::gate::Denied;
use crate::guard::record::Outcome;
use crate::guard::stream::{Begun, Stream, Waiting, at_once, counted, is_full, reset};
use crate::guard::tcp::Door;
use crate::guard::upstream::{Reached, Version, Way};
use crate::policy::{GuardPolicy, Leg, MethodField, Permit, Reason, Upstream};
use crate::scope::Authority;
use crate::wire::form::NO_FORM;
use crate::wire::http1::{LARGEST_HEAD, MOST_FIELDS, is_for_one_hop, names_a_method};

/// Of a stream, what waits to be written.
const STAGED: usize = 32 * 1024;
/// For requests that a new policy forbids to end, and for the client to be told.
const CUT: Duration = Duration::from_millis(100);
/// For the first frames of a connection.
const GREET: Duration = Duration::from_secs(30);
/// Connections to upstreams of one connection of a client, those that serve a last request included.
const MOST_LINKS: usize = 8;
/// Written at once.
const PIECE: usize = 16 * 1024;
/// What a field costs beside its name and its value.
const FIELD: usize = 64;

/// What a connection of a client may hold, and each of its connections to upstreams.
#[derive(Clone, Copy)]
struct Share {
    /// What waits in the guard of a stream, in each direction.
    window: u32,
    /// Of all streams together.
    windows: u32,
    /// Requests at once: each costs as much as a connection of HTTP/1.
    streams: u32,
    /// What waits to be written, of all streams together: each may have [`STAGED`].
    staged: usize,
}

/// The more connections there are, the less each may hold: so many, the last included, and how much. All streams of the first may wait for
/// somebody to take them, and take no room from others that come; of the next an eighth may.
const SHARES: [(usize, Share); 4] = [
    (1, Share { window: 64 * 1024 - 1, windows: 128 * (64 * 1024 - 1), streams: 128, staged: 256 * 1024 }),
    (16, Share { window: 64 * 1024 - 1, windows: 16 * (64 * 1024 - 1), streams: 128, staged: 256 * 1024 }),
    (64, Share { window: 16 * 1024, windows: 32 * 16 * 1024, streams: 32, staged: 64 * 1024 }),
    (usize::MAX, Share { window: 16 * 1024, windows: 8 * 16 * 1024, streams: 8, staged: 32 * 1024 }),
];

impl Share {
    fn of(open: usize) -> Self {
        let [.., (_, least)] = SHARES;
        SHARES.into_iter().find(|(most, _)| open <= *most).map_or(least, |(_, share)| share)
    }
}

/// A connection of a client.
struct Session {
    door: Arc<Door>,
    client: Client,
    /// By upstream. Who waits for one keeps nobody from another.
    links: Mutex<Vec<(Upstream, Leg, Arc<Place>)>>,
    /// A connection that is there already, and by what leave.
    greeted: Mutex<Option<(Permit, Reached)>>,
    share: Share,
    /// For connections to upstreams.
    room: Arc<Semaphore>,
    /// Towards the client.
    stage: Stage,
}

/// Room for what waits to be written to one connection.
#[derive(Clone)]
struct Stage(Arc<Semaphore>);

impl Stage {
    fn new(share: Share) -> Self {
        Self(Arc::new(Semaphore::new(share.staged)))
    }

    /// The same bytes, which hold their room until they are written. While much waits in the guard, a little takes as much as a whole piece.
    async fn take(&self, piece: Bytes) -> Bytes {
        struct Staged(Bytes, #[expect(dead_code, reason = "held")] Option<OwnedSemaphorePermit>);
        impl AsRef<[u8]> for Staged {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let room = if is_full() { PIECE } else { piece.len() };
        let room = self.0.clone().acquire_many_owned(u32::try_from(room).unwrap_or(u32::MAX)).await.ok();
        Bytes::from_owner(Staged(counted(piece), room))
    }
}

/// Where the connection to an upstream is, or will be.
type Place = tokio::sync::Mutex<Spot>;

#[derive(Default)]
struct Spot {
    link: Option<Link>,
    /// When the last try ended, and why.
    failed: Option<(Instant, Denied)>,
}

/// A connection to an upstream, for every request to it.
#[derive(Clone)]
struct Link {
    send: SendRequest<Bytes>,
    address: std::net::IpAddr,
    way: Way,
    stage: Stage,
    /// Ends what drives it with the last that uses it.
    driver: Arc<Driver>,
}

struct Driver {
    _task: JoinSet<()>,
    _room: OwnedSemaphorePermit,
}

/// Until the connection has ended.
pub async fn serve(door: &Arc<Door>, stream: Begun<Stream>, mut client: Client) {
    let greeted = client.greeted.take().filter(|(_, reached)| reached.version == Version::Two);
    let gate = door.gate();
    let Some((_place, open)) = door.session() else {
        let refused = Refused::unread(gate, Reason::TooManyConnections);
        gate.records.judged(Outcome::Refused, refused.denied.reason, &refused.attempt, refused.denied.policy.as_deref());
        return reset(stream.stream.tcp());
    };
    let share = Share::of(open);
    let session = Arc::new(Session {
        door: door.clone(),
        client,
        links: Mutex::default(),
        greeted: Mutex::new(greeted),
        share,
        room: Arc::new(Semaphore::new(MOST_LINKS)),
        stage: Stage::new(share),
    });
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(share.window)
        .initial_connection_window_size(share.windows)
        .max_concurrent_streams(share.streams)
        .max_header_list_size(LARGEST_HEAD as u32)
        .max_send_buffer_size(STAGED);
    let Ok(Ok(mut connection)) = timeout(GREET, builder.handshake::<_, Bytes>(stream)).await else { return };
    let mut requests = JoinSet::new();
    let served = async {
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    // Streams that were given up may not have ended here yet.
                    Some(Ok((_, mut respond))) if requests.len() >= share.streams as usize => respond.send_reset(h2::Reason::REFUSED_STREAM),
                    Some(Ok((request, respond))) => _ = requests.spawn(one(session.clone(), request, respond)),
                    Some(Err(_)) | None => return,
                },
                Some(_) = requests.join_next() => {}
            }
        }
    };
    if gate.while_still(|policy| policy.still_of(&session.client.site), served).await.is_err() {
        // What a new policy forbids is cut, and those who wait for an answer learn that there is none. They hear of the policy as well, and
        // write down what became of them.
        let _ = timeout(CUT, async { while requests.join_next().await.is_some() {} }).await;
        requests.abort_all();
        connection.abrupt_shutdown(h2::Reason::REFUSED_STREAM);
        let _ = timeout(CUT, poll_fn(|context| connection.poll_closed(context))).await;
    }
}

/// One request and its answer.
async fn one(session: Arc<Session>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let gone = poll_reset(&mut respond).await;
    if gone {
        return;
    }
    // A call of gRPC reads other refusals.
    let grpc = request.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    // What answers HEAD has no body.
    let bare = request.method() == Method::HEAD;
    let records = &session.door.gate().records;
    match exchange(&session, request, &mut respond).await {
        Ok(()) => {}
        Err(Failed::Refused(refused)) if grpc => {
            let mut head = Response::new(());
            for (name, value) in refuse_grpc(records, &refused.denied, &refused.attempt) {
                if let Ok(value) = HeaderValue::try_from(value) {
                    head.headers_mut().insert(HeaderName::from_static(name), value);
                }
            }
            let _ = respond.send_response(head, true);
        }
        Err(Failed::Refused(refused)) => {
            let answer = refuse(records, &refused.denied, &refused.attempt);
            let mut head = Response::new(());
            *head.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::FORBIDDEN);
            head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
            head.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            let empty = bare || answer.body.is_empty();
            if let Ok(mut body) = respond.send_response(head, empty)
                && !empty
            {
                let _ = Outgoing { to: &mut body, stage: &session.stage }.data(answer.body.into()).await;
                let _ = body.send_data(Bytes::new(), true);
            }
        }
        Err(Failed::Cut(refused)) => {
            let Refused { denied, attempt } = *refused;
            records.judged(Outcome::Refused, denied.reason, &attempt, denied.policy.as_deref());
            // Not REFUSED_STREAM, after which it may be asked again: it has reached the upstream.
            respond.send_reset(h2::Reason::CANCEL);
        }
        Err(Failed::Reset(reason)) => respond.send_reset(reason),
    }
}

/// Whether the client has given it up already.
async fn poll_reset(respond: &mut SendResponse<Bytes>) -> bool {
    poll_fn(|context| Poll::Ready(matches!(respond.poll_reset(context), Poll::Ready(_)))).await
}

enum Failed {
    /// Before the client has seen anything of an answer.
    Refused(Box<Refused>),
    /// By a new policy.
    Cut(Box<Refused>),
    /// By one of the two sides.
    Reset(h2::Reason),
}

impl Failed {
    fn refused(refused: Refused) -> Self {
        Self::Refused(Box::new(refused))
    }
}

async fn exchange(session: &Session, request: Request<RecvStream>, respond: &mut SendResponse<Bytes>) -> Result<(), Failed> {
    let gate = session.door.gate();
    let client = &session.client;
    let (head, body) = request.into_parts();
    let unread = |reason| Failed::refused(Refused::of(gate, head.method.as_str(), reason));
    let size = size(&head.headers);
    if head.headers.len() > MOST_FIELDS {
        return Err(unread(Reason::RequestTooLarge));
    }
    if is_full() && size > USUAL_HEAD {
        return Err(unread(Reason::TooManyConnections));
    }
    let _waiting = Waiting::of(size);
    let authority = authority(&head.uri, &head.headers, client.site.scheme().as_str()).map_err(unread)?;
    if head.method == Method::CONNECT {
        return Err(unread(Reason::UpgradeNotDeclared));
    }
    let path = head.uri.path_and_query().map(PathAndQuery::as_str).unwrap_or_default();
    let to = if client.is_own() { To::Base(path) } else { To::Authority(path) };
    let method_field =
        if head.headers.keys().any(|name| names_a_method(name.as_str())) { MethodField::Present } else { MethodField::Absent };
    let trace = head.headers.get("traceparent").map(HeaderValue::as_bytes);
    let said = Said { method: head.method.as_str(), authority: &authority, to, upgrade: None, method_field, trace };
    let exchange = Exchange::judge(gate, client, said).map_err(Failed::Refused)?;

    let mut incoming = Incoming { from: body, taken: 0, trailers: Trailers::Drop };
    let all = |name: HeaderName| head.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    let content = match incoming.from.is_end_stream() {
        true => Content::Any,
        false => {
            exchange.content(|| all(CONTENT_TYPE), || all(CONTENT_ENCODING)).map_err(|reason| Failed::refused(exchange.refused(reason)))?
        }
    };
    let held = match content {
        Content::Form(kind) => {
            if expects(&head.headers) {
                let mut go_on = Response::new(());
                *go_on.status_mut() = StatusCode::CONTINUE;
                let _ = respond.send_informational(go_on);
            }
            Some(exchange.form(kind, &mut incoming).await.map_err(|reason| Failed::refused(exchange.refused(reason)))?)
        }
        Content::Any | Content::Untyped => None,
    };

    let link = tokio::select! {
        biased;
        _ = poll_fn(|context| respond.poll_reset(context)) => return Err(Failed::Reset(h2::Reason::CANCEL)),
        link = session.link(exchange.permit()) => link,
    };
    let mut link = link.map_err(|denied| Failed::refused(exchange.denied(denied)))?;
    let uri = Uri::builder().scheme(exchange.scheme()).authority(exchange.host().to_string()).path_and_query(exchange.target().to_string());
    let uri = uri.build().map_err(|_| Failed::refused(exchange.refused(Reason::PathAmbiguous)))?;
    let mut outgoing = Request::new(());
    *outgoing.method_mut() = head.method.clone();
    *outgoing.uri_mut() = uri;
    *outgoing.version_mut() = http::Version::HTTP_2;
    copy(&head.headers, outgoing.headers_mut());
    if content == Content::Untyped {
        outgoing.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(NO_FORM));
    }
    if held.is_none() && expects(&head.headers) {
        outgoing.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
    }
    // Between HTTP/2 and HTTP/2 it says that trailers are understood: gRPC asks for it.
    if head.headers.get(TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        outgoing.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    }
    let ended = held.as_ref().map_or(incoming.from.is_end_stream(), Bytes::is_empty);
    let address = link.address;
    let talk = async {
        let sent = link.send.send_request(outgoing, ended);
        let (answering, mut up) = sent.map_err(|error| Failed::refused(exchange.refused(of_upstream(&error))))?;
        exchange.is_on_its_way();
        let sending = async {
            if ended {
                return Ok(());
            }
            let mut sink = Outgoing { to: &mut up, stage: &link.stage };
            match held {
                Some(form) => pass(&mut Whole(Some(form)), &mut sink, &exchange.sent).await,
                None => pass(&mut incoming, &mut sink, &exchange.sent).await,
            }
        };
        talk(&exchange, &session.stage, respond, sending, answering).await
    };
    match gate.while_still(|policy| exchange.still(policy, Some(address)), talk).await {
        Ok(outcome) => outcome,
        Err(denied) => Err(Failed::Cut(Box::new(exchange.denied(denied)))),
    }
}

/// The request's body and the answer, side by side, until the answer has ended or one side gives up.
async fn talk(
    exchange: &Exchange<'_>,
    stage: &Stage,
    respond: &mut SendResponse<Bytes>,
    sending: impl Future<Output = Result<(), Broken>>,
    mut answering: ResponseFuture,
) -> Result<(), Failed> {
    let refused = |reason| Failed::refused(exchange.refused(reason));
    let mut sending = std::pin::pin!(sending);
    let mut sent = false;
    let mut down: Option<SendStream<Bytes>> = None;
    let answer = {
        let mut answering = std::pin::pin!(interim(&mut answering, respond));
        let mut patience = std::pin::pin!(tokio::time::sleep(ANSWER));
        let mut waited = false;
        loop {
            tokio::select! {
                biased;
                answer = &mut answering => break Ok(answer),
                () = &mut patience => {
                    if waited {
                        break Err(());
                    }
                    waited = sent;
                    patience.as_mut().reset(tokio::time::Instant::now() + ANSWER);
                }
                done = &mut sending, if !sent => match done {
                    // Why it is not taken, the answer says.
                    Ok(()) | Err(Broken::Sink) => sent = true,
                    Err(Broken::Source) => return Err(Failed::Reset(h2::Reason::CANCEL)),
                },
            }
        }
    };
    let response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(Interim::Gone)) => return Err(Failed::Reset(h2::Reason::CANCEL)),
        Ok(Err(Interim::Endless)) => return Err(refused(Reason::UpstreamMalformed)),
        Ok(Err(Interim::Failed(error))) => {
            return Err(match error.reason() {
                // As the upstream says it: a client knows which of them to try again.
                Some(reason) if error.is_reset() && error.is_remote() => {
                    exchange.answered(Reason::UpstreamMalformed.status());
                    Failed::Reset(reason)
                }
                _ => refused(of_upstream(&error)),
            });
        }
        Err(()) => return Err(refused(Reason::UpstreamSlow)),
    };
    if response.headers().len() > MOST_FIELDS {
        return Err(refused(Reason::UpstreamMalformed));
    }
    let (head, body) = response.into_parts();
    let mut out = Response::new(());
    *out.status_mut() = head.status;
    copy(&head.headers, out.headers_mut());
    if let Some(based) = exchange.based() {
        for (name, value) in out.headers_mut() {
            if let Some(Ok(moved)) = based.field(name.as_str(), value.as_bytes()).map(HeaderValue::try_from) {
                *value = moved;
            }
        }
    }
    let ended = body.is_end_stream();
    exchange.answered(head.status.as_u16());
    let stream = respond.send_response(out, ended).map_err(|_| Failed::Reset(h2::Reason::INTERNAL_ERROR))?;
    if ended {
        return Ok(());
    }
    let mut source = Incoming { from: body, taken: 0, trailers: Trailers::Pass };
    let down = down.insert(stream);
    let mut sink = Outgoing { to: down, stage };
    let passed = {
        let mut passing = std::pin::pin!(pass(&mut source, &mut sink, &exchange.received));
        loop {
            tokio::select! {
                biased;
                passed = &mut passing => break passed,
                done = &mut sending, if !sent => match done {
                    Ok(()) | Err(Broken::Sink) => sent = true,
                    Err(Broken::Source) => return Err(Failed::Reset(h2::Reason::CANCEL)),
                },
            }
        }
    };
    match passed {
        Ok(()) => Ok(()),
        // The reason is that of the upstream, where it gave one.
        Err(Broken::Source) => Err(Failed::Reset(h2::Reason::INTERNAL_ERROR)),
        Err(Broken::Sink) => Err(Failed::Reset(h2::Reason::CANCEL)),
    }
}

enum Interim {
    /// The client has given it up.
    Gone,
    /// It says that it will answer, and never does.
    Endless,
    Failed(h2::Error),
}

/// The answer that counts; those before it go to the client.
async fn interim(answering: &mut ResponseFuture, respond: &mut SendResponse<Bytes>) -> Result<Response<RecvStream>, Interim> {
    let mut count = 0;
    poll_fn(|context| {
        if respond.poll_reset(context).is_ready() {
            return Poll::Ready(Err(Interim::Gone));
        }
        while let Poll::Ready(Some(Ok(informational))) = answering.poll_informational(context) {
            count += 1;
            if count > MOST_INTERIM || informational.headers().len() > MOST_FIELDS {
                return Poll::Ready(Err(Interim::Endless));
            }
            let mut head = Response::new(());
            *head.status_mut() = informational.status();
            copy(informational.headers(), head.headers_mut());
            let _ = respond.send_informational(head);
        }
        std::pin::Pin::new(&mut *answering).poll(context).map_err(Interim::Failed)
    })
    .await
}

fn of_upstream(error: &h2::Error) -> Reason {
    if error.is_io() { Reason::Unreachable } else { Reason::UpstreamMalformed }
}

/// Who is asked: in every way in which it is said.
fn authority(uri: &Uri, headers: &HeaderMap, scheme: &str) -> Result<Authority, Reason> {
    if uri.scheme_str().is_some_and(|said| said != scheme) {
        return Err(Reason::HostMismatch);
    }
    let parsed = |text: &str| text.parse::<Authority>().map_err(|_| Reason::RequestMalformed);
    let mut all = Vec::new();
    if let Some(authority) = uri.authority() {
        all.push(parsed(authority.as_str())?);
    }
    for host in headers.get_all(HOST) {
        all.push(parsed(host.to_str().map_err(|_| Reason::RequestMalformed)?)?);
    }
    let first = all.first().cloned().ok_or(Reason::RequestMalformed)?;
    if all.iter().any(|other| *other != first) {
        return Err(Reason::HostMismatch);
    }
    Ok(first)
}

/// What a head costs.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum()
}

/// Whether the client waits until somebody wants the body.
fn expects(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// What is for the other end.
fn copy(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        if *name == CONTENT_LENGTH {
            // Once, however often it was said: those that differ have no reading.
            to.insert(name.clone(), value.clone());
        } else if !is_for_one_hop(name.as_str()) && *name != EXPECT {
            to.append(name.clone(), value.clone());
        }
    }
}

impl Session {
    /// A connection for this permit.
    async fn link(&self, permit: &Permit) -> Result<Link, Denied> {
        // Until what has ended meanwhile is seen to have ended: a request may be read before the end of an upstream that came before it.
        tokio::task::yield_now().await;
        let (place, began) = (self.place(permit), Instant::now());
        let mut place = place.lock().await;
        // Who has waited for a try that failed does not try again, one after the other.
        if let Some((_, denied)) = place.failed.as_ref().filter(|(ended, _)| *ended > began) {
            return Err(denied.clone());
        }
        let found = self.found(permit, &mut place).await;
        if let Err(denied) = &found {
            place.failed = Some((Instant::now(), denied.clone()));
        }
        found
    }

    async fn found(&self, permit: &Permit, place: &mut Spot) -> Result<Link, Denied> {
        let gate = self.door.gate();
        if let Some(mut link) = place.link.take() {
            let policy = gate.policy()?;
            let alive = policy.still(permit, Some(link.address)).is_ok() && link.way.still(&policy);
            // One that has no room for more streams serves those that it has, as long as there is room for another.
            let crowded = Arc::strong_count(&link.driver) > link.send.current_max_send_streams() && self.room.available_permits() > 0;
            if alive
                && !crowded
                && let Ok(send) = link.send.clone().ready().await
            {
                return Ok(place.link.insert(Link { send, ..link }).clone());
            }
        }
        let fits = |(leave, reached): &mut (Permit, Reached)| {
            let mut still = |policy: &Arc<GuardPolicy>| policy.still(permit, Some(reached.address)).is_ok() && reached.way.still(policy);
            leave.upstream() == permit.upstream() && leave.leg() == permit.leg() && gate.policy().is_ok_and(|policy| still(&policy))
        };
        let room = self.room.clone().try_acquire_owned().or_else(|_| {
            let_go(&mut self.links.lock().unwrap_or_else(PoisonError::into_inner));
            self.room.clone().try_acquire_owned()
        });
        let room = room.map_err(|_| gate.denied(Reason::TooManyConnections))?;
        let greeted = self.greeted.lock().unwrap_or_else(PoisonError::into_inner).take_if(fits);
        if let Some((_, reached)) = greeted {
            // By now it may have been closed.
            if let Ok(link) = self.speak(permit, reached).await {
                return Ok(place.link.insert(link.driven(room)).clone());
            }
        }
        let reaching = Box::pin(gate.reach_http(permit, self.client.wanted, &[Version::Two], self.client.server.as_ref()));
        let link = self.speak(permit, gate.while_permitted(permit, None, reaching).await??).await?;
        Ok(place.link.insert(link.driven(room)).clone())
    }

    fn place(&self, permit: &Permit) -> Arc<Place> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, place)) = links.iter().find(|(upstream, leg, _)| upstream == permit.upstream() && *leg == permit.leg()) {
            return place.clone();
        }
        if links.len() >= MOST_LINKS && !let_go(&mut links) {
            // It will find no room; or it is the last request on its connection.
            return Arc::default();
        }
        let place = Arc::<Place>::default();
        links.push((permit.upstream().clone(), permit.leg(), place.clone()));
        place
    }

    async fn speak(&self, permit: &Permit, reached: Reached) -> Result<Spoken, Denied> {
        let gate = self.door.gate();
        let Reached { stream, address, version: _, way } = reached;
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(self.share.window)
            .initial_connection_window_size(self.share.windows)
            .max_header_list_size(LARGEST_HEAD as u32)
            .max_send_buffer_size(STAGED)
            .enable_push(false);
        let malformed = || gate.denied(Reason::UpstreamMalformed);
        let (send, connection) =
            timeout(GREET, builder.handshake::<_, Bytes>(stream)).await.map_err(|_| malformed())?.map_err(|_| malformed())?;
        gate.usage.of(permit.source()).connections.fetch_add(1, Ordering::Relaxed);
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ = connection.await;
        });
        let send = send.ready().await.map_err(|_| malformed())?;
        Ok(Spoken { send, address, way, stage: Stage::new(self.share), driver })
    }
}

/// Forgets the eldest that nobody uses now. Whether there was one.
fn let_go(links: &mut Vec<(Upstream, Leg, Arc<Place>)>) -> bool {
    let unused = |link: &Option<Link>| link.as_ref().is_none_or(|link| Arc::strong_count(&link.driver) == 1);
    let eldest =
        links.iter().position(|(_, _, place)| Arc::strong_count(place) == 1 && place.try_lock().is_ok_and(|held| unused(&held.link)));
    eldest.map(|eldest| links.remove(eldest)).is_some()
}

/// A connection that was made, before it has its place.
struct Spoken {
    send: SendRequest<Bytes>,
    address: std::net::IpAddr,
    way: Way,
    stage: Stage,
    driver: JoinSet<()>,
}

impl Spoken {
    fn driven(self, room: OwnedSemaphorePermit) -> Link {
        let Self { send, address, way, stage, driver } = self;
        Link { send, address, way, stage, driver: Arc::new(Driver { _task: driver, _room: room }) }
    }
}

/// A body that is read. Its window opens again when what was read has been passed on.
struct Incoming {
    from: RecvStream,
    taken: usize,
    trailers: Trailers,
}

#[derive(PartialEq, Eq)]
enum Trailers {
    /// Of answers: gRPC says there how a call ended.
    Pass,
    /// Of requests: some servers take them for fields, which nobody judged.
    Drop,
}

impl Source for Incoming {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        if self.taken > 0 {
            let taken = std::mem::take(&mut self.taken);
            self.from.flow_control().release_capacity(taken).map_err(|_| Broken::Source)?;
        }
        match self.from.data().await {
            Some(Ok(data)) => {
                self.taken = data.len();
                Ok(Some(data))
            }
            Some(Err(_)) => Err(Broken::Source),
            None => Ok(None),
        }
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken> {
        let found = self.from.trailers().await.map_err(|_| Broken::Source)?;
        Ok(found.filter(|_| self.trailers == Trailers::Pass).map(|found| {
            let mut trailers = HeaderMap::new();
            copy(&found, &mut trailers);
            trailers
        }))
    }
}

/// A body that is written, as fast as the other side's window lets it.
struct Outgoing<'a> {
    to: &'a mut SendStream<Bytes>,
    stage: &'a Stage,
}

impl Sink for Outgoing<'_> {
    async fn data(&mut self, mut data: Bytes) -> Result<(), Broken> {
        while !data.is_empty() {
            let most = data.len().min(at_once()).min(PIECE);
            self.to.reserve_capacity(most);
            let capacity = poll_fn(|context| {
                if self.to.poll_reset(context).is_ready() {
                    return Poll::Ready(None);
                }
                self.to.poll_capacity(context)
            })
            .await;
            let Some(Ok(capacity)) = capacity else { return Err(Broken::Sink) };
            let piece = self.stage.take(data.split_to(capacity.min(most))).await;
            self.to.send_data(piece, false).map_err(|_| Broken::Sink)?;
        }
        Ok(())
    }

    async fn gone(&mut self) {
        let _ = poll_fn(|context| self.to.poll_reset(context)).await;
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        // The connection's own task writes.
        Ok(())
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        match trailers {
            Some(trailers) => self.to.send_trailers(trailers).map_err(|_| Broken::Sink),
            None => self.to.send_data(Bytes::new(), true).map_err(|_| Broken::Sink),
        }
    }
}
