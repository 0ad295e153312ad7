//! What the client asks for, on the other side: bodies of a size, and streams of events in bursts; plain, in TLS, and in HTTP/2. What it
//! sends is counted.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use h2::{RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::http::Response;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::beside::world::{Known, listen};

/// A Service, and one that speaks HTTP/2.
pub const ARTICLES: Server = Server { name: "articles.shop.svc.cluster.local", address: "10.96.7.7", port: 80 };
pub const LEDGER: Server = Server { name: "ledger.shop.svc.cluster.local", address: "10.96.7.8", port: 80 };
/// Hosts with TLS: one asked for by the base URL, one to whom clients speak TLS themselves.
pub const HELP: Server = Server { name: "help.example.com", address: "203.0.113.10", port: 443 };
pub const DESK: Server = Server { name: "desk.example.com", address: "203.0.113.11", port: 443 };
pub const SERVERS: [Server; 4] = [ARTICLES, LEDGER, HELP, DESK];
pub const KNOWN: &[Known] =
    &[(ARTICLES.name, ARTICLES.address), (LEDGER.name, LEDGER.address), (HELP.name, HELP.address), (DESK.name, DESK.address)];

/// Of a stream: bursts, and the events of each (each a chunk, all in one write).
pub const BURSTS: usize = 10;
pub const EVENTS: usize = 10;
/// The last byte of an event, and of no other.
pub const EVENT_END: u8 = b'~';
/// What bodies are made of, and no head of a chunk.
pub const FILLING: u8 = b'x';
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// More than this is sent piece by piece.
const PIECE: usize = 64 << 10;

#[derive(Clone, Copy)]
pub struct Server {
    pub name: &'static str,
    pub address: &'static str,
    pub port: u16,
}

/// The hosts' certificate, and whom it leads to.
#[derive(Clone)]
pub struct Certificates {
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

impl Certificates {
    pub fn new() -> Self {
        let authority_key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::new(Vec::new()).expect("no names");
        authority.distinguished_name = named("bench authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_certificate = authority.self_signed(&authority_key).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let mut names = CertificateParams::new([HELP.name.to_owned(), DESK.name.to_owned()]).expect("names");
        names.distinguished_name = named("bench");
        names.use_authority_key_identifier_extension = true;
        let certificate = names.signed_by(&key, &Issuer::from_params(&authority, &authority_key)).expect("a certificate");
        Self { authority: authority_certificate.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key");
        let config = ServerConfig::builder_with_provider(cipher()).with_safe_default_protocol_versions().expect("versions");
        let mut config = config.with_no_client_auth().with_single_cert(chain, key).expect("a pair");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

fn named(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// Both ends of the bench speak one cipher, so that all who are measured pay for the same.
pub fn cipher() -> Arc<CryptoProvider> {
    let cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
}

pub async fn serve(certificates: Certificates) {
    let at = |server| serve_at(server, listen((server.address, server.port)), &certificates);
    tokio::join!(at(ARTICLES), at(LEDGER), at(HELP), at(DESK));
}

/// As one of them is spoken to.
pub async fn serve_at(server: Server, listener: TcpListener, certificates: &Certificates) {
    match (server.name, server.port) {
        (name, _) if name == LEDGER.name => two(listener).await,
        (_, 443) => secured(listener, &certificates.acceptor()).await,
        _ => plain(listener).await,
    }
}

async fn plain(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(one(stream));
    }
}

async fn secured(listener: TcpListener, tls: &TlsAcceptor) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let accepted = tls.accept(stream);
        tokio::spawn(async move { one(accepted.await?).await });
    }
}

/// HTTP/1.1: one request after the other.
async fn one(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut filled = 0;
    loop {
        let length = stream.read(&mut buffer[filled..]).await?;
        if length == 0 {
            return Ok(());
        }
        filled += length;
        let Some(head) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else { continue };
        match asked_for(&buffer[..head]).ok_or(io::ErrorKind::InvalidData)? {
            Asked::Size(size @ ..=PIECE) => stream.write_all(&answer(size)).await?,
            Asked::Size(size) => {
                stream.write_all(answer_head(&format!("content-length: {size}")).as_bytes()).await?;
                write_body(&mut stream, size, false).await?;
            }
            Asked::Chunks(size) => {
                stream.write_all(answer_head("transfer-encoding: chunked").as_bytes()).await?;
                write_body(&mut stream, size, true).await?;
            }
            Asked::Events(pause) => stream_events(&mut stream, pause).await?,
            Asked::ToTake(size) => {
                let chunked = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
                let mut count = Count::default();
                count.of(&buffer[head..filled]);
                while !count.is_all(size, chunked) {
                    match stream.read(&mut buffer).await? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        length => count.of(&buffer[..length]),
                    }
                }
                if count.filling != size {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                stream.write_all(&answer(2)).await?;
            }
        }
        stream.flush().await?;
        filled = 0;
    }
}

/// What came of a body.
#[derive(Default)]
pub struct Count {
    pub filling: usize,
    pub events: usize,
    tail: Vec<u8>,
}

impl Count {
    pub fn of(&mut self, bytes: &[u8]) {
        let count = |wanted: u8| bytes.iter().filter(|byte| **byte == wanted).count();
        self.filling += count(FILLING);
        self.events += count(EVENT_END);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(LAST_CHUNK.len())..]);
        self.tail.drain(..self.tail.len().saturating_sub(LAST_CHUNK.len()));
    }

