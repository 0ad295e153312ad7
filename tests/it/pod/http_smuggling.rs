//! Requests that two parsers would read differently: what the guard lets pass arrives exactly as it was judged, and of the rest not a byte.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::http_wire::{self, Arrival, Client, DEADLINE, Next, PORTS, Upstream};
use super::{HELP, ORDERS, World};
use crate::http_cases::{Body, Case, Door, End, HOST, PLAIN, RULED, SMUGGLED, Step, cases, seeds};

impl Door {
    fn connect(self) -> std::io::Result<Client> {
        match self {
            Self::Open => Client::connect(ORDERS, PORTS[0]),
            Self::Ruled => Client::connect(ORDERS, PORTS[1]),
            Self::Loopback => Client::connect("127.0.0.1", 15_474),
            Self::Outside => Client::connect(HELP[0], PORTS[0]),
        }
    }
}

/// What was refused, and why.
fn reason(next: &Next) -> Result<(u16, String), String> {
    match next {
        Next::Answer(message) if (400..500).contains(&message.status()) => {
            let problem: Value =
                serde_json::from_slice(message.content()).map_err(|error| format!("not a problem: {error}: {message:?}"))?;
            let reason = problem["reason"].as_str().unwrap_or_default().to_owned();
            if message.field("content-type") != Some("application/problem+json")
                || problem["status"] != message.status()
                || reason.is_empty()
            {
                return Err(format!("not a problem: {message:?}"));
            }
            Ok((message.status(), reason))
        }
        Next::Answer(message) => Err(format!("{} {}", message.first(), message.content().escape_ascii())),
        other => Err(format!("{other:?}")),
    }
}

/// With these nothing more may be said on a connection.
fn ends(reason: &str) -> bool {
    ["request_malformed", "request_too_large"].contains(&reason)
}

fn nothing_more(client: &mut Client) -> Result<(), String> {
    match client.rest() {
        Some(rest) if rest.is_empty() => Ok(()),
        Some(rest) => Err(format!("then came {}", rest.escape_ascii())),
        None => Err("the connection is not closed".to_owned()),
    }
}

/// What the client must see of a step. Whether the connection has ended with it.
fn step(client: &mut Client, step: &Step) -> Result<bool, String> {
    match step {
        Step::Passed { head, .. } => match client.next(head.starts_with("HEAD ")) {
            Next::Answer(message) if message.status() == 200 => Ok(false),
            other => Err(format!("it must pass: {:?}", reason(&other))),
        },
        Step::Refused { status, reason: wanted } => {
            let (found, why) = reason(&client.next(false))?;
            if ![found, 0].contains(status) || ![why.as_str(), ""].contains(wanted) {
                return Err(format!("{found} {why} instead of {status} {wanted}"));
            }
            if ends(&why) { nothing_more(client).map(|()| true) } else { Ok(false) }
        }
        Step::Broken => {
            let (_, why) = reason(&client.next(false))?;
            if !ends(&why) {
                return Err(format!("{why} instead of request_malformed"));
            }
            nothing_more(client).map(|()| true)
        }
        Step::Closed => match client.rest() {
            Some(_) => Ok(true),
            None => Err("the connection is not closed".to_owned()),
        },
        Step::Cut => match client.next(false) {
            Next::Ended => Ok(true),
            next => {
                reason(&next)?;
                nothing_more(client).map(|()| true)
            }
        },
    }
}

