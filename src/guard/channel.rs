//! The control channel: the operator is asked for newer policies, and told what is enforced.
//!
//! Promise: whom the guard believes is the holder of the key that it was told at its start (TLS 1.3 with raw public keys, RFC 7250), and
//! what it enforces is [`Keeper::offer`]'s affair. An operator that is away, slow or somebody else disturbs nothing. Each replica is asked
//! on a connection of its own, each step has a deadline, and each size a bound.
//!
//! The guard's own key lives in memory only, from its start to its end.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::keeper::{Keeper, Offered, Source};
use super::record::{Outcome, Records};
use super::resolver::SharedResolver;
use super::usage::Usage;
use crate::policy::channel::{
    HOLD_SECONDS, LARGEST_NOTE, LARGEST_REFUSAL, LARGEST_REPORT, LARGEST_TOKEN, PATH, REPORT_FORMAT, Refusal, Report, spki,
};
use crate::policy::{Channel, FORMAT, GuardPolicy};

/// How often the operator's name is looked up; sooner while nobody was found.
const LOOK: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(3);
const HANDSHAKE: Duration = Duration::from_secs(5);
/// For the head of an answer, which is held back while there is nothing new; then for its body.
const ANSWER: Duration = Duration::from_secs(HOLD_SECONDS + 10);
const BODY: Duration = Duration::from_secs(10);
/// Between the beginnings of two questions to one replica.
const SPACING: Duration = Duration::from_millis(150);
/// After an error; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// As long as trouble lasts, so often is it said. The first failure is a replica that ends: not worth a word.
const AGAIN: Duration = Duration::from_secs(60);
const WORTH_A_WORD: u32 = 2;

/// Why a replica did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("TLS: {0}; hint: the guard believes the key that its pod was made with (--trust) only")]
    Tls(io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("no {0} in time")]
    Slow(&'static str),
    #[error("the answer is larger than {0} bytes")]
    Large(usize),
    #[error("the answer broke off: {0}")]
    Broken(String),
    #[error("the token: {0}")]
    Token(String),
    #[error("the report cannot be written")]
    Report,
    #[error("the guard's key: {0}")]
    Key(#[from] rustls::Error),
    #[error("it answers {status}, {reason}: {message}")]
    Refused { status: u16, reason: String, message: String },
    #[error("its policy was refused")]
    Policy,
}

/// What a replica answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is nothing newer.
    Nothing,
    /// A signed policy.
    Policy(Bytes),
    Refused {
        status: u16,
        reason: String,
        message: String,
    },
}

/// Who asks: a key of its own, and whom it believes.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
}

impl Client {
    /// With a new key. `operator`: the only key that is believed.
    pub fn new(operator: &[u8; 32]) -> Result<Self, ChannelError> {
        let provider = Arc::new(ring::default_provider());
        let key = new_key(&provider)?;
        let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { operator: spki(operator), provider }))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(key))));
        // Each connection proves both keys.
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    pub async fn connect(&self, at: SocketAddr) -> Result<Connection, ChannelError> {
        let connected = timeout(CONNECT, reach(at)).await.map_err(|_| ChannelError::Slow("connection"))?;
        let stream = connected.map_err(ChannelError::Connect)?;
        // Nobody reads it.
        let name = ServerName::try_from("operator").map_err(|_| ChannelError::Slow("name"))?;
        let stream = timeout(HANDSHAKE, self.tls.connect(name, stream)).await.map_err(|_| ChannelError::Slow("TLS"))?;
        let stream = TokioIo::new(stream.map_err(ChannelError::Tls)?);
        let (sender, connection) = http1::Builder::new().max_buf_size(64 * 1024).handshake(stream).await?;
        let driver = tokio::spawn(async move {
            // What went wrong is said to whoever asks.
            let _ = connection.await;
        });
        Ok(Connection { sender, _driver: Ends(driver.abort_handle()) })
    }
}

/// To one replica.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    _driver: Ends,
}

/// Ends a task with itself.
struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// One question. The answer may take [`HOLD_SECONDS`] and more.
    pub async fn ask(&mut self, token: &str, report: &Report) -> Result<Answer, ChannelError> {
        let body = serde_json::to_vec(report).ok().filter(|body| body.len() <= LARGEST_REPORT).ok_or(ChannelError::Report)?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|e| ChannelError::Token(e.to_string()))?;
        bearer.set_sensitive(true);
        let request = Request::builder()
            .method(Method::POST)
            .uri(PATH)
            .header(HOST, "operator")
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| ChannelError::Report)?;
        let answer = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let answer = timeout(ANSWER, answer).await.map_err(|_| ChannelError::Slow("answer"))??;
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(Answer::Nothing),
            StatusCode::OK => Ok(Answer::Policy(body_of(answer, LARGEST_NOTE).await?)),
            status => {
                let body = body_of(answer, LARGEST_REFUSAL).await?;
                let Refusal { reason, message } = Refusal::read(&body)
                    .unwrap_or_else(|| Refusal { reason: "Unknown".to_owned(), message: "no reason was given".to_owned() });
                Ok(Answer::Refused { status: status.as_u16(), reason, message })
            }
        }
    }
}

