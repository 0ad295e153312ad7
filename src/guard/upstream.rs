//! Towards what was permitted: where it is, and whether it is who it should be.
//!
//! Promise: only a [`Permit`] leads anywhere. A name is where the guard itself finds it; with TLS, its certificate must be one for it, from
//! an authority that the policy trusts.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::gate::{Denied, Gate};
use super::stream::{Stream, connect};
use crate::policy::{GuardPolicy, Leg, Permit, Proxy, Reason, Roots, Scheme, Upstream};
use crate::scope::DomainName;

/// For one address of an upstream.
const REACH: Duration = Duration::from_secs(5);
/// For TLS with it, and for a proxy's answer.
const GREET: Duration = Duration::from_secs(10);
/// Bytes of a proxy's answer.
const LARGEST_ANSWER: usize = 8 * 1024;

/// Versions of HTTP, as TLS names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    One,
    Two,
}

impl Version {
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::One => b"http/1.1",
            Self::Two => b"h2",
        }
    }
}

/// What upstreams are known by.
#[derive(Default)]
pub struct Upstreams {
    /// For the authorities that the policy names; made anew when these change.
    trust: Mutex<Option<Trust>>,
}

struct Trust {
    roots: Option<Roots>,
    verifier: Arc<WebPkiServerVerifier>,
    /// Each remembers sessions with its upstreams.
    configs: Vec<(Vec<Version>, Arc<ClientConfig>)>,
}

/// A connection that was made, and where it leads.
pub struct Reached {
    pub stream: Stream,
    pub address: IpAddr,
    pub version: Version,
    pub way: Way,
}

/// How an upstream was reached: what another policy may say in another way.
#[derive(Clone, Debug)]
pub struct Way(Arc<GuardPolicy>);

impl Way {
    /// Whether it would be reached in the same way now: known by the same authorities, through the same proxy.
    pub fn still(&mut self, now: &Arc<GuardPolicy>) -> bool {
        let same = Arc::ptr_eq(&self.0, now) || (self.0.roots == now.roots && self.0.proxy == now.proxy);
        if same {
            // The older one is needed no more.
            self.0 = now.clone();
        }
        same
    }
}

impl Upstreams {
    fn config(&self, policy: &GuardPolicy, versions: &[Version]) -> Result<Arc<ClientConfig>, Reason> {
        let mut trust = self.trust.lock().unwrap_or_else(|e| e.into_inner());
        if trust.as_ref().is_none_or(|trust| trust.roots != policy.roots) {
            *trust = Some(Trust::new(policy.roots.clone())?);
        }
        let Some(trust) = trust.as_mut() else { return Err(Reason::UpstreamUntrusted) };
        if let Some((_, config)) = trust.configs.iter().find(|(of, _)| of == versions) {
            return Ok(config.clone());
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| Reason::UpstreamUntrusted)?
            .with_webpki_verifier(trust.verifier.clone())
            .with_no_client_auth();
        config.alpn_protocols = versions.iter().map(|version| version.alpn().to_vec()).collect();
        let config = Arc::new(config);
        trust.configs.push((versions.to_vec(), config.clone()));
        Ok(config)
    }
}

/// Authorities that certificates of upstreams may lead to.
pub fn roots(roots: Option<&Roots>) -> Vec<CertificateDer<'static>> {
    let public = roots.is_none_or(|roots| roots.public);
    let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().filter(|_| public).cloned();
    let private = roots.iter().flat_map(|roots| &roots.certificates);
    public.chain(private.flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok))).collect()
}

impl Trust {
    fn new(roots: Option<Roots>) -> Result<Self, Reason> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self::roots(roots.as_ref()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // Nobody is trusted where nothing can be read.
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build().map_err(|_| Reason::UpstreamUntrusted)?;
        Ok(Self { roots, verifier, configs: Vec::new() })
    }
}

impl Gate {
    /// A connection to where the permit leads, bytes only. `wanted`: where the client wanted to go.
    pub async fn reach(&self, permit: &Permit, wanted: Option<SocketAddr>) -> Result<(TcpStream, IpAddr), Denied> {
        let policy = self.policy()?;
        let found = self.find(&policy, permit, wanted).await;
        match found {
            Ok(found) => Ok(found),
            Err(reason) => Err(Denied::by(policy, reason)),
        }
    }

