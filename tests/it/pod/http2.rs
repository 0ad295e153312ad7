//! HTTP/2 through the guard: requests side by side, and what one of them may do to others.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
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

/// What arrived: the first line, as HTTP/1 would have it, and the fields; then the body, and how many trailers.
#[derive(Clone, Debug, Default)]
struct Arrived {
    first: String,
    fields: http::HeaderMap,
    body: Vec<u8>,
    trailers: usize,
}

type Arrivals = Arc<Mutex<Vec<Arrived>>>;

/// The Service in HTTP/2, at both ports: it answers everything but what ends in `/never`.
fn serve(world: &World) -> Arrivals {
    let arrivals = Arrivals::default();
    world.in_world(|| {
        for port in PORTS {
            let listener = std::net::TcpListener::bind((ORDERS, port)).expect("a TCP port");
            listener.set_nonblocking(true).expect("it does not block");
            let arrivals = arrivals.clone();
            std::thread::spawn(move || {
                block_on(async move {
                    let listener = TcpListener::from_std(listener).expect("a listener");
                    loop {
                        let Ok((stream, _)) = listener.accept().await else { continue };
                        tokio::spawn(serve_one(stream, arrivals.clone()));
                    }
                });
            });
        }
    });
    arrivals
}

async fn serve_one(stream: TcpStream, arrivals: Arrivals) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let arrivals = arrivals.clone();
        tokio::spawn(async move {
            let (head, mut from) = request.into_parts();
            let mut arrived =
                Arrived { first: format!("{} {}", head.method, head.uri.path_and_query().expect("a path")), ..Arrived::default() };
            arrived.fields = head.headers;
            while let Some(Ok(data)) = from.data().await {
                let _ = from.flow_control().release_capacity(data.len());
                arrived.body.extend_from_slice(&data);
            }
            arrived.trailers = from.trailers().await.ok().flatten().map_or(0, |trailers| trailers.len());
            arrivals.lock().expect("no panic while locked").push(arrived);
            if head.uri.path().ends_with("/never") {
                return std::future::pending().await;
            }
            let silent = head.uri.path().ends_with("/silent");
            let body = respond.send_response(http::Response::new(()), !silent);
            if let (true, Ok(mut body)) = (silent, body) {
                // Until the other side gives it up.
                let _ = std::future::poll_fn(|context| body.poll_reset(context)).await;
            }
        });
    }
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

