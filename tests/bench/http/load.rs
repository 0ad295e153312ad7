//! The client: all connections on one thread inside the pod, each with one request at a time.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::http::Request;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::beside::world::inside;
use super::peer::{BASE_URL, Peer};
use super::upstream::{ARTICLES, BURSTS, Count, DESK, EVENTS, LEDGER, Server, cipher, receive, send_body, write_body};

/// How what the client sends gets to who is measured, and from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A Service at its cluster address, by the redirect; plain.
    Service,
    /// The same in HTTP/2, with prior knowledge.
    Two,
    /// Plain to a port of the loopback, where the path says who is meant; TLS from there on.
    BaseUrl,
    /// TLS to the host's address, by the redirect; TLS from there on.
    Intercepted,
}

pub const WAYS: [Way; 4] = [Way::Service, Way::Two, Way::BaseUrl, Way::Intercepted];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    Bytes(usize),
    /// How much it is shows at its end only.
    Chunks(usize),
    Events {
        pause: Duration,
    },
    /// A body of this size is sent.
    Sent {
        size: usize,
        chunked: bool,
    },
}

impl What {
    /// Bursts as they come from a model that is quick.
    pub const EVENTS: Self = Self::Events { pause: Duration::from_millis(2) };

    fn path(self) -> String {
        match self {
            Self::Bytes(size) => format!("/articles/{size}"),
            Self::Chunks(size) => format!("/articles/chunks-{size}"),
            Self::Events { pause } => format!("/articles/events-{}", pause.as_millis()),
            Self::Sent { size, chunked: _ } => format!("/articles/take-{size}"),
        }
    }
}

/// What came of some requests.
#[derive(Default)]
pub struct Answered {
    /// To the end of each answer.
    pub times: Vec<Duration>,
    /// To the first byte that is not of the head.
    pub first: Vec<Duration>,
    /// How often the client found something to read.
    pub reads: usize,
}

/// On a thread in the pod, where `act` finds these connections open and warm.
pub fn with<T: Send>(peer: &Peer, way: Way, what: What, at_once: usize, act: impl FnOnce(&mut Load) -> T + Send) -> io::Result<T> {
    inside(&peer.name, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connections = runtime.block_on(async {
            let mut connections = Vec::new();
            if way == Way::Two {
                let two = Two::open().await?;
                connections.extend((0..at_once).map(|_| Connection::Two(two.clone())));
            } else {
                for _ in 0..at_once {
                    connections.push(Connection::One(One::open(peer, way, what).await?));
                }
            }
            io::Result::Ok(connections)
        })?;
        let mut load = Load { runtime, connections, what };
        load.ask(at_once)?;
        Ok(act(&mut load))
    })
}

/// Whether this way leads to an answer.
pub fn served(peer: &Peer, way: Way) -> io::Result<()> {
    inside(&peer.name, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let asked = async {
                match way {
                    Way::Two => Two::open().await?.ask(What::Bytes(1), &mut Answered::default()).await,
                    _ => One::open(peer, way, What::Bytes(1)).await?.ask(What::Bytes(1), &mut Answered::default()).await,
                }
            };
            tokio::time::timeout(Duration::from_secs(3), asked).await?
        })
    })
}

/// Whether a path that nobody permits is refused, over HTTP.
pub fn refused(peer: &Peer) -> io::Result<bool> {
    inside(&peer.name, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut one = One::open(peer, Way::Service, What::Bytes(1)).await?;
            one.request = format!("GET /orders/1 HTTP/1.1\r\nHost: {}\r\n\r\n", ARTICLES.name).into_bytes();
            one.stream.write_all(&one.request).await?;
            let length = one.read(0, &mut Answered::default()).await?;
            Ok(one.buffer[..length].starts_with(b"HTTP/1.1 403 "))
        })
    })
}

pub struct Load {
    runtime: Runtime,
    connections: Vec<Connection>,
    what: What,
}

