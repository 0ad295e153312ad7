//! The pod's own certificate authority: with it the guard ends the TLS of the app where a policy has it look inside.
//!
//! It is made at the guard's first start and for this pod alone, and it can vouch for nobody but the servers that the policy of that moment
//! has inspected: the names stand in its certificate as critical constraints (a name in them is that name and what lies below it, as the
//! standard has it; addresses are excluded), and what it signs is no authority. So its key, lost, opens no other connection of the app.
//!
//! Promise: the key is in the guard's memory, and in a file that only its user reads, in a directory that only the guard mounts; the app gets
//! certificates. Both are written before the guard confines itself, and before the app starts: [`Inspection::begin`] needs the policy, or an
//! authority that was kept, and the guard does not start without either. What a later policy adds is refused until the pod is made anew,
//! for the app trusts what it read when it began.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::ServerConfig;
use rustls::crypto::ring::{default_provider, sign::any_ecdsa_type};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use serde::{Deserialize, Serialize};

use super::Held;
use super::jks;
use super::record::Records;
use super::upstream::{Version, roots};
use crate::policy::pod::{TRUST_BUNDLE, TRUST_CA, TRUST_JAVA};
use crate::policy::{GuardPolicy, Reason};
use crate::scope::DomainName;

/// The authority, with its key.
const KEPT: &str = "authority.json";

/// A pod rarely lives so long; its guard says when the end is near.
const LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// So long before it is said, each time that the guard starts.
const SOON: Duration = Duration::from_secs(30 * 86_400);
const ENDS_SOON: &str =
    "the authority by which the guard looks into TLS ends within 30 days, and then that TLS is refused; hint: make the pod anew";
const DAY: Duration = Duration::from_secs(86_400);
const LEAF_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// A leaf that has less left is made anew.
const LEAF_LEFT: Duration = Duration::from_secs(10 * 86_400);
/// Clocks differ.
const SKEW: Duration = Duration::from_secs(3_600);
/// Leaves that are kept.
const MOST_LEAVES: usize = 64;
/// Servers of which trouble with the app's TLS is remembered, and how often it is said.
const MOST_TOLD: usize = 64;
const AGAIN: Duration = Duration::from_secs(60);
/// Names that are said of many.
const MOST_NAMES: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{argument} {path}: {source}; hint: a directory that the guard's user may write")]
    Directory { argument: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "there is no valid policy at the start, so it is not known whom the guard may vouch for (--trust-store); hint: event `trouble`"
    )]
    NoPolicy,
    #[error("the certificate authority: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the certificate authority: {0}")]
    Key(#[from] rustls::Error),
    #[error("the certificate authority: there is no randomness")]
    Random,
    #[error("the certificate authority: the clock is not set")]
    Time,
}

/// Where it is kept, and where the app looks.
#[derive(Clone, Debug)]
pub struct Places {
    /// What the app is to trust is written here.
    pub trust_store: PathBuf,
    /// The authority is kept here, over restarts of the guard. None: in memory only.
    pub ca: Option<PathBuf>,
}

/// The servers that the guard may be towards the app, and how.
pub struct Inspection {
    authority: Authority,
    leaf_key: KeyPair,
    signing_key: Arc<dyn SigningKey>,
    config: ServerConfig,
    leaves: Mutex<BTreeMap<DomainName, Leaf>>,
    told: Mutex<BTreeMap<DomainName, Instant>>,
}

struct Authority {
    names: BTreeSet<DomainName>,
    until: SystemTime,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

struct Leaf {
    certified: Arc<CertifiedKey>,
    until: SystemTime,
}

/// An authority as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: u32,
    names: BTreeSet<DomainName>,
    /// Seconds since 1970.
    until: u64,
    /// DER, in Base64.
    certificate: String,
    /// PKCS#8, in Base64.
    key: String,
}

const FORMAT: u32 = 1;