    async fn find(&self, policy: &GuardPolicy, permit: &Permit, wanted: Option<SocketAddr>) -> Result<(TcpStream, IpAddr), Reason> {
        let addresses: Vec<SocketAddr> = match permit.upstream() {
            Upstream::Service { name: _, address } | Upstream::Kubernetes(address) | Upstream::Anywhere(address) => vec![*address],
            Upstream::Named { name, port } => {
                if let Some(proxy) = policy.proxy.as_ref().filter(|_| policy.is_host(name)) {
                    return through(proxy, name, *port).await;
                }
                let found = self.resolver.resolve(policy, name).await?;
                let mut all: Vec<SocketAddr> = found.addresses.into_iter().map(|address| SocketAddr::new(address, *port)).collect();
                // Where the client wanted to go first, if that is where the host is; then its family.
                if let Some(wanted) = wanted {
                    all.sort_by_key(|address| (*address != wanted, address.is_ipv4() != wanted.is_ipv4()));
                }
                all
            }
        };
        if addresses.is_empty() {
            return Err(Reason::ResolutionFailed);
        }
        for address in addresses {
            if let Ok(Ok(stream)) = timeout(REACH, connect(address)).await {
                return Ok((stream, address.ip()));
            }
        }
        Err(Reason::Unreachable)
    }

    /// A connection on which HTTP is spoken, in one of these versions. `server`: the name in TLS, where the client said one.
    pub async fn reach_http(
        &self,
        permit: &Permit,
        wanted: Option<SocketAddr>,
        versions: &[Version],
        server: Option<&DomainName>,
    ) -> Result<Reached, Denied> {
        let policy = self.policy()?;
        let way = Way(policy.clone());
        let reached = async {
            let (stream, address) = self.find(&policy, permit, wanted).await?;
            let scheme = match permit.leg() {
                Leg::Bytes => return Err(Reason::NotInspected),
                Leg::Http(scheme) => scheme,
            };
            if scheme == Scheme::Http {
                let version = versions.first().copied().unwrap_or(Version::One);
                return Ok(Reached { stream: Stream::Tcp(stream), address, version, way });
            }
            let name = match (server, permit.authority().map(|authority| &authority.host), permit.upstream()) {
                (Some(name), _, _) | (None, Some(crate::scope::Host::Name(name)), _) | (None, None, Upstream::Named { name, .. }) => name,
                _ => return Err(Reason::UpstreamUntrusted),
            };
            let name = ServerName::try_from(name.as_str().to_owned()).map_err(|_| Reason::UpstreamUntrusted)?;
            let connector = TlsConnector::from(self.upstreams.config(&policy, versions)?);
            let stream = match timeout(GREET, connector.connect(name, stream)).await {
                Ok(Ok(stream)) => stream,
                // It went away; that says nothing of who it is.
                Ok(Err(error)) if error.get_ref().is_none_or(|error| !error.is::<rustls::Error>()) => return Err(Reason::Unreachable),
                Ok(Err(_)) => return Err(Reason::UpstreamUntrusted),
                Err(_) => return Err(Reason::UpstreamSlow),
            };
            let version = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Version::Two,
                // Who says nothing speaks the older one.
                _ => Version::One,
            };
            if !versions.contains(&version) {
                return Err(Reason::UpstreamMalformed);
            }
            Ok(Reached { stream: Stream::Upstream(Box::new(stream)), address, version, way })
        };
        let reached = reached.await;
        reached.map_err(|reason| Denied::by(policy, reason))
    }
}

/// By CONNECT. The proxy finds the name.
async fn through(proxy: &Proxy, name: &DomainName, port: u16) -> Result<(TcpStream, IpAddr), Reason> {
    for address in &proxy.addresses {
        let Ok(Ok(mut stream)) = timeout(REACH, connect(*address)).await else { continue };
        let asked = async {
            let request = format!("CONNECT {name}:{port} HTTP/1.1\r\nhost: {name}:{port}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = Vec::new();
            // Byte by byte: what comes after the answer is another's.
            while !answer.ends_with(b"\r\n\r\n") {
                if answer.len() >= LARGEST_ANSWER {
                    return None;
                }
                answer.push(stream.read_u8().await.ok()?);
            }
            let accepted = answer.starts_with(b"HTTP/1.1 2") || answer.starts_with(b"HTTP/1.0 2");
            accepted.then_some(stream)
        };
        if let Ok(Some(stream)) = timeout(GREET, asked).await {
            return Ok((stream, address.ip()));
        }
    }
    Err(Reason::Unreachable)
}
