//! The ClientHello of TLS: which server is meant (RFC 8446 §4.1.2, RFC 6066 §3).

use super::Malformed;
use super::reader::Reader;
use crate::policy::Reason;
use crate::scope::DomainName;

/// A ClientHello that needs more bytes than this, headers of records among them, is refused (one with a post-quantum key share has about
/// 2 KiB).
pub const LARGEST_HELLO: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const LARGEST_RECORD: usize = 1 << 14;
const SERVER_NAME: u16 = 0;
/// Encrypted ClientHello, and its draft of before.
const ENCRYPTED: [u16; 2] = [0xfe0d, 0xffce];

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The bytes so far are the beginning of one.
    Incomplete,
    NotTls,
    Malformed,
    Client {
        server_name: Option<DomainName>,
        encrypted: bool,
    },
}

impl Hello {
    pub fn read(bytes: &[u8]) -> Self {
        // The first byte of every other protocol tells it from TLS at once.
        match bytes.first() {
            None => return Self::Incomplete,
            Some(&HANDSHAKE) => {}
            Some(_) => return Self::NotTls,
        }
        match message(bytes) {
            Err(Malformed) => Self::Malformed,
            Ok(None) if bytes.len() >= LARGEST_HELLO => Self::Malformed,
            Ok(None) => Self::Incomplete,
            Ok(Some(body)) => match client_hello(&body) {
                Err(Malformed) => Self::Malformed,
                Ok((server_name, encrypted)) => Self::Client { server_name, encrypted },
            },
        }
    }

    /// The server that is meant. None: more bytes are needed.
    pub fn server(self) -> Option<Result<DomainName, Reason>> {
        Some(match self {
            Self::Incomplete => return None,
            Self::NotTls => Err(Reason::TlsRequired),
            Self::Malformed => Err(Reason::HelloMalformed),
            Self::Client { server_name: _, encrypted: true } => Err(Reason::EncryptedHello),
            Self::Client { server_name: None, encrypted: false } => Err(Reason::ServerNameMissing),
            Self::Client { server_name: Some(name), encrypted: false } => Ok(name),
        })
    }
}

