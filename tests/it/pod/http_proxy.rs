//! A forward proxy on the way to hosts: what it is asked, and what becomes of what it says.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::http_wire::{self, Client, Next, PORTS, Upstream};
use super::{EVIL, HELP, ORDERS, Outcome, World, hello};

const PROXY: (&str, u16) = ("203.0.113.30", 3128);
/// What it says before it lets through.
const AGREED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

/// What was asked of it, line by line, and what it says.
#[derive(Clone, Default)]
struct Proxy(Arc<Mutex<(Vec<String>, String)>>);

impl Proxy {
    fn new(world: &World) -> Self {
        let proxy = Self::default();
        proxy.says(AGREED);
        world.in_world(|| {
            let listener = TcpListener::bind(PROXY).expect("the proxy's port");
            let proxy = proxy.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let proxy = proxy.clone();
                    std::thread::spawn(move || proxy.serve(stream));
                }
            });
        });
        proxy
    }

    fn says(&self, answer: &str) {
        self.0.lock().expect("no panic").1 = answer.to_owned();
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no panic").0)
    }

    /// Whoever is asked for is the host of that port.
    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let port: u16 = head.first()?.split([' ', ':']).nth(2)?.parse().ok()?;
        let answer = {
            let mut said = self.0.lock().expect("no panic");
            said.0.extend(head);
            said.1.clone()
        };
        (&stream).write_all(answer.as_bytes()).ok()?;
        let upstream = TcpStream::connect((HELP[0], port)).ok()?;
        let (mut from, mut to) = (upstream.try_clone().ok()?, stream);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
        let mut upstream = upstream;
        std::io::copy(&mut reader, &mut upstream).ok()?;
        upstream.shutdown(std::net::Shutdown::Write).ok()
    }
}

fn policy() -> Value {
    let mut policy = http_wire::policy();
    policy["network"]["proxy"] = json!({"addresses": [format!("{}:{}", PROXY.0, PROXY.1)]});
    policy
}

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: help.example.com:8080\r\n\r\n";

fn ask(client: &mut Client) -> String {
    client.say(GET);
    match client.next(false) {
        Next::Answer(message) => format!("{} {}", message.status(), String::from_utf8_lossy(message.content())),
        other => format!("{other:?}"),
    }
}

#[test]
fn hosts_are_reached_through_it_and_nobody_else_is() {
    let world = World::guarded(&policy());
    let (proxy, upstream) = (Proxy::new(&world), Upstream::new(&world));
    assert_eq!(world.tcp(HELP[0], 443, &hello("help.example.com")), Outcome::Echo);
    assert_eq!(proxy.asked(), ["CONNECT help.example.com:443 HTTP/1.1", "host: help.example.com:443"], "and nothing of the app's");
    world.in_pod(|| {
        assert_eq!(ask(&mut Client::connect(HELP[0], PORTS[0]).expect("a connection")), "200 ok");
        assert_eq!(proxy.asked()[0], "CONNECT help.example.com:8080 HTTP/1.1");
        // Services are not asked of it, nor what is refused.
        let mut orders = Client::connect(ORDERS, PORTS[0]).expect("a connection");
        orders.say(b"GET /a HTTP/1.1\r\nHost: orders.shop:8080\r\n\r\n");
        assert!(matches!(orders.next(false), Next::Answer(message) if message.status() == 200));
    });
    assert_ne!(world.tcp(EVIL[0], 443, &hello("evil.example.com")), Outcome::Echo);
    assert_ne!(
        world.tcp(PROXY.0, PROXY.1, b"CONNECT evil.example.com:443 HTTP/1.1\r\n\r\n"),
        Outcome::Echo,
        "the app itself does not reach it"
    );
    assert_eq!(proxy.asked(), [""; 0]);
    upstream.look(|seen| assert_eq!(seen.arrivals.len(), 2));
}

#[test]
fn what_it_does_not_agree_to_reaches_nobody() {
    let world = World::guarded(&policy());
    let (proxy, upstream) = (Proxy::new(&world), Upstream::new(&world));
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(16 * 1024));
    world.in_pod(|| {
        for answer in ["HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "HTTP/1.1 403 Forbidden\r\n\r\n", "SSH-2.0-x\r\n\r\n", &long] {
            proxy.says(answer);
            let said = ask(&mut Client::connect(HELP[0], PORTS[0]).expect("a connection"));
            assert!(said.starts_with("502 ") && said.contains("unreachable"), "{answer:.40?}: {said}");
        }
        // What comes right behind its agreement is the upstream's.
        proxy.says(&format!("{AGREED}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly"));
        assert_eq!(ask(&mut Client::connect(HELP[0], PORTS[0]).expect("a connection")), "200 early");
    });
    upstream.look(|seen| assert!(seen.arrivals.len() <= 1, "{:?}", seen.arrivals));
}

/// A policy that sends hosts through a proxy means connections that are there already as well.
#[test]
fn a_connection_from_before_serves_no_request_after() {
    let world = World::guarded(&http_wire::policy());
    let (proxy, upstream) = (Proxy::new(&world), Upstream::new(&world));
    let mut client = world.in_pod(|| Client::connect(HELP[0], PORTS[0]).expect("a connection"));
    assert_eq!(ask(&mut client), "200 ok");
    assert_eq!(ask(&mut client), "200 ok");
    assert_eq!(upstream.look(|seen| seen.connections), 1, "it is used again");
    let mut later = policy();
    (later["generation"], later["digest"]) = (json!(2), json!("two"));
    world.policy(&later);
    let holds = || world.records("digest", "two").first().map(drop).ok_or(String::new());
    world.eventually("the policy holds", holds);
    assert_eq!(ask(&mut client), "200 ok");
    assert_eq!(proxy.asked().len(), 2, "by the proxy");
}
