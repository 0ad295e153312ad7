//! The app's own TLS, ended by the guard, for servers that the policy has inspected.
//!
//! Promise: the certificate is for the server that the connection was judged by. Nothing but TLS reaches the upstream before a request was
//! judged, and that only where it decides: the app and the guard speak the version of HTTP that the guard and the upstream do, so where the
//! app leaves a choice, the upstream is greeted first ([`crate::policy::GuardPolicy::greet`]), and the connection serves the first request.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::server::{Acceptor, ClientHello};
use rustls::{AlertDescription, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

use super::{Client, OFFERED};
use crate::guard::authority::Inspection;
use crate::guard::gate::{Denied, Gate};
use crate::guard::record::Outcome;
use crate::guard::stream::{Begun, Stream, reset};
use crate::guard::tcp::Door;
use crate::guard::upstream::{Reached, Version};
use crate::policy::{Attempt, Permit, Reason};
use crate::scope::DomainName;

/// For the app's part of TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For the upstream to say which version it speaks; else the app is answered in the older one, and told in words what is wrong.
const GREET: Duration = Duration::from_secs(4);

/// Until it has ended.
pub async fn begin(door: &Arc<Door>, stream: TcpStream, before: BytesMut, client: Client) {
    let gate = door.gate();
    let refuse = |reason, policy| {
        if let (Some(name), Some(port)) = (client.server.clone(), client.site.port()) {
            gate.records.judged(Outcome::Refused, reason, &Attempt::Server { name, port }, policy);
        }
    };
    let (Some(inspection), Some(server)) = (&gate.inspection, client.server.clone()) else {
        refuse(Reason::NotInspected, gate.held.borrow().as_deref());
        return reset(&stream);
    };
    // Before TLS says anything: an app that gets no certificate is told no lie.
    if let Err(reason) = inspection.config(&server, &[Version::One]) {
        refuse(reason, gate.held.borrow().as_deref());
        return reset(&stream);
    }
    let handshake = Box::pin(handshake(gate, inspection, stream, before, &client, &server));
    match gate.while_still(|policy| policy.still_of(&client.site), handshake).await {
        Ok(Ok((stream, greeted))) => super::serve(door, stream, BytesMut::new(), Client { greeted, ..client }).await,
        Ok(Err(Some(what))) => inspection.trouble(&gate.records, &server, &what),
        Ok(Err(None)) => {}
        Err(Denied { reason, policy }) => refuse(reason, policy.as_deref()),
    }
}

/// The app's TLS, ended; or what is to be said of it.
async fn handshake(
    gate: &Gate,
    inspection: &Inspection,
    stream: TcpStream,
    before: BytesMut,
    client: &Client,
    server: &DomainName,
) -> Result<(Stream, Option<(Permit, Reached)>), Option<String>> {
    let failed = |error: io::Error| trouble(server, &error);
    let slow = |_| Some(format!("the app did not end its TLS handshake with {server} in {} s", HANDSHAKE.as_secs()));
    let acceptor = LazyConfigAcceptor::new(Acceptor::default(), Begun { before, stream });
    let begun = timeout(HANDSHAKE, acceptor).await.map_err(slow)?.map_err(failed)?;
    let hello = begun.client_hello();
    // It was read before, by another reader: they must agree.
    if !hello.server_name().is_some_and(|said| said.eq_ignore_ascii_case(server.as_str())) {
        return Err(Some(format!("the TLS ClientHello for {server} has more than one reading")));
    }
    let mut versions = spoken(&hello);
    let mut greeted = None;
    if versions.len() > 1 {
        greeted = greet(gate, client, server, &versions).await;
        versions = vec![greeted.as_ref().map_or(Version::One, |(_, reached)| reached.version)];
    }
    let config: Arc<ServerConfig> = inspection.config(server, &versions).map_err(|_| None)?;
    let stream = timeout(HANDSHAKE, begun.into_stream(config)).await.map_err(slow)?.map_err(failed)?;
    Ok((Stream::App(Box::new(stream)), greeted))
}

/// The versions that both have, the best first. Who names none speaks the older one; who names none of these gets no other.
fn spoken(hello: &ClientHello<'_>) -> Vec<Version> {
    let Some(named) = hello.alpn() else { return vec![Version::One] };
    let named: Vec<&[u8]> = named.collect();
    let both: Vec<Version> = OFFERED.iter().copied().filter(|version| named.contains(&version.alpn())).collect();
    if both.is_empty() { vec![Version::One] } else { both }
}

/// None: there is no reaching it now. The first request tries again, and is told why not.
async fn greet(gate: &Gate, client: &Client, server: &DomainName, versions: &[Version]) -> Option<(Permit, Reached)> {
    let permit = gate.policy().ok()?.greet(&client.site, server).ok()?;
    let reaching = Box::pin(gate.reach_http(&permit, client.wanted, versions, Some(server)));
    let reached = timeout(GREET, gate.while_permitted(&permit, None, reaching)).await.ok()?.ok()?.ok()?;
    Some((permit, reached))
}

/// What to say of an app that broke off TLS. None: nothing; it went away.
fn trouble(server: &DomainName, error: &io::Error) -> Option<String> {
    use AlertDescription::{AccessDenied, BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown, UnknownCA};
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>())?;
    Some(match error {
        rustls::Error::AlertReceived(
            alert @ (AccessDenied | BadCertificate | CertificateExpired | CertificateRevoked | CertificateUnknown | UnknownCA),
        ) => format!(
            "the app does not trust the guard's certificate for {server} (it said {alert:?}); hint: let it trust what lies in the guard's trust store: \
             by SSL_CERT_FILE, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, GIT_SSL_CAINFO, AWS_CA_BUNDLE or GRPC_DEFAULT_SSL_ROOTS_FILE_PATH (bundle.pem), \
             NODE_EXTRA_CA_CERTS (ca.pem), -Djavax.net.ssl.trustStore (truststore.jks); apps that pin certificates are asked by base URL"
        ),
        error => format!("TLS of the app with {server} cannot be ended by the guard: {error}"),
    })
}
