//! Certificates: what is stored, whether it is good, what to do next. Pure but for the keys' randomness; time comes in as an argument.
//!
//! Each rotation makes an authority of its own, whose key is thrown away after it has signed one serving certificate: nothing stored
//! can sign another. A rotation has two steps, so that no request is refused: *stage* (the next certificate beside the current one;
//! the bundle trusts both) and, when every configuration has trusted both for a while, *promote* (serve the next one).

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

/// How long a serving certificate is valid.
const VALIDITY: i64 = 90 * 24 * 3600;
/// Clocks differ by less than this.
const SKEW: i64 = 3600;
/// How long all configurations must have trusted the next certificate before it is served.
const SETTLED: i64 = 60;

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const BUNDLE: &str = "ca.crt";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";

/// A certificate (chain) and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { certificate, key: _ } = self;
        f.debug_struct("Pair").field("certificate", certificate).finish_non_exhaustive()
    }
}

/// What the Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// The authorities that clients trust, in PEM.
    pub bundle: String,
    pub current: Pair,
    pub next: Option<Pair>,
}

/// What to do with the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Keep,
    /// Nothing stored is of use: begin anew.
    Begin,
    /// Put the next certificate beside the current one.
    Stage,
    /// The next becomes the current one.
    Promote,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the time is out of range")]
    Time,
}

impl Stored {
    pub fn read(secret: &Secret) -> Option<Self> {
        let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
        let pair = |certificate, key| Some(Pair { certificate: text(certificate)?, key: text(key)? });
        Some(Self { bundle: text(BUNDLE)?, current: pair(CERTIFICATE, KEY)?, next: pair(NEXT_CERTIFICATE, NEXT_KEY) })
    }

    pub fn write(&self, secret: &mut Secret) {
        let Self { bundle, current, next } = self;
        let mut data = vec![(BUNDLE, bundle), (CERTIFICATE, &current.certificate), (KEY, &current.key)];
        if let Some(next) = next {
            data.extend([(NEXT_CERTIFICATE, &next.certificate), (NEXT_KEY, &next.key)]);
        }
        secret.data = Some(data.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes()))).collect());
        secret.type_ = Some("kubernetes.io/tls".to_owned());
    }

    /// The step done, if it needs something new.
    pub fn after(stored: Option<&Self>, step: &Step, names: &[String], now: i64) -> Result<Option<Self>, CertificateError> {
        Ok(match (step, stored) {
            (Step::Keep, _) => None,
            (Step::Stage, Some(stored)) => {
                let (authority, next) = make(names, now)?;
                // What signed neither of the two is trusted no longer.
                let bundle = [signer(&stored.current, &stored.bundle).unwrap_or_default(), authority].concat();
                Some(Self { bundle, current: stored.current.clone(), next: Some(next) })
            }
            (Step::Promote, Some(Self { bundle, current: _, next: Some(next) })) => {
                Some(Self { bundle: bundle.clone(), current: next.clone(), next: None })
            }
            (Step::Begin | Step::Stage | Step::Promote, _) => {
                let (bundle, current) = make(names, now)?;
                Some(Self { bundle, current, next: None })
            }
        })
    }
}

/// What to do, given what is stored and since when every configuration has held exactly the stored bundle.
pub(super) fn decide(stored: Option<&Stored>, published_since: Option<i64>, names: &[String], now: i64) -> Step {
    let Some(Stored { bundle, current, next }) = stored else { return Step::Begin };
    let current = good(current, bundle, names, now);
    let next = next.as_ref().and_then(|next| good(next, bundle, names, now));
    match (current, next) {
        (None, None) => Step::Begin,
        // The current one is of no use: no reason to wait.
        (None, Some(_)) => Step::Promote,
        (Some(_), Some(_)) if published_since.is_some_and(|since| now - since >= SETTLED) => Step::Promote,
        (Some(_), Some(_)) => Step::Keep,
        (Some(Validity { from, until }), None) if now >= from + (until - from) / 3 * 2 => Step::Stage,
        (Some(_), None) => Step::Keep,
    }
}

/// From when until when a certificate holds, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub from: i64,
    pub until: i64,
}

