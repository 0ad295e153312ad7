//! DNS messages (RFC 1035, EDNS RFC 6891, extended errors RFC 8914): one question in, one answer out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Malformed;
use super::reader::Reader;
use crate::policy::Record;
use crate::scope::DomainName;

/// More bytes than this are not put into a UDP answer, whatever the client says it can take: they would be cut into fragments.
pub const LARGEST_UDP: usize = 1_232;
/// Addresses of one answer; the rest is left out.
const MOST_ADDRESSES: usize = 32;
/// Aliases that are followed.
const MOST_ALIASES: usize = 8;
/// Jumps within one name.
const MOST_JUMPS: usize = 16;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const OPT: u16 = 41;
const INTERNET: u16 = 1;
const EXTENDED_ERROR: u16 = 15;
/// Bytes of a record of options that has none.
const BARE_OPTIONS: usize = 11;
/// "Prohibited": the server will not answer this client (RFC 8914 §4.19).
const PROHIBITED: u16 = 18;

const RESPONSE: u16 = 1 << 15;
const OPCODE: u16 = 0b1111 << 11;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;
const RECURSION_AVAILABLE: u16 = 1 << 7;
const RESPONSE_CODE: u16 = 0b1111;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCode {
    Ok = 0,
    Malformed = 1,
    Failure = 2,
    NoSuchName = 3,
    NotImplemented = 4,
    Refused = 5,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    id: u16,
    flags: u16,
    /// As it was sent, with its letters' cases: it is sent back so.
    question: Vec<u8>,
    /// None: not a name that anything could be declared under.
    name: Option<DomainName>,
    record: Record,
    kind: u16,
    /// What the client can take over UDP, if it speaks EDNS.
    payload: Option<u16>,
}

/// Why a message is no query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoQuery {
    /// Too short to be answered, or an answer itself: silence.
    Ignore,
    /// Answered by this.
    Answer(Vec<u8>),
}

impl Query {
    pub fn read(bytes: &[u8]) -> Result<Self, NoQuery> {
        let mut reader = Reader::new(bytes);
        let (Ok(id), Ok(flags)) = (reader.u16(), reader.u16()) else { return Err(NoQuery::Ignore) };
        if flags & RESPONSE != 0 || bytes.len() < 12 {
            return Err(NoQuery::Ignore);
        }
        let bare = |code: ResponseCode| NoQuery::Answer(header(id, flags, code, 0, 0, 0));
        if flags & OPCODE != 0 {
            return Err(bare(ResponseCode::NotImplemented));
        }
        read_question(&mut reader, id, flags).map_err(|Malformed| bare(ResponseCode::Malformed))
    }

    /// None: nothing could be declared under what is asked for.
    pub fn name(&self) -> Option<&DomainName> {
        self.name.as_ref()
    }

    /// What is asked for, in letters: also where it is no name. The class where it is not the internet's.
    pub fn text(&self) -> String {
        let (mut labels, mut rest) = (Vec::new(), self.question.as_slice());
        while let Some((&length, more)) = rest.split_first().filter(|(length, _)| **length > 0) {
            let (label, behind) = more.split_at(more.len().min(length.into()));
            labels.push(label.escape_ascii().to_string());
            rest = behind;
        }
        let name = if labels.is_empty() { ".".to_owned() } else { labels.join(".") };
        match self.question.last_chunk().map(|class| u16::from_be_bytes(*class)) {
            Some(class) if class != INTERNET => format!("{name} class {class}"),
            _ => name,
        }
    }

    pub fn record(&self) -> Record {
        self.record
    }

    /// The type's number.
    pub fn kind(&self) -> u16 {
        self.kind
    }

