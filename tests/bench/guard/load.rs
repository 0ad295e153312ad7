//! The client: blocking sockets on threads inside the pod, so that its own part is small and the same for all.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::beside::world::inside;
use super::peer::Peer;
use super::upstream::{self, EVENT, HELP, HELP_NAME, ORDERS};

/// How a connection is judged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Address,
    ServerName,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "TCP",
            Self::ServerName => "TLS by SNI",
        })
    }
}

pub struct Connection {
    stream: TcpStream,
    /// The ClientHello, until it is sent: with the first request, so that every first byte is one round trip away.
    hello: Vec<u8>,
}

impl Connection {
    pub fn open(peer: &Peer, mode: Mode) -> io::Result<Self> {
        inside(&peer.name, || Self::here(mode))
    }

    /// On a thread that is in the pod already.
    fn here(mode: Mode) -> io::Result<Self> {
        let (to, hello) = match mode {
            Mode::Address => (ORDERS, Vec::new()),
            Mode::ServerName => (HELP, hello(HELP_NAME)),
        };
        let to: SocketAddr = format!("{}:{}", to.0, to.1).parse().expect("an address");
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, hello })
    }

    fn request(&mut self, up: u64, down: u64, every: Option<Duration>) -> io::Result<()> {
        let every = every.map_or(0, |every| u64::try_from(every.as_micros()).unwrap_or(u64::MAX));
        let mut bytes = std::mem::take(&mut self.hello);
        bytes.extend([up, down, every].iter().flat_map(|number| number.to_be_bytes()));
        self.stream.write_all(&bytes)
    }

    /// Until everything asked for has come.
    pub fn ask(&mut self, up: u64, mut down: u64, every: Option<Duration>) -> io::Result<()> {
        let mut buffer = vec![0; if up.max(down) > 4096 { 256 * 1024 } else { 4096 }];
        self.request(up, down, every)?;
        let mut rest = up;
        while rest > 0 {
            let part = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            self.stream.write_all(&buffer[..part])?;
            rest -= part as u64;
        }
        while down > 0 {
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => down = down.saturating_sub(length as u64),
            }
        }
        Ok(())
    }

    /// Until the other side breaks it off.
    pub fn ended(&mut self) {
        let mut byte = [0];
        while matches!(self.stream.read(&mut byte), Ok(1)) {}
    }
}

const ANSWER: u64 = 64;

/// Each from its planned moment to its first byte, whatever became of the ones before. They stay open.
pub fn opened_in_a_second(peer: &Peer, mode: Mode, count: usize) -> (Vec<Connection>, Vec<Duration>) {
    const THREADS: usize = 32;
    let start = Instant::now() + Duration::from_millis(50);
    let work = |thread: usize| {
        let mut opened = Vec::new();
        for n in (thread..count).step_by(THREADS) {
            let planned = start + Duration::from_secs(1) * n as u32 / count as u32;
            std::thread::sleep(planned.saturating_duration_since(Instant::now()));
            let mut connection = Connection::here(mode).expect("connected");
            connection.ask(0, ANSWER, None).expect("an answer");
            opened.push((connection, planned.elapsed()));
        }
        opened
    };
    at_once(peer, THREADS, work).into_iter().unzip()
}

/// One request each, then the client ends it.
pub fn short(peer: &Peer, mode: Mode, count: usize, threads: usize) {
    at_once(peer, threads, |_| {
        for _ in 0..count / threads {
            Connection::here(mode).and_then(|mut connection| connection.ask(0, ANSWER, None)).expect("an answer");
        }
        Vec::<()>::new()
    });
}

/// One after the other, from connect to the first byte.
pub fn first_bytes(peer: &Peer, mode: Mode, count: usize) -> Vec<Duration> {
    at_once(peer, 1, |_| {
        let one = || {
            let began = Instant::now();
            Connection::here(mode).and_then(|mut connection| connection.ask(0, ANSWER, None)).expect("an answer");
            began.elapsed()
        };
        (0..count).map(|_| one()).collect()
    })
}

pub fn round_trips(peer: &Peer, mode: Mode, count: usize) -> Vec<Duration> {
    at_once(peer, 1, |_| {
        let mut connection = Connection::here(mode).expect("connected");
        let mut one = || {
            let began = Instant::now();
            connection.ask(0, ANSWER, None).expect("an answer");
            began.elapsed()
        };
        (0..count).map(|_| one()).collect()
    })
}

pub fn transfer(peer: &Peer, mode: Mode, up: u64, down: u64) -> Duration {
    inside(&peer.name, || {
        let mut connection = Connection::here(mode).expect("connected");
        connection.ask(0, 1, None).expect("an answer");
        let began = Instant::now();
        connection.ask(up, down, None).expect("all of it");
        began.elapsed()
    })
}

/// How long each event of a stream was under way, on a connection that has seen requests and answers before (so the client's kernel holds
/// acknowledgements back).
pub fn events(peer: &Peer, mode: Mode, count: u64, every: Duration) -> Vec<Duration> {
    at_once(peer, 1, |_| {
        let mut connection = Connection::here(mode).expect("connected");
        for _ in 0..20 {
            connection.ask(0, ANSWER, None).expect("an answer");
        }
        connection.request(0, count * EVENT as u64, Some(every)).expect("asked");
        let mut one = || {
            let mut event = [0; EVENT];
            connection.stream.read_exact(&mut event).expect("an event");
            let sent = u64::from_be_bytes(event[..8].try_into().expect("eight bytes"));
            Duration::from_nanos(upstream::since_start().saturating_sub(sent))
        };
        (0..count).map(|_| one()).collect()
    })
}

/// On so many threads inside the pod.
fn at_once<T: Send>(peer: &Peer, threads: usize, work: impl Fn(usize) -> Vec<T> + Sync) -> Vec<T> {
    inside(&peer.name, || {
        std::thread::scope(|scope| {
            let work = &work;
            let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || work(n))).collect();
            running.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    })
}

/// A ClientHello of the size that clients send, which names this server.
fn hello(server: &str) -> Vec<u8> {
    const SIZE: usize = 517;
    let long = |data: &[u8]| [&(data.len() as u16).to_be_bytes()[..], data].concat();
    let name = long(&long(&[&[0u8][..], &long(server.as_bytes())].concat()));
    let versions = long(&[2, 3, 4]);
    let padding = long(&vec![0; SIZE - 64 - server.len()]);
    let extensions = [&[0u8, 0][..], &name, &[0, 43], &versions, &[0, 21], &padding].concat();
    let body = [&[3u8, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &long(&extensions)].concat();
    let message = [&[1u8, 0][..], &long(&body)].concat();
    [&[22u8, 3, 1][..], &long(&message)].concat()
}
