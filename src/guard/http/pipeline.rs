//! The one way that requests and answers take, whichever version they are in.
//!
//! Promise: [`pass`] alone moves bodies, whole ones and streams, requests and answers; [`judge`] alone lets a request through.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::Client;
use crate::guard::gate::{Denied, Gate};
use crate::guard::record::{Access, Outcome};
use crate::policy::{Attempt, GuardPolicy, MethodField, Of, Permit, Reason, Request};
use crate::scope::{Authority, RequestTarget};

/// Longer paths, hosts and methods are cut in records.
const LONGEST_RECORDED: usize = 256;
/// Of a form that must be read before it is sent on.
const LARGEST_FORM: usize = 64 * 1024;
/// The status that is written of a request for the answer of which nobody waited.
pub const GIVEN_UP: u16 = 499;
/// After so many pieces others have their turn.
const TURN: usize = 16;

/// Which end failed.
#[derive(Debug)]
pub enum Broken {
    /// Nothing comes any more, or what came has no reading.
    Source,
    /// Nobody takes it any more.
    Sink,
}

/// Where a body comes from.
pub trait Source {
    /// None: its end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Broken>> + Send;
    /// What stands behind it: only in HTTP/2.
    fn trailers(&mut self) -> impl Future<Output = Result<Option<HeaderMap>, Broken>> + Send {
        std::future::ready(Ok(None))
    }
}

/// Where a body goes to.
pub trait Sink {
    fn data(&mut self, data: Bytes) -> impl Future<Output = Result<(), Broken>> + Send;
    /// What was given is on its way: before something is waited for.
    fn flush(&mut self) -> impl Future<Output = Result<(), Broken>> + Send;
    fn end(&mut self, trailers: Option<HeaderMap>) -> impl Future<Output = Result<(), Broken>> + Send;
}

/// A body, until its end. What comes together leaves together.
pub async fn pass(source: &mut impl Source, sink: &mut impl Sink, count: &AtomicU64) -> Result<(), Broken> {
    let mut pieces = 0;
    loop {
        let next = {
            let mut next = pin!(source.next());
            match poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await {
                Poll::Ready(next) => next?,
                Poll::Pending => {
                    sink.flush().await?;
                    next.await?
                }
            }
        };
        let Some(data) = next else {
            let trailers = source.trailers().await?;
            return sink.end(trailers).await;
        };
        count.fetch_add(data.len() as u64, Ordering::Relaxed);
        sink.data(data).await?;
        pieces += 1;
        if pieces % TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// A request as it was said.
pub struct Said<'a> {
    pub method: &'a str,
    /// The authority that is asked.
    pub authority: &'a Authority,
    pub to: To<'a>,
    pub upgrade: Option<&'a str>,
    pub method_field: MethodField,
}

/// What a request is for.
pub enum To<'a> {
    /// `/path?query` of the authority.
    Authority(&'a str),
    /// `/source/path?query` at the guard's own port.
    Base(&'a str),
}

/// A request that may be made.
pub struct Judged<'a> {
    pub permit: Permit,
    pub target: RequestTarget<'a>,
    /// It could not be judged, and Observe lets it through as it is.
    pub raw: Option<&'a str>,
    of: Of<'a>,
}

impl Judged<'_> {
    /// Whether it would be let through by this policy as well. `reached`: where it goes, once that is known.
    pub fn still(&self, policy: &GuardPolicy, client: &Client, said: &Said<'_>, reached: Option<IpAddr>) -> Result<(), Reason> {
        policy.still(&self.permit, reached)?;
        let Said { method, upgrade, method_field, authority: _, to: _ } = said;
        let request = Request { of: self.of, method, target: &self.target, upgrade: *upgrade, method_field: *method_field };
        if self.raw.is_some() {
            return if policy.observes() { Ok(()) } else { Err(Reason::PathAmbiguous) };
        }
        // The same words may lead elsewhere now.
        let now = policy.request(&client.site, &request)?;
        let same = now.upstream() == self.permit.upstream() && now.leg() == self.permit.leg();
        if same || policy.observes() { Ok(()) } else { Err(Reason::DestinationNotDeclared) }
    }
}

/// Why a request is not made.
pub struct Refused {
    pub denied: Denied,
    pub attempt: Attempt,
}

/// What is asked, by the policy of this moment.
pub fn judge<'a>(gate: &Gate, client: &Client, said: &Said<'a>) -> Result<Judged<'a>, Box<Refused>> {
    let Said { method, authority, to, upgrade, method_field } = said;
    let policy = match gate.policy() {
        Ok(policy) => policy,
        Err(denied) => return Err(Box::new(Refused { denied, attempt: attempt(method, authority, path_of(to), None) })),
    };
    let (of, text) = match to {
        To::Authority(path) => (Of::Authority(authority), *path),
        To::Base(path) => {
            let after = path.strip_prefix('/').unwrap_or(path);
            let end = after.find(['/', '?']).unwrap_or(after.len());
            let (source, rest) = after.split_at(end);
            (Of::Source(source), rest)
        }
    };
    let base = if let Of::Source(source) = of { policy.base_authority(source) } else { None };
    let host = base.unwrap_or(authority);
    let refused = |denied: Denied, path: &str, declare| Box::new(Refused { denied, attempt: attempt(method, host, path, declare) });
    let target = match RequestTarget::parse(text) {
        Ok(target) => target,
        Err(_) if policy.observes() => {
            let raw = observed_raw(gate, client, said, of, text);
            return raw.map_err(|reason| refused(Denied::by(policy.clone(), reason), path_of(to), None));
        }
        Err(_) => return Err(refused(Denied::by(policy.clone(), Reason::PathAmbiguous), path_of(to), None)),
    };
    let request = Request { of, method, target: &target, upgrade: *upgrade, method_field: *method_field };
    match policy.request(&client.site, &request) {
        Ok(permit) => {
            if let Some(reason) = permit.observed() {
                let declare = policy.declaration_of(&client.site, &request, reason);
                gate.records.judged(Outcome::LetThrough, reason, &attempt(method, host, target.path(), declare), Some(&policy));
            }
            Ok(Judged { permit, target, raw: None, of })
        }
        Err(reason) => {
            let declare = policy.declaration_of(&client.site, &request, reason);
            Err(refused(Denied::by(policy.clone(), reason), target.path(), declare))
        }
    }
}

