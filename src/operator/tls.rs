//! One client over TLS and HTTP/1.1, with deadlines, until it ends or we are told to stop: the webhook's callers and guards alike.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const HANDSHAKE: Duration = Duration::from_secs(5);

/// What one client may take.
#[derive(Clone, Copy)]
pub struct Limits {
    /// For the head of a request; also how long a connection may lie idle.
    pub head: Duration,
    /// Of what is read ahead. (hyper's own bound is 400 KiB.)
    pub buffer: usize,
}

/// Resolves when told to stop, or when nobody is left who could tell.
pub async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// None: there was no TLS in time, or we were told to stop.
pub async fn accept(stream: TcpStream, tls: &TlsAcceptor, stop: &mut watch::Receiver<bool>) -> Option<TlsStream<TcpStream>> {
    tokio::select! {
        accepted = timeout(HANDSHAKE, tls.accept(stream)) => match accepted {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
            Err(_) => tracing::debug!("no TLS in time"),
        },
        () = told(stop) => {}
    }
    None
}

/// Told to stop, it lets the open request end.
pub async fn converse<S>(stream: TlsStream<TcpStream>, service: S, limits: Limits, stop: &mut watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
{
    let Limits { head, buffer } = limits;
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(buffer)
        .serve_connection(TokioIo::new(stream), service);
    let mut http = pin!(http);
    let ended = tokio::select! {
        ended = http.as_mut() => ended,
        () = told(stop) => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
