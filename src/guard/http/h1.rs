//! HTTP/1.1: one request after the other, each to an upstream of its own choice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use tokio::time::timeout;

use super::Client;
use super::answer::{Answer, PROBLEM, refuse, words};
use super::based::Based;
use super::exchange::{Content, Exchange, Refused, Said, To};
use super::pipeline::{ANSWER, Broken, MOST_INTERIM, Sink, Source, USUAL_HEAD, Whole, pass};
use crate::guard::gate::{Denied, Gate};
use crate::guard::record::Outcome;
use crate::guard::stream::{GONE, HALF_OPEN, Reader, Stream, Writer, at_once, both, counted, is_full, reset};
use crate::guard::tcp::Door;
use crate::guard::upstream::{Reached, Version, Way};
use crate::policy::{Attempt, GuardPolicy, Leg, MethodField, Permit, Reason, Upstream};
use crate::scope::{Authority, DomainName, Host, SAFE_METHODS};
use crate::wire::form::NO_FORM;
use crate::wire::http1::{
    Body, Ends, Fault, Field, LAST_CHUNK, Length, Persistence, Piece, Request, Response, Scan, Target, write_chunk_size, write_head,
};

/// For a head, from its first byte on.
const HEAD: Duration = Duration::from_secs(30);
/// For a client to take in a refusal before its connection ends.
const LINGER: Duration = Duration::from_secs(2);
/// What a client may have sent of a refused request, to be read and dropped.
const LARGEST_DROPPED: usize = 1024 * 1024;
/// What a client may send ahead while it waits for an answer.
const MOST_AHEAD: usize = 64 * 1024;

/// A connection to an upstream, and what it is for.
struct Link {
    upstream: Upstream,
    leg: Leg,
    reader: Reader,
    writer: Writer,
    address: std::net::IpAddr,
    way: Way,
    /// It has served before.
    used: bool,
}

/// What becomes of the client's connection.
enum After {
    Next,
    Close,
    Reset,
}

/// Until the connection has ended.
pub async fn serve(door: &Arc<Door>, mut reader: Reader, mut writer: Writer, mut client: Client) {
    let gate = door.gate();
    // By the time of the first request it may have been closed.
    let greeted = client.greeted.take().filter(|(_, reached)| reached.version == Version::One);
    let mut link = greeted.map(|(permit, reached)| Link { used: true, ..Link::new(gate, &permit, reached) });
    let after = loop {
        let head = match gate.while_still(|policy| policy.still_of(&client.site), head(&mut reader)).await {
            Ok(Ok(Some(head))) => head,
            Ok(Ok(None)) => break After::Close,
            Ok(Err(reason)) => break Box::pin(without_reading(gate, &client, reason, &mut reader, &mut writer)).await,
            Err(_) => break After::Reset,
        };
        let request = match Request::read(&head) {
            Ok(request) => request,
            Err(fault) => {
                let rest = std::mem::replace(&mut reader.buffer, BytesMut::from(&head[..]));
                reader.buffer.extend_from_slice(&rest);
                break Box::pin(without_reading(gate, &client, reason_of(fault), &mut reader, &mut writer)).await;
            }
        };
        if let Target::Authority(_) = request.target {
            let Some((name, port)) = tunnel(gate, door, &client, &request, &mut writer).await else { break After::Close };
            let (stream, before) = reader.whole(writer);
            // Within TLS nobody asks for another connection.
            let Stream::Tcp(stream) = stream else { return };
            return Box::pin(door.asked_for(stream, before, name, port)).await;
        }
        // In a box: who waits for the next request does not pay for it.
        match Box::pin(exchange(gate, &client, &request, &mut reader, &mut writer, &mut link)).await {
            After::Next => {}
            after => break after,
        }
    };
    if matches!(after, After::Close) {
        let _ = timeout(LINGER, drain(&mut reader, &mut writer)).await;
    }
    let (stream, _) = reader.whole(writer);
    if matches!(after, After::Reset) {
        reset(stream.tcp());
    }
}

