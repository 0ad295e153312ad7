//! Any bytes as what a client says first: a verdict is final, whatever follows, and does not hang on how the bytes come in pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use remit::wire::tls::{Hello, LARGEST_HELLO};

fuzz_target!(|bytes: &[u8]| {
    let whole = Hello::read(bytes);
    for end in cuts(bytes.len()) {
        let early = Hello::read(&bytes[..end]);
        assert!(early == Hello::Incomplete || early == whole, "{early:?} after {end} bytes becomes {whole:?}");
    }
    if let Hello::Client { .. } = whole {
        let message = message(bytes);
        for size in [1, 2, 4, 5, 7, 64, 1_000, message.len()] {
            let records = records(&message, size);
            let expected = if records.len() <= LARGEST_HELLO { &whole } else { &Hello::Malformed };
            assert_eq!(Hello::read(&records), *expected, "in records of {size}");
        }
    }
});

/// Where to stop: everywhere in a short one; in a long one at its ends, at the limit, and here and there.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let telling = move |end: usize| end < 16 || end + 16 > length || end.abs_diff(LARGEST_HELLO) < 2 || end.is_multiple_of(length / 8);
    (0..length).filter(move |end| length <= 256 || telling(*end))
}

/// The handshake message of a hello that was read.
fn message(bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    let mut rest = bytes;
    while message.len() < 4 || message.len() < 4 + usize::from(u16::from_be_bytes([message[2], message[3]])) {
        let (part, behind) = rest[5..].split_at(u16::from_be_bytes([rest[3], rest[4]]).into());
        message.extend(part);
        rest = behind;
    }
    message
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let mut records = Vec::new();
    for part in message.chunks(size.min(1 << 14)) {
        records.extend([22, 3, 1]);
        records.extend((part.len() as u16).to_be_bytes());
        records.extend(part);
    }
    records
}