/// Observe lets a path through that has no one form, as it is.
fn observed_raw<'a>(gate: &Gate, client: &Client, said: &Said<'a>, of: Of<'a>, text: &'a str) -> Result<Judged<'a>, Reason> {
    let policy = gate.policy().map_err(|denied| denied.reason)?;
    let target = RequestTarget::parse("/").map_err(|_| Reason::PathAmbiguous)?;
    let request = Request { of, method: said.method, target: &target, upgrade: said.upgrade, method_field: said.method_field };
    let permit = policy.request(&client.site, &request)?;
    gate.records.judged(
        Outcome::LetThrough,
        Reason::PathAmbiguous,
        &attempt(said.method, said.authority, path_of(&said.to), None),
        Some(&policy),
    );
    Ok(Judged { permit, target, raw: Some(text), of })
}

fn path_of<'a>(to: &To<'a>) -> &'a str {
    let (To::Authority(path) | To::Base(path)) = to;
    path.split('?').next().unwrap_or_default()
}

fn attempt(method: &str, host: &Authority, path: &str, declare: Option<String>) -> Attempt {
    Attempt::Request { method: cut(method).to_owned(), host: host.to_string(), path: cut(path).to_owned(), declare }
}

pub fn cut(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_RECORDED);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The whole of a form.
pub async fn form(source: &mut impl Source) -> Result<Bytes, Reason> {
    let mut form = BytesMut::new();
    while let Some(data) = source.next().await.map_err(|_| Reason::RequestMalformed)? {
        form.extend_from_slice(&data);
        if form.len() > LARGEST_FORM {
            return Err(Reason::RequestTooLarge);
        }
    }
    Ok(form.freeze())
}

/// A body that is there.
pub struct Whole(pub Option<Bytes>);

impl Source for Whole {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        Ok(self.0.take().filter(|bytes| !bytes.is_empty()))
    }
}

/// A data source that was asked by its base URL, as redirects to itself must name it.
#[derive(Clone, Copy)]
pub struct Based<'a> {
    pub source: &'a str,
    pub scheme: &'a str,
    pub authority: &'a Authority,
}

impl Based<'_> {
    /// Where a redirect leads, for a client that knows the base URL only. None: as it says; the client's next request is judged in its turn.
    pub fn location(&self, value: &[u8]) -> Option<String> {
        let Self { source, scheme, authority } = self;
        let text = std::str::from_utf8(value).ok()?;
        if text.starts_with('/') && !text.starts_with("//") {
            return Some(format!("/{source}{text}"));
        }
        let (said, rest) = text.split_once("://").filter(|(said, _)| said.eq_ignore_ascii_case(scheme))?;
        let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let host: Authority = host.parse().ok()?;
        let default = if said.eq_ignore_ascii_case("https") { 443 } else { 80 };
        let same = host.host == authority.host && host.port.unwrap_or(default) == authority.port.unwrap_or(default);
        same.then(|| format!("/{source}{path}"))
    }
}

/// What is written of a request that was let through.
pub struct Done<'a> {
    pub method: &'a str,
    pub host: &'a Authority,
    pub path: &'a str,
    pub status: u16,
    pub sent: u64,
    pub received: u64,
    pub trace: Option<&'a [u8]>,
    pub began: Instant,
}

pub fn record(gate: &Gate, permit: &Permit, done: &Done<'_>) {
    let Done { method, host, path, status, sent, received, trace, began } = done;
    gate.records.access(&Access {
        source: permit.source(),
        method: cut(method),
        host: &host.to_string(),
        path: cut(path),
        status: *status,
        sent: *sent,
        received: *received,
        microseconds: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        trace: trace.and_then(trace_id),
    });
}

/// The trace that a `traceparent` (W3C Trace Context) belongs to.
fn trace_id(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let id = text.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_redirects_of_a_base_url_lead() {
        let authority = "help.example.com".parse().unwrap();
        let based = Based { source: "help", scheme: "https", authority: &authority };
        for (location, expected) in [
            ("/a?b", Some("/help/a?b")),
            ("https://help.example.com/a", Some("/help/a")),
            ("https://HELP.example.com:443", Some("/help")),
            ("//help.example.com/a", None),
            ("http://help.example.com/a", None),
            ("https://help.example.com:8443/a", None),
            ("https://evil.example/a", None),
            ("a/b", None),
        ] {
            assert_eq!(based.location(location.as_bytes()).as_deref(), expected, "{location}");
        }
    }
}