async fn reach(at: SocketAddr) -> io::Result<TcpStream> {
    // `TcpSocket::new` names the protocol, and the filter of system calls lets nobody name one.
    let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), None)?;
    TcpSocket::from_std_stream(socket.into()).connect(at).await
}

async fn body_of(answer: Response<Incoming>, most: usize) -> Result<Bytes, ChannelError> {
    match timeout(BODY, Limited::new(answer.into_body(), most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ChannelError::Large(most)),
        Ok(Err(error)) => Err(ChannelError::Broken(error.to_string())),
        Err(_) => Err(ChannelError::Slow("end of the answer")),
    }
}

/// An Ed25519 key that is written nowhere.
fn new_key(provider: &CryptoProvider) -> Result<CertifiedKey, rustls::Error> {
    /// What stands before the 32 bytes of a private key in PKCS #8 (RFC 8410).
    const HEAD: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let mut pkcs8 = [0; HEAD.len() + 32];
    pkcs8[..HEAD.len()].copy_from_slice(&HEAD);
    provider.secure_random.fill(&mut pkcs8[HEAD.len()..]).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
    let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..]))?;
    pkcs8.fill(0);
    let public = key.public_key().ok_or_else(|| rustls::Error::General("no public key".to_owned()))?;
    Ok(CertifiedKey::new(vec![CertificateDer::from(public.to_vec())], key))
}

