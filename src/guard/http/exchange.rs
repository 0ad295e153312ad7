//! One request that may be made, and what is written of it, whichever version it is in.
//!
//! Promise: [`Exchange::judge`] alone lets a request through. One that was on its way is counted and written down when its exchange ends,
//! however that is: also when its connection breaks off and whatever served it is dropped.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;

use super::based::Based;
use super::pipeline::{Source, form};
use super::{Client, means_the_guard};
use crate::guard::gate::{Denied, Gate};
use crate::guard::record::{Access, Outcome};
use crate::policy::channel::Requests;
use crate::policy::{Attempt, Forms, GuardPolicy, Leg, MethodField, Of, Permit, Reason, Request};
use crate::scope::{Authority, RequestTarget};
use crate::wire::form::{Form, form_names_a_method, form_of};

/// Longer paths, hosts and methods are cut in records.
const LONGEST_RECORDED: usize = 256;
/// For a form, which is read before it is sent on.
const FORM: Duration = Duration::from_secs(30);
/// It is not on its way.
const NOWHERE: u16 = 0;
/// It is on its way, and there is no answer: no status that an upstream can say.
const GIVEN_UP: u16 = 1;
/// What is written of one for the answer of which nobody waited.
const NOBODY_WAITED: u16 = 499;

/// A request as it was said.
pub struct Said<'a> {
    pub method: &'a str,
    /// The authority that is asked.
    pub authority: &'a Authority,
    pub to: To<'a>,
    pub upgrade: Option<&'a str>,
    pub method_field: MethodField,
    /// Its `traceparent`.
    pub trace: Option<&'a [u8]>,
}

/// What a request is for.
#[derive(Clone, Copy)]
pub enum To<'a> {
    /// `/path?query` of the authority.
    Authority(&'a str),
    /// `/source/path?query` at the guard's own port.
    Base(&'a str),
}

impl<'a> To<'a> {
    fn path(self) -> &'a str {
        let (To::Authority(path) | To::Base(path)) = self;
        path.split('?').next().unwrap_or_default()
    }

    /// Who is asked, and for what of it.
    fn parts(self, authority: &'a Authority) -> (Of<'a>, &'a str) {
        match self {
            Self::Authority(path) => (Of::Authority(authority), path),
            Self::Base(path) => {
                let after = path.strip_prefix('/').unwrap_or(path);
                let (source, rest) = after.split_at(after.find(['/', '?']).unwrap_or(after.len()));
                (Of::Source(source), rest)
            }
        }
    }
}

/// Why a request is not made.
pub struct Refused {
    pub denied: Denied,
    pub attempt: Attempt,
}

impl Refused {
    /// Of a request that could not be read. Nothing of it is repeated.
    pub fn unread(gate: &Gate, reason: Reason) -> Self {
        Self::of(gate, "", reason)
    }

    /// Of one of which only the method is known.
    pub fn of(gate: &Gate, method: &str, reason: Reason) -> Self {
        let attempt = Attempt::Request { method: cut(method).to_owned(), host: String::new(), path: String::new(), declare: None };
        Self { denied: gate.denied(reason), attempt }
    }
}

/// What its body is, where forms may not name a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It passes as it comes.
    Any,
    /// It says no type: it is sent on with [`crate::wire::form::NO_FORM`].
    Untyped,
    /// It is read before it is sent on, by [`Exchange::form`].
    Form(Form),
}

pub struct Exchange<'a> {
    gate: &'a Gate,
    client: &'a Client,
    said: Said<'a>,
    of: Of<'a>,
    permit: Permit,
    target: RequestTarget<'a>,
    /// It could not be judged, and Observe lets it through as it is.
    raw: Option<&'a str>,
    began: Instant,
    /// Bytes of its body, and of the answer's.
    pub sent: AtomicU64,
    pub received: AtomicU64,
    /// [`NOWHERE`], [`GIVEN_UP`] once it is on its way, then the answer's.
    status: AtomicU16,
}