/// Whoever closes while something comes in tells the other side that everything is lost, what it was told before as well.
async fn drain(reader: &mut Reader, writer: &mut Writer) {
    let _ = writer.end().await;
    let mut dropped = 0;
    while dropped < LARGEST_DROPPED {
        match reader.more().await {
            Ok(more) if more > 0 => dropped += more,
            _ => return,
        }
        reader.buffer = BytesMut::new();
    }
}

fn reason_of(fault: Fault) -> Reason {
    match fault {
        Fault::Malformed => Reason::RequestMalformed,
        Fault::TooLarge => Reason::RequestTooLarge,
    }
}

/// What becomes of a connection on which something has no reading.
async fn without_reading(gate: &Gate, client: &Client, reason: Reason, reader: &mut Reader, writer: &mut Writer) -> After {
    match unread(gate, client, reason, reader, writer).await {
        Some(after) => after,
        None => refuse_unread(gate, reason, writer, "").await,
    }
}

/// Nothing after it is read.
async fn refuse_unread(gate: &Gate, reason: Reason, writer: &mut Writer, method: &str) -> After {
    let refused = Refused::unread(gate, reason);
    say(writer, &refuse(&gate.records, &refused.denied, &refused.attempt), Persistence::Close, method).await;
    After::Close
}

/// What Observe does with what has no reading: it passes as it is, from here on. None: it is refused.
async fn unread(gate: &Gate, client: &Client, reason: Reason, reader: &mut Reader, writer: &mut Writer) -> Option<After> {
    let policy = gate.policy().ok()?;
    let permit = policy.unread(&client.site, reason)?;
    gate.records.judged(Outcome::LetThrough, reason, &Refused::unread(gate, reason).attempt, Some(&policy));
    let Ok(Ok((stream, address))) = gate.while_permitted(&permit, None, Box::pin(gate.reach(&permit, client.wanted))).await else {
        return Some(After::Reset);
    };
    let (from, to) = tokio::io::split(Stream::Tcp(stream));
    let (mut back, mut there) = (Reader::new(from, BytesMut::new()), Writer::new(to));
    let slot = gate.usage.of(permit.source());
    slot.connections.fetch_add(1, Ordering::Relaxed);
    let switched = switched(reader, writer, &mut back, &mut there, &slot.sent, &slot.received);
    let ended = gate.while_permitted(&permit, Some(address), switched).await;
    if !matches!(ended, Ok(Ok(()))) {
        let (stream, _) = back.whole(there);
        reset(stream.tcp());
        return Some(After::Reset);
    }
    Some(After::Close)
}

/// The next head. None: the end before it. It is there until its exchange has ended, and counted for as long; what came behind it does not
/// stay for its sake.
async fn head(reader: &mut Reader) -> Result<Option<Bytes>, Reason> {
    if reader.buffer.is_empty() && !reader.more().await.is_ok_and(|more| more > 0) {
        return Ok(None);
    }
    let mut scan = Scan::default();
    let read = async {
        loop {
            if let Some(length) = scan.head(&reader.buffer).map_err(reason_of)? {
                let head = if reader.buffer.len() == length {
                    std::mem::take(&mut reader.buffer).freeze()
                } else {
                    let head = Bytes::copy_from_slice(&reader.buffer[..length]);
                    reader.buffer.advance(length);
                    head
                };
                return Ok(Some(counted(head)));
            }
            if is_full() && reader.buffer.len() > USUAL_HEAD {
                return Err(Reason::TooManyConnections);
            }
            match reader.more().await {
                Ok(0) => return Err(Reason::RequestMalformed),
                Ok(_) => {}
                Err(_) => return Ok(None),
            }
        }
    };
    timeout(HEAD, read).await.unwrap_or(Err(Reason::TooSlow))
}

