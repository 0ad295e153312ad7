//! Any bytes as a DNS query: no answer is larger than the client takes, and each is read back as what was said.
//!
//! The id, which means nothing to a server, chooses the answer: its code, its addresses, the words, UDP or TCP.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use remit::policy::Record;
use remit::wire::dns::{self, Answer, LARGEST_UDP, NoQuery, Query, ResponseCode};

const TTL: u32 = 30;
const CODES: [ResponseCode; 6] = [
    ResponseCode::Ok,
    ResponseCode::Refused,
    ResponseCode::NoSuchName,
    ResponseCode::Failure,
    ResponseCode::Malformed,
    ResponseCode::NotImplemented,
];

fuzz_target!(|bytes: &[u8]| match Query::read(bytes) {
    Err(NoQuery::Ignore) => {}
    Err(NoQuery::Answer(refusal)) => {
        assert_eq!(refusal.len(), 12, "only a header");
        assert_eq!(refusal[..2], bytes[..2], "the id");
        assert!(refusal[2] & 0x80 != 0, "a response");
        assert!([ResponseCode::Malformed as u8, ResponseCode::NotImplemented as u8].contains(&(refusal[3] & 0xf)));
        assert_eq!(refusal[4..], [0; 8], "no records");
    }
    Ok(query) => answered(bytes, &query),
});

fn answered(bytes: &[u8], query: &Query) {
    let id = u16::from_be_bytes([bytes[0], bytes[1]]);
    let code = CODES[usize::from(id) % CODES.len()];
    let addresses = addresses([0, 1, 3, 100][usize::from(id >> 8 & 0b11)]);
    let long = "é".repeat(500);
    let why = [None, Some("name_not_declared: no data source has this name"), Some(long.as_str()), Some("")][usize::from(id >> 10 & 0b11)];
    let over_tcp = id >> 12 & 1 == 1;

    let end = question_end(bytes);
    let question = &bytes[12..end];
    let limit = match bytes[11] {
        _ if over_tcp => usize::from(u16::MAX),
        0 => 512,
        _ => usize::from(u16::from_be_bytes([bytes[end + 3], bytes[end + 4]])).clamp(512, LARGEST_UDP),
    };
    let answer = query.answer(code, &addresses, TTL, why, over_tcp);
    assert!(answer.len() <= limit, "{} bytes for a client that takes {limit}", answer.len());
    assert_eq!(answer[12..12 + question.len()], *question, "the question, as it was asked");

    let six = match query.record() {
        Record::A => false,
        Record::Aaaa => true,
        Record::Other => return assert_eq!(answer[6..8], [0, 0], "no addresses"),
    };
    let Some(name) = query.name() else { return };
    let read = dns::answer(&answer, id, name, six).expect("an answer to this question");
    if read == Answer::Truncated {
        return assert!(!addresses.is_empty() && !over_tcp, "nothing had to be cut");
    }
    let expected = match code {
        ResponseCode::Ok if addresses.is_empty() => Answer::Addresses(Vec::new(), 0),
        ResponseCode::Ok => Answer::Addresses(addresses.iter().copied().filter(|a| a.is_ipv6() == six).take(32).collect(), TTL),
        ResponseCode::NoSuchName => Answer::NoSuchName,
        _ => Answer::Failed,
    };
    assert_eq!(read, expected);
}

/// So many of each family.
fn addresses(count: u8) -> Vec<IpAddr> {
    let both = |n| [Ipv4Addr::new(203, 0, 113, n).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into()];
    (0..count).flat_map(both).collect()
}

/// Of a query that was read.
fn question_end(bytes: &[u8]) -> usize {
    let mut at = 12;
    while bytes[at] != 0 {
        at += 1 + usize::from(bytes[at]);
    }
    at + 1 + 4
}