/// The validity of the first certificate in this PEM.
pub(super) fn validity(pem: &str) -> Option<Validity> {
    let pem = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
    let validity = pem.parse_x509().ok()?.validity().clone();
    Some(Validity { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
}

/// Whether this pair can be served now under these names to clients that trust the bundle.
fn good(pair: &Pair, bundle: &str, names: &[String], now: i64) -> Option<Validity> {
    let validity = validity(&pair.certificate)?;
    let in_time = (validity.from..validity.until).contains(&now);
    let fits = super::server::certified(pair.certificate.as_bytes(), pair.key.as_bytes()).is_ok();
    let named = names.iter().all(|name| is_named(&pair.certificate, name));
    (in_time && fits && named && signer(pair, bundle).is_some()).then_some(validity)
}

fn is_named(pem: &str, name: &str) -> bool {
    let check = || {
        let pem = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
        let certificate = pem.parse_x509().ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let address = name.parse::<std::net::IpAddr>().ok().map(|a| match a {
            std::net::IpAddr::V4(a) => a.octets().to_vec(),
            std::net::IpAddr::V6(a) => a.octets().to_vec(),
        });
        Some(names.value.general_names.iter().any(|n| match n {
            GeneralName::DNSName(n) => *n == name,
            GeneralName::IPAddress(n) => address.as_deref() == Some(*n),
            _ => false,
        }))
    };
    check().unwrap_or(false)
}

/// The authority in the bundle whose subject is the pair's issuer (each authority bears a name of its own).
fn signer(pair: &Pair, bundle: &str) -> Option<String> {
    let pem = Pem::iter_from_buffer(pair.certificate.as_bytes()).next()?.ok()?;
    let certificate = pem.parse_x509().ok()?;
    // The bundle is our own PEM: one block after the other.
    const END: &str = "-----END CERTIFICATE-----";
    bundle.split_inclusive(END).find_map(|block| {
        let block = format!("{}\n", block.trim());
        let authority = Pem::iter_from_buffer(block.as_bytes()).next()?.ok()?;
        let matches = authority.parse_x509().ok()?.subject().as_raw() == certificate.issuer().as_raw();
        matches.then_some(block.clone())
    })
}

/// An authority (its certificate only) and one serving certificate signed by it.
fn make(names: &[String], now: i64) -> Result<(String, Pair), CertificateError> {
    let at = |seconds: i64| -> Result<_, CertificateError> {
        let since = u64::try_from(seconds).map_err(|_| CertificateError::Time)?;
        // Four digits of a year.
        if since >= 250_000_000_000 {
            return Err(CertificateError::Time);
        }
        Ok(rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(since))
    };
    let (from, until) = (at(now - SKEW)?, at(now + VALIDITY)?);
    let named = |text: String| {
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, text);
        name
    };
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    let fingerprint: String = authority.key_identifier(&authority_key).iter().take(8).map(|b| format!("{b:02x}")).collect();
    authority.distinguished_name = named(format!("remit webhook authority {fingerprint}"));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (authority.not_before, authority.not_after) = (from, until);
    let authority_certificate = authority.self_signed(&authority_key)?;

    let key = KeyPair::generate()?;
    let mut serving = CertificateParams::new(names.to_vec())?;
    serving.distinguished_name = named("remit webhook".to_owned());
    serving.serial_number = Some(SerialNumber::from_slice(&serving.key_identifier(&key)));
    serving.use_authority_key_identifier_extension = true;
    serving.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (serving.not_before, serving.not_after) = (from, until);
    let certificate = serving.signed_by(&key, &Issuer::from_params(&authority, &authority_key))?;
    Ok((authority_certificate.pem(), Pair { certificate: certificate.pem(), key: key.serialize_pem() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const DAY: i64 = 24 * 3600;

    fn names() -> Vec<String> {
        vec!["remit-webhook.remit-system.svc".to_owned(), "127.0.0.1".to_owned()]
    }

    fn step(stored: Option<&Stored>, step: Step, now: i64) -> Stored {
        Stored::after(stored, &step, &names(), now).unwrap().unwrap()
    }

    #[test]
    fn decisions() {
        let fresh = step(None, Step::Begin, NOW);
        let staged = step(Some(&fresh), Step::Stage, NOW + 61 * DAY);
        let promoted = step(Some(&staged), Step::Promote, NOW + 61 * DAY);
        let other = step(None, Step::Begin, NOW);
        let mixed = Stored { bundle: other.bundle.clone(), ..fresh.clone() };
        let wrong_key = Stored { current: Pair { key: other.current.key.clone(), ..fresh.current.clone() }, ..fresh.clone() };
        let junk = Stored { bundle: "x".into(), current: Pair { certificate: "y".into(), key: "z".into() }, next: None };
        let bad_next = Stored { next: Some(junk.current.clone()), ..fresh.clone() };
        let renamed = vec!["other.remit-system.svc".to_owned()];
        let cases = [
            ("nothing", None, None, names(), NOW, Step::Begin),
            ("fresh", Some(&fresh), None, names(), NOW, Step::Keep),
            ("fresh, this second elsewhere", Some(&fresh), None, names(), NOW - SKEW, Step::Keep),
            ("at 59 days", Some(&fresh), Some(NOW), names(), NOW + 59 * DAY, Step::Keep),
            ("at two thirds", Some(&fresh), Some(NOW), names(), NOW + 60 * DAY, Step::Stage),
            ("expired", Some(&fresh), Some(NOW), names(), NOW + 90 * DAY, Step::Begin),
            ("not yet valid", Some(&fresh), None, names(), NOW - DAY, Step::Begin),
            ("staged, nothing published", Some(&staged), None, names(), NOW + 61 * DAY, Step::Keep),
            ("staged, just published", Some(&staged), Some(NOW + 61 * DAY - 59), names(), NOW + 61 * DAY, Step::Keep),
            ("staged, published", Some(&staged), Some(NOW + 61 * DAY - 60), names(), NOW + 61 * DAY, Step::Promote),
            ("staged, the current one expired", Some(&staged), None, names(), NOW + 91 * DAY, Step::Promote),
            ("promoted", Some(&promoted), Some(NOW), names(), NOW + 62 * DAY, Step::Keep),
            ("promoted, at two thirds", Some(&promoted), Some(NOW), names(), NOW + 121 * DAY, Step::Stage),
            ("another authority's", Some(&mixed), None, names(), NOW, Step::Begin),
            ("another key", Some(&wrong_key), None, names(), NOW, Step::Begin),
            ("junk", Some(&junk), None, names(), NOW, Step::Begin),
            ("junk beside a good one", Some(&bad_next), Some(NOW), names(), NOW, Step::Keep),
            ("junk beside an old one", Some(&bad_next), Some(NOW), names(), NOW + 61 * DAY, Step::Stage),
            ("other names", Some(&fresh), None, renamed, NOW, Step::Begin),
        ];
        for (what, stored, published, names, now, expected) in cases {
            assert_eq!(decide(stored, published, &names, now), expected, "{what}");
        }
    }

    #[test]
    fn the_bundle_trusts_the_old_and_the_new_across_a_rotation_and_never_more() {
        let authorities = |s: &Stored| s.bundle.matches("BEGIN CERTIFICATE").count();
        let fresh = step(None, Step::Begin, NOW);
        let staged = step(Some(&fresh), Step::Stage, NOW);
        assert_eq!(staged.current, fresh.current, "the current one is still served");
        let promoted = step(Some(&staged), Step::Promote, NOW);
        assert_eq!(promoted.current, staged.next.clone().unwrap());
        for pair in [&fresh.current, &promoted.current] {
            assert!(signer(pair, &promoted.bundle).is_some(), "a replica that still serves the old one is trusted");
        }
        let again = step(Some(&promoted), Step::Stage, NOW);
        assert_eq!([&fresh, &staged, &promoted, &again].map(authorities), [1, 2, 2, 2]);
        assert_eq!(signer(&fresh.current, &again.bundle), None);
        assert!(signer(&again.current, &again.bundle).is_some());
    }

    #[test]
    fn kept_in_a_secret() {
        let staged = step(Some(&step(None, Step::Begin, NOW)), Step::Stage, NOW);
        let mut secret = Secret::default();
        staged.write(&mut secret);
        assert_eq!(Stored::read(&secret), Some(staged.clone()));
        step(Some(&staged), Step::Promote, NOW).write(&mut secret);
        assert_eq!(secret.data.as_ref().map(|d| d.len()), Some(3), "the next pair is gone");
        assert_eq!(Stored::read(&Secret::default()), None);
        assert!(!format!("{staged:?}").contains("PRIVATE"), "keys are not printed");
    }

    #[test]
    fn times_out_of_range_are_errors() {
        for now in [i64::MIN + SKEW, 0, 300_000_000_000] {
            assert!(make(&names(), now).is_err());
        }
    }
}