/// CONNECT, at the guard's own port. The rest of the connection is judged as one to that host.
async fn tunnel(gate: &Gate, door: &Arc<Door>, client: &Client, request: &Request<'_>, writer: &mut Writer) -> Option<(DomainName, u16)> {
    let Target::Authority(text) = request.target else { return None };
    let authority: Authority = text.parse().ok()?;
    let attempt = || Attempt::Request { method: "CONNECT".into(), host: authority.to_string(), path: String::new(), declare: None };
    let judged = match (&authority.host, authority.port, client.wanted) {
        (Host::Name(name), Some(port), None) if client.server.is_none() => door.may_ask_for(name, port).map(|()| (name.clone(), port)),
        (Host::Address(_), _, None) => gate.policy().and_then(|policy| Err(Denied::by(policy, Reason::NameNotDeclared))),
        _ => gate.policy().and_then(|policy| Err(Denied::by(policy, Reason::UpgradeNotDeclared))),
    };
    match judged {
        Ok(found) => {
            writer.staged().extend_from_slice(b"HTTP/1.1 200 Connection Established\r\n\r\n");
            writer.flush().await.ok().map(|()| found)
        }
        Err(denied) => {
            say(writer, &refuse(&gate.records, &denied, &attempt()), Persistence::Close, "CONNECT").await;
            None
        }
    }
}

/// An answer of the guard's own.
async fn say(writer: &mut Writer, answer: &Answer, connection: Persistence, method: &str) {
    let Answer { status, body, .. } = answer;
    let fields = [Field { name: "content-type", value: PROBLEM.as_bytes() }, Field { name: "cache-control", value: b"no-store" }];
    let ends = Ends { length: Length::Fixed(body.len() as u64), connection, upgrade: None };
    write_head(writer.staged(), format_args!("HTTP/1.1 {status} {}", words(*status)), None, &fields, ends);
    if method != "HEAD" {
        writer.staged().extend_from_slice(body);
    }
    let _ = writer.flush().await;
}

