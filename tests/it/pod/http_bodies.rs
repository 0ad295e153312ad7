//! Bodies as they pass: each piece at once, any number of bytes in the same memory, and slow ends that cost a bounded amount and nobody else's
//! time. (Half an hour of it, with the release build and 10 GB: `make soak`.)
//!
//! A peer that stops for good is given up by the kernel after two minutes, which `guard::tcp` asserts of the sockets' options.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::http_wire::{DEADLINE, PORTS};
use super::{ORDERS, World, connect, in_namespace};

/// The Service speaks HTTP/1.1 here.
const ONE: u16 = PORTS[0];
/// And HTTP/2 here.
const TWO: u16 = PORTS[1];
/// PERFORMANCE.md, G8: for each stream, whoever waits for what.
const MOST_EACH: usize = 64 * 1024;
/// What is read at once, and what waits to be written with it.
const PIECE: usize = 64 * 1024;
/// The allocator's own: pages that are not given back at once.
const SLACK: usize = 2 * 1024 * 1024;

/// The Service with all that ReadWrite gives, at both ports.
fn policy() -> Value {
    let mut policy = super::policy();
    policy["format"] = json!(2);
    let service = |source: &str, port: u16| {
        let http = json!({"scheme": "Http", "port": port, "access": "ReadWrite"});
        json!({"source": source, "target": {"type": "Service", "name": "orders", "namespace": "shop", "ports": [port], "http": http}})
    };
    policy["destinations"] = json!([service("orders", ONE), service("ledger", TWO)]);
    policy
}

/// What the paths of the Service do:
///
/// - `/ok` answers; `/open` begins an answer and stops; `/endless` sends without end
/// - `/events`, `/events-of-a-length` and `/events-until-the-end` send an event for each that is let go
/// - `/echo` repeats events as they come; `/deaf` reads no body, and ends unanswered when it is let go
#[derive(Clone)]
struct Service {
    /// Events that may be sent, and whoever may end.
    go: Arc<Semaphore>,
    /// Bytes of endless answers.
    sent: Arc<AtomicUsize>,
    /// Connections and streams that are there.
    open: Arc<AtomicUsize>,
}

fn event(number: usize) -> String {
    format!("data: {number:04}\n")
}

const EVENTS: usize = 50;
const EVENT: usize = 11;

impl Service {
    fn new(world: &World) -> Self {
        let made = Self { go: Arc::new(Semaphore::new(0)), sent: Arc::default(), open: Arc::default() };
        for port in [ONE, TWO] {
            let service = made.clone();
            in_namespace(&world.world, || {
                let listener = TcpListener::bind((ORDERS, port)).expect("a TCP port");
                listener.set_nonblocking(true).expect("an option");
                small(SockRef::from(&listener));
                std::thread::spawn(move || {
                    running(async move {
                        let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
                        while let Ok((stream, _)) = listener.accept().await {
                            stream.set_nodelay(true).expect("an option");
                            let service = service.clone();
                            tokio::spawn(async move {
                                service.open.fetch_add(1, Ordering::Relaxed);
                                // How it ends is the test's to see.
                                if port == ONE {
                                    let _ = service.one(stream).await;
                                } else {
                                    let _ = service.two(stream).await;
                                }
                                service.open.fetch_sub(1, Ordering::Relaxed);
                            });
                        }
                    });
                });
            });
        }
        made
    }

