//! HTTP/2 through the guard: requests side by side, and what one of them may do to others.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::http_wire::{self, PORTS};
use super::{ORDERS, World};

const HOST: &str = "orders.shop:8080";
const OWN: (&str, u16) = ("127.0.0.1", 15474);
/// Longer than anything here takes, shorter than what waits for nobody.
const SOON: Duration = Duration::from_secs(3);

fn policy() -> Value {
    let mut policy = http_wire::policy();
    let silent = json!({"source": "silent", "target": {
        "type": "Host", "name": "silent.example.com", "port": PORTS[0], "http": {"scheme": "Http", "port": PORTS[0], "access": "ReadWrite"}}});
    policy["destinations"].as_array_mut().expect("a list").push(silent);
    policy
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// The Service in HTTP/2, at its first port: it answers everything but `/never`.
fn serve(world: &World) {
    world.in_world(|| {
        let listener = std::net::TcpListener::bind((ORDERS, PORTS[0])).expect("a TCP port");
        listener.set_nonblocking(true).expect("it does not block");
        std::thread::spawn(move || {
            block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    tokio::spawn(async move {
                        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                        let mut waiting = Vec::new();
                        while let Some(Ok((request, mut respond))) = connection.accept().await {
                            if request.uri().path() == "/never" {
                                waiting.push(respond);
                            } else {
                                let _ = respond.send_response(http::Response::new(()), true);
                            }
                        }
                    });
                }
            });
        });
    });
}

async fn connect(to: (&str, u16)) -> SendRequest<Bytes> {
    let to = SocketAddr::new(to.0.parse::<IpAddr>().expect("an address"), to.1);
    let stream = TcpStream::connect(to).await.expect("a connection");
    let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    send
}

fn request(host: &str, path: &str) -> Request<()> {
    Request::builder().uri(format!("http://{host}{path}")).body(()).expect("a request")
}

async fn ask(send: &SendRequest<Bytes>, request: Request<()>) -> Result<StatusCode, String> {
    let asking = async {
        let mut send = send.clone().ready().await.map_err(|e| e.to_string())?;
        let (answer, _) = send.send_request(request, true).map_err(|e| e.to_string())?;
        answer.await.map(|answer| answer.status()).map_err(|e| e.to_string())
    };
    timeout(SOON, asking).await.unwrap_or(Err("it takes too long".to_owned()))
}

#[test]
fn everything_that_names_the_host_must_agree() {
    let world = World::guarded(&policy());
    serve(&world);
    world.in_pod(|| {
        block_on(async {
            let send = connect((ORDERS, PORTS[0])).await;
            let said = |authority: &str, hosts: &[&str]| {
                let mut request = request(authority, "/a");
                for host in hosts {
                    request.headers_mut().append("host", host.parse().expect("a value"));
                }
                request
            };
            for (authority, hosts, status) in [
                (HOST, &[][..], 200),
                (HOST, &[HOST], 200),
                (HOST, &["ORDERS.shop:8080"], 200),
                (HOST, &["evil.example"], 421),
                (HOST, &[HOST, "evil.example"], 421),
                (HOST, &["orders.shop:8081"], 421),
                (HOST, &["orders.shop:8080, evil.example"], 400),
                (HOST, &[""], 400),
                ("evil.example", &[HOST], 421),
                ("evil.example:8080", &[], 421),
                ("user@orders.shop:8080", &[], 400),
            ] {
                let found = ask(&send, said(authority, hosts)).await;
                // What is malformed may be refused by the frames' own reader.
                let fits = found.as_ref().is_ok_and(|found| found.as_u16() == status) || status == 400 && found.is_err();
                assert!(fits, "{authority} {hosts:?}: {found:?}");
            }
        });
    });
}

/// The guard looks for it until nobody is left; others that were asked on the same connection do not wait for that.
#[test]
fn who_is_silent_keeps_nobody_from_others() {
    let world = World::guarded(&policy());
    serve(&world);
    world.in_pod(|| {
        block_on(async {
            let send = connect(OWN).await;
            let silent = tokio::spawn({
                let send = send.clone();
                async move { ask(&send, request("127.0.0.1:15474", "/silent/a")).await }
            });
            // Until it is on its way: the answer of a stream that began later comes after.
            assert_eq!(ask(&send, request("127.0.0.1:15474", "/unknown/a")).await, Ok(StatusCode::FORBIDDEN));
            for _ in 0..3 {
                assert_eq!(ask(&send, request("127.0.0.1:15474", "/orders/a")).await, Ok(StatusCode::OK));
            }
            assert_eq!(silent.await.expect("it ended"), Err("it takes too long".to_owned()));
        });
    });
}

#[test]
fn a_request_is_written_when_its_connection_breaks_off() {
    let world = World::guarded(&policy());
    serve(&world);
    world.in_pod(|| {
        block_on(async {
            let send = connect((ORDERS, PORTS[0])).await;
            let (answer, _) = send.clone().ready().await.expect("room").send_request(request(HOST, "/never"), true).expect("sent");
            // On the connection to the upstream, what comes later arrives later.
            assert_eq!(ask(&send, request(HOST, "/a")).await, Ok(StatusCode::OK));
            drop(answer);
        });
        // With the runtime the connection is gone.
    });
    let look = || {
        let all = world.records("event", "request");
        let found = all.iter().find(|record| record["path"] == "/never").map(|record| record["status"].clone());
        found.ok_or_else(|| format!("{all:?}"))
    };
    assert_eq!(world.eventually("it is written", look).0, json!(499));
}

/// Each may hold as much as many others, so there are fewer of them; and other connections go on.
#[test]
fn there_are_only_so_many_connections() {
    let world = World::guarded(&policy());
    serve(&world);
    world.in_pod(|| {
        block_on(async {
            let mut open = Vec::new();
            let refused = loop {
                assert!(open.len() <= 256, "there is no end");
                let send = connect((ORDERS, PORTS[0])).await;
                match ask(&send, request(HOST, "/a")).await {
                    Ok(StatusCode::OK) => open.push(send),
                    other => break other,
                }
            };
            assert!(refused.is_err() && open.len() >= 32, "{refused:?} after {}", open.len());
            let mut plain = http_wire::Client::connect(ORDERS, PORTS[1]).expect("a connection");
            plain.say(b"GET /admin HTTP/1.1\r\nHost: orders.shop:8081\r\n\r\n");
            assert!(matches!(plain.next(false), http_wire::Next::Answer(message) if message.status() == 403), "others go on");
            assert_eq!(ask(&open[0], request(HOST, "/a")).await, Ok(StatusCode::OK), "those that are there go on");
            drop(open.pop());
            let again = async { while ask(&connect((ORDERS, PORTS[0])).await, request(HOST, "/a")).await.is_err() {} };
            timeout(SOON, again).await.expect("room again");
        });
    });
    assert!(!world.denials("too_many_connections").is_empty());
}

/// The guard's own port, by somebody whom his DNS has led there.
#[test]
fn a_base_url_is_for_who_names_the_guard() {
    let world = World::guarded(&policy());
    serve(&world);
    world.in_pod(|| {
        block_on(async {
            let send = connect(OWN).await;
            for (host, status) in [("127.0.0.1:15474", 200), ("localhost", 200), ("orders.shop.svc:8080", 200), ("evil.example:15474", 421)]
            {
                assert_eq!(ask(&send, request(host, "/orders/a")).await.map(|status| status.as_u16()), Ok(status), "{host}");
            }
        });
    });
}