/// One request and its answer.
async fn exchange(
    gate: &Gate,
    client: &Client,
    request: &Request<'_>,
    reader: &mut Reader,
    writer: &mut Writer,
    link: &mut Option<Link>,
) -> After {
    let own = client.is_own();
    let absolute;
    let (authority, to) = match request.target {
        Target::Origin(path) if own => (&request.host, To::Base(path)),
        Target::Origin(path) => (&request.host, To::Authority(path)),
        Target::Absolute { authority, path } if own => {
            absolute = authority.parse().unwrap_or_else(|_| request.host.clone());
            (&absolute, To::Authority(path))
        }
        // `*` has no path that could be declared, and who is no proxy is asked for paths.
        Target::Absolute { .. } | Target::Asterisk | Target::Authority(_) => {
            return refuse_unread(gate, Reason::RequestMalformed, writer, request.method).await;
        }
    };
    let upgrade = request.upgrade.map(str::to_ascii_lowercase);
    let method_field = if request.names_a_method { MethodField::Present } else { MethodField::Absent };
    let all = |name: &str| request.fields.iter().filter(|f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value).collect::<Vec<_>>();
    let trace = request.fields.iter().find(|field| field.name.eq_ignore_ascii_case("traceparent")).map(|field| field.value);
    let said = Said { method: request.method, authority, to, upgrade: upgrade.as_deref(), method_field, trace };
    let mut body = Body::new(request.length);
    let exchange = match Exchange::judge(gate, client, said) {
        Ok(exchange) => exchange,
        Err(refused) => return answered(gate, writer, *refused, request, &body).await,
    };

    // A form that could name another method is read before anything is sent.
    let mut held = None;
    let mut fields = &request.fields;
    let mut typed;
    let content = match body.has_ended() {
        true => Ok(Content::Any),
        false => exchange.content(|| all("content-type"), || all("content-encoding")),
    };
    match content {
        Ok(Content::Any) => {}
        Ok(Content::Untyped) => {
            typed = request.fields.iter().filter(|f| !f.name.eq_ignore_ascii_case("content-type")).copied().collect::<Vec<_>>();
            typed.push(Field { name: "content-type", value: NO_FORM.as_bytes() });
            fields = &typed;
        }
        Ok(Content::Form(kind)) => {
            if !all("expect").is_empty() {
                writer.staged().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                if writer.flush().await.is_err() {
                    return After::Reset;
                }
            }
            match exchange.form(kind, &mut Incoming { reader, body: &mut body }).await {
                Ok(form) => held = Some(form),
                Err(reason) => return answered(gate, writer, exchange.refused(reason), request, &body).await,
            }
        }
        Err(reason) => return answered(gate, writer, exchange.refused(reason), request, &body).await,
    }
    let length = held.as_ref().map_or(request.length, |form| Length::Fixed(form.len() as u64));

    // Upstreams that pass over the body of a GET would take it for the next request: there is none on that connection.
    let passed_over = length != Length::None && !matches!(request.method, "POST" | "PUT" | "PATCH");
    let kept = if passed_over { Persistence::Close } else { Persistence::KeepAlive };

    let mut tries = 0;
    loop {
        tries += 1;
        let again = length == Length::None && SAFE_METHODS.contains(&request.method);
        if !again && link.is_some() {
            // What has ended meanwhile is seen to have ended: a request may be read before the end of its upstream that came before it.
            tokio::task::yield_now().await;
        }
        let mut current = match ready(gate, client, exchange.permit(), link.take()).await {
            Ok(current) => current,
            Err(denied) => return answered(gate, writer, exchange.denied(denied), request, &body).await,
        };
        let ends = Ends { length, connection: kept, upgrade: upgrade.as_deref() };
        let (method, target) = (request.method, exchange.target());
        write_head(current.writer.staged(), format_args!("{method} {target} HTTP/1.1"), Some(exchange.host()), fields, ends);
        exchange.is_on_its_way();
        let used = current.used;
        let reached = current.address;
        let talk = Talk { exchange: &exchange, request, length, body: &mut body, held: &mut held, upgrade: upgrade.as_deref() };
        let still = |policy: &GuardPolicy| exchange.still(policy, Some(reached));
        let end = match gate.while_still(still, talk.on(reader, writer, &mut current)).await {
            Ok(end) => end,
            Err(denied) => {
                // What a new policy forbids is cut, and seen to be cut.
                let refused = exchange.denied(denied);
                gate.records.judged(Outcome::Refused, refused.denied.reason, &refused.attempt, refused.denied.policy.as_deref());
                let (stream, _) = current.reader.whole(current.writer);
                reset(stream.tcp());
                return After::Reset;
            }
        };
        match end {
            End::Answered { client: Persistence::KeepAlive, upstream } => {
                if upstream == Persistence::KeepAlive && kept == Persistence::KeepAlive {
                    current.used = true;
                    *link = Some(current);
                }
                return if request.persistence == Persistence::KeepAlive { After::Next } else { After::Close };
            }
            End::Answered { client: Persistence::Close, .. } => return After::Close,
            End::Switched(Ok(())) => return After::Close,
            End::Switched(Err(())) => {
                // What one side broke off, the other sees broken off.
                let (stream, _) = current.reader.whole(current.writer);
                reset(stream.tcp());
                return After::Reset;
            }
            End::Failed(_) if exchange.is_answered() => return After::Reset,
            // Who closes an idle connection has not seen what came meanwhile; and if it has, nothing was changed.
            End::Failed(Reason::Unreachable) if used && tries == 1 && again => {}
            End::Failed(reason) => {
                let reason = if reason == Reason::Unreachable { Reason::UpstreamMalformed } else { reason };
                return answered(gate, writer, exchange.refused(reason), request, &body).await;
            }
            End::ClientGone => {
                let (stream, _) = current.reader.whole(current.writer);
                reset(stream.tcp());
                return After::Reset;
            }
            End::Malformed => return answered(gate, writer, exchange.refused(Reason::RequestMalformed), request, &body).await,
        }
    }
}