impl Load {
    /// So many requests over all connections, each with its next as soon as it has an answer.
    pub fn ask(&mut self, count: usize) -> io::Result<Answered> {
        let each = count.div_ceil(self.connections.len());
        let what = self.what;
        self.runtime.block_on(async {
            let mut asking = JoinSet::new();
            for mut connection in self.connections.drain(..) {
                asking.spawn(async move {
                    let mut answered = Answered::default();
                    for _ in 0..each {
                        match &mut connection {
                            Connection::One(one) => one.ask(what, &mut answered).await?,
                            Connection::Two(two) => two.ask(what, &mut answered).await?,
                        }
                    }
                    io::Result::Ok((connection, answered))
                });
            }
            let mut all = Answered::default();
            while let Some(done) = asking.join_next().await {
                let (connection, mut answered) = done??;
                self.connections.push(connection);
                all.times.append(&mut answered.times);
                all.first.append(&mut answered.first);
                all.reads += answered.reads;
            }
            Ok(all)
        })
    }
}

enum Connection {
    One(One),
    Two(Two),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// HTTP/1.1.
pub struct One {
    stream: Box<dyn Stream>,
    host: String,
    /// What stands before each path.
    base: String,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl One {
    /// For requests for this.
    pub async fn open(peer: &Peer, way: Way, what: What) -> io::Result<Self> {
        // Without anybody between there is no base URL: the same answer from the Service.
        let way = if way == Way::BaseUrl && peer.is_direct() { Way::Service } else { way };
        let (stream, host, base): (Box<dyn Stream>, _, _) = match way {
            Way::Service | Way::Two => (Box::new(connect(&ARTICLES).await?), ARTICLES.name.to_owned(), String::new()),
            Way::Intercepted => {
                let name = ServerName::try_from(DESK.name).expect("a name");
                (Box::new(connector().connect(name, connect(&DESK).await?).await?), DESK.name.to_owned(), String::new())
            }
            Way::BaseUrl => {
                let (port, source) = BASE_URL;
                let stream = TcpStream::connect(("127.0.0.1", port)).await?;
                stream.set_nodelay(true)?;
                (Box::new(stream), format!("127.0.0.1:{port}"), format!("/{source}"))
            }
        };
        let mut one = Self { stream, host, base, request: Vec::new(), buffer: vec![0; 64 * 1024] };
        one.turn_to(what);
        Ok(one)
    }

    /// For requests for this, from now on.
    pub fn turn_to(&mut self, what: What) {
        let Self { host, base, .. } = self;
        let (method, framing) = match what {
            What::Sent { size: _, chunked: true } => ("POST", "\r\nTransfer-Encoding: chunked".to_owned()),
            What::Sent { size, chunked: false } => ("POST", format!("\r\nContent-Length: {size}")),
            _ => ("GET", String::new()),
        };
        let path = what.path();
        let request = format!(
            "{method} {base}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: python-httpx/0.28.1\r\nAccept: */*\r\nAccept-Encoding: gzip, \
             deflate\r\nAuthorization: Bearer 0b5ad3e9c8f74d1e8a7c2f40b1d96e53\r\nTraceparent: \
             00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01{framing}\r\n\r\n"
        );
        self.request = request.into_bytes();
    }

    /// The beginning of an answer; the rest is left where it is.
    pub async fn begin(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.request).await?;
        let length = self.read(0, &mut Answered::default()).await?;
        if self.buffer[..length].starts_with(b"HTTP/1.1 200 ") {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&self.buffer[..length]).into_owned()))
    }

    /// For what it was opened or turned to. An answer that is no 200 is an error, which says it.
    pub async fn ask(&mut self, what: What, answered: &mut Answered) -> io::Result<()> {
        let began = Instant::now();
        self.stream.write_all(&self.request).await?;
        if let What::Sent { size, chunked } = what {
            write_body(&mut self.stream, size, chunked).await?;
        }
        self.stream.flush().await?;
        let mut filled = 0;
        let body = loop {
            filled += self.read(filled, answered).await?;
            if let Some(at) = self.buffer[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = std::str::from_utf8(&self.buffer[..body]).map_err(io::Error::other)?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::other(String::from_utf8_lossy(&self.buffer[..filled]).into_owned()));
        }
        let mut first = (filled > body).then(|| began.elapsed());
        let mut count = Count::default();
        count.of(&self.buffer[body..filled]);
        let size = match what {
            What::Bytes(size) | What::Chunks(size) => size,
            What::Events { .. } => 0,
            What::Sent { .. } => 2,
        };
        let chunked = matches!(what, What::Chunks(_) | What::Events { .. });
        while !count.is_all(size, chunked) {
            let length = self.read(0, answered).await?;
            first.get_or_insert_with(|| began.elapsed());
            count.of(&self.buffer[..length]);
        }
        match what {
            What::Events { .. } if count.events != BURSTS * EVENTS => return Err(io::Error::other(format!("{} events", count.events))),
            What::Bytes(_) | What::Chunks(_) | What::Sent { .. } if count.filling != size => {
                return Err(io::Error::other(format!("{} bytes of {size}", count.filling)));
            }
            _ => {}
        }
        answered.times.push(began.elapsed());
        answered.first.extend(first);
        Ok(())
    }

    async fn read(&mut self, at: usize, answered: &mut Answered) -> io::Result<usize> {
        answered.reads += 1;
        match self.stream.read(&mut self.buffer[at..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => Ok(length),
        }
    }
}

