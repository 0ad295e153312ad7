//! What the client asks for, on the other side: bodies of a size, and streams of events in bursts; plain, in TLS, and in HTTP/2.

use std::io;
use std::sync::Arc;
use std::time::Duration;

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
    let tls = certificates.acceptor();
    let at = |server: Server| listen((server.address, server.port));
    tokio::join!(plain(at(ARTICLES)), two(at(LEDGER)), secured(at(HELP), &tls), secured(at(DESK), &tls));
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

/// HTTP/1.1: requests without bodies.
async fn one(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = [0; 8192];
    let mut filled = 0;
    loop {
        let length = stream.read(&mut buffer[filled..]).await?;
        if length == 0 {
            return Ok(());
        }
        filled += length;
        if !buffer[..filled].ends_with(b"\r\n\r\n") {
            continue;
        }
        match asked_for(&buffer[..filled]) {
            Some(Asked::Size(size)) => stream.write_all(&answer(size)).await?,
            Some(Asked::Events(pause)) => stream_events(&mut stream, pause).await?,
            None => return Err(io::ErrorKind::InvalidData.into()),
        }
        stream.flush().await?;
        filled = 0;
    }
}

enum Asked {
    Size(usize),
    /// With this pause between bursts.
    Events(Duration),
}

/// By the last segment of the path.
fn asked_for(request: &[u8]) -> Option<Asked> {
    let path = std::str::from_utf8(request).ok()?.split(' ').nth(1)?;
    let last = path.rsplit('/').next()?;
    match last.strip_prefix("events-") {
        Some(pause) => Some(Asked::Events(Duration::from_millis(pause.parse().ok()?))),
        None => last.parse().ok().map(Asked::Size),
    }
}

fn answer(size: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nserver: shop\r\ndate: Sun, 22 Nov 2026 12:00:00 GMT\r\ncontent-type: application/json\r\ncache-control: \
         no-store\r\nvary: accept-encoding\r\nx-request-id: 0b5ad3e9c8f74d1e\r\ncontent-length: {size}\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + size, b'x');
    answer
}

async fn stream_events(stream: &mut (impl AsyncWrite + Unpin), pause: Duration) -> io::Result<()> {
    // nginx passes on at once what is marked so; the others do in any case.
    let head = "HTTP/1.1 200 OK\r\nserver: shop\r\ndate: Sun, 22 Nov 2026 12:00:00 GMT\r\ncontent-type: text/event-stream\r\ncache-control: \
                no-store\r\nx-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    for burst in 0..BURSTS {
        for event in 0..EVENTS {
            let text = format!("data: {{\"id\":\"{:08}\",\"choices\":[{{\"delta\":{{\"content\":\" word\"}}}}]}}", burst * EVENTS + event);
            let text = format!("{text}{}{}\n\n", " ".repeat(117 - text.len()), char::from(EVENT_END));
            bytes.extend_from_slice(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes());
        }
        if burst + 1 == BURSTS {
            bytes.extend_from_slice(b"0\r\n\r\n");
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

/// HTTP/2 by prior knowledge.
async fn two(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let mut connection = h2::server::Builder::new().max_concurrent_streams(1_024).handshake(stream).await?;
            while let Some((request, mut respond)) = connection.accept().await.transpose()? {
                let size: usize = request.uri().path().rsplit('/').next().and_then(|size| size.parse().ok()).unwrap_or_default();
                let head = Response::builder()
                    .header("server", "shop")
                    .header("content-type", "application/json")
                    .header("cache-control", "no-store")
                    .header("x-request-id", "0b5ad3e9c8f74d1e")
                    .header("content-length", size)
                    .body(())
                    .expect("a head");
                respond.send_response(head, false)?.send_data(Bytes::from(vec![b'x'; size]), true)?;
            }
            Ok::<_, h2::Error>(())
        });
    }
}