impl<'a> Exchange<'a> {
    /// By the policy of this moment.
    pub fn judge(gate: &'a Gate, client: &'a Client, said: Said<'a>) -> Result<Self, Box<Refused>> {
        let began = Instant::now();
        let (method, authority) = (said.method, said.authority);
        let policy = match gate.policy() {
            Ok(policy) => policy,
            Err(denied) => return Err(Box::new(Refused { denied, attempt: attempt(method, authority, said.to.path(), None) })),
        };
        let (of, text) = said.to.parts(authority);
        let base = if let Of::Source(source) = of { policy.base_authority(source) } else { None };
        let host = base.unwrap_or(authority);
        let refused = |reason, path: &str, declare| {
            Box::new(Refused { denied: Denied::by(policy.clone(), reason), attempt: attempt(method, host, path, declare) })
        };
        let expected = means_the_guard(authority) || base.is_some_and(|base| base.host == authority.host);
        if matches!(of, Of::Source(_)) && !expected {
            // In Observe as well: who is misled is not the app.
            let denied = Denied::by(policy, Reason::HostMismatch);
            return Err(Box::new(Refused { denied, attempt: attempt(method, authority, said.to.path(), None) }));
        }
        let (target, raw) = match RequestTarget::parse(text) {
            Ok(target) => (target, None),
            // Observe lets a path through that has no one form, as it is.
            Err(_) if policy.observes() => match RequestTarget::parse("/") {
                Ok(target) => (target, Some(text)),
                Err(_) => return Err(refused(Reason::PathAmbiguous, said.to.path(), None)),
            },
            Err(_) => return Err(refused(Reason::PathAmbiguous, said.to.path(), None)),
        };
        let request = Request { of, method, target: &target, upgrade: said.upgrade, method_field: said.method_field };
        let shown = if raw.is_some() { said.to.path() } else { target.path() };
        let permit = match policy.request(&client.site, &request) {
            Ok(permit) => permit,
            Err(reason) => {
                let declare = policy.declaration_of(&client.site, &request, reason).filter(|_| raw.is_none());
                return Err(refused(reason, shown, declare));
            }
        };
        let observed = if raw.is_some() { Some(Reason::PathAmbiguous) } else { permit.observed() };
        if let Some(reason) = observed {
            let declare = policy.declaration_of(&client.site, &request, reason).filter(|_| raw.is_none());
            gate.records.judged(Outcome::LetThrough, reason, &attempt(method, host, shown, declare), Some(&policy));
        }
        Ok(Self {
            gate,
            client,
            said,
            of,
            permit,
            target,
            raw,
            began,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            status: AtomicU16::new(NOWHERE),
        })
    }

    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// As who the upstream is asked.
    pub fn host(&self) -> &Authority {
        self.permit.authority().unwrap_or(self.said.authority)
    }

