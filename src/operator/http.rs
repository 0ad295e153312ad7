//! Health, readiness and metrics over plain HTTP. It answers from memory and asks nobody.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::shares::Shares;

/// Connections served at once, and of one peer: the kubelet's probes must always find room.
const CONNECTIONS: usize = 128;
const OF_A_PEER: usize = 16;
/// How long a connection may say nothing, and be.
const IDLE: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);

/// What is answered.
#[derive(Clone)]
pub struct Answers {
    /// Empty when ready, else what is waited for.
    pub not_ready: Arc<dyn Fn() -> Vec<&'static str> + Send + Sync>,
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Both families, or IPv4 alone where the node has no IPv6.
pub async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

/// Serves for as long as the future lives.
pub async fn serve(listener: TcpListener, answers: Answers) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let shares = Shares::new(OF_A_PEER);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Nobody waits for another's place: what has none is closed.
        let (Some(share), Ok(slot)) = (shares.take(peer.ip()), slots.clone().try_acquire_owned()) else { continue };
        let answers = answers.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&answers, &request))));
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(16 * 1024);
            // What a broken connection says is of no use to anybody.
            let _ = tokio::time::timeout(LONGEST, http.serve_connection(TokioIo::new(stream), service)).await;
            drop((slot, share));
        });
    }
}

fn answer(answers: &Answers, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => (StatusCode::OK, "text/plain", "ok".to_owned()),
        (&Method::GET, "/readyz") => match (answers.not_ready)() {
            missing if missing.is_empty() => (StatusCode::OK, "text/plain", "ok".to_owned()),
            missing => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("waiting for: {}", missing.join(", "))),
        },
        (&Method::GET, "/metrics") => (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", (answers.metrics)()),
        (_, "/healthz" | "/readyz" | "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", String::new()),
        _ => (StatusCode::NOT_FOUND, "text/plain", String::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn one_peer_has_its_share_and_the_next_connection_does_not_wait() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let answers = Answers { not_ready: Arc::new(Vec::new), metrics: Arc::new(String::new) };
        tokio::spawn(serve(listener, answers));
        let mut idle = Vec::new();
        for _ in 0..OF_A_PEER {
            idle.push(TcpStream::connect(at).await.unwrap());
        }
        let closed = async {
            let mut more = TcpStream::connect(at).await.unwrap();
            let mut got = [0; 1];
            matches!(more.read(&mut got).await, Ok(0) | Err(_))
        };
        assert!(tokio::time::timeout(IDLE / 2, closed).await.unwrap(), "closed at once, not left waiting");
        // Whoever says nothing gives its place back.
        let mut got = [0; 1];
        let _ = tokio::time::timeout(IDLE * 3, idle[0].read(&mut got)).await.expect("an end");
        let mut probe = TcpStream::connect(at).await.unwrap();
        probe.write_all(b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        probe.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
}
