//! TLS and HTTP/1.1 with limits: bodies, times, connections. In: connections. Out: what [`Handler`] answered.
//!
//! Promise: no client holds more than its share: a bounded number of connections, each with deadlines for the handshake, the head, the
//! body and the answer; a body of at most 4 MiB, read only for who knows a path. Strangers learn nothing but 404. The certificate can change
//! under open connections. Told to stop, it accepts nothing more and lets open requests end.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::access::Cluster;
use super::handler::Handler;
use crate::operator::shares::Shares;
use crate::operator::tls::{self, Limits, told};

const LARGEST_BODY: usize = 4 * 1024 * 1024;
const MOST_CONNECTIONS: usize = 512;
/// Of one peer. An API server has its calls under way and keeps few idle; several may come from one address (NAT, a tunnel to the nodes).
/// A pod that holds its share leaves three quarters to the others.
pub(super) const MOST_OF_A_PEER: usize = 128;
/// 512 connections that never end their head fit into the operator's memory.
const LIMITS: Limits = Limits { head: Duration::from_secs(30), buffer: 64 * 1024 };
const BODY: Duration = Duration::from_secs(5);
/// For room to read it into.
const WAIT: Duration = Duration::from_secs(2);

/// The certificate that is served; clones share it.
#[derive(Clone, Default)]
pub(super) struct Certificates(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl Certificates {
    pub fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is another one than before.
    pub fn set(&self, certificate: CertifiedKey) -> bool {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let other = current.as_ref().is_none_or(|current| current.cert != certificate.cert);
        if other {
            *current = Some(Arc::new(certificate));
        }
        other
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificates").field(&self.current().is_some()).finish()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

/// A certificate chain and its key, in PEM; an error if they do not belong together.
pub(super) fn certified(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, rustls::Error> {
    let general = |e: rustls::pki_types::pem::Error| rustls::Error::General(e.to_string());
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().map_err(general)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(general)?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
}

pub(super) fn tls(certificates: Certificates) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The bodies that are read and judged at the same time, in KiB. All that connections could send at once would be more than memory.
static BODIES: Semaphore = Semaphore::const_new(48 * 1024);

/// Until told to stop. While it drains, each answer ends its connection, so that none is left when it stops.
pub(super) async fn serve<C: Cluster>(
    listener: TcpListener,
    tls: TlsAcceptor,
    handler: Arc<Handler<C>>,
    draining: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let shares = Shares::new(MOST_OF_A_PEER);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = async {
                let place = room.clone().acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
            Some(_) = connections.join_next() => continue,
            () = told(&mut stop) => break,
        };
        match accepted {
            (Ok(place), Ok((stream, address))) => {
                let Some(share) = shares.take(address.ip()) else {
                    handler.metrics.connection_refused();
                    continue;
                };
                let (tls, handler, draining, stop) = (tls.clone(), handler.clone(), draining.clone(), stop.clone());
                connections.spawn(async move {
                    connection(stream, tls, handler, draining, stop).await;
                    drop((place, share));
                });
            }
            (_, Err(error)) => {
                // For example no file descriptor left: not at full speed into the same wall.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            (Err(_), _) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection<C: Cluster>(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    handler: Arc<Handler<C>>,
    draining: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let Some(stream) = tls::accept(stream, &acceptor, &mut stop).await else { return };
    let service = service_fn(move |request| {
        let (handler, draining) = (handler.clone(), draining.clone());
        async move {
            let mut response = respond(&handler, request).await;
            if *draining.borrow() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    tls::converse(stream, service, LIMITS, &mut stop).await;
}

async fn respond<C: Cluster>(handler: &Handler<C>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    // First of all: whoever does not know a path is not read, and keeps no connection.
    let Some(endpoint) = handler.paths.endpoint(request.uri().path()) else {
        handler.metrics.stranger();
        let mut response = text(StatusCode::NOT_FOUND, "not found");
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    };
    if request.method() != Method::POST {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let body = request.into_body();
    let too_large = || text(StatusCode::PAYLOAD_TOO_LARGE, "at most 4 MiB");
    if body.size_hint().lower() > LARGEST_BODY as u64 {
        return too_large();
    }
    let size = body.size_hint().upper().map_or(LARGEST_BODY, |size| usize::try_from(size).unwrap_or(LARGEST_BODY).min(LARGEST_BODY));
    let kibibytes = u32::try_from(size.div_ceil(1024)).unwrap_or(u32::MAX);
    let Ok(Ok(_room)) = timeout(WAIT, BODIES.acquire_many(kibibytes)).await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too much is being judged; try again");
    };
    let body = match timeout(BODY, Limited::new(body, LARGEST_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large(),
        Ok(Err(error)) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    match handler.answer(endpoint, &body).await {
        Err(malformed) => text(StatusCode::BAD_REQUEST, &malformed.to_string()),
        Ok(review) => match serde_json::to_vec(&review) {
            Ok(json) => {
                let mut response = Response::new(Full::new(Bytes::from(json)));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
