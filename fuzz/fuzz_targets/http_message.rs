//! Any bytes as a message of HTTP/1.1: its reading does not hang on how the bytes come in pieces, and what is written of it reads as the
//! same, with one length and nothing for one hop only.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use remit::wire::http1::{
    Body, Ends, Fault, Field, LARGEST_HEAD, Length, MOST_FIELDS, Persistence, Piece, Request, Response, Scan, Target, write_head,
};

const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "OPTIONS"];

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let whole = Scan::default().head(bytes);
    for step in [1, 3, 16, 64] {
        assert_eq!(scanned(bytes, step), whole, "in steps of {step}");
    }
    let Ok(Some(length)) = whole else { return };
    let (head, rest) = bytes.split_at(length);
    if choice.is_multiple_of(2) {
        let Ok(request) = Request::read(head) else { return };
        assert_ne!(request.length, Length::UntilEnd);
        let first = match request.target {
            Target::Origin(path) => format!("{} {path} HTTP/1.1", request.method),
            Target::Absolute { .. } | Target::Authority(_) | Target::Asterisk => return,
        };
        let ends = Ends { length: request.length, connection: request.persistence, upgrade: request.upgrade };
        let mut out = Vec::new();
        write_head(&mut out, format_args!("{first}"), Some(&request.host), &request.fields, ends);
        lines(&out);
        // Within the limits it is read again; what the limits were filled with before may pass them now.
        if out.len() <= LARGEST_HEAD && request.fields.len() + 4 <= MOST_FIELDS {
            assert_eq!(Scan::default().head(&out), Ok(Some(out.len())));
            let again = Request::read(&out).expect("what we write, we read");
            assert_eq!((again.method, again.target, &again.host), (request.method, request.target, &request.host));
            assert_eq!(
                (again.length, again.persistence, again.upgrade),
                (request.length, if request.upgrade.is_some() { Persistence::KeepAlive } else { request.persistence }, request.upgrade)
            );
            same(&again.fields, &request.fields);
        }
        body(request.length, rest);
    } else {
        let method = METHODS[usize::from(choice / 2) % METHODS.len()];
        let Ok(response) = Response::read(head, method) else { return };
        assert!(response.length != Length::UntilEnd || response.persistence == Persistence::Close);
        body(response.length, rest);
    }
});

fn scanned(bytes: &[u8], step: usize) -> Result<Option<usize>, Fault> {
    let mut scan = Scan::default();
    for end in (0..bytes.len()).step_by(step) {
        // What is found early does not hang on what follows.
        match scan.head(&bytes[..end]) {
            Ok(None) => {}
            early => return early,
        }
    }
    scan.head(bytes)
}

/// One line for each thing that must be said once, and no line end that is not whole.
fn lines(head: &[u8]) {
    let text = head.strip_suffix(b"\r\n\r\n").expect("it ends");
    let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    assert!(lines.iter().all(|line| !line.contains(&b'\r') && !line.is_empty()));
    let count = |name: &[u8]| lines.iter().filter(|line| line.starts_with(name)).count();
    assert_eq!(count(b"host: "), 1);
    assert!(count(b"content-length: ") + count(b"transfer-encoding: ") <= 1);
    for hop in [&b"keep-alive:"[..], b"te:", b"proxy-connection:", b"trailer:", b"http2-settings:"] {
        assert_eq!(count(hop), 0);
    }
}

fn same(these: &[Field<'_>], those: &[Field<'_>]) {
    assert_eq!(these.len(), those.len());
    for (this, that) in these.iter().zip(those) {
        assert!(this.name.eq_ignore_ascii_case(that.name));
        assert_eq!(this.value, that.value);
    }
}

fn body(length: Length, bytes: &[u8]) {
    let whole = decoded(length, bytes, bytes.len().max(1));
    for step in [1, 7] {
        let (data, end) = decoded(length, bytes, step);
        assert_eq!(end.is_err(), whole.1.is_err());
        if whole.1.is_ok() {
            assert_eq!((data, end), whole, "in steps of {step}");
        }
    }
}

/// The data, and whether it has ended and how much was left behind it.
fn decoded(length: Length, bytes: &[u8], step: usize) -> (Vec<u8>, Result<(bool, usize), Fault>) {
    let (mut body, mut buffer, mut data) = (Body::new(length), BytesMut::new(), Vec::new());
    let mut pieces = bytes.chunks(step);
    loop {
        match body.next(&mut buffer) {
            Ok(Piece::Data(piece)) => data.extend_from_slice(&piece),
            Ok(Piece::End) => {
                let left = buffer.len() + pieces.map(<[u8]>::len).sum::<usize>();
                return (data, Ok((true, left)));
            }
            Ok(Piece::Wait) => match pieces.next() {
                Some(more) => buffer.extend_from_slice(more),
                None => return (data, Ok((false, 0))),
            },
            Err(fault) => return (data, Err(fault)),
        }
    }
}