    async fn one(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut got = Vec::new();
        loop {
            let head = until(&mut stream, &mut got, b"\r\n\r\n").await?;
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let framing = match path {
                "/ok" => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
                    continue;
                }
                "/deaf" => {
                    self.go.acquire().await.expect("open").forget();
                    return Ok(());
                }
                "/events-of-a-length" => format!("content-length: {}", EVENTS * EVENT),
                "/events-until-the-end" => "connection: close".to_owned(),
                _ => "transfer-encoding: chunked".to_owned(),
            };
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{framing}\r\n\r\n").as_bytes()).await?;
            let chunked = framing.ends_with("chunked");
            match path {
                "/open" => return std::future::pending().await,
                "/endless" => {
                    let chunk = [b"4000\r\n".to_vec(), vec![b'x'; 0x4000], b"\r\n".to_vec()].concat();
                    loop {
                        let sent = stream.write(&chunk).await?;
                        self.sent.fetch_add(sent, Ordering::Relaxed);
                        // Where it was interrupted, it goes on.
                        stream.write_all(&chunk[sent..]).await?;
                        self.sent.fetch_add(chunk.len() - sent, Ordering::Relaxed);
                    }
                }
                _ => {
                    for number in 0..EVENTS {
                        let text = event(number);
                        if path == "/echo" {
                            until(&mut stream, &mut got, text.as_bytes()).await?;
                        } else {
                            self.go.acquire().await.expect("open").forget();
                        }
                        let text = if chunked { format!("{EVENT:x}\r\n{text}\r\n") } else { text };
                        stream.write_all(text.as_bytes()).await?;
                    }
                    if path == "/echo" {
                        until(&mut stream, &mut got, b"0\r\n\r\n").await?;
                    }
                }
            }
            if !chunked {
                return Ok(());
            }
            stream.write_all(b"0\r\n\r\n").await?;
        }
    }

    async fn two(&self, stream: TcpStream) -> Result<(), h2::Error> {
        let mut connection =
            h2::server::Builder::new().max_concurrent_streams(1_024).initial_connection_window_size(1 << 30).handshake(stream).await?;
        while let Some((request, respond)) = connection.accept().await.transpose()? {
            let service = self.clone();
            tokio::spawn(async move {
                service.open.fetch_add(1, Ordering::Relaxed);
                let _ = service.stream(request, respond).await;
                service.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
        Ok(())
    }

    async fn stream(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
        let (head, mut body) = request.into_parts();
        let path = head.uri.path();
        if path == "/deaf" {
            poll_fn(|context| respond.poll_reset(context)).await?;
            return Ok(());
        }
        let mut stream = respond.send_response(Response::new(()), false)?;
        match path {
            "/ok" => stream.send_data(Bytes::from_static(b"ok"), false)?,
            "/open" => {
                poll_fn(|context| stream.poll_reset(context)).await?;
                return Ok(());
            }
            "/endless" => {
                let piece = Bytes::from(vec![b'x'; 0x4000]);
                loop {
                    send(&mut stream, piece.clone()).await?;
                    self.sent.fetch_add(piece.len(), Ordering::Relaxed);
                }
            }
            "/echo" => {
                while let Some(data) = body.data().await.transpose()? {
                    body.flow_control().release_capacity(data.len())?;
                    send(&mut stream, data).await?;
                }
            }
            _ => {
                for number in 0..EVENTS {
                    self.go.acquire().await.expect("open").forget();
                    send(&mut stream, event(number).into()).await?;
                }
            }
        }
        stream.send_data(Bytes::new(), true)
    }

    /// Once nothing has been sent for a while: how much it was.
    async fn stalled(&self) -> usize {
        let (mut before, began) = (0, Instant::now());
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = self.sent.load(Ordering::Relaxed);
            if now == std::mem::replace(&mut before, now) && now > 0 {
                return now;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{now} bytes are sent, and more");
        }
    }
}

/// As small as the guard's own: what is asserted is what the guard takes, and not what the kernel would of itself.
fn small(socket: SockRef<'_>) {
    socket.set_recv_buffer_size(QUEUE / 2).expect("an option");
    socket.set_send_buffer_size(QUEUE / 2).expect("an option");
}

fn running<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// Reads until this stands at the end of what it gives back; what comes behind it stays.
async fn until(stream: &mut TcpStream, got: &mut Vec<u8>, wanted: &[u8]) -> std::io::Result<Vec<u8>> {
    loop {
        if let Some(at) = got.windows(wanted.len()).position(|some| some == wanted) {
            return Ok(got.drain(..at + wanted.len()).collect());
        }
        if stream.read_buf(got).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(capacity) = poll_fn(|context| stream.poll_capacity(context)).await.transpose()? else {
            return Err(h2::Reason::CANCEL.into());
        };
        stream.send_data(data.split_to(capacity.min(data.len())), false)?;
    }
    Ok(())
}

/// Nothing may take longer than this that waits for nobody.
async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("{what}: nothing comes"))
}

/// A client of HTTP/1.1 that has said this.
async fn one(request: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect((ORDERS, ONE)).await?;
    stream.set_nodelay(true)?;
    small(SockRef::from(&stream));
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: orders.shop:{ONE}\r\n\r\n")
}

