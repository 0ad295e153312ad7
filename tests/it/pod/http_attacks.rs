//! What got through once: ways to fill the guard, to lead a client from one base URL to another, and to have the records lack or say what is
//! not so.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::http_wire::{self, Client, Next, PORTS, Upstream};
use super::{ORDERS, World};

const OWN: (&str, u16) = ("127.0.0.1", 15474);
const SOON: Duration = Duration::from_secs(3);

/// Of the guard's memory, in MiB.
fn resident(world: &World) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).expect("a number").parse::<usize>().expect("a number") / 1024
}

/// Somebody who takes connections and says nothing. So many came.
fn silent(world: &World, at: (&str, u16)) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    world.in_world(|| {
        let listener = TcpListener::bind(at).expect("a TCP port");
        let count = count.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || while stream.read(&mut [0; 16 * 1024]).is_ok_and(|length| length > 0) {});
            }
        });
    });
    count
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A connection of HTTP/2 that has room for whatever comes.
async fn session(to: (&str, u16)) -> SendRequest<Bytes> {
    let to = SocketAddr::new(to.0.parse().expect("an address"), to.1);
    let stream = tokio::net::TcpStream::connect(to).await.expect("a connection");
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 30).initial_connection_window_size(1 << 30);
    let (send, connection) = builder.handshake(stream).await.expect("HTTP/2");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    send
}

async fn send(session: &SendRequest<Bytes>, request: Request<()>) -> ResponseFuture {
    session.clone().ready().await.expect("room").send_request(request, true).expect("sent").0
}

/// Between two looks at what others do.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

fn get(url: &str) -> Request<()> {
    Request::builder().uri(url).body(()).expect("a request")
}

#[test]
fn who_is_idle_holds_nothing_of_what_was_said() {
    let world = World::guarded(&http_wire::policy());
    let _upstream = Upstream::new(&world);
    let before = resident(&world);
    world.in_pod(|| {
        let said = format!("POST /a HTTP/1.1\r\nHost: orders.shop:8080\r\nContent-Length: 60000\r\n\r\n{}", "x".repeat(60_000));
        let mut idle = Vec::new();
        for _ in 0..300 {
            let mut client = Client::connect(ORDERS, PORTS[0]).expect("a connection");
            client.say(said.as_bytes());
            assert!(matches!(client.next(false), Next::Answer(message) if message.status() == 200));
            idle.push(client);
        }
        let after = resident(&world);
        assert!(after < before + 12, "{before} MiB, then {after} MiB");
    });
}

/// The heads of requests that wait for their answers are kept, and count.
#[test]
fn heads_that_wait_fill_nothing() {
    let world = World::guarded(&http_wire::policy());
    let arrived = silent(&world, (ORDERS, PORTS[0]));
    let _ledger = silent(&world, (ORDERS, PORTS[1]));
    let before = resident(&world);
    world.in_pod(|| {
        let said = format!("GET /a HTTP/1.1\r\nHost: orders.shop:8080\r\nX: {}\r\n\r\n", "x".repeat(60_000));
        let mut waiting = Vec::new();
        let refused = loop {
            let mut client = Client::connect(ORDERS, PORTS[0]).expect("a connection");
            client.say(said.as_bytes());
            let there = || arrived.load(Ordering::Relaxed) > waiting.len();
            let answered = || client.stream.set_nonblocking(true).is_ok() && client.stream.peek(&mut [0]).is_ok();
            let (arrives, _) = world.eventually("it is sent on or refused", || match (there(), answered()) {
                (true, _) => Ok(true),
                (_, true) => Ok(false),
                _ => Err(String::new()),
            });
            client.stream.set_nonblocking(false).expect("it blocks");
            if !arrives {
                break client.next(false);
            }
            waiting.push(client);
            assert!(waiting.len() < 500, "all of them are kept");
        };
        assert!(matches!(&refused, Next::Answer(message) if message.status() == 503), "{refused:?}");
        let after = resident(&world);
        assert!(after < before + 40, "{before} MiB, then {after} MiB");
        // Others go on.
        let mut client = Client::connect(ORDERS, PORTS[1]).expect("a connection");
        client.say(b"GET /admin HTTP/1.1\r\nHost: orders.shop:8081\r\n\r\n");
        assert!(matches!(client.next(false), Next::Answer(message) if message.status() == 403));
    });
}