    /// The answer. `over_tcp`: no limit but that of a message. `why` goes to clients that speak EDNS.
    pub fn answer(&self, code: ResponseCode, addresses: &[IpAddr], ttl: u32, why: Option<&str>, over_tcp: bool) -> Vec<u8> {
        let limit = match self.payload {
            _ if over_tcp => usize::from(u16::MAX),
            None => 512,
            Some(payload) => usize::from(payload).clamp(512, LARGEST_UDP),
        };
        let wanted: Vec<&IpAddr> = addresses
            .iter()
            .filter(|address| matches!((self.record, address), (Record::A, IpAddr::V4(_)) | (Record::Aaaa, IpAddr::V6(_))))
            .take(MOST_ADDRESSES)
            .collect();
        let records: Vec<u8> = wanted.iter().flat_map(|address| address_record(address, ttl)).collect();
        // The smallest limit has room for the longest question and bare options. Records go before words.
        let room = limit - 12 - self.question.len() - if self.payload.is_some() { BARE_OPTIONS } else { 0 };
        let fits = records.len() <= room;
        let (count, records) = if fits { (wanted.len() as u16, records) } else { (0, Vec::new()) };
        let more = self.options(why, room - records.len());
        let additional = u16::from(self.payload.is_some());
        let flags = if fits { self.flags & !TRUNCATED } else { self.flags | TRUNCATED };
        let mut message = header(self.id, flags, code, 1, count, additional);
        message.extend(&self.question);
        message.extend(records);
        message.extend(more);
        message
    }

    /// `room`: for what is not bare of them.
    fn options(&self, why: Option<&str>, room: usize) -> Vec<u8> {
        if self.payload.is_none() {
            return Vec::new();
        }
        let mut option = Vec::new();
        if let (Some(why), Some(room)) = (why, room.checked_sub(6)) {
            let mut end = why.len().min(room).min(400);
            while !why.is_char_boundary(end) {
                end -= 1;
            }
            let text = &why.as_bytes()[..end];
            option.extend(EXTENDED_ERROR.to_be_bytes());
            option.extend((text.len() as u16 + 2).to_be_bytes());
            option.extend(PROHIBITED.to_be_bytes());
            option.extend(text);
        }
        let mut record = vec![0];
        record.extend(OPT.to_be_bytes());
        record.extend((LARGEST_UDP as u16).to_be_bytes());
        record.extend([0; 4]);
        record.extend((option.len() as u16).to_be_bytes());
        record.extend(option);
        record
    }
}

/// From behind the flags.
fn read_question(reader: &mut Reader<'_>, id: u16, flags: u16) -> Result<Query, Malformed> {
    let [questions, answers, authorities, additional] = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
    if (questions, answers, authorities) != (1, 0, 0) || additional > 1 {
        return Err(Malformed);
    }
    let mut question = Vec::new();
    let mut text = String::new();
    let mut plain = true;
    loop {
        let label = reader.short()?;
        if label.len() > 63 || question.len() + label.len() > 254 {
            return Err(Malformed);
        }
        question.push(label.len() as u8);
        question.extend(label);
        if label.is_empty() {
            break;
        }
        plain &= label.iter().all(|b| b.is_ascii() && *b != b'.');
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|b| char::from(*b)));
    }
    let (kind, class) = (reader.u16()?, reader.u16()?);
    question.extend(kind.to_be_bytes());
    question.extend(class.to_be_bytes());
    let payload = if additional == 1 { Some(read_options(reader)?) } else { None };
    if !reader.is_empty() {
        return Err(Malformed);
    }
    let name = text.parse().ok().filter(|_| plain && class == INTERNET);
    let record = match kind {
        A => Record::A,
        AAAA => Record::Aaaa,
        _ => Record::Other,
    };
    Ok(Query { id, flags: flags & RECURSION_DESIRED, question, name, record, kind, payload })
}

/// The one record that a query may have: what the client can take.
fn read_options(reader: &mut Reader<'_>) -> Result<u16, Malformed> {
    let (root, kind, payload) = (reader.byte()?, reader.u16()?, reader.u16()?);
    let version = reader.u32()? >> 16 & 0xff;
    // The options themselves say nothing that is needed here, and are not passed on.
    reader.long()?;
    if root != 0 || kind != OPT || version != 0 { Err(Malformed) } else { Ok(payload) }
}

fn header(id: u16, flags: u16, code: ResponseCode, questions: u16, answers: u16, additional: u16) -> Vec<u8> {
    let flags = RESPONSE | RECURSION_AVAILABLE | flags & (OPCODE | TRUNCATED | RECURSION_DESIRED) | code as u16;
    let mut message = Vec::with_capacity(128);
    for word in [id, flags, questions, answers, 0, additional] {
        message.extend(word.to_be_bytes());
    }
    message
}