/// A client of HTTP/2, which takes in as much as it is sent.
async fn two() -> SendRequest<Bytes> {
    let stream = TcpStream::connect((ORDERS, TWO)).await.expect("by the guard");
    stream.set_nodelay(true).expect("an option");
    let mut builder = h2::client::Builder::new();
    let (send, connection) = builder.initial_connection_window_size(1 << 30).handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    send.ready().await.expect("a place")
}

/// A stream: its answer is awaited by whoever wants it.
fn ask(to: &mut SendRequest<Bytes>, path: &str, ends: bool) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let method = if ends { "GET" } else { "POST" };
    let request = Request::builder().method(method).uri(format!("http://orders.shop:{TWO}{path}")).body(()).expect("a request");
    to.send_request(request, ends).expect("a stream")
}

/// `/ok` in both versions, each on a connection of its own.
async fn others_go_on() {
    let mut stream = soon("another connects", one(&get("/ok"))).await.expect("by the guard");
    soon("another in HTTP/1.1", until(&mut stream, &mut Vec::new(), b"\r\n\r\nok")).await.expect("an answer");
    let mut two = soon("another in HTTP/2", two()).await;
    assert_eq!(soon("another stream", two_ok(&mut two)).await, 200);
}

async fn two_ok(to: &mut SendRequest<Bytes>) -> u16 {
    let (answer, _) = ask(to, "/ok", true);
    let answer = answer.await.expect("an answer");
    let (head, mut body) = answer.into_parts();
    while let Some(data) = body.data().await {
        let _ = body.flow_control().release_capacity(data.expect("its body").len());
    }
    head.status.as_u16()
}

/// Bytes, by a name of /proc/PID/status.
fn memory(world: &World, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.pid())).expect("it runs");
    let fields: BTreeMap<&str, &str> = status.lines().filter_map(|line| line.split_once(':')).collect();
    fields[name].trim().trim_end_matches(" kB").parse::<usize>().expect("a figure") * 1024
}

fn resident(world: &World) -> usize {
    memory(world, "VmRSS")
}

fn descriptors(world: &World) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", world.pid())).expect("it runs").count()
}

/// Both ends of each connection are in this process.
fn many_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("the hard limit");
}

/// A guard that has served in both versions, and what serves behind it.
fn warm() -> (World, Service) {
    many_files();
    let world = World::guarded(&policy());
    let service = Service::new(&world);
    world.in_pod(|| running(others_go_on()));
    (world, service)
}

#[test]
fn an_event_is_there_before_the_next_is_sent() {
    let (world, service) = warm();
    world.in_pod(|| {
        running(async {
            for path in ["/events", "/events-of-a-length", "/events-until-the-end"] {
                let (mut stream, mut got) = (one(&get(path)).await.expect("sent"), Vec::new());
                soon(path, until(&mut stream, &mut got, b"\r\n\r\n")).await.expect("the head, before there is an event");
                for number in 0..EVENTS {
                    service.go.add_permits(1);
                    soon(path, until(&mut stream, &mut got, event(number).as_bytes())).await.expect("the event");
                }
            }
            // Each side waits for what the other says.
            let request = format!("POST /echo HTTP/1.1\r\nHost: orders.shop:{ONE}\r\nTransfer-Encoding: chunked\r\n\r\n");
            let (mut stream, mut got) = (one(&request).await.expect("sent"), Vec::new());
            soon("echo", until(&mut stream, &mut got, b"\r\n\r\n")).await.expect("the head, before there is a body");
            for number in 0..EVENTS {
                let text = event(number);
                stream.write_all(format!("{EVENT:x}\r\n{text}\r\n").as_bytes()).await.expect("sent");
                soon("echo", until(&mut stream, &mut got, text.as_bytes())).await.expect("its echo");
            }
            stream.write_all(b"0\r\n\r\n").await.expect("sent");
            soon("echo", until(&mut stream, &mut got, b"0\r\n\r\n")).await.expect("the end");
        });
    });
}

#[test]
fn an_event_of_http2_is_there_before_the_next_is_sent() {
    let (world, service) = warm();
    world.in_pod(|| {
        running(async {
            let mut two = two().await;
            for path in ["/events", "/echo"] {
                let (answer, mut up) = ask(&mut two, path, path == "/events");
                let mut body = soon(path, answer).await.expect("the head, before there is an event").into_body();
                for number in 0..EVENTS {
                    match path {
                        "/events" => service.go.add_permits(1),
                        _ => up.send_data(event(number).into(), false).expect("sent"),
                    }
                    let data = soon(path, body.data()).await.expect("not the end").expect("the event");
                    assert_eq!(data, event(number));
                    body.flow_control().release_capacity(data.len()).expect("a window");
                }
                if path == "/echo" {
                    up.send_data(Bytes::new(), true).expect("sent");
                }
                // The end may be a frame of its own.
                let last = soon(path, body.data()).await;
                assert!(last.is_none_or(|last| last.is_ok_and(|last| last.is_empty())), "it ends");
            }
        });
    });
}

