//! What is written of requests that were let through, however they end.

use serde_json::{Value, json};

use super::http_wire::{self, Client, Next, PORTS, Upstream};
use super::{ORDERS, World};

const OWN: &str = "127.0.0.1";

fn requests(world: &World) -> Vec<Value> {
    world.records("event", "request")
}

/// So many of them, once they are written.
fn written(world: &World, many: usize) -> Vec<Value> {
    let look = || match requests(world) {
        all if all.len() >= many => Ok(all),
        few => Err(format!("{few:?}")),
    };
    world.eventually("the requests are written", look).0
}

#[test]
fn a_request_is_written_with_its_sizes_its_answer_and_its_trace() {
    let world = World::guarded(&http_wire::policy());
    let upstream = Upstream::new(&world);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    world.in_pod(|| {
        let mut client = Client::connect(ORDERS, PORTS[0]).expect("a connection");
        let parent = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n");
        client.say(format!("POST /a/b?secret=1 HTTP/1.1\r\nHost: orders.shop:8080\r\n{parent}Content-Length: 5\r\n\r\nhello").as_bytes());
        assert!(matches!(client.next(false), Next::Answer(message) if message.status() == 200));
        upstream.look(|seen| seen.answer = Some((b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nnowhere".to_vec(), false)));
        client.say(b"GET / HTTP/1.1\r\nHost: orders.shop:8080\r\ntraceparent: no trace\r\n\r\n");
        assert!(matches!(client.next(false), Next::Answer(message) if message.status() == 404));
    });
    let heads = upstream.look(|seen| format!("{:?}", seen.arrivals));
    assert!(heads.contains(&format!("traceparent: 00-{trace}-00f067aa0ba902b7-01")), "the trace is passed on: {heads}");
    let all = written(&world, 2);
    let of = |record: &Value, fields: &[&str]| fields.iter().map(|field| record[*field].clone()).collect::<Vec<_>>();
    let fields = ["source", "method", "host", "path", "status", "sent", "received", "trace"];
    assert_eq!(
        of(&all[0], &fields),
        [json!("orders"), json!("POST"), json!("orders.shop:8080"), json!("/a/b"), json!(200), json!(5), json!(2), json!(trace)]
    );
    assert_eq!(
        of(&all[1], &fields),
        [json!("orders"), json!("GET"), json!("orders.shop:8080"), json!("/"), json!(404), json!(0), json!(7), Value::Null]
    );
    assert!(!world.log().contains("secret"), "no query is kept");
}

#[test]
fn who_goes_away_is_written_and_what_was_refused_before_it_was_sent_only_as_refused() {
    let world = World::guarded(&http_wire::policy());
    let upstream = Upstream::new(&world);
    world.in_pod(|| {
        // Nothing is answered until the client is gone.
        upstream.look(|seen| seen.answer = Some((Vec::new(), false)));
        let mut client = Client::connect(ORDERS, PORTS[0]).expect("a connection");
        client.say(b"GET /gone HTTP/1.1\r\nHost: orders.shop:8080\r\n\r\n");
        world.eventually("it arrives", || if upstream.look(|seen| seen.told) == 1 { Ok(()) } else { Err(String::new()) });
        drop(client);
        let mut client = Client::connect(ORDERS, PORTS[1]).expect("a connection");
        client.say(b"GET /admin HTTP/1.1\r\nHost: orders.shop:8081\r\n\r\n");
        assert!(matches!(client.next(false), Next::Answer(message) if message.status() == 403));
        // An upstream that cannot be understood is refused to the client, and has got the request.
        upstream.look(|seen| seen.answer = Some((b"no HTTP\r\n\r\n".to_vec(), true)));
        let mut client = Client::connect(ORDERS, PORTS[1]).expect("a connection");
        client.say(b"GET /articles HTTP/1.1\r\nHost: orders.shop:8081\r\n\r\n");
        assert!(matches!(client.next(false), Next::Answer(message) if message.status() == 502));
        let mut client = Client::connect(ORDERS, PORTS[0]).expect("a connection");
        client.say(b"GET /last HTTP/1.1\r\nHost: orders.shop:8080\r\n\r\n");
        assert!(matches!(client.next(false), Next::Answer(message) if message.status() == 200));
    });
    let all = written(&world, 3);
    let said: Vec<_> = all.iter().map(|record| (record["path"].as_str().unwrap_or_default(), record["status"].as_u64())).collect();
    assert_eq!(said, [("/gone", Some(499)), ("/articles", Some(502)), ("/last", Some(200))]);
    assert_eq!((world.denials("path_not_declared").len(), world.denials("upstream_malformed").len()), (1, 1));
}

/// To its clients all base URLs are one host.
#[test]
fn answers_to_a_base_url_lead_back_to_it() {
    let world = World::guarded(&http_wire::policy());
    let upstream = Upstream::new(&world);
    world.in_pod(|| {
        let said = "HTTP/1.1 302 Found\r\nSet-Cookie: a=b; Path=/; Domain=orders.shop.svc; HttpOnly\r\nset-cookie: c=d\r\nLocation: http://orders.shop.svc:8080/next\r\nContent-Length: 0\r\n\r\n";
        upstream.look(|seen| seen.answer = Some((said.as_bytes().to_vec(), false)));
        let mut client = Client::connect(OWN, 15474).expect("a connection");
        client.say(b"GET /orders/a HTTP/1.1\r\nHost: 127.0.0.1:15474\r\n\r\n");
        let Next::Answer(message) = client.next(false) else { panic!("no answer") };
        let head = message.head.to_ascii_lowercase();
        for expected in ["set-cookie: a=b; httponly; path=/orders\r\n", "set-cookie: c=d; path=/orders\r\n", "location: /orders/next\r\n"] {
            assert!(head.contains(expected), "{expected:?} in {head}");
        }
        // By any other way they are the host's own.
        upstream.look(|seen| seen.answer = Some((said.as_bytes().to_vec(), false)));
        let mut client = Client::connect(ORDERS, PORTS[0]).expect("a connection");
        client.say(b"GET /a HTTP/1.1\r\nHost: orders.shop:8080\r\n\r\n");
        let Next::Answer(message) = client.next(false) else { panic!("no answer") };
        assert!(message.head.contains("a=b; Path=/; Domain=orders.shop.svc; HttpOnly\r\n"), "{}", message.head);
        assert_eq!(message.field("location"), Some("http://orders.shop.svc:8080/next"));
    });
}

/// An upstream may say the status that stands for a client that went away, and be cut off in the midst of it.
#[test]
fn an_answer_of_499_is_an_answer() {
    let world = World::guarded(&http_wire::policy());
    let upstream = Upstream::new(&world);
    world.in_pod(|| {
        for (content, whole) in [("gone", true), ("go", false)] {
            let said = format!("HTTP/1.1 499 Client Closed\r\nContent-Length: 4\r\n\r\n{content}");
            upstream.look(|seen| seen.answer = Some((said.into_bytes(), true)));
            let mut client = Client::connect(ORDERS, PORTS[0]).expect("a connection");
            client.say(b"GET /a HTTP/1.1\r\nHost: orders.shop:8080\r\n\r\n");
            let next = client.next(false);
            let is_whole = matches!(&next, Next::Answer(message) if message.status() == 499 && message.content() == b"gone");
            assert!(is_whole == whole && (whole || !matches!(next, Next::Answer(_))), "{next:?}");
        }
    });
    let all = written(&world, 2);
    assert!(all.iter().all(|record| record["status"] == 499), "{all:?}");
    assert!(world.records("event", "denied").is_empty());
}