impl Inspection {
    /// The authority of this pod: the one that was kept, or a new one for what this policy has inspected. Written to where the app looks.
    pub fn begin(places: &Places, policy: Option<&GuardPolicy>, records: &Records) -> Result<Self, AuthorityError> {
        let Places { trust_store, ca } = places;
        let now = SystemTime::now();
        let kept = ca.as_deref().and_then(|ca| match Authority::kept(ca, now) {
            Ok(kept) => kept,
            Err(fault) => {
                let what = format!("the certificate authority that was kept cannot be used ({fault}), so there is a new one; hint: make the pod anew where apps do not trust it");
                records.trouble("inspection", &what);
                None
            }
        });
        let authority = match (kept, policy) {
            (Some(kept), _) => kept,
            (None, None) => return Err(AuthorityError::NoPolicy),
            (None, Some(policy)) => Authority::new(policy.inspected(), now)?,
        };
        if let Some(ca) = ca {
            let failed = |source| AuthorityError::Directory { argument: "--ca", path: ca.clone(), source };
            directory(ca, 0o700).and_then(|()| replace(ca, KEPT, &authority.keep(), 0o600)).map_err(failed)?;
        }
        // Without a policy there is one that was kept, and what was written when it was made lies there.
        if let Some(policy) = policy {
            let failed = |source| AuthorityError::Directory { argument: "--trust-store", path: trust_store.clone(), source };
            authority.publish(trust_store, &roots(policy.roots.as_ref()), now).map_err(failed)?;
        }
        let leaf_key = KeyPair::generate()?;
        let signing_key = any_ecdsa_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialized_der())))?;
        // Each connection takes a copy, with its certificate: they share what is remembered of sessions.
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Nobody));
        Ok(Self { authority, leaf_key, signing_key, config, leaves: Mutex::default(), told: Mutex::default() })
    }

    /// Whether the guard can be this server.
    pub fn covers(&self, server: &DomainName) -> bool {
        self.authority.names.iter().any(|name| server == name || server.before(name).is_some())
    }

    /// How the guard is this server, in one of these versions of HTTP.
    pub fn config(&self, server: &DomainName, versions: &[Version]) -> Result<Arc<ServerConfig>, Reason> {
        let certified = self.leaf(server, SystemTime::now()).ok_or(Reason::NotInspected)?;
        let mut config = self.config.clone();
        config.cert_resolver = Arc::new(One(certified));
        config.alpn_protocols = versions.iter().map(|version| version.alpn().to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// None: it is not the authority's to vouch for, or not any more.
    fn leaf(&self, server: &DomainName, now: SystemTime) -> Option<Arc<CertifiedKey>> {
        if !self.covers(server) || now >= self.authority.until {
            return None;
        }
        let mut leaves = self.leaves.lock().unwrap_or_else(|e| e.into_inner());
        let good = |leaf: &&Leaf| leaf.until > now && (leaf.until == self.authority.until || leaf.until > now + LEAF_LEFT);
        if let Some(leaf) = leaves.get(server).filter(good) {
            return Some(leaf.certified.clone());
        }
        let until = (now + LEAF_LIFETIME).min(self.authority.until);
        let certificate = self.authority.sign(server, &self.leaf_key, now, until).ok()?;
        let certified = Arc::new(CertifiedKey::new(vec![certificate], self.signing_key.clone()));
        if leaves.len() >= MOST_LEAVES
            && let Some(oldest) = leaves.iter().min_by_key(|(_, leaf)| leaf.until).map(|(name, _)| name.clone())
        {
            leaves.remove(&oldest);
        }
        leaves.insert(server.clone(), Leaf { certified: certified.clone(), until });
        Some(certified)
    }

    /// Trouble with the app's TLS: for each server once in a while.
    /// Whether the authority will not be believed much longer.
    fn ends_soon(&self, now: SystemTime) -> bool {
        now + SOON >= self.authority.until
    }

    pub fn trouble(&self, records: &Records, server: &DomainName, what: &str) {
        let mut told = self.told.lock().unwrap_or_else(|e| e.into_inner());
        told.retain(|_, at| at.elapsed() < AGAIN);
        if told.len() < MOST_TOLD && !told.contains_key(server) {
            told.insert(server.clone(), Instant::now());
            records.trouble("inspection", what);
        }
    }
}

/// Says of each policy that holds which servers it has inspected that this guard cannot be.
pub async fn watch(inspection: Option<Arc<Inspection>>, mut held: Held, records: Arc<Records>) {
    let mut said = String::new();
    let mut ends_soon = false;
    loop {
        let inspected = held.borrow_and_update().as_ref().map(|policy| policy.inspected()).unwrap_or_default();
        let now = not_inspected(inspection.as_deref(), &inspected);
        if now != said && !now.is_empty() {
            records.trouble("inspection", &now);
        }
        said = now;
        if !ends_soon && inspection.as_ref().is_some_and(|inspection| inspection.ends_soon(SystemTime::now())) {
            ends_soon = true;
            records.trouble("inspection", ENDS_SOON);
        }
        // Its end comes nearer, whatever else changes.
        if let Ok(Err(_)) = tokio::time::timeout(DAY, held.changed()).await {
            return;
        }
    }
}

fn not_inspected(inspection: Option<&Inspection>, inspected: &BTreeSet<DomainName>) -> String {
    let not: Vec<&str> = inspected.iter().filter(|name| !inspection.is_some_and(|i| i.covers(name))).map(DomainName::as_str).collect();
    if not.is_empty() {
        return String::new();
    }
    let more = not.len().saturating_sub(MOST_NAMES);
    let names = not.into_iter().take(MOST_NAMES).collect::<Vec<_>>().join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let why = match inspection {
        Some(_) => {
            "were declared after the pod's certificate authority was made; hint: make the pod anew (outside of a cluster, start the guard again)"
        }
        None => {
            "would need a certificate authority, and this guard has none; hint: start it with --trust-store DIRECTORY, or ask by base URL"
        }
    };
    format!("TLS to {names}{more} is refused and not inspected: these names {why}")
}

impl Authority {
    fn new(names: BTreeSet<DomainName>, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let until = now + LIFETIME;
        let mut params = Self::params(&key);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        valid(&mut params, now, until)?;
        params.serial_number = Some(serial()?);
        let mut permitted: Vec<GeneralSubtree> = names.iter().map(|name| GeneralSubtree::DnsName(name.as_str().to_owned())).collect();
        if permitted.is_empty() {
            // Without any, all would be permitted. Nobody has this one (RFC 6761).
            permitted.push(GeneralSubtree::DnsName("invalid".to_owned()));
        }
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: permitted,
            excluded_subtrees: vec![
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
        });
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { names, until, certificate, issuer: Issuer::new(params, key) })
    }

    /// What a signature takes of it, too.
    fn params(key: &KeyPair) -> CertificateParams {
        let mut params = CertificateParams::default();
        let fingerprint: String = params.key_identifier(key).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Remit");
        params.distinguished_name.push(DnType::CommonName, format!("Remit guard of one pod {fingerprint}"));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    fn sign(
        &self,
        server: &DomainName,
        key: &KeyPair,
        now: SystemTime,
        until: SystemTime,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let mut leaf = CertificateParams::new(vec![server.as_str().to_owned()])?;
        leaf.distinguished_name = DistinguishedName::new();
        leaf.distinguished_name.push(DnType::OrganizationName, "Remit");
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        valid(&mut leaf, now, until)?;
        leaf.serial_number = Some(serial()?);
        Ok(leaf.signed_by(key, &self.issuer)?.der().clone())
    }

    fn keep(&self) -> Vec<u8> {
        let kept = Kept {
            format: FORMAT,
            names: self.names.clone(),
            until: self.until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            certificate: STANDARD.encode(&self.certificate),
            key: STANDARD.encode(self.issuer.key().serialized_der()),
        };
        serde_json::to_vec(&kept).unwrap_or_default()
    }

    /// None: none was kept.
    fn kept(directory: &Path, now: SystemTime) -> Result<Option<Self>, String> {
        let bytes = match std::fs::read(directory.join(KEPT)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let Kept { format, names, until, certificate, key } = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
        if format != FORMAT {
            return Err(format!("format {format}"));
        }
        let until = UNIX_EPOCH + Duration::from_secs(until);
        if now >= until {
            return Err("it has expired".to_owned());
        }
        let bytes = |text: String| STANDARD.decode(text).map_err(|e| e.to_string());
        let key = KeyPair::try_from(bytes(key)?).map_err(|e| e.to_string())?;
        let issuer = Issuer::new(Self::params(&key), key);
        Ok(Some(Self { names, until, certificate: bytes(certificate)?.into(), issuer }))
    }

    /// For the app.
    fn publish(&self, to: &Path, others: &[CertificateDer<'static>], now: SystemTime) -> io::Result<()> {
        directory(to, 0o755)?;
        let own = pem(&self.certificate);
        let bundle: String = others.iter().map(|certificate| pem(certificate)).chain([own.clone()]).collect();
        let named = others.iter().enumerate().map(|(number, certificate)| (format!("root-{number}"), certificate));
        let java = jks::trust_store(named.chain([("remit-guard".to_owned(), &self.certificate)]), now);
        for (name, bytes) in [(TRUST_CA, own.as_bytes()), (TRUST_BUNDLE, bundle.as_bytes()), (TRUST_JAVA, &java)] {
            replace(to, name, bytes, 0o644)?;
        }
        Ok(())
    }
}

/// What offers no certificate: a configuration of which every connection's is made.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// This certificate, whoever asks: it was asked before.
#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// From now on, with a little before for clocks that differ.
fn valid(params: &mut CertificateParams, now: SystemTime, until: SystemTime) -> Result<(), AuthorityError> {
    let at = |at: SystemTime| {
        let since = at.duration_since(UNIX_EPOCH).map_err(|_| AuthorityError::Time)?.as_secs();
        // Four digits of a year.
        let since = Some(since).filter(|since| *since < 250_000_000_000).ok_or(AuthorityError::Time)?;
        Ok::<_, AuthorityError>(rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(since))
    };
    (params.not_before, params.not_after) = (at(now - SKEW)?, at(until)?);
    Ok(())
}

fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| AuthorityError::Random)?;
    // Positive, and of one length.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// It is there. In a pod it is a volume.
fn directory(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// The whole file or the one before, for whoever reads it. What lies in its place is replaced and not followed.
fn replace(directory: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let new = directory.join(format!(".{name}.new"));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    // Whatever the umask says.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(new, directory.join(name))
}

#[cfg(test)]
mod tests {
    use rcgen::SanType;
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{ServerName, UnixTime};
    use serde_json::{Value, json};

    use super::*;
    use crate::guard::record::tests::Log;
    use crate::policy::Document;

    const HELP: &str = "help.example.com";

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    /// It has this host inspected, and a Service; `more` of `network`.
    fn policy(host: &str, roots: Value) -> GuardPolicy {
        let http = json!({"scheme": "Https", "inspect": "Intercept", "port": 443, "access": "Read"});
        let document: Document = serde_json::from_value(json!({
            "format": 2, "workload": {"namespace": "support", "name": "bot", "uid": "u"}, "generation": 1, "digest": "d", "mode": "Enforce", "suspended": false,
            "network": {"domain": "cluster.local", "dns": [], "services": [], "own": [], "roots": roots},
            "destinations": [
                {"source": "help", "target": {"type": "Host", "name": host, "port": 443, "http": http}},
                {"source": "vault", "target": {"type": "Service", "name": "vault", "namespace": "support", "ports": [443], "http": http}},
                {"source": "tunnel", "target": {"type": "Host", "name": "tunnel.example.com", "port": 443}},
            ],
        }))
        .unwrap();
        document.try_into().unwrap()
    }

    struct Pod {
        places: Places,
        log: Log,
        _directory: tempfile::TempDir,
    }

    impl Pod {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let places = Places { trust_store: directory.path().join("trust"), ca: Some(directory.path().join("ca")) };
            Self { places, log: Log::default(), _directory: directory }
        }

        fn start(&self, policy: Option<&GuardPolicy>) -> Result<Inspection, AuthorityError> {
            Inspection::begin(&self.places, policy, &Records::to(Box::new(self.log.clone())))
        }

        fn read(&self, file: &str) -> Vec<u8> {
            std::fs::read(self.places.trust_store.join(file)).unwrap()
        }
    }

    /// As a client does that trusts this authority alone.
    fn verify(authority: &CertificateDer<'static>, chain: &[CertificateDer<'static>], server: &str, now: SystemTime) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).build().unwrap();
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap());
        let server = ServerName::try_from(server.to_owned()).unwrap();
        verifier.verify_server_cert(&chain[0], &chain[1..], &server, &[], now).map(drop).map_err(|e| format!("{e:?}"))
    }

    #[test]
    fn the_constraints_hold() {
        let now = SystemTime::now();
        let until = now + LEAF_LIFETIME;
        let names = policy(HELP, json!({"public": true})).inspected();
        let authority = Authority::new(names, now).unwrap();
        let key = KeyPair::generate().unwrap();
        let signed = |server: &str| vec![authority.sign(&name(server), &key, now, until).unwrap()];
        let inside = [
            HELP,
            "vault.support.svc.cluster.local",
            "vault.support.svc",
            "vault.support",
            "vault",
            "pod-0.vault.support.svc.cluster.local",
        ];
        for server in inside {
            assert_eq!(verify(&authority.certificate, &signed(server), server, now), Ok(()), "{server}");
        }
        for server in
            ["evil.example.com", "example.com", "tunnel.example.com", "vault.other.svc.cluster.local", "nothelp.example.com", "evil"]
        {
            let said = verify(&authority.certificate, &signed(server), server, now).unwrap_err();
            assert!(said.contains("NameConstraintViolation"), "{server}: {said}");
        }
        assert!(verify(&authority.certificate, &signed(HELP), HELP, until + SKEW).unwrap_err().contains("Expired"));
        // An address.
        let mut other = CertificateParams::new(Vec::new()).unwrap();
        valid(&mut other, now, until).unwrap();
        other.use_authority_key_identifier_extension = true;
        other.subject_alt_names = vec![SanType::IpAddress("203.0.113.10".parse().unwrap())];
        let address = other.signed_by(&key, &authority.issuer).unwrap().der().clone();
        assert!(verify(&authority.certificate, &[address], "203.0.113.10", now).unwrap_err().contains("NameConstraintViolation"));
        // Critical constraints, and an authority below which is none (this verifier does not ask that of whom it trusts).
        let part = |bytes: &[u8]| authority.certificate.windows(bytes.len()).any(|part| part == bytes);
        assert!(part(&[0x06, 0x03, 0x55, 0x1d, 0x1e, 0x01, 0x01, 0xff]), "name constraints");
        assert!(
            part(&[0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x08, 0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x00]),
            "basic constraints"
        );
        // Whoever inspects nothing vouches for nobody.
        let nobody = Authority::new(BTreeSet::new(), now).unwrap();
        let leaf = nobody.sign(&name(HELP), &key, now, until).unwrap();
        assert!(verify(&nobody.certificate, &[leaf], HELP, now).unwrap_err().contains("NameConstraintViolation"));
    }

    #[test]
    fn leaves_are_few_and_good() {
        let pod = Pod::new();
        let inspection = pod.start(Some(&policy(HELP, json!({"public": false})))).unwrap();
        let now = SystemTime::now();
        let leaf = |server: &str, at| inspection.leaf(&name(server), at);
        let first = leaf(HELP, now).unwrap();
        assert_eq!(verify(&inspection.authority.certificate, &first.cert, HELP, now), Ok(()));
        assert!(leaf("evil.example.com", now).is_none() && leaf("tunnel.example.com", now).is_none());
        assert!(Arc::ptr_eq(&first, &leaf(HELP, now + Duration::from_secs(86_400)).unwrap()));
        let later = now + LEAF_LIFETIME - LEAF_LEFT + Duration::from_secs(1);
        let second = leaf(HELP, later).unwrap();
        assert!(!Arc::ptr_eq(&first, &second), "made anew before it ends");
        assert!(verify(&inspection.authority.certificate, &second.cert, HELP, later + LEAF_LEFT).is_ok());
        let last = inspection.authority.until - Duration::from_secs(3_600);
        let third = leaf(HELP, last).unwrap();
        assert!(verify(&inspection.authority.certificate, &third.cert, HELP, last).is_ok());
        assert!(Arc::ptr_eq(&third, &leaf(HELP, last).unwrap()), "it cannot last longer");
        assert!(leaf(HELP, inspection.authority.until).is_none());
        let until = inspection.authority.until;
        assert_eq!([DAY, SOON, SOON + DAY].map(|before| inspection.ends_soon(until - before)), [true, true, false]);
        for number in 0..2 * MOST_LEAVES {
            assert!(leaf(&format!("pod-{number}.vault.support.svc.cluster.local"), now).is_some());
        }
        assert_eq!(inspection.leaves.lock().unwrap().len(), MOST_LEAVES);
    }

    #[test]
    fn what_the_app_gets_and_what_it_does_not() {
        let pod = Pod::new();
        let private = Authority::new(BTreeSet::new(), SystemTime::now()).unwrap().certificate;
        let inspection = pod.start(Some(&policy(HELP, json!({"public": false, "certificates": [pem(&private)]})))).unwrap();
        let own = inspection.authority.certificate.clone();
        let read = |file: &str| CertificateDer::pem_slice_iter(&pod.read(file)).collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(read(TRUST_CA), std::slice::from_ref(&own));
        assert_eq!(read(TRUST_BUNDLE), [private, own.clone()]);
        assert!(pod.read(TRUST_JAVA).windows(own.len()).any(|part| part == &own[..]));
        let key = inspection.authority.issuer.key().serialized_der().to_vec();
        for file in [TRUST_CA, TRUST_BUNDLE, TRUST_JAVA] {
            let mode = std::fs::metadata(pod.places.trust_store.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o644, "{file}");
            assert!(!pod.read(file).windows(key.len()).any(|part| part == key), "{file}");
            assert!(!String::from_utf8_lossy(&pod.read(file)).contains("PRIVATE"), "{file}");
        }
        let ca = pod.places.ca.clone().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&ca), mode(&ca.join(KEPT))), (0o700, 0o600));
        for directory in [&ca, &pod.places.trust_store] {
            let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            assert_eq!(names.filter(|name| name.ends_with(".new")).count(), 0);
        }
        pod.start(Some(&policy(HELP, json!({"public": true})))).unwrap();
        assert_eq!(read(TRUST_BUNDLE).len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len() + 1);
    }

    #[test]
    fn a_file_is_replaced_and_nothing_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("other"), "other").unwrap();
        // Whoever can write there leads the guard nowhere.
        for name in ["file", ".file.new"] {
            std::os::unix::fs::symlink(at("other"), at(name)).unwrap();
        }
        replace(directory.path(), "file", b"one", 0o644).unwrap();
        let mut reader = std::fs::File::open(at("file")).unwrap();
        replace(directory.path(), "file", b"the second", 0o644).unwrap();
        let mut found = String::new();
        io::Read::read_to_string(&mut reader, &mut found).unwrap();
        assert_eq!(
            (found.as_str(), std::fs::read(at("file")).unwrap(), std::fs::read(at("other")).unwrap()),
            ("one", b"the second".to_vec(), b"other".to_vec())
        );
    }

    #[test]
    fn a_restart_keeps_the_authority_and_whom_it_is_for() {
        let pod = Pod::new();
        let (first, second) = (policy(HELP, json!({"public": false})), policy("new.example.com", json!({"public": false})));
        assert!(matches!(pod.start(None), Err(AuthorityError::NoPolicy)), "nothing is made for nobody");
        let made = pod.start(Some(&first)).unwrap();
        let now = SystemTime::now();
        for policy in [Some(&first), Some(&second), None] {
            let again = pod.start(policy).unwrap();
            assert_eq!(again.authority.certificate, made.authority.certificate);
            assert_eq!(pod.read(TRUST_CA), pem(&made.authority.certificate).into_bytes());
            let leaf = again.leaf(&name(HELP), now).unwrap();
            assert_eq!(verify(&made.authority.certificate, &leaf.cert, HELP, now), Ok(()));
            assert!(again.leaf(&name("new.example.com"), now).is_none());
            let said = not_inspected(Some(&again), &second.inspected());
            assert!(said.contains("TLS to new.example.com is refused") && said.contains("make the pod anew"), "{said}");
            assert_eq!(not_inspected(Some(&again), &first.inspected()), "");
        }
        assert!(not_inspected(None, &first.inspected()).contains("and 2 more is refused"));
        assert_eq!(pod.log.records(), Vec::<Value>::new());
        let in_memory = Places { ca: None, ..pod.places.clone() };
        let other = Inspection::begin(&in_memory, Some(&second), &Records::to(Box::new(pod.log.clone()))).unwrap();
        assert_ne!(other.authority.certificate, made.authority.certificate);
        // What cannot be read is no authority, and no end of the pod.
        std::fs::write(pod.places.ca.clone().unwrap().join(KEPT), "{").unwrap();
        let new = pod.start(Some(&second)).unwrap();
        assert!(new.covers(&name("new.example.com")) && !new.covers(&name(HELP)));
        assert!(pod.log.records()[0]["message"].as_str().unwrap().contains("make the pod anew"));
    }

    #[test]
    fn trouble_with_a_server_is_said_once() {
        let pod = Pod::new();
        let inspection = pod.start(Some(&policy(HELP, json!({"public": false})))).unwrap();
        let records = Records::to(Box::new(pod.log.clone()));
        for number in 0..2 * MOST_TOLD {
            inspection.trouble(&records, &name(HELP), "trouble");
            inspection.trouble(&records, &name(&format!("pod-{number}.vault.support")), "trouble");
        }
        assert_eq!(pod.log.records().len(), MOST_TOLD);
    }
}