/// A refusal, and whether the connection serves for more after it.
async fn answered(gate: &Gate, writer: &mut Writer, refused: Refused, request: &Request<'_>, body: &Body) -> After {
    let answer = refuse(&gate.records, &refused.denied, &refused.attempt);
    // Not after what may have been read in another way, and not behind a body that nobody wants.
    let doubtful = matches!(answer.status, 400 | 408 | 421 | 431);
    let close = doubtful || request.persistence == Persistence::Close || !body.has_ended();
    let connection = if close { Persistence::Close } else { Persistence::KeepAlive };
    say(writer, &answer, connection, request.method).await;
    if close { After::Close } else { After::Next }
}

/// A connection for this permit: the one that is there, if it is for the same and nothing came on it unasked.
async fn ready(gate: &Gate, client: &Client, permit: &Permit, link: Option<Link>) -> Result<Link, Denied> {
    if let Some(mut link) = link
        && link.upstream == *permit.upstream()
        && link.leg == permit.leg()
        && link.is_quiet().await
    {
        let policy = gate.policy()?;
        if policy.still(permit, Some(link.address)).is_ok() && link.way.still(&policy) {
            return Ok(link);
        }
    }
    let reaching = Box::pin(gate.reach_http(permit, client.wanted, &[Version::One], client.server.as_ref()));
    let reached = gate.while_permitted(permit, None, reaching).await??;
    Ok(Link::new(gate, permit, reached))
}

impl Link {
    fn new(gate: &Gate, permit: &Permit, reached: Reached) -> Self {
        let Reached { stream, address, version: _, way } = reached;
        let (from, to) = tokio::io::split(stream);
        gate.usage.of(permit.source()).connections.fetch_add(1, Ordering::Relaxed);
        Self {
            upstream: permit.upstream().clone(),
            leg: permit.leg(),
            reader: Reader::new(from, BytesMut::new()),
            writer: Writer::new(to),
            address,
            way,
            used: false,
        }
    }

    /// Nothing came that nobody asked for, the end neither.
    async fn is_quiet(&mut self) -> bool {
        let silent = std::future::poll_fn(|context| std::task::Poll::Ready(self.reader.poll_more(context).is_pending())).await;
        silent && self.reader.buffer.is_empty()
    }
}

/// How an exchange ended.
enum End {
    Answered {
        client: Persistence,
        upstream: Persistence,
    },
    /// To another protocol, and that has ended, or was broken off.
    Switched(Result<(), ()>),
    /// Perhaps in the middle of an answer.
    Failed(Reason),
    ClientGone,
    /// The body of the request has no reading.
    Malformed,
}

/// A request on its way, and its answer.
struct Talk<'a> {
    exchange: &'a Exchange<'a>,
    request: &'a Request<'a>,
    length: Length,
    body: &'a mut Body,
    held: &'a mut Option<Bytes>,
    upgrade: Option<&'a str>,
}

