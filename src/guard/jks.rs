//! Java's own keystore (JKS, version 2), as far as it says whom to trust: Java programs read no PEM.
//!
//! Its digest protects nothing, for the password is everybody's: Java wants it, and says so where a file was cut.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use rustls::pki_types::CertificateDer;

/// The one that Java's own trust store has.
pub const PASSWORD: &str = "changeit";

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const TRUSTED: u32 = 2;
/// What Java puts between the password and the data.
const WHITENER: &[u8] = b"Mighty Aphrodite";

/// Those that are trusted, by their names: short, in lower case, each once.
pub fn trust_store<'a>(trusted: impl IntoIterator<Item = (String, &'a CertificateDer<'a>)>, now: SystemTime) -> Vec<u8> {
    let milliseconds = u64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis()).unwrap_or_default();
    let (mut count, mut entries) = (0u32, Vec::new());
    for (alias, certificate) in trusted {
        count += 1;
        entries.extend(TRUSTED.to_be_bytes());
        text(&mut entries, &alias);
        entries.extend(milliseconds.to_be_bytes());
        text(&mut entries, "X.509");
        entries.extend((certificate.len() as u32).to_be_bytes());
        entries.extend_from_slice(certificate);
    }
    let mut store = [MAGIC, VERSION, count].map(u32::to_be_bytes).concat();
    store.extend(entries);
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for unit in PASSWORD.encode_utf16() {
        digest.update(&unit.to_be_bytes());
    }
    digest.update(WHITENER);
    digest.update(&store);
    store.extend_from_slice(digest.finish().as_ref());
    store
}

/// As Java's `writeUTF` does it, for what is ASCII.
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_store() {
        let (first, second) = (CertificateDer::from(vec![1, 2, 3]), CertificateDer::from(vec![4; 300]));
        let now = UNIX_EPOCH + Duration::from_millis(0x0102_0304_0506);
        let store = trust_store([("remit".to_owned(), &first), ("public-1".to_owned(), &second)], now);
        let begin = [
            &[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 2][..],
            &[0, 0, 0, 2, 0, 5],
            b"remit",
            &[0, 0, 1, 2, 3, 4, 5, 6, 0, 5],
            b"X.509",
            &[0, 0, 0, 3, 1, 2, 3],
            &[0, 0, 0, 2, 0, 8],
            b"public-1",
        ]
        .concat();
        assert_eq!(store[..begin.len()], begin);
        assert_eq!(store.len(), begin.len() + 8 + 7 + 4 + 300 + 20);
        let (data, digest) = store.split_at(store.len() - 20);
        let password = [0, b'c', 0, b'h', 0, b'a', 0, b'n', 0, b'g', 0, b'e', 0, b'i', 0, b't'];
        let expected = ring::digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &[&password[..], b"Mighty Aphrodite", data].concat());
        assert_eq!(digest, expected.as_ref());
    }

    /// By Java's own hand, where it is there.
    #[test]
    fn java_reads_it() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["help.example.com".to_owned()]).unwrap().self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("truststore.jks");
        std::fs::write(&file, trust_store([("remit".to_owned(), certificate.der())], SystemTime::now())).unwrap();
        let listed = std::process::Command::new("keytool")
            .args(["-list", "-rfc", "-storetype", "JKS", "-storepass", PASSWORD, "-keystore"])
            .arg(&file)
            .output();
        let Ok(listed) = listed else {
            eprintln!("left out: there is no keytool");
            return;
        };
        let said = String::from_utf8_lossy(&listed.stdout).replace('\r', "");
        assert!(listed.status.success(), "{said}{}", String::from_utf8_lossy(&listed.stderr));
        assert!(said.contains("Alias name: remit") && said.contains("trustedCertEntry"), "{said}");
        let pem = certificate.pem().replace('\r', "");
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with("---")).collect();
        assert!(said.replace('\n', "").contains(&lines.concat()), "{said}");
    }
}