#[test]
fn a_head_of_http_2_has_as_many_fields_as_one_of_http_1() {
    let world = World::guarded(&http_wire::policy());
    let arrived = silent(&world, (ORDERS, PORTS[0]));
    world.in_pod(|| {
        runtime().block_on(async {
            let session = session((ORDERS, PORTS[0])).await;
            let with = |fields: usize| {
                let mut request = get("http://orders.shop:8080/a");
                for n in 0..fields {
                    let name = HeaderName::from_bytes(format!("a{n}").as_bytes()).expect("a name");
                    request.headers_mut().append(name, HeaderValue::from_static(""));
                }
                request
            };
            let answer = timeout(SOON, send(&session, with(129)).await).await.expect("in time").expect("an answer");
            assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
            assert_eq!(arrived.load(Ordering::Relaxed), 0);
            let waits = timeout(SOON, send(&session, with(128)).await);
            let arrives = async {
                while arrived.load(Ordering::Relaxed) == 0 {
                    moment().await
                }
            };
            tokio::select! {
                () = arrives => {}
                other = waits => panic!("it is not sent on: {other:?}"),
            }
        });
    });
}

/// Requests under way hold their connections, whichever of them would be used again.
#[test]
fn a_connection_of_http_2_has_only_so_many_upstreams() {
    const FIRST: u16 = 8100;
    const SOURCES: u16 = 9;
    let mut policy = http_wire::policy();
    for port in FIRST..FIRST + SOURCES {
        let http = json!({"scheme": "Http", "port": port, "access": "ReadWrite"});
        let target = json!({"type": "Service", "name": "orders", "namespace": "shop", "ports": [port], "http": http});
        policy["destinations"].as_array_mut().expect("a list").push(json!({"source": format!("s{port}"), "target": target}));
    }
    let world = World::guarded(&policy);
    let arrived: Vec<_> = (FIRST..FIRST + SOURCES).map(|port| silent(&world, (ORDERS, port))).collect();
    let all = || arrived.iter().map(|count| count.load(Ordering::Relaxed)).sum::<usize>();
    world.in_pod(|| {
        runtime().block_on(async {
            let session = session(OWN).await;
            let ask = |n: u16| send(&session, get(&format!("http://127.0.0.1:15474/s{}/a", FIRST + n % SOURCES)));
            let mut waiting = Vec::new();
            for n in 0..8 {
                waiting.push(ask(n).await);
            }
            let arrive = async {
                while all() < 8 {
                    moment().await
                }
            };
            timeout(SOON, arrive).await.expect("all of them arrive");
            let answer = timeout(SOON, ask(8).await).await.expect("in time").expect("an answer");
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(all(), 8);
            // Who has ended gives its place to another.
            drop(waiting.pop());
            let again = async {
                loop {
                    let waits = ask(8).await;
                    let arrives = async {
                        while all() == 8 {
                            moment().await
                        }
                    };
                    tokio::select! {
                        () = arrives => break,
                        answer = waits => assert_eq!(answer.expect("an answer").status(), StatusCode::SERVICE_UNAVAILABLE),
                    }
                }
            };
            timeout(SOON, again).await.expect("a place");
        });
    });
    assert!(!world.denials("too_many_connections").is_empty());
}

/// The Service in HTTP/2, whose answers have no end. So many requests came.
fn endless(world: &World) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    world.in_world(|| {
        let listener = TcpListener::bind((ORDERS, PORTS[0])).expect("a TCP port");
        listener.set_nonblocking(true).expect("it does not block");
        let count = count.clone();
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let count = count.clone();
                    tokio::spawn(async move {
                        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                        while let Some(Ok((_, mut respond))) = connection.accept().await {
                            count.fetch_add(1, Ordering::Relaxed);
                            tokio::spawn(async move {
                                let Ok(mut body) = respond.send_response(Response::new(()), false) else { return };
                                loop {
                                    body.reserve_capacity(16 * 1024);
                                    let capacity = std::future::poll_fn(|context| body.poll_capacity(context)).await;
                                    let Some(Ok(capacity)) = capacity else { return };
                                    if body.send_data(vec![7; capacity].into(), false).is_err() {
                                        return;
                                    }
                                }
                            });
                        }
                    });
                }
            });
        });
    });
    count
}