/// Of each of the four bodies: 10 GB would take the debug build minutes, so those are `make soak`'s.
const LARGE: usize = 512 << 20;

/// A Service that sends and takes large bodies, on threads: what is slow here is the guard.
fn large(world: &World) {
    in_namespace(&world.world, || {
        let listener = TcpListener::bind((ORDERS, ONE)).expect("a TCP port");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the guard");
            let mut got = Vec::new();
            loop {
                let mut buffer = vec![0; PIECE];
                while !got.windows(4).any(|four| four == b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(length @ 1..) => got.extend_from_slice(&buffer[..length]),
                        _ => return,
                    }
                }
                let at = got.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
                let head = String::from_utf8_lossy(&got[..at]).into_owned();
                let first = got.split_off(at);
                let chunked = head.contains("chunked");
                if head.starts_with("POST") {
                    take(&mut stream, &first, chunked);
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").expect("taken");
                } else {
                    let framing = framing(head.contains("x-chunks"));
                    stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes()).expect("taken");
                    give(&mut stream, head.contains("x-chunks"));
                }
                got.clear();
            }
        });
    });
}

fn framing(chunked: bool) -> String {
    if chunked { "transfer-encoding: chunked".to_owned() } else { format!("content-length: {LARGE}") }
}

fn give(stream: &mut std::net::TcpStream, chunked: bool) {
    let filling = vec![b'x'; PIECE];
    let piece = if chunked { [format!("{PIECE:x}\r\n").as_bytes(), &filling, b"\r\n"].concat() } else { filling };
    for _ in 0..LARGE / PIECE {
        stream.write_all(&piece).expect("taken");
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n").expect("taken");
    }
}

/// To its end, and that it is all of it. `first`: what came with its head.
fn take(stream: &mut std::net::TcpStream, first: &[u8], chunked: bool) {
    const LAST: &[u8] = b"0\r\n\r\n";
    let filling = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'x').count();
    let (mut count, mut tail) = (filling(first), first[first.len().saturating_sub(LAST.len())..].to_vec());
    let mut buffer = vec![0; PIECE];
    while if chunked { tail != LAST } else { count < LARGE } {
        let length = stream.read(&mut buffer).expect("the body");
        assert_ne!(length, 0, "it ended after {count} bytes");
        count += filling(&buffer[..length]);
        tail.extend_from_slice(&buffer[length.saturating_sub(LAST.len())..length]);
        tail.drain(..tail.len().saturating_sub(LAST.len()));
    }
    assert_eq!(count, LARGE);
}

#[test]
fn large_bodies_pass_in_the_same_memory() {
    let world = World::guarded(&policy());
    large(&world);
    world.in_pod(|| {
        let mut stream = connect(ORDERS, ONE).expect("by the guard");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
        let (before, began) = (resident(&world), Instant::now());
        for chunked in [false, true] {
            let chunks = if chunked { "x-chunks: 1\r\n" } else { "" };
            stream.write_all(format!("GET / HTTP/1.1\r\nHost: orders.shop:{ONE}\r\n{chunks}\r\n").as_bytes()).expect("sent");
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).expect("a head");
                head.push(byte[0]);
            }
            assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", head.escape_ascii());
            take(&mut stream, &[], chunked);
        }
        for chunked in [false, true] {
            let head = format!("POST / HTTP/1.1\r\nHost: orders.shop:{ONE}\r\n{}\r\n\r\n", framing(chunked));
            stream.write_all(head.as_bytes()).expect("sent");
            give(&mut stream, chunked);
            let (mut got, mut byte) = (Vec::new(), [0]);
            while !got.ends_with(b"\r\n\r\nok") {
                stream.read_exact(&mut byte).expect("an answer");
                got.push(byte[0]);
            }
        }
        let (most, after) = (memory(&world, "VmHWM"), resident(&world));
        println!(
            "4 bodies of {} MiB in {:.1} s: {} KiB before, {} KiB after, {} KiB at most",
            LARGE >> 20,
            began.elapsed().as_secs_f64(),
            before / 1024,
            after / 1024,
            most / 1024
        );
        // Pieces of either direction, and the code that was needed for the first time.
        assert!(most <= before + SLACK, "{most} bytes at most, {before} before");
    });
}