impl Talk<'_> {
    /// The request's head is staged.
    async fn on(self, reader: &mut Reader, writer: &mut Writer, link: &mut Link) -> End {
        let Self { exchange, request, length, body, held, upgrade } = self;
        let sent = &exchange.sent;
        // The request was sent.
        let whole = AtomicBool::new(false);
        let answer = {
            let (up, down) = (&mut link.writer, &mut link.reader);
            let mut sending = std::pin::pin!(async {
                let mut outgoing = Outgoing { writer: up, length };
                match held.as_ref() {
                    Some(form) => pass(&mut Whole(Some(form.clone())), &mut outgoing, sent).await?,
                    None => pass(&mut Incoming { reader, body: &mut *body }, &mut outgoing, sent).await?,
                }
                whole.store(true, Ordering::Relaxed);
                // Who is gone waits for no answer.
                while reader.buffer.len() < MOST_AHEAD.min(at_once()) {
                    if !reader.more().await.is_ok_and(|more| more > 0) {
                        return Err(Broken::Source);
                    }
                }
                // Nobody asks so much ahead, and nothing tells any more whether it is still there.
                tokio::time::sleep(GONE).await;
                Err(Broken::Source)
            });
            let mut answering = std::pin::pin!(answer(exchange, request, upgrade, down, writer));
            let mut patience = std::pin::pin!(tokio::time::sleep(ANSWER));
            let (mut refused, mut waited) = (false, false);
            loop {
                tokio::select! {
                    biased;
                    answer = &mut answering => break answer,
                    () = &mut patience => {
                        let sent = refused || whole.load(Ordering::Relaxed);
                        if waited && !exchange.is_answered() {
                            break Err(Reason::UpstreamSlow);
                        }
                        waited = sent;
                        patience.as_mut().reset(tokio::time::Instant::now() + ANSWER);
                    }
                    failed = &mut sending, if !refused => match failed {
                        // The answer may say why.
                        Err(Broken::Sink) => refused = true,
                        Ok(()) => refused = true,
                        Err(Broken::Source) if whole.load(Ordering::Relaxed) => return End::ClientGone,
                        Err(Broken::Source) if length == Length::Chunked && !exchange.is_answered() => return End::Malformed,
                        Err(Broken::Source) => return End::ClientGone,
                    },
                }
            }
        };
        match answer {
            Ok(Answered::Whole { client, upstream }) => {
                let all = whole.load(Ordering::Relaxed);
                let kept = |persistence| if all { persistence } else { Persistence::Close };
                End::Answered { client: kept(client), upstream: kept(upstream) }
            }
            Ok(Answered::Switched) => {
                End::Switched(switched(reader, writer, &mut link.reader, &mut link.writer, sent, &exchange.received).await)
            }
            Err(reason) => End::Failed(reason),
        }
    }
}

/// Bytes both ways, until both have ended: see [`both`].
async fn switched(
    reader: &mut Reader,
    writer: &mut Writer,
    back: &mut Reader,
    there: &mut Writer,
    sent: &AtomicU64,
    received: &AtomicU64,
) -> Result<(), ()> {
    let (mut up, mut down) = (Body::new(Length::UntilEnd), Body::new(Length::UntilEnd));
    let mut from_client = Incoming { reader, body: &mut up };
    let mut to_upstream = Outgoing { writer: there, length: Length::UntilEnd };
    let mut from_upstream = Incoming { reader: back, body: &mut down };
    let mut to_client = Outgoing { writer, length: Length::UntilEnd };
    let (there, back) = (pass(&mut from_client, &mut to_upstream, sent), pass(&mut from_upstream, &mut to_client, received));
    let ended = both(there, back, || sent.load(Ordering::Relaxed).wrapping_add(received.load(Ordering::Relaxed)), HALF_OPEN).await;
    ended.map_err(drop)
}

enum Answered {
    Whole { client: Persistence, upstream: Persistence },
    Switched,
}