/// A client opens all windows, and does not read.
#[test]
fn answers_that_nobody_reads_fill_nothing() {
    let world = World::guarded(&http_wire::policy());
    let arrived = endless(&world);
    let before = resident(&world);
    world.in_pod(|| {
        let runtime = runtime();
        let mut waiting = Vec::new();
        for number in 0..24 {
            // Where there are many, each may ask for less at once.
            let streams = if number < 16 { 120 } else { 30 };
            runtime.block_on(async {
                let session = session((ORDERS, PORTS[0])).await;
                for _ in 0..streams {
                    waiting.push(send(&session, get("http://orders.shop:8080/a")).await);
                }
                let arrive = async {
                    while arrived.load(Ordering::Relaxed) < waiting.len() {
                        moment().await
                    }
                };
                timeout(Duration::from_secs(20), arrive).await.expect("all of them arrive");
            });
        }
        // Nothing of the client's runs any more. What it costs does not grow without end.
        let mut last = 0;
        world.eventually("it has come to rest", || {
            let now = resident(&world);
            std::thread::sleep(Duration::from_millis(500));
            let rests = now == std::mem::replace(&mut last, now);
            if rests { Ok(()) } else { Err(format!("{now} MiB")) }
        });
        assert!(last < before + 56, "{before} MiB, then {last} MiB");
    });
}

#[test]
fn what_is_under_way_when_the_guard_ends_is_written() {
    let world = World::guarded(&http_wire::policy());
    let arrived = silent(&world, (ORDERS, PORTS[0]));
    let _client = world.in_pod(|| {
        let mut client = Client::connect(ORDERS, PORTS[0]).expect("a connection");
        client.say(b"POST /last HTTP/1.1\r\nHost: orders.shop:8080\r\nContent-Length: 5\r\n\r\nhello");
        client
    });
    world.eventually("it arrives", || if arrived.load(Ordering::Relaxed) == 1 { Ok(()) } else { Err(String::new()) });
    world.signal("-TERM");
    let look = || match &world.records("event", "request")[..] {
        [record] => Ok(record.clone()),
        other => Err(format!("{other:?}")),
    };
    let (record, _) = world.eventually("it is written", look);
    assert_eq!((&record["path"], &record["status"]), (&json!("/last"), &json!(499)));
}

/// To a client all base URLs are one host: what it says to one of them it would say to the other, its credentials as well.
#[test]
fn no_data_source_leads_its_clients_to_another() {
    let world = World::guarded(&http_wire::policy());
    let upstream = Upstream::new(&world);
    world.in_pod(|| {
        for (location, expected) in [
            ("../ledger/articles", "/orders/ledger/articles"),
            ("/../ledger/articles", "/orders/ledger/articles"),
            ("http://127.0.0.1:15474/ledger/articles", "/orders/ledger/articles"),
            ("//localhost:15474/ledger/articles", "/orders/ledger/articles"),
            ("next?page=2", "/orders/next?page=2"),
            ("http://help.example.com:8080/a", "http://help.example.com:8080/a"),
        ] {
            let answer = format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
            upstream.look(|seen| seen.answer = Some((answer.into_bytes(), false)));
            let mut client = Client::connect(OWN.0, OWN.1).expect("a connection");
            client.say(b"GET /orders/a HTTP/1.1\r\nHost: 127.0.0.1:15474\r\n\r\n");
            let Next::Answer(message) = client.next(false) else { panic!("no answer") };
            assert_eq!(message.field("location"), Some(expected), "{location}");
        }
    });
}

#[test]
fn a_record_says_the_host_that_was_said() {
    let world = World::guarded(&http_wire::policy());
    world.in_pod(|| {
        let mut client = Client::connect(OWN.0, OWN.1).expect("a connection");
        client.say(b"GET /orders/a HTTP/1.1\r\nHost: evil.example:15474\r\n\r\n");
        assert!(matches!(client.next(false), Next::Answer(message) if message.status() == 421));
    });
    let hosts: BTreeSet<_> =
        world.denials("host_mismatch").iter().map(|record| record["attempted"]["request"]["host"].to_string()).collect();
    assert_eq!(hosts, BTreeSet::from(["\"evil.example:15474\"".to_owned()]));
}