/// The one key that is believed; no names, no times, no authorities.
struct Pinned {
    operator: [u8; crate::policy::channel::SPKI_LENGTH],
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("operator", &self.operator).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if end_entity.as_ref() == self.operator {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(cert.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The running guard's end of the channel.
pub struct Speaker {
    pub client: Client,
    pub token: PathBuf,
    pub keeper: Arc<Keeper>,
    pub resolver: SharedResolver,
    pub records: Arc<Records>,
    pub usage: Arc<Usage>,
}

impl Speaker {
    /// With every replica that the policy's name leads to, for as long as the future lives.
    pub async fn speak(self: Arc<Self>) {
        let mut held = self.keeper.held();
        let mut replicas: BTreeMap<SocketAddr, Ends> = BTreeMap::new();
        loop {
            let policy = held.borrow_and_update().clone();
            let asked: Option<Channel> = policy.as_ref().and_then(|policy| policy.channel.clone());
            let found = match &policy {
                Some(policy) => self.resolver.operators(policy).await,
                None => Some(Vec::new()),
            };
            // While DNS does not answer, those that were found before are asked on.
            if let Some(found) = found {
                replicas.retain(|at, _| found.contains(at));
                for at in found {
                    replicas.entry(at).or_insert_with(|| Ends(tokio::spawn(self.clone().follow(at)).abort_handle()));
                }
            }
            let moved = async {
                loop {
                    // An error means that the keeper is gone, and all else with it.
                    if held.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                    if held.borrow().as_ref().and_then(|policy| policy.channel.clone()) != asked {
                        return;
                    }
                }
            };
            let _ = timeout(if replicas.is_empty() { LOOK_AGAIN } else { LOOK }, moved).await;
        }
    }

    async fn follow(self: Arc<Self>, at: SocketAddr) {
        let random = RandomState::new();
        let (mut failures, mut said): (u32, Option<(String, Instant)>) = (0, None);
        loop {
            let began = failures;
            let error = self.talk(at, &mut failures).await;
            if failures == 0 && began > 0 {
                said = None;
            }
            failures = failures.saturating_add(1);
            let message = format!("{at}: {error}");
            let new = said.as_ref().is_none_or(|(last, when)| *last != message && when.elapsed() >= LAST_PAUSE || when.elapsed() >= AGAIN);
            if failures >= WORTH_A_WORD && new {
                self.records.trouble("channel", &message);
                said = Some((message, Instant::now()));
            }
            tokio::time::sleep(pause(failures, random.hash_one(failures))).await;
        }
    }

    /// Until something goes wrong.
    async fn talk(&self, at: SocketAddr, failures: &mut u32) -> ChannelError {
        let mut connection = match self.client.connect(at).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        loop {
            let began = Instant::now();
            let token = match read_token(&self.token) {
                Ok(token) => token,
                Err(error) => return error,
            };
            let policy = self.keeper.held().borrow().clone();
            let report = report(policy.as_deref(), &self.records, &self.usage);
            match connection.ask(&token, &report).await {
                Ok(Answer::Nothing) => {}
                Ok(Answer::Policy(note)) => match self.keeper.offer(Source::Channel, &note) {
                    Offered::Taken | Offered::Same => {}
                    Offered::Refused => return ChannelError::Policy,
                },
                Ok(Answer::Refused { status, reason, message }) => return ChannelError::Refused { status, reason, message },
                Err(error) => return error,
            }
            *failures = 0;
            tokio::time::sleep(SPACING.saturating_sub(began.elapsed())).await;
        }
    }
}

fn report(policy: Option<&GuardPolicy>, records: &Records, usage: &Usage) -> Report {
    Report {
        format: REPORT_FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        reads: FORMAT,
        life: usage.life(),
        enforced: policy.map(GuardPolicy::edition),
        denials: records.totals(Outcome::Refused),
        would_deny: records.totals(Outcome::LetThrough),
        usage: usage.totals(),
    }
}

/// Read anew for each question: the kubelet changes it.
fn read_token(file: &std::path::Path) -> Result<String, ChannelError> {
    let text = std::fs::read_to_string(file).map_err(|e| ChannelError::Token(e.to_string()))?;
    let token = text.trim();
    if token.is_empty() || token.len() > LARGEST_TOKEN {
        return Err(ChannelError::Token(format!("{} bytes", token.len())));
    }
    Ok(token.to_owned())
}

/// Half of it is drawn, so that guards do not come all at once to a replica that begins.
fn pause(failures: u32, random: u64) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(LAST_PAUSE);
    whole / 2 + (whole / 2).mul_f64((random % 1024) as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Attempt, Document, Mode, Reason};

    #[test]
    fn pauses_grow_within_bounds() {
        for failures in [1, 2, 5, 6, 50, u32::MAX] {
            for random in [0, 512, u64::MAX] {
                let pause = pause(failures, random);
                assert!(pause >= FIRST_PAUSE / 2 && pause <= LAST_PAUSE, "{failures} {pause:?}");
            }
        }
        assert!(pause(9, 0) >= LAST_PAUSE / 2 && pause(1, u64::MAX) <= FIRST_PAUSE);
    }

    #[test]
    fn a_report_says_all_since_the_start() {
        let (records, usage) = (Records::to(Box::new(io::sink())), Usage::default());
        let attempt = Attempt::Address(([203, 0, 113, 7], 443).into());
        records.judged(Outcome::Refused, Reason::NoPolicy, &attempt, None);
        for outcome in [Outcome::Refused, Outcome::LetThrough, Outcome::LetThrough] {
            records.judged(outcome, Reason::Suspended, &attempt, Some(&policy(Mode::Observe)));
        }
        usage.of("orders").sent.fetch_add(5, std::sync::atomic::Ordering::Relaxed);
        let first = report(Some(&policy(Mode::Observe)), &records, &usage);
        assert_eq!(first.denials, [("no_policy".to_owned(), 1), ("suspended".to_owned(), 1)].into());
        assert_eq!(first.would_deny, [("suspended".to_owned(), 2)].into());
        assert_eq!((first.usage["orders"].sent, first.reads, first.life), (5, FORMAT, usage.life()));
        assert_eq!(first.enforced, Some(policy(Mode::Observe).edition()));
        assert_eq!(report(Some(&policy(Mode::Observe)), &records, &usage), first, "and says it again");
    }

    fn policy(mode: Mode) -> GuardPolicy {
        let document = serde_json::json!({
            "format": 1, "workload": {"namespace": "support", "name": "bot", "uid": "u"}, "generation": 1, "serial": 7,
            "digest": "d", "mode": mode, "suspended": true,
            "network": {"domain": "cluster.local", "dns": [], "services": [], "own": []}, "destinations": [],
        });
        Document::read(document.to_string().as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn every_client_has_a_key_of_its_own() {
        let provider = ring::default_provider();
        let keys = [new_key(&provider).unwrap(), new_key(&provider).unwrap()];
        assert_ne!(keys[0].cert, keys[1].cert);
        for key in keys {
            assert!(crate::policy::channel::public_key(&key.cert[0]).is_some());
        }
    }

    #[test]
    fn tokens() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        assert!(read_token(&file).is_err());
        for (text, expected) in [("a.b.c\n", Some("a.b.c")), ("", None), ("\n", None)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read_token(&file).ok().as_deref(), expected, "{text:?}");
        }
        std::fs::write(&file, "t".repeat(LARGEST_TOKEN + 1)).unwrap();
        assert!(read_token(&file).is_err());
    }
}
