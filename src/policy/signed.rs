//! Signed texts: what the operator hands to guards, and how a guard knows that it is the operator's.
//!
//! The form is that of signed notes (<https://c2sp.org/signed-note>): the text, an empty line, and a line for each signature. It stays
//! readable, and names its keys, so that one may take another's place. Promise: [`Trust::open`] returns a text only if the trusted key signed
//! exactly this one. No randomness: one text and one key make one signature.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

/// The name of the key that policies are signed with.
pub const POLICY_KEY: &str = "remit-policy";
/// Ed25519, in the list of signed notes.
const ALGORITHM: u8 = 1;
const DASH: &str = "\u{2014} ";
/// More signatures than this are not looked at.
const MOST_SIGNATURES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    #[error("it is no signed note: a text, an empty line, and lines of signatures that begin with a dash")]
    Form,
    #[error("no signature is of the trusted key")]
    Unsigned,
    #[error("the signature does not fit the text")]
    Forged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key; it has the form `name+00000000+base64`, as the operator prints it")]
pub struct TrustError;

/// The key whose signature counts.
#[derive(Clone, PartialEq, Eq)]
pub struct Trust {
    name: String,
    id: [u8; 4],
    key: [u8; 32],
}

impl Trust {
    fn new(name: &str, key: [u8; 32]) -> Self {
        Self { name: name.to_owned(), id: id(name, &key), key }
    }

    pub fn public_key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The text of a note that this key signed.
    pub fn open<'a>(&self, note: &'a str) -> Result<&'a str, SignedError> {
        let (text, signatures) = split(note).ok_or(SignedError::Form)?;
        if signatures.lines().count() > MOST_SIGNATURES {
            return Err(SignedError::Form);
        }
        for line in signatures.lines() {
            let (name, signature) = line.strip_prefix(DASH).and_then(|rest| rest.split_once(' ')).ok_or(SignedError::Form)?;
            let signature = BASE64.decode(signature).map_err(|_| SignedError::Form)?;
            let (id, signature) = signature.split_at_checked(4).ok_or(SignedError::Form)?;
            if name == self.name && id == self.id {
                let key = UnparsedPublicKey::new(&ED25519, self.key);
                return key.verify(text.as_bytes(), signature).map(|()| text).map_err(|_| SignedError::Forged);
            }
        }
        Err(SignedError::Unsigned)
    }
}

impl FromStr for Trust {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else { return Err(TrustError) };
        let key = BASE64.decode(key).map_err(|_| TrustError)?;
        let [ALGORITHM, key @ ..] = key.as_slice() else { return Err(TrustError) };
        let known = Self::new(name, key.try_into().map_err(|_| TrustError)?);
        let good = !name.is_empty() && !name.contains(char::is_whitespace) && hexadecimal(&known.id) == id;
        if good { Ok(known) } else { Err(TrustError) }
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, key } = self;
        write!(f, "{name}+{}+{}", hexadecimal(id), BASE64.encode([&[ALGORITHM], key.as_slice()].concat()))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who signs.
pub struct Signer {
    pair: Ed25519KeyPair,
    trust: Trust,
}

impl Signer {
    /// From 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
        let key = pair.public_key().as_ref().try_into().expect("public keys of Ed25519 have 32 bytes");
        Self { pair, trust: Trust::new(POLICY_KEY, key) }
    }

    /// The key by which its signatures are known.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The note: a text that ends a line is signed as it stands, others are given the end of their line first.
    pub fn sign(&self, text: &str) -> String {
        let mut note = text.to_owned();
        if !note.ends_with('\n') {
            note.push('\n');
        }
        let signature = [&self.trust.id, self.pair.sign(note.as_bytes()).as_ref()].concat();
        note.push_str(&format!("\n{DASH}{} {}\n", self.trust.name, BASE64.encode(signature)));
        note
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pair: _, trust } = self;
        f.debug_struct("Signer").field("trust", trust).finish_non_exhaustive()
    }
}

/// The text of a note, whoever signed it.
pub fn text(note: &str) -> Option<&str> {
    split(note).map(|(text, _)| text)
}