/// A request of the port that has rules, under way.
async fn begin(send: &SendRequest<Bytes>, path: &str) -> h2::client::ResponseFuture {
    let mut send = send.clone().ready().await.expect("room");
    send.send_request(request("orders.shop:8081", path), true).expect("sent").0
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

/// The same rules as in HTTP/1, of which the tables say more.
#[test]
fn each_request_is_judged() {
    const FORM: &str = "application/x-www-form-urlencoded";
    let world = World::guarded(&policy());
    let arrivals = serve(&world);
    let last = || arrivals.lock().expect("no panic while locked").pop();
    world.in_pod(|| {
        block_on(async {
            let send = connect((ORDERS, PORTS[1])).await;
            for (method, path, fields, body, reason) in [
                ("GET", "/articles/1", &[][..], "", None),
                ("HEAD", "/articles", &[], "", None),
                ("POST", "/articles", &[], "", Some("method_not_declared")),
                ("DELETE", "/articles/1", &[], "", Some("method_not_declared")),
                ("GET", "/admin", &[], "", Some("path_not_declared")),
                ("GET", "/articles/../admin", &[], "", Some("path_ambiguous")),
                ("GET", "/articles%2fadmin", &[], "", Some("path_ambiguous")),
                ("GET", "/articles?_method=DELETE", &[], "", Some("method_override")),
                ("GET", "/articles", &[("x-http-method-override", "DELETE")], "", Some("method_override")),
                ("GET", "/articles", &[("x-original-url", "/admin")], "", Some("method_override")),
                ("POST", "/search", &[("content-type", FORM)], "a=b", None),
                ("POST", "/search", &[("content-type", FORM)], "a=b&_method=DELETE", Some("method_override")),
                ("POST", "/search", &[("content-type", FORM), ("content-encoding", "gzip")], "a=b", Some("method_override")),
                ("POST", "/search", &[], "_method=DELETE", None),
            ] {
                let mut request =
                    Request::builder().method(method).uri(format!("http://orders.shop:8081{path}")).body(()).expect("a request");
                for (name, value) in fields {
                    request.headers_mut().append(*name, value.parse().expect("a value"));
                }
                let what = format!("{method} {path} {fields:?} {body:?}");
                let (answer, mut up) = send.clone().ready().await.expect("room").send_request(request, body.is_empty()).expect("sent");
                if !body.is_empty() {
                    up.send_data(Bytes::from_static(body.as_bytes()), true).expect("sent");
                }
                let (head, mut from) = timeout(SOON, answer).await.expect("in time").expect("an answer").into_parts();
                let mut said = Vec::new();
                while let Some(Ok(data)) = from.data().await {
                    said.extend_from_slice(&data);
                }
                let arrived = last();
                match reason {
                    Some(reason) => {
                        let problem: Value = serde_json::from_slice(&said).expect("a problem document");
                        assert_eq!(
                            (problem["reason"].as_str(), problem["status"].as_u64()),
                            (Some(reason), Some(head.status.as_u16().into())),
                            "{what}"
                        );
                        assert!(arrived.is_none(), "{what}: {arrived:?}");
                    }
                    None => {
                        let Arrived { first, fields, body: came, .. } = arrived.unwrap_or_else(|| panic!("{what}: {}", head.status));
                        assert_eq!(
                            (head.status.as_u16(), first, came),
                            (200, format!("{method} {path}"), body.as_bytes().to_vec()),
                            "{what}"
                        );
                        if !body.is_empty() && !what.contains(FORM) {
                            assert_eq!(fields["content-type"], "application/octet-stream", "{what}");
                        }
                    }
                }
            }
        });
    });
}

#[test]
fn what_is_passed_on_and_what_is_not() {
    let world = World::guarded(&policy());
    let arrivals = serve(&world);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    world.in_pod(|| {
        block_on(async {
            let send = connect((ORDERS, PORTS[0])).await;
            let mut request = Request::builder().method("POST").uri(format!("http://{HOST}/a")).body(()).expect("a request");
            for (name, value) in [
                ("traceparent", &*format!("00-{trace}-00f067aa0ba902b7-01")),
                ("tracestate", "a=b"),
                ("te", "trailers"),
                ("expect", "100-continue"),
                ("x-mine", "1"),
            ] {
                request.headers_mut().append(name, value.parse().expect("a value"));
            }
            let (answer, mut up) = send.clone().ready().await.expect("room").send_request(request, false).expect("sent");
            up.send_data(Bytes::from_static(b"hello"), false).expect("sent");
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-forged", "1".parse().expect("a value"));
            up.send_trailers(trailers).expect("sent");
            assert_eq!(timeout(SOON, answer).await.expect("in time").expect("an answer").status(), StatusCode::OK);
        });
    });
    let Arrived { fields, body, trailers, .. } = arrivals.lock().expect("no panic while locked").pop().expect("it arrived");
    assert_eq!((body, trailers), (b"hello".to_vec(), 0), "trailers of requests, which nobody judged, are dropped");
    for (name, value) in [
        ("traceparent", &*format!("00-{trace}-00f067aa0ba902b7-01")),
        ("tracestate", "a=b"),
        ("te", "trailers"),
        ("expect", "100-continue"),
        ("x-mine", "1"),
    ] {
        assert_eq!(fields[name], value);
    }
    let look = || world.records("trace", trace).pop().ok_or(String::new());
    let record = world.eventually("it is written", look).0;
    assert_eq!((&record["source"], &record["sent"], &record["status"]), (&json!("orders"), &json!(5), &json!(200)));
}

#[test]
fn a_path_that_is_no_longer_declared_ends_its_stream_and_no_other() {
    let world = World::guarded(&policy());
    let arrivals = serve(&world);
    let (ask_never, cut) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            world.in_pod(|| {
                block_on(async {
                    let send = connect((ORDERS, PORTS[1])).await;
                    let narrowed = begin(&send, "/articles/never").await;
                    let mut kept = begin(&send, "/live/never").await;
                    // It is not below the exact path: nothing is sent of it.
                    assert_eq!((&mut kept).await.expect("an answer").status(), StatusCode::FORBIDDEN);
                    ask_never.send(()).expect("it is awaited");
                    let error = timeout(Duration::from_secs(10), narrowed).await.expect("it is cut").expect_err("no answer");
                    assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}");
                    assert_eq!(ask(&send, request("orders.shop:8081", "/live")).await, Ok(StatusCode::OK), "the connection goes on");
                });
            });
        });
        cut.recv_timeout(Duration::from_secs(10)).expect("it was asked");
        let arrived = || arrivals.lock().expect("no panic while locked").iter().any(|arrived| arrived.first == "GET /articles/never");
        world.eventually("it is under way", || if arrived() { Ok(()) } else { Err(String::new()) });
        let mut narrowed = policy();
        narrowed["generation"] = json!(2);
        narrowed["destinations"][1]["target"]["http"]["rules"].as_array_mut().expect("rules").remove(0);
        world.policy(&narrowed);
        client.join().expect("no panic");
    });
    let denials = world.denials("path_not_declared");
    assert_eq!(denials.last().map(|record| record["attempted"]["request"]["path"].clone()), Some(json!("/articles/never")));
}

