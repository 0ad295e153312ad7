//! `/readyz`: 200 once a valid policy holds. On every address, because the kubelet asks from outside; it says nothing else.
//!
//! Nobody of this pod is answered: an app could otherwise hold the places that the kubelet needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::newest::Newest;
use super::peer::Own;
use super::{GuardError, Held};
use crate::policy::pod::HEALTH_PORT;

const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_millis(200);

pub async fn listen() -> Result<TcpListener, GuardError> {
    let six = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), HEALTH_PORT);
    if let Ok(listener) = TcpListener::bind(six).await {
        return Ok(listener);
    }
    let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), HEALTH_PORT);
    TcpListener::bind(at).await.map_err(|source| GuardError::Listen { at, source })
}

pub async fn serve(listener: TcpListener, held: Held) {
    let (own, clients) = (Own::default(), Newest::new(AT_ONCE));
    loop {
        let Ok((mut stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if own.has(peer) {
            // Not at full speed, if it is one after the other.
            tokio::task::yield_now().await;
            continue;
        }
        let ready = held.borrow().is_some();
        let talk = async move {
            let answer = async {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let (status, body) = if ready { ("200 OK", "ok\n") } else { ("503 Service Unavailable", "no valid policy yet\n") };
                let text = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
            };
            let _ = tokio::time::timeout(PATIENCE, answer).await;
        };
        clients.spawn(talk).await;
    }
}