const IDLE: usize = 1_000;
/// Of HTTP/2, of which there are 256 at most.
const SESSIONS: usize = 250;

/// What is held meanwhile, and for each of those: asserted and said.
fn costs(world: &World, what: &str, count: usize, before: usize, most_each: usize) {
    let after = resident(world);
    let each = after.saturating_sub(before) / count;
    println!("{count} {what}: {} KiB before, {} KiB after, {each} bytes each", before / 1024, after / 1024);
    assert!(each <= most_each, "{what}: {each} bytes each");
}

#[test]
fn what_idle_connections_of_http_cost() {
    let (world, service) = warm();
    let (before, files) = (resident(&world), descriptors(&world));
    world.in_pod(|| {
        running(async {
            let mut idle = Vec::new();
            for _ in 0..IDLE {
                let mut stream = one(&get("/ok")).await.expect("by the guard");
                soon("it is answered", until(&mut stream, &mut Vec::new(), b"\r\n\r\nok")).await.expect("an answer");
                idle.push(stream);
            }
            costs(&world, "idle connections of HTTP/1.1, each with one to the upstream", IDLE, before, MOST_EACH);
            others_go_on().await;
            // Each serves still.
            for stream in &mut idle {
                stream.write_all(get("/ok").as_bytes()).await.expect("sent");
                soon("it is answered again", until(stream, &mut Vec::new(), b"\r\n\r\nok")).await.expect("an answer");
            }
            costs(&world, "of them, used again", IDLE, before, MOST_EACH);
        });
    });
    all_are_gone(&world, &service, files);

    let before = resident(&world);
    world.in_pod(|| {
        running(async {
            let mut idle = Vec::new();
            for _ in 0..SESSIONS {
                let mut two = two().await;
                assert_eq!(soon("it is answered", two_ok(&mut two)).await, 200);
                idle.push(two);
            }
            costs(&world, "idle connections of HTTP/2, each with one to the upstream", SESSIONS, before, MOST_EACH);
            others_go_on().await;
            for two in &mut idle {
                assert_eq!(soon("it is answered again", two_ok(two)).await, 200);
            }
        });
    });
    all_are_gone(&world, &service, files);
}

#[test]
fn what_idle_streams_cost() {
    let (world, service) = warm();
    let (before, files) = (resident(&world), descriptors(&world));
    world.in_pod(|| {
        running(async {
            let mut idle = Vec::new();
            for _ in 0..IDLE / 100 {
                let mut two = two().await;
                for _ in 0..100 {
                    let (answer, up) = ask(&mut two, "/open", true);
                    let answer = soon("it begins", answer).await.expect("a head");
                    idle.push((answer, up));
                }
                assert_eq!(soon("another on the same connection", two_ok(&mut two)).await, 200);
            }
            costs(&world, "idle streams of HTTP/2", IDLE, before, MOST_EACH);
            others_go_on().await;
        });
    });
    all_are_gone(&world, &service, files);
}

/// Nothing is kept of those who have left, on either side.
fn all_are_gone(world: &World, service: &Service, files: usize) {
    world.eventually("all are gone", || match (descriptors(world), service.open.load(Ordering::Relaxed)) {
        (now, 0) if now <= files => Ok(()),
        (now, open) => Err(format!("{now} descriptors, {files} before; {open} at the upstream")),
    });
}

const SLOW: usize = 100;
/// What the kernel keeps of one direction of a socket at most: twice the guard's `BUFFER`, and what this file sets.
const QUEUE: usize = 512 * 1024;
/// Of one direction of a connection through the guard: four queues, and what is under way when one is full.
const QUEUES: usize = 5 * QUEUE;
/// What the guard keeps of a message of HTTP/1.1 that is not taken: a piece, in a buffer that has grown for the rest of the one before.
const KEPT: usize = 3 * PIECE;