/// Nothing comes that would tell that the client is gone: the stream's end does.
#[test]
fn who_gives_a_silent_stream_up_leaves_nothing_behind() {
    let world = World::guarded(&policy());
    serve(&world);
    world.in_pod(|| {
        block_on(async {
            let send = connect((ORDERS, PORTS[0])).await;
            // More than may be under way at once.
            for n in 0..200 {
                let silent = send.clone().ready().await.expect("room").send_request(request(HOST, "/head/silent"), true).expect("sent").0;
                let (head, body) = timeout(SOON, silent).await.expect("in time").expect("an answer").into_parts();
                assert_eq!(head.status, StatusCode::OK, "{n}");
                drop(body);
            }
            assert_eq!(ask(&send, request(HOST, "/a")).await, Ok(StatusCode::OK));
        });
    });
    let look = || match world.records("path", "/head/silent").len() {
        200 => Ok(()),
        few => Err(format!("{few}")),
    };
    world.eventually("all have ended", look);
}

#[test]
fn what_answers_head_has_no_body() {
    let world = World::guarded(&policy());
    serve(&world);
    world.in_pod(|| {
        block_on(async {
            let send = connect((ORDERS, PORTS[1])).await;
            let mut request = request("orders.shop:8081", "/admin");
            *request.method_mut() = http::Method::HEAD;
            let (answer, _) = send.clone().ready().await.expect("room").send_request(request, true).expect("sent");
            let answer = timeout(SOON, answer).await.expect("in time").expect("an answer");
            assert_eq!(answer.status(), StatusCode::FORBIDDEN);
            assert!(answer.into_body().data().await.is_none(), "nothing follows");
        });
    });
}

/// Who waited for a try that failed does not try again, one after the other: that would be five seconds each.
#[test]
fn a_failure_is_shared_by_all_who_waited_for_it() {
    let world = World::guarded(&policy());
    serve(&world);
    world.in_pod(|| {
        block_on(async {
            let send = connect(OWN).await;
            let mut all = Vec::new();
            for _ in 0..5 {
                let request = request("127.0.0.1:15474", "/silent/a");
                all.push(send.clone().ready().await.expect("room").send_request(request, true).expect("sent").0);
            }
            let told = async {
                for answer in all {
                    assert_eq!(answer.await.expect("an answer").status(), StatusCode::BAD_GATEWAY);
                }
            };
            timeout(Duration::from_secs(9), told).await.expect("all together");
        });
    });
    assert_eq!(world.denials("unreachable").len(), 5);
}