    /// Whether a body of this size has ended.
    pub fn is_all(&self, size: usize, chunked: bool) -> bool {
        if chunked { self.tail == LAST_CHUNK } else { self.filling >= size }
    }
}

enum Asked {
    Size(usize),
    /// The same, but how much it is shows at its end only.
    Chunks(usize),
    /// With this pause between bursts.
    Events(Duration),
    /// To take a body of this size.
    ToTake(usize),
}

/// By the last segment of the path.
fn asked_for(request: &[u8]) -> Option<Asked> {
    path_asks_for(std::str::from_utf8(request).ok()?.split(' ').nth(1)?)
}

fn path_asks_for(path: &str) -> Option<Asked> {
    let last = path.rsplit('/').next()?;
    match last.split_once('-') {
        Some(("events", pause)) => Some(Asked::Events(Duration::from_millis(pause.parse().ok()?))),
        Some(("chunks", size)) => Some(Asked::Chunks(size.parse().ok()?)),
        Some(("take", size)) => Some(Asked::ToTake(size.parse().ok()?)),
        _ => last.parse().ok().map(Asked::Size),
    }
}

fn answer_head(framing: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nserver: shop\r\ndate: Sun, 22 Nov 2026 12:00:00 GMT\r\ncontent-type: application/json\r\ncache-control: \
         no-store\r\nvary: accept-encoding\r\nx-request-id: 0b5ad3e9c8f74d1e\r\n{framing}\r\n\r\n"
    )
}

fn answer(size: usize) -> Vec<u8> {
    let mut answer = answer_head(&format!("content-length: {size}")).into_bytes();
    answer.resize(answer.len() + size, FILLING);
    answer
}

/// A body of this size, of either side.
pub async fn write_body(stream: &mut (impl AsyncWrite + Unpin), size: usize, chunked: bool) -> io::Result<()> {
    let most = size.min(PIECE);
    let mut piece = if chunked { format!("{most:x}\r\n").into_bytes() } else { Vec::new() };
    piece.resize(piece.len() + most, FILLING);
    if chunked {
        piece.extend_from_slice(b"\r\n");
    }
    let mut rest = size;
    while rest >= most && rest > 0 {
        stream.write_all(&piece).await?;
        rest -= most;
    }
    let mut last = if chunked && rest > 0 { format!("{rest:x}\r\n").into_bytes() } else { Vec::new() };
    last.resize(last.len() + rest, FILLING);
    if chunked {
        last.extend_from_slice(if rest > 0 { b"\r\n" } else { b"" });
        last.extend_from_slice(LAST_CHUNK);
    }
    stream.write_all(&last).await
}