/// The text with the end of its last line, and the lines of signatures: the last empty line is between them.
fn split(note: &str) -> Option<(&str, &str)> {
    let at = note.rfind("\n\n")?;
    let (text, signatures) = (&note[..=at], &note[at + 2..]);
    (!signatures.is_empty() && signatures.ends_with('\n')).then_some((text, signatures))
}

fn id(name: &str, key: &[u8; 32]) -> [u8; 4] {
    let hash = Sha256::new().chain_update(name).chain_update(b"\n").chain_update([ALGORITHM]).chain_update(key).finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

fn hexadecimal(id: &[u8; 4]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signer() -> Signer {
        Signer::from_seed(&[7; 32])
    }

    #[test]
    fn signed_and_opened() {
        let signer = signer();
        let trust: Trust = signer.trust().to_string().parse().unwrap();
        for text in ["{}\n", "one\n\ntwo\n", "\n", "", "no end", "\u{2014} remit-policy AAAA\n"] {
            let note = signer.sign(text);
            let whole = if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
            assert_eq!(trust.open(&note), Ok(whole.as_str()), "{note}");
            assert_eq!(super::text(&note), Some(whole.as_str()));
            assert_eq!(signer.sign(text), note, "the same again");
        }
    }

    /// The example of the Go implementation (golang.org/x/mod/sumdb/note).
    #[test]
    fn others_read_and_write_the_same_form() {
        let trust: Trust = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
        let note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        assert!(trust.open(note).unwrap().starts_with("If you think"));
    }

    #[test]
    fn others_are_not_believed() {
        let (signer, other) = (signer(), Signer::from_seed(&[8; 32]));
        let (trust, note) = (signer.trust(), signer.sign("{\"a\": 1}\n"));
        let theirs = other.sign("{\"a\": 1}\n");
        let their_line = theirs.lines().last().unwrap();
        let both = format!("{note}{their_line}\n");
        assert_eq!(trust.open(&both), Ok("{\"a\": 1}\n"), "a second signature disturbs nobody");
        assert_eq!(other.trust().open(&both), Ok("{\"a\": 1}\n"));
        let cases = [
            (theirs.clone(), SignedError::Unsigned),
            (note.replace("1}", "2}"), SignedError::Forged),
            (note.replace('{', "{ "), SignedError::Forged),
            (format!("\n{note}"), SignedError::Forged),
            (note.replacen("\n\n", "\n\n\n", 1), SignedError::Forged),
            (note.replace("remit-policy", "remit-polic"), SignedError::Unsigned),
            (note.trim_end().to_owned(), SignedError::Form),
            (note.replace('\u{2014}', "-"), SignedError::Form),
            ("{\"a\": 1}\n".to_owned(), SignedError::Form),
            ("{\"a\": 1}\n\n".to_owned(), SignedError::Form),
            (String::new(), SignedError::Form),
            (format!("{note}{}", format!("{their_line}\n").repeat(16)), SignedError::Form),
            (note.replace("remit-policy ", "remit-policy AA"), SignedError::Form),
        ];
        for (note, error) in cases {
            assert_eq!(trust.open(&note), Err(error), "{note}");
        }
    }

    #[test]
    fn keys_that_are_none() {
        let good = signer().trust().to_string();
        assert!(good.parse::<Trust>().is_ok());
        let changed = [good.replace("remit", "Remit"), good.replace("+A", "+B"), good[..good.len() - 4].to_owned(), String::new()];
        for text in changed.iter().map(String::as_str).chain(["a", "a+b", "a+b+c", "++", &good.replacen('+', "", 1)]) {
            assert_eq!(text.parse::<Trust>(), Err(TrustError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_and_any_change(text in ".{0,64}", at in 0usize..200, byte in any::<u8>()) {
            let signer = signer();
            let note = signer.sign(&text);
            prop_assert!(signer.trust().open(&note).is_ok());
            let mut bytes = note.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let Ok(changed) = String::from_utf8(bytes) else { return Ok(()) };
            let opened = signer.trust().open(&changed);
            prop_assert!(changed == note || opened.is_err(), "{:?}", changed);
        }

        #[test]
        fn any_note(note in any::<String>()) {
            let _ = signer().trust().open(&note);
        }
    }
}
