//! Forms in bodies, as far as frameworks take a field of theirs for the method.
//!
//! Promise: a form that some framework would read such a field in is found, or is [`Form::Hidden`]. What only looks like one may be found as
//! well.

use crate::scope::names_a_method;

/// What a body is to a framework that takes a field of a form for the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    No,
    Fields,
    Parts,
    /// No type is said, and some frameworks take that for a form: it is sent on with [`NO_FORM`].
    Untyped,
    /// It may be one, or be read as one, and cannot be looked into.
    Hidden,
}

/// Characters of a name that are looked at.
const LONGEST_NAME: usize = 128;
/// What a body is that does not say it (RFC 9110 §8.3).
pub const NO_FORM: &str = "application/octet-stream";

/// By its method, and by all fields `content-type` and `content-encoding`. Frameworks look for a method in POST alone.
pub fn form_of(method: &str, types: &[&[u8]], codings: &[&[u8]]) -> Form {
    if method != "POST" {
        return Form::No;
    }
    let kind = match types {
        [] => return Form::Untyped,
        [kind] => kind,
        // Each framework takes another.
        _ => return Form::Hidden,
    };
    let text = String::from_utf8_lossy(kind).to_ascii_lowercase();
    let mut parameters = text.split(';').map(str::trim);
    let form = match parameters.next().unwrap_or_default() {
        "" if text.is_empty() => return Form::Untyped,
        "application/x-www-form-urlencoded" => Form::Fields,
        kind if kind.is_empty() || kind.contains(',') || kind.contains("form-urlencoded") => return Form::Hidden,
        kind if kind.starts_with("multipart/") => Form::Parts,
        _ => return Form::No,
    };
    let known = |charset: &str| matches!(charset.trim().trim_matches('"'), "utf-8" | "utf8" | "us-ascii" | "iso-8859-1");
    let plain = parameters.filter_map(|p| p.split_once('=')).all(|(name, value)| name.trim() != "charset" || known(value));
    if plain && codings.iter().all(|coding| coding.eq_ignore_ascii_case(b"identity")) { form } else { Form::Hidden }
}

/// Whether a form names another method.
pub fn form_names_a_method(kind: Form, form: &[u8]) -> bool {
    let text = String::from_utf8_lossy(form);
    match kind {
        Form::No | Form::Untyped => false,
        Form::Hidden => true,
        Form::Fields => names_a_method(&text),
        Form::Parts => part_names(&text).any(|name| name.is_none_or(|name| names_a_method(&name))),
    }
}

/// What may be names of parts, wherever in the body it stands, so that no reading of its borders differs. None: it is written so that
/// programs differ in what it says.
fn part_names(body: &str) -> impl Iterator<Item = Option<String>> {
    // The bytes of letters stay where they are.
    let lower = body.to_ascii_lowercase();
    // Rack takes it for the name of a part without one.
    let other = lower.contains("content-id").then_some(None);
    let ends: Vec<usize> = lower.match_indices("name").filter(|(at, _)| !lower[..*at].ends_with("file")).map(|(at, _)| at + 4).collect();
    other.into_iter().chain(ends.into_iter().filter_map(move |end| {
        let rest = body[end..].trim_start();
        if rest.starts_with('*') {
            return Some(None);
        }
        let value = rest.strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let value = quote.map_or(value, |quote| &value[quote.len_utf8()..]);
        let mut name = String::new();
        let mut escaped = false;
        // Long names are none of those, and not worth the time.
        let value = value.char_indices().nth(LONGEST_NAME).map_or(value, |(end, _)| &value[..end]);
        for c in value.chars() {
            match c {
                _ if escaped => {
                    name.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '\r' | '\n' => break,
                c if Some(c) == quote || quote.is_none() && (c == ';' || c.is_whitespace()) => break,
                c => name.push(c),
            }
        }
        // Some decode what mail does (RFC 2047).
        Some(Some(name).filter(|name| !name.contains("=?")))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_form() {
        for (method, types, codings, expected) in [
            ("POST", &["application/x-www-form-urlencoded"][..], &[][..], Form::Fields),
            ("POST", &["Application/X-WWW-Form-Urlencoded; Charset=\"UTF-8\""], &[], Form::Fields),
            ("POST", &["multipart/form-data; boundary=x"], &["identity"], Form::Parts),
            ("POST", &["application/json"], &["gzip"], Form::No),
            ("PUT", &["application/x-www-form-urlencoded"], &[], Form::No),
            ("POST", &[], &[], Form::Untyped),
            ("POST", &[""], &[], Form::Untyped),
            ("POST", &["; charset=utf-8"], &[], Form::Hidden),
            ("POST", &[], &["gzip"], Form::Untyped),
            ("POST", &["text/plain", "application/x-www-form-urlencoded"], &[], Form::Hidden),
            ("POST", &["text/plain, application/x-www-form-urlencoded"], &[], Form::Hidden),
            ("POST", &["application/x-www-form-urlencoded"], &["gzip"], Form::Hidden),
            ("POST", &["application/x-www-form-urlencoded"], &["identity, gzip"], Form::Hidden),
            ("POST", &["application/x-www-form-urlencoded;charset=utf-16be"], &[], Form::Hidden),
            ("POST", &["multipart/form-data; charset=ibm037; boundary=x"], &[], Form::Hidden),
        ] {
            let bytes = |all: &[&'static str]| all.iter().map(|text| text.as_bytes()).collect::<Vec<_>>();
            assert_eq!(form_of(method, &bytes(types), &bytes(codings)), expected, "{method} {types:?} {codings:?}");
        }
    }

    #[test]
    fn names_of_parts() {
        for (head, expected) in [
            ("name=\"_method\"", true),
            ("NAME = '_method'", true),
            ("name=_method; x", true),
            ("name=\"\\_method\"", true),
            ("name=\".method\"", true),
            ("name=\" _method\"", true),
            ("name*=utf-8''%5fmethod", true),
            ("name=\"_method\0x\"", true),
            ("name=\"[_method]\"", true),
            ("name=\"=?utf-8?Q?=5Fmethod?=\"", true),
            ("x\r\nContent-ID: _method", true),
            ("name=\"payment_method\"", false),
            ("name=\"a\"; filename*=utf-8''b", false),
            ("filename=\"_method\"", false),
        ] {
            let body = format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\nDELETE\r\n--x--\r\n");
            assert_eq!(form_names_a_method(Form::Parts, body.as_bytes()), expected, "{head}");
        }
        assert!(!form_names_a_method(Form::Fields, b"a=_method"));
        // Its time does not grow with the square of its length.
        assert!(!form_names_a_method(Form::Parts, "name=".repeat(13_000).as_bytes()));
    }
}