async fn stream_events(stream: &mut (impl AsyncWrite + Unpin), pause: Duration) -> io::Result<()> {
    // nginx passes on at once what is marked so; the others do in any case.
    let head = "HTTP/1.1 200 OK\r\nserver: shop\r\ndate: Sun, 22 Nov 2026 12:00:00 GMT\r\ncontent-type: text/event-stream\r\ncache-control: \
                no-store\r\nx-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    for burst in 0..BURSTS {
        for event in events(burst) {
            bytes.extend_from_slice(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
        }
        if burst + 1 == BURSTS {
            bytes.extend_from_slice(LAST_CHUNK);
        }
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        bytes.clear();
        if burst + 1 < BURSTS {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(())
}

/// Of this burst.
fn events(burst: usize) -> impl Iterator<Item = String> {
    (0..EVENTS).map(move |event| {
        let text = format!("data: {{\"id\":\"{:08}\",\"choices\":[{{\"delta\":{{\"content\":\" word\"}}}}]}}", burst * EVENTS + event);
        format!("{text}{}{}\n\n", " ".repeat(117 - text.len()), char::from(EVENT_END))
    })
}

/// HTTP/2 by prior knowledge.
async fn two(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let mut connection = h2::server::Builder::new().max_concurrent_streams(1_024).handshake(stream).await?;
            while let Some((request, mut respond)) = connection.accept().await.transpose()? {
                let head = Response::builder()
                    .header("server", "shop")
                    .header("content-type", "application/json")
                    .header("cache-control", "no-store")
                    .header("x-request-id", "0b5ad3e9c8f74d1e");
                match path_asks_for(request.uri().path()) {
                    Some(Asked::Size(size @ ..=PIECE)) => {
                        let head = head.header("content-length", size).body(()).expect("a head");
                        respond.send_response(head, false)?.send_data(Bytes::from(vec![FILLING; size]), true)?;
                    }
                    Some(asked) => {
                        let mut stream = respond.send_response(head.body(()).expect("a head"), false)?;
                        tokio::spawn(async move {
                            match asked {
                                Asked::Size(size) | Asked::Chunks(size) => send_body(&mut stream, size).await?,
                                Asked::Events(pause) => {
                                    for burst in 0..BURSTS {
                                        send(&mut stream, Bytes::from(events(burst).collect::<String>())).await?;
                                        if burst + 1 < BURSTS {
                                            tokio::time::sleep(pause).await;
                                        }
                                    }
                                }
                                Asked::ToTake(size) => {
                                    let mut count = Count::default();
                                    receive(&mut request.into_body(), |data| count.of(data)).await?;
                                    if count.filling != size {
                                        return Err(io::ErrorKind::InvalidData.into());
                                    }
                                }
                            }
                            stream.send_data(Bytes::new(), true).map_err(io::Error::other)
                        });
                    }
                    None => respond.send_reset(h2::Reason::PROTOCOL_ERROR),
                }
            }
            Ok::<_, h2::Error>(())
        });
    }
}

/// A body of this size, of either side, but for its end.
pub async fn send_body(stream: &mut SendStream<Bytes>, size: usize) -> io::Result<()> {
    let piece = Bytes::from(vec![FILLING; size.min(PIECE)]);
    let mut rest = size;
    while rest > 0 {
        let length = rest.min(PIECE);
        send(stream, piece.slice(..length)).await?;
        rest -= length;
    }
    Ok(())
}

/// As fast as the other side's window lets it.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> io::Result<()> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = poll_fn(|context| stream.poll_capacity(context)).await;
        let capacity = capacity.ok_or(io::ErrorKind::BrokenPipe)?.map_err(io::Error::other)?;
        let piece = data.split_to(capacity.min(data.len()));
        stream.send_data(piece, false).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Until its end.
pub async fn receive(body: &mut RecvStream, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    while let Some(data) = body.data().await.transpose().map_err(io::Error::other)? {
        each(&data);
        let _ = body.flow_control().release_capacity(data.len());
    }
    Ok(())
}