    /// What is spoken with the upstream.
    pub fn scheme(&self) -> &'static str {
        match self.permit.leg() {
            Leg::Http(scheme) => scheme.as_str(),
            Leg::Bytes => self.client.site.scheme().as_str(),
        }
    }

    /// The path and query that are asked for, in the form that was judged.
    pub fn target(&self) -> impl fmt::Display {
        struct Shown<'a, 'b>(&'b Exchange<'a>);
        impl fmt::Display for Shown<'_, '_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0.raw {
                    Some(raw) => f.write_str(raw),
                    None => self.0.target.fmt(f),
                }
            }
        }
        Shown(self)
    }

    /// By what the answer is told to whom knows the base URL only.
    pub fn based(&self) -> Option<Based<'_>> {
        // The name by which it was asked: in Observe a permit bears none.
        let Of::Source(source) = self.of else { return None };
        Some(Based { source, scheme: self.scheme(), authority: self.host(), own: self.said.authority, path: self.target.path() })
    }

    /// Whether it would be let through by this policy as well. `reached`: where it goes, once that is known.
    pub fn still(&self, policy: &GuardPolicy, reached: Option<IpAddr>) -> Result<(), Reason> {
        policy.still(&self.permit, reached)?;
        if self.raw.is_some() {
            return if policy.observes() { Ok(()) } else { Err(Reason::PathAmbiguous) };
        }
        let Said { method, upgrade, method_field, .. } = self.said;
        let request = Request { of: self.of, method, target: &self.target, upgrade, method_field };
        // The same words may lead elsewhere now.
        let now = policy.request(&self.client.site, &request)?;
        let same = now.upstream() == self.permit.upstream() && now.leg() == self.permit.leg();
        if same || policy.observes() { Ok(()) } else { Err(Reason::DestinationNotDeclared) }
    }

    // === the body ===

    /// What a body is, by all its fields `content-type` and `content-encoding`. They are looked for only where they decide something.
    pub fn content<'b>(&self, types: impl FnOnce() -> Vec<&'b [u8]>, codings: impl FnOnce() -> Vec<&'b [u8]>) -> Result<Content, Reason> {
        if self.permit.forms() == Forms::Pass {
            return Ok(Content::Any);
        }
        match form_of(self.said.method, &types(), &codings()) {
            Form::No => Ok(Content::Any),
            Form::Untyped => Ok(Content::Untyped),
            Form::Hidden => Err(Reason::MethodOverride),
            kind => Ok(Content::Form(kind)),
        }
    }

    /// The whole of a form that names no method.
    pub async fn form(&self, kind: Form, source: &mut impl Source) -> Result<Bytes, Reason> {
        let form = timeout(FORM, form(source)).await.unwrap_or(Err(Reason::TooSlow))?;
        if form_names_a_method(kind, &form) { Err(Reason::MethodOverride) } else { Ok(form) }
    }

    // === how it ends ===

    pub fn is_on_its_way(&self) {
        self.status.store(GIVEN_UP, Ordering::Relaxed);
    }

    /// By the answer that counts.
    pub fn answered(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// Whether the client has seen an answer that counts.
    pub fn is_answered(&self) -> bool {
        !matches!(self.status.load(Ordering::Relaxed), NOWHERE | GIVEN_UP)
    }

    /// By the guard, after all.
    pub fn refused(&self, reason: Reason) -> Refused {
        self.denied(self.gate.denied(reason))
    }

    /// The same, by a policy that is known.
    pub fn denied(&self, denied: Denied) -> Refused {
        if self.status.load(Ordering::Relaxed) == GIVEN_UP {
            // It has reached the upstream, in part at least: that is written, and the refusal besides.
            self.status.store(denied.reason.status(), Ordering::Relaxed);
        }
        Refused { denied, attempt: attempt(self.said.method, self.host(), self.path(), None) }
    }

    fn path(&self) -> &str {
        if self.raw.is_some() { self.said.to.path() } else { self.target.path() }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let (sent, received) = (*self.sent.get_mut(), *self.received.get_mut());
        let status = *self.status.get_mut();
        let slot = self.gate.usage.of(self.permit.source());
        slot.sent.fetch_add(sent, Ordering::Relaxed);
        slot.received.fetch_add(received, Ordering::Relaxed);
        if status == NOWHERE {
            return;
        }
        let class = if status == GIVEN_UP { 0 } else { Requests::class(status) };
        slot.requests[class].fetch_add(1, Ordering::Relaxed);
        self.gate.records.access(&Access {
            source: self.permit.source(),
            method: cut(self.said.method),
            host: &self.host().to_string(),
            path: cut(self.path()),
            status: if status == GIVEN_UP { NOBODY_WAITED } else { status },
            sent,
            received,
            microseconds: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            trace: self.said.trace.and_then(trace_id),
        });
    }
}

fn attempt(method: &str, host: &Authority, path: &str, declare: Option<String>) -> Attempt {
    Attempt::Request { method: cut(method).to_owned(), host: host.to_string(), path: cut(path).to_owned(), declare }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_RECORDED)]
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
    fn traces() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (value, expected) in [
            (format!("00-{id}-00f067aa0ba902b7-01"), Some(id)),
            (format!("00-{id}"), Some(id)),
            (format!("00-{}-00f067aa0ba902b7-01", &id[1..]), None),
            (format!("00-{}x-00f067aa0ba902b7-01", &id[1..]), None),
            ("\n".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(trace_id(value.as_bytes()), expected, "{value:?}");
        }
        assert_eq!(trace_id(b"00-\xff-"), None);
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        let long = "\u{e9}".repeat(200);
        assert_eq!(cut(&long).len(), LONGEST_RECORDED);
        assert_eq!(cut(&format!("a{long}")).len(), LONGEST_RECORDED - 1);
        assert_eq!(cut("short"), "short");
    }
}