/// A record of the name in the question.
fn address_record(address: &IpAddr, ttl: u32) -> Vec<u8> {
    let (kind, data): (u16, Vec<u8>) = match address {
        IpAddr::V4(a) => (A, a.octets().into()),
        IpAddr::V6(a) => (AAAA, a.octets().into()),
    };
    let mut record = vec![0xc0, 12];
    record.extend(kind.to_be_bytes());
    record.extend(INTERNET.to_be_bytes());
    record.extend(ttl.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

/// A question of our own, for addresses of one family.
pub fn question(id: u16, name: &DomainName, six: bool) -> Vec<u8> {
    let mut message = Vec::with_capacity(64);
    for word in [id, RECURSION_DESIRED, 1, 0, 0, 1] {
        message.extend(word.to_be_bytes());
    }
    for label in name.labels() {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend((if six { AAAA } else { A }).to_be_bytes());
    message.extend(INTERNET.to_be_bytes());
    message.push(0);
    message.extend(OPT.to_be_bytes());
    message.extend((LARGEST_UDP as u16).to_be_bytes());
    message.extend([0; 6]);
    message
}

/// What a server says to [`question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Addresses of the name and of what it is an alias for; possibly none. Seconds that they may be kept.
    Addresses(Vec<IpAddr>, u32),
    NoSuchName,
    /// It does not fit; ask again over TCP.
    Truncated,
    Failed,
}

/// Reads an answer to the question with this id. An error: it is no answer to that question.
pub fn answer(bytes: &[u8], id: u16, name: &DomainName, six: bool) -> Result<Answer, Malformed> {
    let mut reader = Reader::new(bytes);
    let (its, flags) = (reader.u16()?, reader.u16()?);
    let [questions, answers, _, _] = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
    if its != id || flags & RESPONSE == 0 || flags & OPCODE != 0 || questions != 1 {
        return Err(Malformed);
    }
    let asked = name_at(bytes, &mut reader)?;
    let (kind, class) = (reader.u16()?, reader.u16()?);
    let wanted = if six { AAAA } else { A };
    if asked.as_ref() != Some(name) || kind != wanted || class != INTERNET {
        return Err(Malformed);
    }
    if flags & TRUNCATED != 0 {
        return Ok(Answer::Truncated);
    }
    match flags & RESPONSE_CODE {
        0 => {}
        3 => return Ok(Answer::NoSuchName),
        _ => return Ok(Answer::Failed),
    }
    let mut aliases = Vec::new();
    let mut addresses = Vec::new();
    let mut ttl = u32::MAX;
    for _ in 0..answers {
        let owner = name_at(bytes, &mut reader)?;
        let (kind, class, life) = (reader.u16()?, reader.u16()?, reader.u32()?);
        let length = reader.u16()?;
        let mut data = reader;
        let raw = reader.take(length.into())?;
        let Some(owner) = owner.filter(|_| class == INTERNET) else { continue };
        if kind == CNAME {
            let target = name_at(bytes, &mut data)?;
            if data.at() != reader.at() {
                return Err(Malformed);
            }
            aliases.extend(target.map(|target| (owner, target, life)));
        } else if kind == wanted {
            let address = match (six, raw) {
                (false, &[a, b, c, d]) => IpAddr::from([a, b, c, d]),
                (true, raw) => IpAddr::from(<[u8; 16]>::try_from(raw).map_err(|_| Malformed)?),
                _ => return Err(Malformed),
            };
            addresses.push((owner, address, life));
        }
    }
    let mut current = name.clone();
    let mut passed = BTreeSet::new();
    while let Some((_, target, life)) = aliases.iter().find(|(owner, _, _)| *owner == current) {
        if !passed.insert(current.clone()) || passed.len() > MOST_ALIASES {
            return Ok(Answer::Failed);
        }
        ttl = ttl.min(*life);
        current = target.clone();
    }
    let mut found = Vec::new();
    for (_, address, life) in addresses.iter().filter(|(owner, _, _)| *owner == current).take(MOST_ADDRESSES) {
        ttl = ttl.min(*life);
        found.push(*address);
    }
    Ok(Answer::Addresses(found, if ttl == u32::MAX { 0 } else { ttl }))
}

/// A name, which may jump back in the message. None: a good name under which nothing is looked for here.
fn name_at(bytes: &[u8], reader: &mut Reader<'_>) -> Result<Option<DomainName>, Malformed> {
    let mut text = String::new();
    let mut plain = true;
    let mut behind = None;
    let mut lowest = reader.at();
    let mut jumps = 0;
    loop {
        let length = reader.byte()?;
        match length >> 6 {
            0 if length == 0 => break,
            0 => {
                let label = reader.take(length.into())?;
                if text.len() + label.len() > 254 {
                    return Err(Malformed);
                }
                plain &= label.iter().all(|b| b.is_ascii() && *b != b'.');
                if !text.is_empty() {
                    text.push('.');
                }
                text.extend(label.iter().map(|b| char::from(*b)));
            }
            3 => {
                let to = usize::from(length & 0b11_1111) << 8 | usize::from(reader.byte()?);
                behind.get_or_insert(reader.at());
                jumps += 1;
                // Only ever back, so that it ends.
                if to >= lowest || jumps > MOST_JUMPS || to >= bytes.len() {
                    return Err(Malformed);
                }
                lowest = to;
                reader.seek(to);
            }
            _ => return Err(Malformed),
        }
    }
    if let Some(behind) = behind {
        reader.seek(behind);
    }
    Ok(text.parse().ok().filter(|_| plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    fn labels(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for label in text.split('.').filter(|l| !l.is_empty()) {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes
    }

    fn words(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    fn query(text: &str, kind: u16) -> Vec<u8> {
        [words(&[7, RECURSION_DESIRED, 1, 0, 0, 0]), labels(text), words(&[kind, 1])].concat()
    }

    const OPTIONS: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

    fn with_options(mut query: Vec<u8>) -> Vec<u8> {
        query[11] = 1;
        query.extend(OPTIONS);
        query
    }

    #[test]
    fn queries_that_are_read() {
        let read = Query::read(&query("API.Example.com", A)).unwrap();
        assert_eq!((read.name().cloned(), read.record()), (Some(name("api.example.com")), Record::A));
        assert_eq!(Query::read(&query("a.example", 65)).unwrap().record(), Record::Other);
        assert_eq!(Query::read(&query("", A)).unwrap().name(), None, "the root");
        assert_eq!(Query::read(&query("10.0.0.1", A)).unwrap().name(), None, "an address");
        let mut chaos = query("version.bind", 16);
        *chaos.last_mut().unwrap() = 3;
        assert_eq!(Query::read(&chaos).unwrap().name(), None, "another class");
        assert_eq!(Query::read(&chaos).unwrap().text(), "version.bind class 3");
        assert_eq!(Query::read(&query("", A)).unwrap().text(), ".");
        assert_eq!(Query::read(&query("a\nb.\u{e9}", A)).unwrap().text(), r"a\nb.\xc3\xa9");
        let dotted = [words(&[7, 0, 1, 0, 0, 0]), vec![9], b"a.example".to_vec(), vec![0], words(&[A, 1])].concat();
        assert_eq!(Query::read(&dotted).unwrap().name(), None, "a dot within a label");
    }

    #[test]
    fn queries_that_are_not() {
        let good = query("a.example", A);
        let change = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            bytes
        };
        let code = |bytes: &[u8]| match Query::read(bytes) {
            Err(NoQuery::Answer(answer)) => Some(answer[3] & 15),
            Err(NoQuery::Ignore) => None,
            Ok(query) => panic!("{query:?}"),
        };
        assert_eq!(code(&[]), None);
        assert_eq!(code(&good[..11]), None);
        assert_eq!(code(&change(2, 0x80)), None, "an answer");
        assert_eq!(code(&change(2, 0x28)), Some(4), "an update");
        for (what, bytes) in [
            ("no question", change(5, 0)),
            ("two questions", change(5, 2)),
            ("an answer within", change(7, 1)),
            ("an authority", change(9, 1)),
            ("two further records", change(11, 2)),
            ("a further record that is not there", change(11, 1)),
            ("a jump", change(12, 0xc0)),
            ("a label of 64", change(12, 64)),
            ("more bytes", [good.clone(), vec![0]].concat()),
            ("fewer bytes", good[..good.len() - 1].to_vec()),
            ("a long name", query(&"abcdefg.".repeat(40), A)),
            ("another further record", {
                let mut bytes = with_options(good.clone());
                let at = bytes.len() - 9;
                bytes[at] = 1;
                bytes
            }),
        ] {
            assert_eq!(code(&bytes), Some(1), "{what}");
        }
    }

    #[test]
    fn answers_are_what_the_other_side_reads() {
        let addresses: Vec<IpAddr> = ["203.0.113.7", "2001:db8::7", "203.0.113.8"].map(|a| a.parse().unwrap()).into();
        for six in [false, true] {
            let asked = question(99, &name("api.example.com"), six);
            let read = Query::read(&asked).unwrap();
            let bytes = read.answer(ResponseCode::Ok, &addresses, 30, None, false);
            let expected: Vec<IpAddr> = addresses.iter().copied().filter(|a| a.is_ipv6() == six).collect();
            assert_eq!(answer(&bytes, 99, &name("api.example.com"), six), Ok(Answer::Addresses(expected, 30)));
            let refused = read.answer(ResponseCode::Refused, &[], 0, Some("name_not_declared: not in scope"), false);
            assert_eq!(answer(&refused, 99, &name("api.example.com"), six), Ok(Answer::Failed));
            assert!(String::from_utf8_lossy(&refused).contains("name_not_declared: not in scope"));
            let none = read.answer(ResponseCode::NoSuchName, &[], 0, None, false);
            assert_eq!(answer(&none, 99, &name("api.example.com"), six), Ok(Answer::NoSuchName));
        }
        // The letters' cases come back, and no extended error without EDNS.
        let read = Query::read(&query("ApI.Example.com", A)).unwrap();
        let bytes = read.answer(ResponseCode::Refused, &[], 0, Some("why"), false);
        assert_eq!(bytes[12..12 + 17], labels("ApI.Example.com"));
        assert_eq!((bytes.len(), bytes[11]), (12 + 17 + 4, 0));
    }

    #[test]
    fn words_are_cut_to_what_the_client_takes() {
        let longest = format!("{}{}", format!("{}.", "a".repeat(63)).repeat(3), "b".repeat(61));
        let mut asked = with_options(query(&longest, A));
        let payload = asked.len() - 8;
        asked[payload..payload + 2].copy_from_slice(&512u16.to_be_bytes());
        let read = Query::read(&asked).unwrap();
        let why = format!("a{}", "é".repeat(500));
        let refused = read.answer(ResponseCode::Refused, &[], 0, Some(&why), false);
        assert_eq!((refused.len(), answer(&refused, 7, &name(&longest), false)), (511, Ok(Answer::Failed)), "no half letter");
        // Words never take an address's place.
        let addresses: Vec<IpAddr> = (0..13u32).map(|n| IpAddr::V4((0xcb00_7100 + n).into())).collect();
        for count in 0..=addresses.len() {
            let bytes = read.answer(ResponseCode::Ok, &addresses[..count], 5, Some(&why), false);
            assert!(bytes.len() <= 512, "{count} addresses");
            assert_eq!(
                answer(&bytes, 7, &name(&longest), false),
                Ok(Answer::Addresses(addresses[..count].into(), if count == 0 { 0 } else { 5 }))
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_said_to_be_cut() {
        let many: Vec<IpAddr> = (0..200u32).map(|n| IpAddr::V4((0xcb00_7100 + n).into())).collect();
        let plain = Query::read(&query("api.example.com", A)).unwrap();
        let bytes = plain.answer(ResponseCode::Ok, &many, 5, None, false);
        assert!(bytes.len() <= 512);
        assert_eq!(answer(&bytes, 7, &name("api.example.com"), false), Ok(Answer::Truncated));
        let Ok(Answer::Addresses(all, _)) =
            answer(&plain.answer(ResponseCode::Ok, &many, 5, None, true), 7, &name("api.example.com"), false)
        else {
            panic!()
        };
        assert_eq!(all.len(), MOST_ADDRESSES);
        let modern = Query::read(&with_options(query("api.example.com", A))).unwrap();
        assert!(matches!(
            answer(&modern.answer(ResponseCode::Ok, &many, 5, None, false), 7, &name("api.example.com"), false),
            Ok(Answer::Addresses(_, 5))
        ));
        assert!(modern.answer(ResponseCode::Refused, &[], 0, Some(&"é".repeat(900)), false).len() <= 512);
    }

    /// An answer to `a.example` with these records: owner, kind, data.
    fn reply(records: &[(&str, u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = [words(&[7, RESPONSE, 1, records.len() as u16, 0, 0]), labels("a.example"), words(&[A, 1])].concat();
        for (owner, kind, data) in records {
            bytes.extend([labels(owner), words(&[*kind, 1, 0, 60, data.len() as u16]), data.clone()].concat());
        }
        bytes
    }

    #[test]
    fn aliases_are_followed_and_strangers_are_not() {
        let read = |records: &[(&str, u16, Vec<u8>)]| answer(&reply(records), 7, &name("a.example"), false);
        let addresses =
            |list: &[[u8; 4]]| Ok(Answer::Addresses(list.iter().map(|a| IpAddr::from(*a)).collect(), if list.is_empty() { 0 } else { 60 }));
        assert_eq!(
            read(&[("a.example", A, vec![1, 2, 3, 4]), ("A.Example", A, vec![1, 2, 3, 5])]),
            addresses(&[[1, 2, 3, 4], [1, 2, 3, 5]])
        );
        assert_eq!(
            read(&[
                ("c.example", A, vec![9, 9, 9, 9]),
                ("a.example", CNAME, labels("b.example")),
                ("b.example", CNAME, labels("c.example"))
            ]),
            addresses(&[[9, 9, 9, 9]])
        );
        assert_eq!(read(&[("evil.example", A, vec![6, 6, 6, 6])]), addresses(&[]));
        assert_eq!(read(&[("a.example", 28, vec![0; 16])]), addresses(&[]));
        assert_eq!(read(&[("a.example", CNAME, labels("a.example"))]), Ok(Answer::Failed));
        assert_eq!(read(&[("a.example", CNAME, labels("b.example")), ("b.example", CNAME, labels("a.example"))]), Ok(Answer::Failed));
        assert_eq!(read(&[("a.example", A, vec![1, 2, 3])]), Err(Malformed));
        assert_eq!(read(&[("a.example", CNAME, [labels("b.example"), vec![0]].concat())]), Err(Malformed));
        // A name that jumps to itself, and one that jumps forward.
        let jump = |to: u8| {
            [
                words(&[7, RESPONSE, 1, 1, 0, 0]),
                labels("a.example"),
                words(&[A, 1]),
                vec![0xc0, to],
                words(&[A, 1, 0, 60, 4]),
                vec![1, 2, 3, 4],
            ]
            .concat()
        };
        assert_eq!(answer(&jump(12), 7, &name("a.example"), false), addresses(&[[1, 2, 3, 4]]));
        for to in [27, 28, 29, 99] {
            assert_eq!(answer(&jump(to), 7, &name("a.example"), false), Err(Malformed), "{to}");
        }
    }

    #[test]
    fn only_the_answer_to_the_question() {
        let good = reply(&[("a.example", A, vec![1, 2, 3, 4])]);
        assert!(answer(&good, 7, &name("a.example"), false).is_ok());
        assert_eq!(answer(&good, 8, &name("a.example"), false), Err(Malformed), "another id");
        assert_eq!(answer(&good, 7, &name("b.example"), false), Err(Malformed), "another name");
        assert_eq!(answer(&good, 7, &name("a.example"), true), Err(Malformed), "another family");
        assert_eq!(answer(&query("a.example", A), 7, &name("a.example"), false), Err(Malformed), "a question");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(query) = Query::read(&bytes) {
                let answer = query.answer(ResponseCode::Refused, &[], 0, Some("why"), false);
                prop_assert!(answer.len() <= LARGEST_UDP);
            }
            let _ = answer(&bytes, 7, &name("a.example"), false);
        }

        #[test]
        fn a_good_answer_with_bytes_changed(at in proptest::collection::vec((0usize..100, any::<u8>()), 1..4)) {
            let mut bytes = reply(&[("a.example", CNAME, labels("b.example")), ("b.example", A, vec![1, 2, 3, 4])]);
            for (at, to) in at {
                let at = at % bytes.len();
                bytes[at] = to;
            }
            let _ = answer(&bytes, 7, &name("a.example"), false);
        }
    }
}