/// The first handshake message, put together from its records. None: more bytes are needed.
fn message(bytes: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut message = Vec::new();
    loop {
        let wanted = match message.get(..4) {
            None => 4,
            Some(&[kind, a, b, c]) => {
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if kind != CLIENT_HELLO || length > LARGEST_HELLO {
                    return Err(Malformed);
                }
                4 + length
            }
            Some(_) => return Err(Malformed),
        };
        // However it came in pieces.
        if reader.at() > LARGEST_HELLO {
            return Err(Malformed);
        }
        if message.len() >= wanted {
            // A hello ends with its record: what follows it there would be said before the server answered.
            return if message.len() == wanted { Ok(Some(message.split_off(4))) } else { Err(Malformed) };
        }
        let Ok(header) = reader.take(5) else {
            // What there is of a header may already be wrong.
            let rest = &bytes[reader.at()..];
            let plausible = rest.first().is_none_or(|b| *b == HANDSHAKE) && rest.get(1).is_none_or(|b| *b == 3);
            return if plausible { Ok(None) } else { Err(Malformed) };
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != HANDSHAKE || header[1] != 3 || length == 0 || length > LARGEST_RECORD {
            return Err(Malformed);
        }
        match reader.take(length) {
            Ok(part) => message.extend_from_slice(part),
            Err(Malformed) => return Ok(None),
        }
    }
}

fn client_hello(body: &[u8]) -> Result<(Option<DomainName>, bool), Malformed> {
    let mut reader = Reader::new(body);
    let version = reader.u16()?;
    reader.take(32)?; // random
    let session = reader.short()?;
    let ciphers = reader.long()?;
    let compression = reader.short()?;
    if version >> 8 != 3 || session.len() > 32 || ciphers.is_empty() || !ciphers.len().is_multiple_of(2) || compression.is_empty() {
        return Err(Malformed);
    }
    if reader.is_empty() {
        return Ok((None, false));
    }
    let mut extensions = Reader::new(reader.long()?);
    if !reader.is_empty() {
        return Err(Malformed);
    }
    let mut seen = Vec::new();
    let (mut server_name, mut encrypted) = (None, false);
    while !extensions.is_empty() {
        let (kind, data) = (extensions.u16()?, extensions.long()?);
        if seen.contains(&kind) {
            return Err(Malformed);
        }
        seen.push(kind);
        if kind == SERVER_NAME {
            server_name = Some(host_name(data)?);
        }
        encrypted |= ENCRYPTED.contains(&kind);
    }
    Ok((server_name, encrypted))
}

/// Exactly one name of the only kind there is.
fn host_name(data: &[u8]) -> Result<DomainName, Malformed> {
    let mut reader = Reader::new(data);
    let mut names = Reader::new(reader.long()?);
    let (kind, name) = (names.byte()?, names.long()?);
    if kind != 0 || !names.is_empty() || !reader.is_empty() || name.ends_with(b".") {
        return Err(Malformed);
    }
    std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn long(data: &[u8]) -> Vec<u8> {
        let mut all = u16::try_from(data.len()).unwrap().to_be_bytes().to_vec();
        all.extend(data);
        all
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().to_vec(), long(data)].concat()
    }

    fn name(kind: u8, text: &[u8]) -> Vec<u8> {
        [vec![kind], long(text)].concat()
    }

    fn sni(text: &str) -> Vec<u8> {
        extension(0, &long(&name(0, text.as_bytes())))
    }

    /// A handshake message with these extensions.
    fn handshake(extensions: Option<&[u8]>) -> Vec<u8> {
        let mut body = [&[3u8, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0]].concat();
        body.extend(extensions.map(long).unwrap_or_default());
        [vec![1, 0], long(&body)].concat()
    }

    /// In records of at most so many bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [vec![22, 3, 1], long(part)].concat()).collect()
    }

    fn hello(extensions: &[u8]) -> Vec<u8> {
        records(&handshake(Some(extensions)), 16_384)
    }

    fn client(server_name: Option<&str>, encrypted: bool) -> Hello {
        Hello::Client { server_name: server_name.map(|n| n.parse().unwrap()), encrypted }
    }

    #[test]
    fn table() {
        let groups = extension(10, &[0, 2, 0, 29]);
        let cases: Vec<(&str, Vec<u8>, Hello)> = vec![
            ("a name", hello(&[groups.clone(), sni("API.example.com")].concat()), client(Some("api.example.com"), false)),
            ("no name", hello(&groups), client(None, false)),
            ("no extensions", records(&handshake(None), 99), client(None, false)),
            ("encrypted", hello(&[sni("front.example"), extension(0xfe0d, &[0; 9])].concat()), client(Some("front.example"), true)),
            (
                "two names in one list",
                hello(&extension(0, &long(&[name(0, b"a.example"), name(0, b"b.example")].concat()))),
                Hello::Malformed,
            ),
            ("two lists", hello(&[sni("a.example"), sni("b.example")].concat()), Hello::Malformed),
            ("another kind of name", hello(&extension(0, &long(&name(1, b"a.example")))), Hello::Malformed),
            ("an address", hello(&sni("203.0.113.7")), Hello::Malformed),
            ("a dot at the end", hello(&sni("a.example.")), Hello::Malformed),
            ("an empty name", hello(&sni("")), Hello::Malformed),
            ("a NUL in the name", hello(&sni("a.example\0.evil.example")), Hello::Malformed),
            ("bytes after the list", hello(&extension(0, &[long(&name(0, b"a.example")), vec![0]].concat())), Hello::Malformed),
            ("a length beyond the end", hello(&[0, 0, 0xff, 0xff]), Hello::Malformed),
            ("another message", records(&[2, 0, 0, 1, 0], 99), Hello::Malformed),
            ("an empty record", vec![22, 3, 1, 0, 0], Hello::Malformed),
            ("a record of 20 KiB", [vec![22, 3, 1, 0x50, 0], vec![0; 0x5000]].concat(), Hello::Malformed),
            ("an empty message", records(&[1, 0, 0, 0], 99), Hello::Malformed),
            ("a message of 16 MiB", records(&[1, 0xff, 0xff, 0xff], 99), Hello::Malformed),
            ("SSL 2", vec![0x80, 0x2e, 1, 0, 2], Hello::NotTls),
            ("HTTP", b"GET / HTTP/1.1\r\n".to_vec(), Hello::NotTls),
            ("an alert first", vec![21, 3, 3, 0, 2, 1, 0], Hello::NotTls),
            ("nothing", vec![], Hello::Incomplete),
            (
                "another record between",
                [records(&handshake(Some(&sni("a.example")))[..9], 9), vec![23, 3, 3, 0, 1, 0]].concat(),
                Hello::Malformed,
            ),
            ("more in the record", records(&[handshake(Some(&sni("a.example"))), vec![1]].concat(), 999), Hello::Malformed),
        ];
        for (what, bytes, expected) in cases {
            assert_eq!(Hello::read(&bytes), expected, "{what}");
        }
    }

    #[test]
    fn which_server_is_meant() {
        let draft = extension(0xffce, &[0; 9]);
        let cases: Vec<(&str, Vec<u8>, Option<Result<&str, Reason>>)> = vec![
            ("a name", hello(&sni("API.example.com")), Some(Ok("api.example.com"))),
            ("encrypted", hello(&[sni("front.example"), extension(0xfe0d, &[0; 9])].concat()), Some(Err(Reason::EncryptedHello))),
            ("encrypted, by the draft, before the name", hello(&[draft, sni("front.example")].concat()), Some(Err(Reason::EncryptedHello))),
            ("encrypted, and no name", hello(&extension(0xfe0d, &[0; 9])), Some(Err(Reason::EncryptedHello))),
            ("no name", hello(&extension(10, &[0, 2, 0, 29])), Some(Err(Reason::ServerNameMissing))),
            ("no extensions", records(&handshake(None), 99), Some(Err(Reason::ServerNameMissing))),
            ("an address", hello(&sni("203.0.113.7")), Some(Err(Reason::HelloMalformed))),
            ("an IPv6 address", hello(&sni("2001:db8::7")), Some(Err(Reason::HelloMalformed))),
            ("HTTP", b"GET / HTTP/1.1\r\n".to_vec(), Some(Err(Reason::TlsRequired))),
            ("the beginning", hello(&sni("api.example.com"))[..40].to_vec(), None),
        ];
        for (what, bytes, expected) in cases {
            assert_eq!(Hello::read(&bytes).server(), expected.map(|server| server.map(|name| name.parse().unwrap())), "{what}");
        }
    }

    #[test]
    fn in_pieces_of_any_size() {
        let message = handshake(Some(&sni("api.example.com")));
        for size in 1..=message.len() {
            let bytes = records(&message, size);
            assert_eq!(Hello::read(&bytes), client(Some("api.example.com"), false), "records of {size}");
            for end in 0..bytes.len() {
                assert_eq!(Hello::read(&bytes[..end]), Hello::Incomplete, "{end} bytes in records of {size}");
            }
            // What follows the hello is the server's business.
            assert_eq!(Hello::read(&[bytes, vec![20, 3, 3, 0, 1, 1]].concat()), client(Some("api.example.com"), false));
        }
    }

    #[test]
    fn the_limit_is_the_same_for_all_pieces() {
        let padded = |length: usize| {
            let bare = handshake(Some(&[sni("a.example"), extension(21, &[])].concat())).len();
            handshake(Some(&[sni("a.example"), extension(21, &vec![0; length - bare])].concat()))
        };
        for size in [1, 100, 16_384] {
            // Each record has a header of 5.
            let largest = (1..usize::MAX).take_while(|length| length + 5 * length.div_ceil(size) <= LARGEST_HELLO).last().unwrap();
            let good = records(&padded(largest), size);
            assert_eq!(Hello::read(&good), client(Some("a.example"), false), "{} bytes in records of {size}", good.len());
            let bad = records(&padded(largest + 1), size);
            assert!(bad.len() > LARGEST_HELLO);
            for end in [LARGEST_HELLO, LARGEST_HELLO + 1, bad.len()] {
                assert_eq!(Hello::read(&bad[..end.min(bad.len())]), Hello::Malformed, "{end} bytes in records of {size}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600), tls in any::<bool>()) {
            let mut bytes = bytes;
            if tls {
                bytes.splice(0..0, [22, 3, 1]);
            }
            let _ = Hello::read(&bytes);
        }

        /// A good hello with one byte changed names the same server, another valid one, or none.
        #[test]
        fn one_byte_changed(at in 0usize..120, to in any::<u8>()) {
            let mut bytes = hello(&sni("api.example.com"));
            let at = at % bytes.len();
            bytes[at] = to;
            if let Hello::Client { server_name: Some(name), .. } = Hello::read(&bytes) {
                prop_assert!(name.as_str().parse::<DomainName>().is_ok());
            }
        }
    }
}
