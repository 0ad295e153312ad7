//! TLS and HTTP/1.1 with limits. In: connections. Out: what [`Handler`] answered.
//!
//! Promise: whoever has no pod's token holds few connections, and not for long; a pod holds [`OF_A_POD`]. Bodies, heads and handshakes have
//! bounds and deadlines, and nobody waits for another's place. Told to stop, it accepts nothing more, and what is held back is answered.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::cluster::Cluster;
use super::handler::{Answer, Handler, Refused};
use super::policies::Policies;
use super::tokens::PodIdentity;
use crate::operator::shares::{Share, Shares};
use crate::operator::tls::{self, Limits, told};
use crate::policy::channel::{LARGEST_REPORT, LARGEST_TOKEN, PATH, Refusal, Report, public_key};

/// Connections of pods.
const MOST: usize = 4096;
pub(super) const OF_A_POD: usize = 4;
/// Of those that have shown no token yet: all, and of one address (or IPv6 network: the pods of a node may share one).
const UNKNOWN: usize = 512;
const OF_A_PEER: usize = 128;
const LIMITS: Limits = Limits { head: Duration::from_secs(15), buffer: 32 * 1024 };
const BODY: Duration = Duration::from_secs(5);

/// Places for connections.
struct Room {
    pods: Arc<Semaphore>,
    of_a_pod: Shares<String>,
}

/// The place that a connection has: a stranger's, then a pod's.
enum Place {
    Stranger { _place: OwnedSemaphorePermit, _share: Share },
    Pod { pod: PodIdentity, _place: OwnedSemaphorePermit, _share: Share<String> },
}

struct Connection {
    peer: IpAddr,
    key: [u8; 32],
    place: Mutex<Place>,
    room: Arc<Room>,
}

impl Connection {
    /// From the first good token on it is this pod's connection, and no other's.
    fn belongs_to(&self, pod: &PodIdentity) -> Result<(), Refused> {
        let full = || Refused::new(StatusCode::TOO_MANY_REQUESTS, "TooMany", "more connections than there is room for");
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        match &*place {
            Place::Pod { pod: known, .. } if known == pod => Ok(()),
            Place::Pod { .. } => Err(Refused::new(StatusCode::FORBIDDEN, "TokenRefused", "this connection is another pod's")),
            Place::Stranger { .. } => {
                let share = self.room.of_a_pod.take_for(pod.uid.clone()).ok_or_else(full)?;
                let room = self.room.pods.clone().try_acquire_owned().map_err(|_| full())?;
                *place = Place::Pod { pod: pod.clone(), _place: room, _share: share };
                Ok(())
            }
        }
    }
}

/// Until told to stop.
pub(super) async fn serve<C: Cluster, P: Policies>(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handler: Arc<Handler<C, P>>,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Room { pods: Arc::new(Semaphore::new(MOST)), of_a_pod: Shares::new(OF_A_POD) });
    let (strangers, shares) = (Arc::new(Semaphore::new(UNKNOWN)), Shares::new(OF_A_PEER));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = told(&mut stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // For example no file descriptor left: not at full speed into the same wall.
                tracing::warn!(%error, "cannot accept a guard's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (Some(share), Ok(place)) = (shares.take(peer.ip()), strangers.clone().try_acquire_owned()) else {
            handler.metrics.answered("no_room");
            continue;
        };
        let place = Place::Stranger { _place: place, _share: share };
        let (acceptor, handler, room, stop) = (acceptor.clone(), handler.clone(), room.clone(), stop.clone());
        connections.spawn(async move {
            handler.metrics.connected(1);
            connection(stream, peer.ip(), place, room, acceptor, &handler, stop).await;
            handler.metrics.connected(-1);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection<C: Cluster, P: Policies>(
    stream: TcpStream,
    peer: IpAddr,
    place: Place,
    room: Arc<Room>,
    acceptor: TlsAcceptor,
    handler: &Arc<Handler<C, P>>,
    mut stop: watch::Receiver<bool>,
) {
    let Some(stream) = tls::accept(stream, &acceptor, &mut stop).await else { return };
    let (_, session) = stream.get_ref();
    let Some(key) = session.peer_certificates().and_then(|all| public_key(all.first()?)) else { return };
    let connection = Arc::new(Connection { peer, key, place: Mutex::new(place), room });
    let service = service_fn(|request| {
        let (handler, connection) = (handler.clone(), connection.clone());
        async move { Ok::<_, Infallible>(respond(&handler, &connection, request).await) }
    });
    tls::converse(stream, service, LIMITS, &mut stop).await;
}

async fn respond<C: Cluster, P: Policies>(
    handler: &Handler<C, P>,
    connection: &Connection,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let answer = match judged(handler, connection, request).await {
        Ok(answer) => answer,
        Err(refused) => Answer::Refused(refused),
    };
    let mut response = Response::new(Full::default());
    match answer {
        Answer::Nothing => {
            handler.metrics.answered("nothing");
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        Answer::Policy(text) => {
            handler.metrics.answered("policy");
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            *response.body_mut() = Full::new(Bytes::copy_from_slice(text.as_bytes()));
        }
        Answer::Refused(Refused { status, reason, message }) => {
            handler.metrics.answered(reason);
            let body = serde_json::to_vec(&Refusal { reason: reason.to_owned(), message }).unwrap_or_default();
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            // Whoever is refused keeps no connection.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            *response.body_mut() = Full::new(Bytes::from(body));
        }
    }
    response
}

async fn judged<C: Cluster, P: Policies>(
    handler: &Handler<C, P>,
    connection: &Connection,
    request: Request<Incoming>,
) -> Result<Answer, Refused> {
    let bad = |reason, message: String| Refused::new(StatusCode::BAD_REQUEST, reason, message);
    if request.uri().path() != PATH {
        return Err(Refused::new(StatusCode::NOT_FOUND, "NotFound", PATH));
    }
    if request.method() != Method::POST {
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "NotAllowed", "POST a report"));
    }
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let token = token.filter(|token| !token.is_empty() && token.len() <= LARGEST_TOKEN);
    let Some(token) = token else { return Err(Refused::new(StatusCode::UNAUTHORIZED, "TokenRefused", "no token")) };
    let pod = handler.identify(token, connection.peer).await?;
    connection.belongs_to(&pod)?;
    let body = match timeout(BODY, Limited::new(request.into_body(), LARGEST_REPORT).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "ReportRefused", format!("at most {LARGEST_REPORT} bytes")));
        }
        Ok(Err(error)) => return Err(bad("ReportRefused", error.to_string())),
        Err(_) => return Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "ReportRefused", "the report did not come in time")),
    };
    let report = Report::read(&body).map_err(|error| bad("ReportRefused", error.to_string()))?;
    Ok(handler.answer(&pod, connection.key, &report).await)
}