/// The answer of an upstream, to the client.
async fn answer(
    exchange: &Exchange<'_>,
    request: &Request<'_>,
    upgrade: Option<&str>,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<Answered, Reason> {
    const MALFORMED: Reason = Reason::UpstreamMalformed;
    /// It ended before it said anything.
    const NOTHING: Reason = Reason::Unreachable;
    let based = exchange.based();
    let mut interim = 0;
    loop {
        let head = match head(reader).await {
            Ok(Some(head)) => head,
            Ok(None) => return Err(NOTHING),
            // It is well, and there is no room for it.
            Err(Reason::TooManyConnections) => return Err(Reason::TooManyConnections),
            Err(Reason::TooSlow) => return Err(Reason::UpstreamSlow),
            Err(_) => return Err(MALFORMED),
        };
        let response = Response::read(&head, request.method).map_err(|_| MALFORMED)?;
        let Response { status, reason, mut fields, length, persistence, upgrade: to } = response;
        let moved = |based: &Based<'_>| fields.iter().map(|field| based.field(field.name, field.value)).collect::<Vec<_>>();
        let moved = based.as_ref().map(moved).unwrap_or_default();
        for (field, moved) in fields.iter_mut().zip(&moved) {
            field.value = moved.as_deref().unwrap_or(field.value);
        }
        if status == 101 {
            if upgrade.is_none() || to.map(str::to_ascii_lowercase).as_deref() != upgrade {
                return Err(MALFORMED);
            }
            let ends = Ends { length: Length::None, connection: Persistence::KeepAlive, upgrade };
            write_head(writer.staged(), format_args!("HTTP/1.1 101 {reason}"), None, &fields, ends);
            exchange.answered(status);
            writer.flush().await.map_err(|_| MALFORMED)?;
            return Ok(Answered::Switched);
        }
        if status < 200 {
            interim += 1;
            if interim > MOST_INTERIM {
                return Err(MALFORMED);
            }
            let ends = Ends { length: Length::None, connection: Persistence::KeepAlive, upgrade: None };
            write_head(writer.staged(), format_args!("HTTP/1.1 {status} {reason}"), None, &fields, ends);
            if writer.flush().await.is_err() {
                // Who does not take it takes no other.
                exchange.answered(status);
                return Err(MALFORMED);
            }
            continue;
        }
        exchange.answered(status);
        // What ends with the connection is given a length of its own, so that what is cut can be told from what has ended.
        let there = if length == Length::UntilEnd { Length::Chunked } else { length };
        let ends = Ends { length: there, connection: request.persistence, upgrade: None };
        write_head(writer.staged(), format_args!("HTTP/1.1 {status} {reason}"), None, &fields, ends);
        let mut body = Body::new(length);
        let passed = pass(&mut Incoming { reader, body: &mut body }, &mut Outgoing { writer, length: there }, &exchange.received).await;
        return match passed {
            // Nobody asked for what comes behind an answer.
            Ok(()) => {
                let upstream = if reader.buffer.is_empty() { persistence } else { Persistence::Close };
                Ok(Answered::Whole { client: Persistence::KeepAlive, upstream })
            }
            Err(_) => Err(MALFORMED),
        };
    }
}

/// The body of a message that is read.
struct Incoming<'a> {
    reader: &'a mut Reader,
    body: &'a mut Body,
}

impl Source for Incoming<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            match self.body.next(&mut self.reader.buffer).map_err(|_| Broken::Source)? {
                Piece::Data(data) => return Ok(Some(data)),
                Piece::End => return Ok(None),
                Piece::Wait => match self.reader.more().await {
                    Ok(0) if self.body.may_end() => return Ok(None),
                    Ok(more) if more > 0 => {}
                    _ => return Err(Broken::Source),
                },
            }
        }
    }
}

/// The body of a message that is written.
struct Outgoing<'a> {
    writer: &'a mut Writer,
    length: Length,
}

impl Sink for Outgoing<'_> {
    async fn data(&mut self, data: Bytes) -> Result<(), Broken> {
        let chunked = self.length == Length::Chunked;
        if chunked {
            write_chunk_size(self.writer.staged(), data.len());
        }
        self.writer.write(&data).await.map_err(|_| Broken::Sink)?;
        if chunked {
            self.writer.staged().extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        self.writer.flush().await.map_err(|_| Broken::Sink)
    }

    async fn end(&mut self, _: Option<HeaderMap>) -> Result<(), Broken> {
        match self.length {
            Length::Chunked => self.writer.staged().extend_from_slice(LAST_CHUNK),
            Length::UntilEnd => return self.writer.end().await.map_err(|_| Broken::Sink),
            Length::None | Length::Fixed(_) => {}
        }
        self.flush().await
    }
}