/// Until no request is under way at the upstream.
fn settle(upstream: &Upstream) -> Result<(), String> {
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(2));
    while upstream.look(|seen| seen.pending) != 0 {
        if began.elapsed() > DEADLINE {
            return Err("at the upstream a request that began stays open".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Until nothing of a case that is over is at the upstream any more. Its listener takes connections in their order: who is answered there has
/// come after the others.
fn settle_at(upstream: &Upstream, door: Door) -> Result<(), String> {
    let (path, host) = match door {
        Door::Open => ("/settled", HOST),
        Door::Ruled => ("/articles/settled", RULED),
        Door::Loopback => ("/orders/settled", "localhost"),
        Door::Outside => ("/settled", PLAIN),
    };
    let mut client = door.connect().map_err(|error| format!("no connection: {error}"))?;
    client.say(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    let next = client.next(false);
    if !matches!(&next, Next::Answer(message) if message.status() == 200) {
        return Err(format!("what is well does not pass any more: {next:?}"));
    }
    drop(client);
    let began = Instant::now();
    while upstream.look(|seen| seen.open) != 0 {
        if began.elapsed() > DEADLINE {
            return Err("at the upstream a connection stays open".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let probe = |arrival: &Arrival| matches!(arrival, Arrival::Whole(message) if message.first().ends_with("/settled HTTP/1.1"));
    upstream.look(|seen| seen.arrivals.retain(|arrival| !probe(arrival)));
    Ok(())
}

/// How the bytes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    AtOnce,
    /// In pieces that end where a reader must remember something: within ends of lines, and somewhere else.
    InPieces,
}

fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let mut ends: Vec<usize> = bytes.iter().enumerate().filter(|(_, b)| **b == b'\r').map(|(at, _)| at + 1).collect();
    // The last ones: of the head, and of the body.
    ends.drain(..ends.len().saturating_sub(3));
    ends.extend([bytes.len() / 3, bytes.len().saturating_sub(1), bytes.len()]);
    ends.sort_unstable();
    ends.dedup();
    let mut at = 0;
    ends.into_iter().map(|end| &bytes[std::mem::replace(&mut at, end)..end]).filter(|piece| !piece.is_empty()).collect()
}

fn play(upstream: &Upstream, case: &Case, pace: Pace) -> Result<(), String> {
    let before = upstream.look(|seen| (seen.arrivals.len(), seen.bytes));
    let seen = talk(case, pace);
    let partial = case.steps.iter().any(|step| matches!(step, Step::Broken | Step::Cut));
    let settled = if partial { settle_at(upstream, case.door) } else { Ok(()) };
    let (arrived, bytes) = upstream.look(|seen| (seen.arrivals[before.0..].to_vec(), seen.bytes - before.1));
    let wanted: Vec<Arrival> = (case.steps.iter())
        .filter_map(|step| match step {
            Step::Passed { head, body } => Some((head, body)),
            _ => None,
        })
        .map(|(head, body)| Arrival::Whole(http_wire::Message { head: head.clone(), body: body.clone(), length: 0 }))
        .collect();
    let found: Vec<Arrival> = (arrived.into_iter())
        .filter(|arrival| !(partial && matches!(arrival, Arrival::Partial(_))))
        .map(|arrival| match arrival {
            Arrival::Whole(message) => Arrival::Whole(http_wire::Message { length: 0, ..message }),
            other => other,
        })
        .collect();
    if found != wanted {
        let found = format!("{found:?}");
        return Err(format!("at the upstream arrived {:.1500}, client: {seen:?}", found));
    }
    if wanted.is_empty() && !partial && bytes != 0 {
        return Err(format!("{bytes} bytes arrived at the upstream, client: {seen:?}"));
    }
    seen.and(settled)
}

fn talk(case: &Case, pace: Pace) -> Result<(), String> {
    let mut client = case.door.connect().map_err(|error| format!("no connection: {error}"))?;
    match pace {
        Pace::AtOnce => client.say(&case.bytes),
        Pace::InPieces => {
            for piece in pieces(&case.bytes) {
                client.say(piece);
                std::thread::sleep(Duration::from_micros(300));
            }
        }
    }
    if case.end == End::Shut {
        client.shut();
    }
    for wanted in &case.steps {
        if step(&mut client, wanted)? {
            return Ok(());
        }
    }
    client.shut();
    nothing_more(&mut client)
}

/// As a person would compare it.
fn shown(case: &Case, complaint: &str) -> String {
    let bytes = case.bytes.escape_ascii().to_string();
    let steps = format!("{:?}", case.steps);
    format!("{}\n    said     {:.700}\n    expected {:.700}\n    got      {complaint:.1800}\n", case.name, bytes, steps)
}

#[test]
fn there_are_enough_of_them_and_they_say_what_they_mean() {
    let all = cases();
    let bad = all.iter().filter(|case| case.steps.iter().any(|step| !matches!(step, Step::Passed { .. }))).count();
    assert!(bad >= 1_000, "{bad} of {}", all.len());
    assert!(seeds().len() >= 300, "{}", seeds().len());
    for Case { name, steps, .. } in &all {
        for step in steps {
            let Step::Passed { head, body } = step else { continue };
            let (framing, content) = match body {
                Body::None => (String::new(), Vec::new()),
                Body::Length(content) => (format!("content-length: {}\r\n", content.len()), content.clone()),
                Body::Chunked(content) => {
                    let chunk = [format!("{:x}\r\n", content.len()).as_bytes(), content, b"\r\n"].concat();
                    (
                        "transfer-encoding: chunked\r\n".to_owned(),
                        [if content.is_empty() { Vec::new() } else { chunk }, b"0\r\n\r\n".into()].concat(),
                    )
                }
            };
            let bytes = [head.strip_suffix("\r\n").expect("a head").as_bytes(), framing.as_bytes(), b"\r\n", &content].concat();
            let wanted = http_wire::Message { head: head.clone(), body: body.clone(), length: bytes.len() };
            assert_eq!(http_wire::request(&bytes), http_wire::Reading::Whole(wanted), "{name}: what must arrive has the one form");
        }
    }
    let refused = all.iter().filter(|case| !case.steps.iter().any(|step| matches!(step, Step::Passed { .. }))).count();
    println!("{} inputs, of which {refused} must not arrive; {} are seeds", all.len(), seeds().len());
}

#[test]
fn without_a_guard_the_upstream_sees_them_as_they_are() {
    let world = World::new();
    let upstream = Upstream::new(&world);
    let canonical = SMUGGLED.replace("Host:", "host:");
    world.in_pod(|| {
        let mut client = Door::Open.connect().expect("the Service");
        client.say(canonical.repeat(2).as_bytes());
        for _ in 0..2 {
            assert!(matches!(client.next(false), Next::Answer(message) if message.status() == 200));
        }
        client.say(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhello");
        client.shut();
        assert_eq!(client.rest(), Some(Vec::new()));
        let mut client = Door::Ruled.connect().expect("the Service");
        client.say(SMUGGLED.as_bytes());
        assert_eq!(client.rest(), Some(Vec::new()), "names in upper case are not what a guard sends");
    });
    settle(&upstream).expect("nothing is under way");
    let arrivals = upstream.look(|seen| std::mem::take(&mut seen.arrivals));
    let heads = |arrival: &Arrival| matches!(arrival, Arrival::Whole(message) if message.head == canonical);
    assert!(matches!(&arrivals[..], [one, two, Arrival::Partial(_), Arrival::Wrong(..)] if heads(one) && heads(two)), "{arrivals:?}");
    assert_eq!(upstream.look(|seen| seen.connections), 2);
}

#[test]
fn what_arrives_is_what_was_judged() {
    let world = World::guarded(&http_wire::policy());
    let upstream = Upstream::new(&world);
    let (silent, spoken): (Vec<Case>, Vec<Case>) = cases().into_iter().partition(|case| case.end == End::Silent);
    let good = Case {
        name: "good".to_owned(),
        door: Door::Open,
        bytes: format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").into(),
        end: End::Open,
        steps: vec![Step::Passed { head: format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n"), body: Body::None }],
    };
    let mut failures = Vec::new();
    let began = Instant::now();
    world.in_pod(|| {
        play(&upstream, &good, Pace::AtOnce).unwrap_or_else(|complaint| panic!("what is well passes: {complaint}"));
        let mut slow = 0;
        for (case, pace) in spoken.iter().flat_map(|case| [(case, Pace::AtOnce), (case, Pace::InPieces)]) {
            let began = Instant::now();
            if let Err(complaint) = play(&upstream, case, pace) {
                failures.push(shown(case, &format!("{pace:?}: {complaint}")));
            }
            slow += usize::from(began.elapsed() >= DEADLINE);
            assert!(slow < 30, "too much hangs:\n{}", failures.join("\n"));
        }
        println!("{} inputs, at once and in pieces, in {:?}", spoken.len(), began.elapsed());

        // Those who stop in the middle wait, together, while others are served.
        let mut waiting: Vec<(&Case, Client)> = Vec::new();
        for case in &silent {
            let mut client = case.door.connect().expect("a connection");
            client.say(&case.bytes);
            waiting.push((case, client));
        }
        let arrived = upstream.look(|seen| seen.arrivals.len());
        std::thread::sleep(Duration::from_millis(300));
        if let Err(complaint) = play(&upstream, &good, Pace::AtOnce) {
            failures.push(shown(&good, &format!("beside those who wait: {complaint}")));
        }
        let others = upstream.look(|seen| seen.arrivals[arrived..].to_vec());
        if others.len() != 1 {
            failures.push(format!("of those who wait arrived {others:?}"));
        }
        for (case, client) in &mut waiting {
            client.stream.set_nonblocking(true).expect("a socket");
            let mut got = [0; 1];
            match client.stream.peek(&mut got) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                other => failures.push(shown(case, &format!("it was answered, or ended: {other:?}"))),
            }
        }
    });
    settle(&upstream).expect("those who went are gone at the upstream as well");
    world.in_pod(|| play(&upstream, &good, Pace::AtOnce).expect("it serves still"));
    assert!(!world.log().contains("panicked"), "{}", world.log());
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), spoken.len() + silent.len(), failures.join("\n"));
}

/// Observe lets everything pass: what has no reading as it is, byte for byte, and written down.
#[test]
fn observe_lets_pass_as_it_is_what_has_no_reading() {
    let mut policy = http_wire::policy();
    policy["mode"] = serde_json::json!("Observe");
    let world = World::guarded(&policy);
    let upstream = Upstream::new(&world);
    // Not where the body is at fault: that is read by its length, in Observe as well.
    let unread = |case: &&Case| {
        let refused = matches!(&case.steps[..], [Step::Refused { reason, .. }] if ends(reason));
        let head = case.bytes.windows(4).position(|end| end == b"\r\n\r\n").map_or(&case.bytes[..], |end| &case.bytes[..end + 4]);
        let at_fault = !remit_reads(head);
        refused && at_fault && case.end != End::Silent && case.door != Door::Loopback
    };
    let all = cases();
    let mut failures = Vec::new();
    let mut count = 0;
    world.in_pod(|| {
        for case in all.iter().filter(unread) {
            let before = upstream.look(|seen| seen.arrivals.len());
            let client = case.door.connect().map(|mut client| {
                client.say(&case.bytes);
                client.shut();
                client.rest()
            });
            let arrived = upstream.look(|seen| seen.arrivals[before..].to_vec());
            let as_it_is = |arrival: &Arrival| {
                let (Arrival::Wrong(_, got) | Arrival::Partial(got)) = arrival else { return false };
                case.bytes.starts_with(got)
            };
            count += 1;
            if !matches!(&arrived[..], [arrival] if as_it_is(arrival)) {
                failures.push(shown(case, &format!("{client:?}, at the upstream {arrived:?}")));
            }
        }
    });
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
    assert!(count > 100, "{count}");
    assert!(world.log().contains("would_deny"));
}

/// Whether the guard's own parser takes the head.
fn remit_reads(head: &[u8]) -> bool {
    use remit::wire::http1::{Request, Scan};
    matches!(Scan::default().head(head), Ok(Some(length)) if Request::read(&head[..length]).is_ok())
}

/// What follows a CONNECT belongs to nobody before it is let through, and is judged as said to that host afterwards.
#[test]
fn a_tunnel_leads_to_whom_it_was_asked_for() {
    let world = World::guarded(&http_wire::policy());
    let upstream = Upstream::new(&world);
    let connect = |to: &str, more: &[u8]| [format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes(), more].concat();
    let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    let declared = "help.example.com:443";
    let answers = |said: &[u8]| {
        world.in_pod(|| {
            let mut client = Door::Loopback.connect().expect("the guard");
            client.say(said);
            let first = client.next(true);
            client.shut();
            (first, client.rest().expect("it ends"))
        })
    };
    let agreed = |next: &Next| matches!(next, Next::Answer(message) if message.status() == 200);
    // The world echoes what comes there.
    let hello = super::hello("help.example.com");
    let (first, rest) = answers(&connect(declared, &hello));
    assert!(agreed(&first) && rest == hello, "{first:?}, {rest:?}");
    assert_eq!(world.arrived().values().sum::<usize>(), 1, "{:?}", world.arrived());
    world.forget();
    for (name, to, inside) in [
        ("another server", declared, super::hello("evil.example")),
        ("no server", declared, super::hello_with(&[])),
        ("plain HTTP", declared, get(declared)),
        ("plain HTTP of another", declared, get("evil.example")),
        ("another CONNECT", declared, connect("evil.example:443", b"")),
        ("the same CONNECT", declared, connect(declared, &hello)),
        ("something else", declared, b"SSH-2.0-x\r\n".to_vec()),
        ("a request of another where HTTP is declared", PLAIN, get("evil.example:8080")),
        ("a CONNECT where HTTP is declared", PLAIN, connect(declared, &hello)),
        ("an absolute form where HTTP is declared", PLAIN, format!("GET http://{PLAIN}/ HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n").into_bytes()),
        ("a base URL where HTTP is declared", PLAIN, b"GET /orders/ HTTP/1.1\r\nHost: 127.0.0.1:15474\r\n\r\n".to_vec()),
        ("TLS where HTTP is declared", PLAIN, hello.clone()),
    ] {
        let (first, _) = answers(&connect(to, &inside));
        assert!(agreed(&first), "{name}: {first:?}");
        assert_eq!(world.arrived(), Default::default(), "{name}");
        assert_eq!(upstream.look(|seen| std::mem::take(&mut seen.arrivals)), [], "{name}");
    }
    // Where plain HTTP is declared, it may be in a tunnel as well.
    world.in_pod(|| {
        let mut client = Door::Loopback.connect().expect("the guard");
        client.say(&connect(PLAIN, &get(PLAIN)));
        assert!(agreed(&client.next(true)));
        let next = client.next(false);
        assert!(agreed(&next), "{next:?}");
    });
    assert_eq!(upstream.look(|seen| seen.arrivals.len()), 1);
    // A body of CONNECT is nobody's.
    for field in ["Content-Length: 0", "Content-Length: 5", "Transfer-Encoding: chunked"] {
        let next = world.in_pod(|| {
            let mut client = Door::Loopback.connect().expect("the guard");
            client.say(format!("CONNECT {declared} HTTP/1.1\r\nHost: {declared}\r\n{field}\r\n\r\n").as_bytes());
            client.next(false)
        });
        assert_eq!(reason(&next), Ok((400, "request_malformed".to_owned())), "{field}");
    }
    assert_eq!(world.arrived(), Default::default());
}
