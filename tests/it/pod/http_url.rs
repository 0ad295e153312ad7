//! What clients make of URLs: whomever a client connects to, the guard judges the same host, or refuses. The table holds what real clients
//! said (`tests/it/data/urls/generate.py` asks them): directly, where the name that they connect to is known, and to a proxy.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Deserialize;

use super::http_wire::{self, Arrival, Client, Message, Next, Upstream};
use super::{EVIL, HELP, ORDERS, World};
use crate::text;

#[derive(Deserialize)]
struct Row {
    url: String,
    readings: Vec<Reading>,
}

/// What some clients make of it. Of an error, nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading {
    by: Vec<String>,
    /// The name that is connected to, and the port.
    connects: Option<String>,
    says: Option<String>,
    says_to_proxy: Option<String>,
}

impl Reading {
    fn meant(&self) -> Option<(String, u16)> {
        let (name, port) = self.connects.as_ref()?.rsplit_once(' ')?;
        Some((canonical(name), port.parse().expect("a port")))
    }
}

fn rows() -> Vec<Row> {
    serde_json::from_str(&text("tests/it/data/urls.json")).expect("the table")
}

/// One character is one byte, as it was written down.
fn bytes(said: &str) -> Vec<u8> {
    said.chars().map(|c| u8::try_from(c).expect("a byte")).collect()
}

/// A name, or an address in all the forms that the C library takes for one.
fn canonical(name: &str) -> String {
    let name = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = name.parse::<IpAddr>() {
        return address.to_canonical().to_string();
    }
    // No name begins with a space, which Java keeps, and which is no part of Host.
    let name = name.trim_matches(' ');
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let number = |part: &str| match part.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None if part.len() > 1 && part.starts_with('0') => u32::from_str_radix(part, 8).ok(),
        None => part.parse().ok(),
    };
    let parts: Option<Vec<u32>> = name.split('.').map(number).collect();
    let Some((last, first)) = parts.as_ref().and_then(|parts| parts.split_last()).filter(|(_, first)| first.len() < 4) else { return name };
    let room = 32 - 8 * first.len() as u32;
    if first.iter().any(|part| *part > 255) || u64::from(*last) >= 1 << room {
        return name;
    }
    let high = first.iter().enumerate().map(|(at, part)| part << (24 - 8 * at)).sum::<u32>();
    std::net::Ipv4Addr::from(high + last).to_string()
}

/// Where a client that connects to this name ends. Who is told to go elsewhere may be anywhere.
fn address(name: &str) -> String {
    match name {
        _ if name.parse::<IpAddr>().is_ok() => name.to_owned(),
        "help.example.com" => HELP[0].to_owned(),
        _ if name == "orders.shop" || name.starts_with("orders.shop.svc") => ORDERS.to_owned(),
        _ => EVIL[0].to_owned(),
    }
}

/// Whom the upstream was asked for, and whether the client got its answer.
fn judged(upstream: &Upstream, client: std::io::Result<Client>, said: &str) -> Result<Option<(String, u16)>, String> {
    upstream.look(|seen| seen.arrivals.clear());
    let next = client.map(|mut client| {
        client.say(&bytes(said));
        let next = client.next(false);
        client.shut();
        (next, client.rest())
    });
    let arrivals = upstream.look(|seen| std::mem::take(&mut seen.arrivals));
    let refused = |message: &Message| (400..500).contains(&message.status());
    match (&arrivals[..], &next) {
        ([Arrival::Whole(message)], Ok((Next::Answer(answer), Some(_)))) if answer.status() == 200 => {
            let host = message.field("host").unwrap_or_default();
            let (name, port) = match host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())) {
                Some((name, port)) => (name, port.parse().map_err(|error| format!("{host}: {error}"))?),
                None => (host, 80),
            };
            if name.to_ascii_lowercase() != name || name.ends_with('.') {
                return Err(format!("{name} is no canonical name"));
            }
            Ok(Some((canonical(name), port)))
        }
        ([], Ok((Next::Answer(answer), Some(_)))) if refused(answer) => Ok(None),
        ([], Ok((Next::Ended, _)) | Err(_)) => Ok(None),
        _ => Err(format!("{next:?}, at the upstream {arrivals:?}")),
    }
}

#[test]
fn addresses_are_known_in_all_their_forms() {
    for (name, expected) in [
        ("174065415", "10.96.7.7"),
        ("0x0A600707", "10.96.7.7"),
        ("012.0140.7.07", "10.96.7.7"),
        ("10.6293255", "10.96.7.7"),
        ("10.96.7.263", "10.96.7.263"),
        ("10.96.7.7.0", "10.96.7.7.0"),
        ("4469032711", "4469032711"),
        ("::ffff:a60:707", "10.96.7.7"),
        ("Help.example.com.", "help.example.com"),
    ] {
        assert_eq!(canonical(name), expected, "{name}");
    }
}

#[test]
fn whom_a_client_means_is_who_is_judged() {
    let rows = rows();
    assert!(rows.len() >= 80, "{}", rows.len());
    let clients: BTreeSet<&String> = rows.iter().flat_map(|row| &row.readings).flat_map(|reading| &reading.by).collect();
    assert!(clients.len() >= 6, "{clients:?}");
    let differ = rows.iter().filter(|row| row.readings.iter().map(Reading::meant).collect::<BTreeSet<_>>().len() > 1).count();
    assert!(differ >= 80, "{differ}: there is little to tell apart");

    let world = World::guarded(&http_wire::policy());
    let upstream = Upstream::new(&world);
    let mut failures = Vec::new();
    let (mut passed, mut refused) = (0, 0);
    world.in_pod(|| {
        for Row { url, readings } in &rows {
            for reading in readings {
                let meant = reading.meant();
                let mut check = |way: &str, client, said: &str, must_pass: bool| {
                    let complaint = match judged(&upstream, client, said) {
                        Ok(Some(judged)) if Some(&judged) == meant.as_ref() => {
                            passed += 1;
                            return;
                        }
                        Ok(None) if !must_pass => {
                            refused += 1;
                            return;
                        }
                        Ok(other) => format!("{other:?} was judged"),
                        Err(complaint) => complaint,
                    };
                    failures.push(format!("{url:?} {way} by {:?}: {meant:?} is meant, {complaint}\n    said {said:?}", reading.by));
                };
                // What has no second reading must come through.
                let plain = ["http://help.example.com:8080/", "http://help.example.com:8080/a?b=c", "HTTP://help.example.com:8080/"];
                let plain = plain.contains(&url.as_str());
                if let (Some((name, port)), Some(said)) = (&meant, &reading.says) {
                    check("directly", Client::connect(&address(name), *port), said, plain);
                }
                if let Some(said) = &reading.says_to_proxy {
                    check("by the proxy", Client::connect("127.0.0.1", 15_474), said, plain);
                }
            }
        }
    });
    println!("{} URLs, {differ} of them read differently: {passed} requests to whom was meant, {refused} refused", rows.len());
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}