#[test]
fn who_does_not_read_an_answer_holds_it_back() {
    let (world, service) = warm();
    let (before, files) = (resident(&world), descriptors(&world));
    world.in_pod(|| {
        running(async {
            let mut slow = Vec::new();
            for _ in 0..SLOW {
                slow.push(one(&get("/endless")).await.expect("by the guard"));
            }
            let sent = service.stalled().await;
            println!("{SLOW} answers that nobody reads: {} KiB each are sent", sent / SLOW / 1024);
            assert!(sent <= SLOW * (QUEUES + KEPT), "{sent} bytes are sent for nobody");
            costs(&world, "answers that nobody reads", SLOW, before, KEPT);
            others_go_on().await;
            // They are late, not lost.
            for stream in &mut slow {
                let mut rest = QUEUES + KEPT;
                let mut buffer = vec![0; PIECE];
                while rest > 0 {
                    let length = soon("it goes on", stream.read(&mut buffer)).await.expect("more of it");
                    assert_ne!(length, 0, "it ended");
                    rest = rest.saturating_sub(length);
                }
            }
        });
    });
    all_are_gone(&world, &service, files);
}

/// Clients that have said `request`, and then `more` over and over, until nothing was taken of it for a second; and how much was, on average. Of
/// each at most this.
async fn filled(request: &str, more: &[u8], most: usize) -> (Vec<TcpStream>, usize) {
    let mut filling = JoinSet::new();
    for _ in 0..SLOW {
        let (request, more) = (request.to_owned(), more.to_owned());
        filling.spawn(async move {
            let mut stream = one(&request).await.expect("by the guard");
            let mut taken = 0;
            while let Ok(length) = timeout(Duration::from_secs(1), stream.write(&more[taken % more.len()..])).await {
                taken += length.expect("it waits");
                assert!(taken <= most, "{taken} bytes are taken for nobody");
            }
            (stream, taken)
        });
    }
    let (streams, taken): (Vec<_>, Vec<_>) = filling.join_all().await.into_iter().unzip();
    (streams, taken.into_iter().sum::<usize>() / SLOW)
}

#[test]
fn an_upstream_that_does_not_read_holds_the_body_back() {
    let (world, service) = warm();
    let (before, files) = (resident(&world), descriptors(&world));
    for framing in ["Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
        world.in_pod(|| {
            running(async {
                let request = format!("POST /deaf HTTP/1.1\r\nHost: orders.shop:{ONE}\r\n{framing}\r\n\r\n");
                let chunk = [b"4000\r\n".to_vec(), vec![b'x'; 0x4000], b"\r\n".to_vec()].concat();
                let (mut slow, each) = filled(&request, &chunk, QUEUES + KEPT).await;
                println!("{SLOW} bodies that nobody reads, {framing}: {} KiB each are taken", each / 1024);
                costs(&world, "bodies that nobody reads", SLOW, before, KEPT);
                others_go_on().await;
                service.go.add_permits(SLOW);
                for stream in &mut slow {
                    let answer = soon("it is told", until(stream, &mut Vec::new(), b"\r\n\r\n")).await.expect("an answer");
                    assert!(answer.starts_with(b"HTTP/1.1 502 "), "{}", answer.escape_ascii());
                }
            });
        });
        all_are_gone(&world, &service, files);
    }
}

#[test]
fn streams_that_nobody_reads_hold_back_only_themselves() {
    let (world, service) = warm();
    let (before, files) = (resident(&world), descriptors(&world));
    world.in_pod(|| {
        running(async {
            let mut slow = Vec::new();
            // As many as are let in at once, but for one.
            let mut two = two().await;
            for n in 0..127 {
                let path = if n % 2 == 0 { "/endless" } else { "/deaf" };
                let (answer, mut up) = ask(&mut two, path, n % 2 == 0);
                slow.push(tokio::spawn(async move {
                    let piece = Bytes::from(vec![b'x'; 0x4000]);
                    while path == "/deaf" && send(&mut up, piece.clone()).await.is_ok() {}
                    (answer, up)
                }));
            }
            let sent = service.stalled().await;
            println!("64 streams that nobody reads: {} KiB each are sent", sent / 64 / 1024);
            // A window, and what waits to be written: more than what is idle may keep.
            costs(&world, "streams that nobody reads", slow.len(), before, 2 * PIECE);
            assert_eq!(soon("another on the same connection", two_ok(&mut two)).await, 200);
            let (answer, mut up) = ask(&mut two, "/echo", false);
            let mut body = soon("its head", answer).await.expect("an answer").into_body();
            soon("it is taken", send(&mut up, event(7).into())).await.expect("sent");
            assert_eq!(soon("it comes back", body.data()).await.expect("not the end").expect("data"), event(7));
            others_go_on().await;
        });
    });
    all_are_gone(&world, &service, files);
}

