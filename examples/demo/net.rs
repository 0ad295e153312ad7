//! Just enough of TCP and HTTP/1.1: one request for each connection, bodies of a known length, every wait bounded.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use crate::tls;

/// How long a connection may take to come about. A policy drops packets, so this is how long "cut off" takes to notice.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a peer may be silent.
const SILENCE: Duration = Duration::from_secs(3);
/// How long an answer of the bot may take: it tries several destinations in turn.
pub const PATIENCE: Duration = Duration::from_secs(60);
const MAX_BODY: u64 = 64 * 1024;

/// An `http://` or `https://` URL. Others are not spoken here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub scheme: Scheme,
    /// A name or an address (IPv6 without brackets).
    pub host: String,
    pub port: u16,
    pub path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Url {
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (Scheme::Http, rest),
            (None, Some(rest)) => (Scheme::Https, rest),
            (None, None) => return None,
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => {
                let (host, rest) = bracketed.split_once(']')?;
                (host, rest.strip_prefix(':'))
            }
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let usual = match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        let port = port.map_or(Ok(usual), str::parse).ok()?;
        (!host.is_empty()).then(|| Self { scheme, host: host.to_owned(), port, path: path.to_owned() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port, path } = self;
        let scheme = scheme.name();
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}{path}") } else { write!(f, "{scheme}://{host}:{port}{path}") }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// Nobody answered in time: what a dropped packet looks like.
    CutOff,
    /// The other side, or something on the way, said no.
    Refused,
    /// The connection was taken, and broken off before anything came back.
    BrokenOff,
    NoSuchName,
    /// It was reached, and answered something else than HTTP, or nothing.
    NotHttp,
    Other(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::CutOff,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset => Self::BrokenOff,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutOff => f.write_str("no answer in time"),
            Self::Refused => f.write_str("connection refused"),
            Self::BrokenOff => f.write_str("connection broken off"),
            Self::NoSuchName => f.write_str("the name does not resolve"),
            Self::NotHttp => f.write_str("connected; it does not speak HTTP"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

pub struct Response {
    pub status: u16,
    pub body: String,
}

/// What came of one address of a host.
pub struct Attempt {
    pub address: IpAddr,
    pub outcome: Result<Response, Failure>,
}

pub fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

// === asking ===

/// What is written to and read from.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(|_| Failure::NoSuchName)?.collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() { Err(Failure::NoSuchName) } else { Ok(addresses) }
}

/// Asks every address of the host at the same time, so that both IP families are seen.
pub fn ask_all(method: &str, url: &Url, body: &str) -> Result<Vec<Attempt>, Failure> {
    let addresses = resolve(&url.host, url.port)?;
    Ok(thread::scope(|scope| {
        let asked: Vec<_> = addresses
            .into_iter()
            .map(|address| (address.ip(), scope.spawn(move || exchange(address, method, url, body, SILENCE))))
            .collect();
        asked
            .into_iter()
            .map(|(address, thread)| {
                let outcome = thread.join().unwrap_or_else(|_| Err(Failure::Other("the asking thread broke".into())));
                Attempt { address, outcome }
            })
            .collect()
    }))
}

/// Asks the first address of the host that can be reached, as programs usually do.
pub fn ask_one(method: &str, url: &Url, body: &str, silence: Duration) -> Result<Response, Failure> {
    let mut last = Failure::NoSuchName;
    for address in resolve(&url.host, url.port)? {
        match exchange(address, method, url, body, silence) {
            Ok(response) => return Ok(response),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

fn exchange(address: SocketAddr, method: &str, url: &Url, body: &str, silence: Duration) -> Result<Response, Failure> {
    let mut tcp = connect(address, silence)?;
    let mut secure = match url.scheme {
        Scheme::Http => None,
        Scheme::Https => Some(tls::client(&url.host)?),
    };
    let mut within = secure.as_mut().map(|secure| rustls::Stream::new(secure, &mut tcp));
    let mut plain;
    let stream: &mut dyn Stream = match &mut within {
        Some(within) => within,
        None => {
            plain = &tcp;
            &mut plain
        }
    };
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let head = format!("{method} {} HTTP/1.1\r\nHost: {host}:{}\r\nContent-Length: {}", url.path, url.port, body.len());
    // An error from here on comes after the connection: what has been read by then decides. With nothing read, a reset is a refusal: a
    // guard takes every connection, and breaks off those that it does not let through.
    let sent = stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n{body}").as_bytes());
    let mut answer = Vec::new();
    let got = stream.take(MAX_BODY).read_to_end(&mut answer).map(drop);
    if let (true, Err(error)) = (answer.is_empty(), sent.and(got))
        && matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
    {
        return Err(Failure::BrokenOff);
    }
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(Failure::NotHttp)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(Failure::NotHttp)?;
    Ok(Response { status, body: body.trim_end().to_owned() })
}

fn connect(address: SocketAddr, silence: Duration) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect_timeout(&address, CONNECT)?;
    stream.set_read_timeout(Some(silence))?;
    stream.set_write_timeout(Some(silence))?;
    Ok(stream)
}

/// One line there, one line back.
pub fn line(server: &str, request: &str) -> Result<String, Failure> {
    let (host, port) = server.rsplit_once(':').ok_or_else(|| Failure::Other(format!("{server}: expected HOST:PORT")))?;
    let port = port.parse().map_err(|_| Failure::Other(format!("{server}: not a port")))?;
    let mut last = Failure::NoSuchName;
    for address in resolve(host, port)? {
        let asked = connect(address, SILENCE).and_then(|mut stream| {
            writeln!(stream, "{request}")?;
            let mut answer = String::new();
            BufReader::new(stream.take(MAX_BODY)).read_line(&mut answer)?;
            Ok(answer.trim_end().to_owned())
        });
        match asked {
            Ok(answer) => return Ok(answer),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

// === answering ===

pub struct Request {
    pub method: String,
    pub path: String,
    pub body: String,
}

/// Serves HTTP for ever, a thread for each connection.
pub fn serve_http(name: &'static str, port: u16, answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Result<(), String> {
    serve(name, port, move |stream| {
        let Some(request) = read_request(&stream)? else { return Ok(()) };
        let Response { status, body } = answer(&request);
        if request.path != "/healthz" {
            println!("{} {} {status}", request.method, request.path);
        }
        let reason = if status < 400 { "OK" } else { "Refused" };
        write!(
            &stream,
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}\n",
            body.len() + 1
        )
    })
}

/// Serves lines for ever, a thread for each connection.
pub fn serve_lines(name: &'static str, port: u16, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Result<(), String> {
    serve(name, port, move |stream| {
        for line in BufReader::new((&stream).take(MAX_BODY)).lines() {
            let line = line?;
            let answer = answer(line.trim());
            println!("{line}");
            writeln!(&stream, "{answer}")?;
        }
        Ok(())
    })
}

fn serve(name: &str, port: u16, session: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Result<(), String> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)) // takes IPv4 as well
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
        .map_err(|e| format!("{name}: cannot listen on port {port}: {e}"))?;
    println!("{name} listens on port {port}");
    let session = std::sync::Arc::new(session);
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let session = session.clone();
        thread::spawn(move || {
            let limits = stream.set_read_timeout(Some(SILENCE)).and_then(|()| stream.set_write_timeout(Some(SILENCE)));
            if let Err(error) = limits.and_then(|()| session(stream)) {
                eprintln!("a connection ended early: {error}");
            }
        });
    }
    Ok(())
}

/// None: a connection without a request, as a TCP probe makes it.
fn read_request(stream: &TcpStream) -> io::Result<Option<Request>> {
    let mut reader = BufReader::new(stream.take(MAX_BODY));
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut words = first.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    Ok(Some(Request { method: method.to_owned(), path: path.to_owned(), body: String::from_utf8_lossy(&body).into_owned() }))
}
