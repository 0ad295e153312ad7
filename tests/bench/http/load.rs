//! The client: all connections on one thread inside the pod, each with one request at a time.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
use super::upstream::{ARTICLES, BURSTS, DESK, EVENT_END, EVENTS, LEDGER, Server, cipher};

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
    Events { pause: Duration },
}

impl What {
    /// Bursts as they come from a model that is quick.
    pub const EVENTS: Self = Self::Events { pause: Duration::from_millis(2) };
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
                    Way::Two => Two::open().await?.ask(1, &mut Answered::default()).await,
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
                        match (&mut connection, what) {
                            (Connection::One(one), what) => one.ask(what, &mut answered).await?,
                            (Connection::Two(two), What::Bytes(size)) => two.ask(size, &mut answered).await?,
                            (Connection::Two(_), What::Events { .. }) => return Err(io::ErrorKind::Unsupported.into()),
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
struct One {
    stream: Box<dyn Stream>,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl One {
    async fn open(peer: &Peer, way: Way, what: What) -> io::Result<Self> {
        // Without anybody between there is no base URL: the same answer from the Service.
        let way = if way == Way::BaseUrl && peer.is_direct() { Way::Service } else { way };
        let asked = match what {
            What::Bytes(size) => format!("/articles/{size}"),
            What::Events { pause } => format!("/articles/events-{}", pause.as_millis()),
        };
        let (stream, host, path): (Box<dyn Stream>, _, _) = match way {
            Way::Service | Way::Two => (Box::new(connect(&ARTICLES).await?), ARTICLES.name.to_owned(), asked),
            Way::Intercepted => {
                let name = ServerName::try_from(DESK.name).expect("a name");
                (Box::new(connector().connect(name, connect(&DESK).await?).await?), DESK.name.to_owned(), asked)
            }
            Way::BaseUrl => {
                let (port, source) = BASE_URL;
                let stream = TcpStream::connect(("127.0.0.1", port)).await?;
                stream.set_nodelay(true)?;
                (Box::new(stream), format!("127.0.0.1:{port}"), format!("/{source}{asked}"))
            }
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: python-httpx/0.28.1\r\nAccept: */*\r\nAccept-Encoding: gzip, \
             deflate\r\nAuthorization: Bearer 0b5ad3e9c8f74d1e8a7c2f40b1d96e53\r\nTraceparent: \
             00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n"
        );
        Ok(Self { stream, request: request.into_bytes(), buffer: vec![0; 64 * 1024] })
    }

    async fn ask(&mut self, what: What, answered: &mut Answered) -> io::Result<()> {
        let began = Instant::now();
        self.stream.write_all(&self.request).await?;
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
        match what {
            What::Bytes(size) => {
                let mut rest = (body + size).checked_sub(filled).ok_or(io::ErrorKind::InvalidData)?;
                while rest > 0 {
                    rest = rest.checked_sub(self.read(0, answered).await?).ok_or(io::ErrorKind::InvalidData)?;
                    first.get_or_insert_with(|| began.elapsed());
                }
            }
            What::Events { .. } => {
                let ends = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == EVENT_END).count();
                let mut seen = ends(&self.buffer[body..filled]);
                const LAST: &[u8] = b"0\r\n\r\n";
                let mut tail = self.buffer[body..filled].to_vec();
                while !tail.ends_with(LAST) {
                    let length = self.read(0, answered).await?;
                    first.get_or_insert_with(|| began.elapsed());
                    seen += ends(&self.buffer[..length]);
                    tail.extend_from_slice(&self.buffer[length.saturating_sub(LAST.len())..length]);
                }
                if seen != BURSTS * EVENTS {
                    return Err(io::Error::other(format!("{seen} events")));
                }
            }
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
struct Two(h2::client::SendRequest<hyper::body::Bytes>);

impl Two {
    async fn open() -> io::Result<Self> {
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

    async fn ask(&mut self, size: usize, answered: &mut Answered) -> io::Result<()> {
        let began = Instant::now();
        let request = Request::get(format!("http://{}/articles/{size}", LEDGER.name))
            .header("user-agent", "python-httpx/0.28.1")
            .header("accept", "*/*")
            .header("accept-encoding", "gzip, deflate")
            .header("authorization", "Bearer 0b5ad3e9c8f74d1e8a7c2f40b1d96e53")
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .body(())
            .expect("a request");
        self.0 = self.0.clone().ready().await.map_err(io::Error::other)?;
        let (response, _) = self.0.send_request(request, true).map_err(io::Error::other)?;
        let response = response.await.map_err(io::Error::other)?;
        if response.status() != 200 {
            return Err(io::Error::other(response.status().to_string()));
        }
        let mut body = response.into_body();
        let mut length = 0;
        while let Some(data) = body.data().await.transpose().map_err(io::Error::other)? {
            length += data.len();
            let _ = body.flow_control().release_capacity(data.len());
        }
        if length != size {
            return Err(io::Error::other(format!("{length} bytes of {size}")));
        }
        answered.times.push(began.elapsed());
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
