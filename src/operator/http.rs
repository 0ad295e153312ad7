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

/// Connections served at once; more wait.
const CONNECTIONS: usize = 32;

/// What is answered.
#[derive(Clone)]
pub struct Answers {
    /// Empty when ready, else what is waited for.
    pub not_ready: Arc<dyn Fn() -> Vec<&'static str> + Send + Sync>,
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

pub async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

/// Serves for as long as the future lives.
pub async fn serve(listener: TcpListener, answers: Answers) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let answers = answers.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&answers, &request))));
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).max_buf_size(16 * 1024);
            // What a broken connection says is of no use to anybody.
            let _ = tokio::time::timeout(Duration::from_secs(60), http.serve_connection(TokioIo::new(stream), service)).await;
            drop(slot);
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
