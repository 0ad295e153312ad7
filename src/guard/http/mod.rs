//! HTTP, judged request by request: whichever way a connection came, in whichever version.
//!
//! ```text
//!  redirected ─┐                        ┌ h1 ┐   judge ─ reach ─ pass ─► upstream, in the same version
//!  TLS ended ──┼─► Site, Stream ─ serve ┤    ├─► exchange, pipeline
//!  own port ───┘                        └ h2 ┘   answer (a refusal, in words)
//! ```
//!
//! Promise: a request is sent in the form in which it was judged, to where its permit leads, or answered with the reason. What has no
//! reading, or two, ends its connection: nothing of it reaches an upstream, and no connection is used again after it. Versions are never
//! translated, redirects never followed. Bodies pass as they come; both sides wait for each other, and a stream that waits holds no buffer.

mod answer;
mod based;
mod exchange;
mod h1;
mod h2;
mod inspect;
mod pipeline;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::stream::{Begun, Reader, Stream, Writer, reset};
use super::tcp::Door;
use super::upstream::{Reached, Version};
use crate::policy::{Permit, Scheme, Site};
use crate::scope::{Authority, DomainName, Host};

/// What is known of a connection whose requests are judged.
pub struct Client {
    pub site: Site,
    /// Where it wanted to go.
    pub wanted: Option<SocketAddr>,
    /// The server that it named in TLS.
    pub server: Option<DomainName>,
    /// A connection that is there already, and by what leave: see [`inspect`].
    pub greeted: Option<(Permit, Reached)>,
}

impl Client {
    /// Of the guard's own port.
    pub fn own() -> Self {
        Self { site: Site::OWN, wanted: None, server: None, greeted: None }
    }

    fn is_own(&self) -> bool {
        self.site == Site::OWN
    }
}

/// Whether a client that says this `Host` means the guard, which listens on loopback alone. A page in a browser may be told by its own DNS that
/// its host is here, and would read what comes from base URLs; it says the name of its host, though.
fn means_the_guard(said: &Authority) -> bool {
    match &said.host {
        Host::Address(address) => address.is_loopback(),
        Host::Name(name) => name.as_str() == "localhost",
    }
}

/// The versions that the app is offered in TLS, the best first.
const OFFERED: &[Version] = &[Version::Two, Version::One];

/// What HTTP/2 begins with, as far as nothing else does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
/// For it, once it has begun; then it is a head of HTTP/1.1, which has a time of its own.
const BEGINS: Duration = Duration::from_secs(5);

/// `before`: what was read of it.
pub async fn begin(door: &Arc<Door>, stream: TcpStream, before: BytesMut, client: Client) {
    match client.site.scheme() {
        Scheme::Http => serve(door, Stream::Tcp(stream), before, client).await,
        Scheme::Https => inspect::begin(door, stream, before, client).await,
    }
}

/// Until it has ended. TLS is ended already.
pub async fn serve(door: &Arc<Door>, stream: Stream, before: BytesMut, client: Client) {
    if matches!(&stream, Stream::App(tls) if tls.get_ref().1.alpn_protocol() == Some(Version::Two.alpn())) {
        return h2::serve(door, Begun { before, stream }, client).await;
    }
    let (from, to) = tokio::io::split(stream);
    let (mut reader, writer) = (Reader::new(from, before), Writer::new(to));
    let gate = door.gate();
    let beginning = async {
        if reader.buffer.is_empty() && !reader.more().await.is_ok_and(|more| more > 0) {
            return;
        }
        // `P` may begin POST and the like.
        let told = async {
            while reader.buffer.len() < PREFACE.len()
                && PREFACE.starts_with(&reader.buffer)
                && reader.more().await.is_ok_and(|more| more > 0)
            {}
        };
        let _ = timeout(BEGINS, told).await;
    };
    if gate.while_still(|policy| policy.still_of(&client.site), beginning).await.is_err() {
        let (stream, _) = reader.whole(writer);
        return reset(stream.tcp());
    }
    if reader.buffer.starts_with(PREFACE) {
        let (stream, before) = reader.whole(writer);
        return h2::serve(door, Begun { before, stream }, client).await;
    }
    h1::serve(door, reader, writer, client).await;
}
