//! Any text as the target of a request, as who is asked, and as a form: a form of its own that stays as it is, no dots, and no method that
//! hides.

#![no_main]

use libfuzzer_sys::fuzz_target;
use remit::scope::{Authority, Path, PathPattern, RequestTarget, names_a_method};
use remit::wire::form::{Form, form_names_a_method, form_of};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    match choice % 3 {
        0 => target(rest),
        1 => authority(rest),
        _ => form(rest),
    }
});

fn target(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(target) = RequestTarget::parse(text) else { return };
    let written = target.to_string();
    assert!(written.bytes().all(|b| b.is_ascii_graphic() && b != b'#'), "{written}");
    assert!(written.starts_with('/') && !written.starts_with("//"));
    let again = RequestTarget::parse(&written).expect("what we write, we read");
    assert_eq!(again.to_string(), written);
    assert_eq!((again.layered(), again.names_a_method()), (target.layered(), target.names_a_method()));
    let plain = !target.path().contains('%');
    assert!(!plain || !target.layered());
    assert!(!target.path().split('/').any(|segment| matches!(segment.split(';').next(), Some("." | ".."))), "{written}");
    if let Ok(path) = target.path().parse::<Path>() {
        assert!(PathPattern::Exact(path.clone()).matches(target.path()));
        // As a server would walk it, it stays below.
        let below = format!("{}/x", target.path().trim_end_matches('/'));
        assert!(PathPattern::PathPrefix(path).matches(&below));
    }
}

fn authority(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(authority) = text.parse::<Authority>() else { return };
    let written = authority.to_string();
    assert!(!written.contains(['@', '/', ' ', '\\', '?', '#']), "{written}");
    assert_eq!(written.parse::<Authority>(), Ok(authority), "{written}");
}

fn form(bytes: &[u8]) {
    let at = bytes.iter().position(|b| *b == 0).unwrap_or(0);
    let (kind, body) = bytes.split_at(at);
    let kind = form_of("POST", &[kind], &[]);
    let found = form_names_a_method(kind, body);
    assert!(kind != Form::Hidden || found);
    // Whoever writes it plainly is found.
    let mut plain = body.to_vec();
    plain.extend_from_slice(b"&_method=DELETE");
    assert!(form_names_a_method(Form::Fields, &plain));
    if let Ok(text) = std::str::from_utf8(body) {
        assert_eq!(form_names_a_method(Form::Fields, body), names_a_method(text));
    }
}
