//! What the client asks for, on the other side.

use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::beside::world::{Known, listen};

/// A Service, known by its address.
pub const ORDERS: (&str, u16) = ("10.96.7.7", 5432);
pub const ORDERS_NAME: &str = "orders.shop.svc.cluster.local";
/// A host, known by the server name in the ClientHello.
pub const HELP: (&str, u16) = ("203.0.113.10", 443);
pub const HELP_NAME: &str = "help.example.com";
pub const KNOWN: &[Known] = &[(ORDERS_NAME, ORDERS.0), (HELP_NAME, HELP.0)];
/// One message of a stream.
pub const EVENT: usize = 64;

pub async fn serve() {
    tokio::join!(upstream(ORDERS, false), upstream(HELP, true));
}

async fn upstream(at: (&str, u16), tls: bool) {
    let listener = listen(at);
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = answer(stream, tls).await;
            });
        }
    }
}

/// Requests are three numbers: bytes that the client sends, bytes that it wants, and for a stream the microseconds between its events.
async fn answer(mut stream: TcpStream, tls: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 * 1024];
    if tls {
        let mut head = [0; 5];
        stream.read_exact(&mut head).await?;
        stream.read_exact(&mut buffer[..u16::from_be_bytes([head[3], head[4]]).into()]).await?;
    }
    loop {
        let (mut up, mut down, every) = (stream.read_u64().await?, stream.read_u64().await?, stream.read_u64().await?);
        while up > 0 {
            let most = buffer.len().min(usize::try_from(up).unwrap_or(usize::MAX));
            match stream.read(&mut buffer[..most]).await? {
                0 => return Ok(()),
                length => up -= length as u64,
            }
        }
        while down > 0 {
            let most = buffer.len().min(usize::try_from(down).unwrap_or(usize::MAX));
            if every > 0 {
                tokio::time::sleep(Duration::from_micros(every)).await;
                let mut event = [0; EVENT];
                event[..8].copy_from_slice(&since_start().to_be_bytes());
                stream.write_all(&event).await?;
                down = down.saturating_sub(EVENT as u64);
            } else {
                stream.write_all(&buffer[..most]).await?;
                down -= most as u64;
            }
        }
    }
}

/// Nanoseconds of a clock that client and upstream share.
pub fn since_start() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}