#[test]
fn who_asks_ahead_is_held_back() {
    let (world, service) = warm();
    let (before, files) = (resident(&world), descriptors(&world));
    world.in_pod(|| {
        running(async {
            // Two queues of the kernel's, what is under way, and what the guard takes.
            let (mut all, each) = filled(&get("/deaf"), get("/ok").as_bytes(), 3 * QUEUE + KEPT).await;
            println!("{SLOW} that ask ahead: {} KiB each are taken", each / 1024);
            // Once more doubled: it is one buffer, which grows.
            costs(&world, "that ask ahead", SLOW, before, 2 * KEPT);
            others_go_on().await;
            // What was asked ahead is answered in its turn.
            service.go.add_permits(SLOW);
            for stream in &mut all {
                let mut got = Vec::new();
                let answer = soon("it is told", until(stream, &mut got, b"\r\n\r\n")).await.expect("an answer");
                assert!(answer.starts_with(b"HTTP/1.1 502 "), "{}", answer.escape_ascii());
                for _ in 0..10 {
                    soon("the next is answered", until(stream, &mut got, b"\r\n\r\nok")).await.expect("an answer");
                }
            }
        });
    });
    all_are_gone(&world, &service, files);
}

#[test]
fn who_drips_a_head_is_too_slow_and_who_drips_a_body_is_not() {
    let (world, service) = warm();
    let (before, files) = (resident(&world), descriptors(&world));
    world.in_pod(|| {
        running(async {
            let mut heads = Vec::new();
            // The first may become POST, or the beginning of HTTP/2.
            for begin in
                ["P", "PRI * HTTP/2.0", "GET /ok HTTP/1.1\r\nHo", "POST /ok HTTP/1.1\r\nHost: orders.shop\r\nContent-Length: 5\r\nA"]
            {
                for _ in 0..SLOW / 4 {
                    heads.push(tokio::spawn(async move {
                        let mut stream = one(begin).await.expect("by the guard");
                        let (began, mut got) = (Instant::now(), Vec::new());
                        loop {
                            match timeout(Duration::from_secs(1), stream.read_buf(&mut got)).await {
                                Ok(Ok(1..)) => {}
                                Ok(_) => return (begin, began.elapsed(), String::from_utf8_lossy(&got).into_owned()),
                                // What begins HTTP/2 waits for the rest of it, the others say one more byte.
                                Err(_) if begin.starts_with('P') && !begin.starts_with("PO") => {}
                                Err(_) => stream.write_all(b"a").await.unwrap_or_default(),
                            }
                        }
                    }));
                }
            }
            let mut bodies = Vec::new();
            for _ in 0..SLOW {
                let request = format!("POST /echo HTTP/1.1\r\nHost: orders.shop:{ONE}\r\nTransfer-Encoding: chunked\r\n\r\n");
                bodies.push((one(&request).await.expect("by the guard"), Vec::new()));
            }
            let began = Instant::now();
            let mut number = 0;
            while began.elapsed() < Duration::from_secs(35) {
                for (stream, got) in &mut bodies {
                    let text = event(number);
                    stream.write_all(format!("{EVENT:x}\r\n{text}\r\n").as_bytes()).await.expect("sent");
                    soon("what is dripped", until(stream, got, text.as_bytes())).await.expect("its echo");
                }
                number += 1;
                costs(&world, "that are slow", 2 * SLOW, before, MOST_EACH);
                others_go_on().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            for head in heads {
                let (begin, took, answer) = timeout(Duration::from_secs(10), head).await.expect("it has an end").expect("an end");
                assert!(answer.contains("\"too_slow\""), "{begin:?} after {took:?}: {answer:?}");
                assert!(answer.starts_with("HTTP/1.1 408 "), "{begin:?}: {answer:?}");
            }
        });
    });
    // Of so many at once not each is written down, but each is counted.
    let counted = || {
        let left_out = world.denials("too_slow").into_iter().map(|record| match record["event"].as_str() {
            Some("left_out") => record["count"].as_u64().expect("a count"),
            _ => 1,
        });
        let counted: u64 = left_out.sum();
        if counted == SLOW as u64 { Ok(()) } else { Err(format!("{counted}: {}", world.log())) }
    };
    world.eventually("each is counted", counted);
    all_are_gone(&world, &service, files);
}