/// HTTP/2: streams of one connection.
#[derive(Clone)]
pub struct Two(h2::client::SendRequest<Bytes>);

impl Two {
    pub async fn open() -> io::Result<Self> {
        let stream = connect(&LEDGER).await?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self(send))
    }

    /// The beginning of an answer; the rest is given up.
    pub async fn begin(&mut self, what: What) -> io::Result<()> {
        let request = Request::get(format!("http://{}{}", LEDGER.name, what.path())).body(()).expect("a request");
        self.0 = self.0.clone().ready().await.map_err(io::Error::other)?;
        let (response, _) = self.0.send_request(request, true).map_err(io::Error::other)?;
        let mut response = response.await.map_err(io::Error::other)?;
        let data = response.body_mut().data().await.transpose().map_err(io::Error::other)?.unwrap_or_default();
        match response.status().as_u16() {
            200 => Ok(()),
            status => Err(io::Error::other(format!("HTTP/2 {status} {}", String::from_utf8_lossy(&data)))),
        }
    }

    /// An answer that is no 200 is an error, which says it.
    pub async fn ask(&mut self, what: What, answered: &mut Answered) -> io::Result<()> {
        let began = Instant::now();
        let to_send = if let What::Sent { size, chunked: _ } = what { Some(size) } else { None };
        let request = Request::builder()
            .method(if to_send.is_some() { "POST" } else { "GET" })
            .uri(format!("http://{}{}", LEDGER.name, what.path()))
            .header("user-agent", "python-httpx/0.28.1")
            .header("accept", "*/*")
            .header("accept-encoding", "gzip, deflate")
            .header("authorization", "Bearer 0b5ad3e9c8f74d1e8a7c2f40b1d96e53")
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .body(())
            .expect("a request");
        self.0 = self.0.clone().ready().await.map_err(io::Error::other)?;
        let (response, mut up) = self.0.send_request(request, to_send.is_none()).map_err(io::Error::other)?;
        if let Some(size) = to_send {
            send_body(&mut up, size).await?;
            up.send_data(Bytes::new(), true).map_err(io::Error::other)?;
        }
        let response = response.await.map_err(io::Error::other)?;
        let status = response.status();
        let mut body = response.into_body();
        let (mut count, mut text) = (Count::default(), Vec::new());
        let mut first = None;
        let received = receive(&mut body, |data| {
            answered.reads += 1;
            first.get_or_insert_with(|| began.elapsed());
            count.of(data);
            if status != 200 {
                text.extend_from_slice(data);
            }
        });
        received.await?;
        if status != 200 {
            return Err(io::Error::other(format!("HTTP/2 {} {}", status.as_u16(), String::from_utf8_lossy(&text))));
        }
        match what {
            What::Bytes(size) | What::Chunks(size) if count.filling != size => {
                return Err(io::Error::other(format!("{} bytes of {size}", count.filling)));
            }
            What::Events { .. } if count.events != BURSTS * EVENTS => return Err(io::Error::other(format!("{} events", count.events))),
            _ => {}
        }
        answered.times.push(began.elapsed());
        answered.first.extend(first);
        Ok(())
    }
}

async fn connect(server: &Server) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((server.address, server.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Takes any certificate: who ends the TLS has one of its own. That it is used rightly is what tests say, not a bench.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        cipher().signature_verification_algorithms.supported_schemes()
    }
}

fn connector() -> TlsConnector {
    let config = ClientConfig::builder_with_provider(cipher()).with_safe_default_protocol_versions().expect("versions");
    let mut config = config.dangerous().with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}
