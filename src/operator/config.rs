//! The configuration file of the operator.
//!
//! In: YAML. Out: a [`Config`] that is complete and plausible, or an error that names the field. Unknown fields are errors: a
//! misspelt one would otherwise be a setting that nobody holds. `namespace` is needed; so are, of `guard` where it is there,
//! its image and its resources. Everything else may be left out.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use crate::plan::{ChannelFact, GuardSettings, never_a_destination};
use crate::policy;
use crate::policy::pod::{CHANNEL_PORT, CHANNEL_SERVICE};
use crate::scope::{DomainName, ObjectName};

/// Everything the operator is told.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Where the operator lies.
    pub namespace: String,
    /// Its own ServiceAccount there.
    #[serde(default = "default_service_account")]
    pub service_account: String,
    /// The account there that writes the guards' policies, and nothing else.
    #[serde(default = "default_policies_account")]
    pub policies_account: String,
    /// Its own Deployment there (uninstall scales it down by deleting it).
    #[serde(default)]
    pub deployment: Option<String>,
    #[serde(default)]
    pub http: Http,
    #[serde(default)]
    pub webhook: Webhook,
    #[serde(default)]
    pub lease: Lease,
    /// How long one SIGTERM may take, whatever the API server does.
    #[serde(default = "default_shutdown")]
    pub shutdown_seconds: u64,
    /// Users (GitOps controllers) whose changes need cover by a ceiling instead of rights of their own.
    #[serde(default)]
    pub appliers: Vec<String>,
    #[serde(default)]
    pub cluster: Cluster,
    #[serde(default)]
    pub dns: Dns,
    /// None: no guard is injected, and no pod is judged.
    #[serde(default)]
    pub guard: Option<Guard>,
}

/// Health and metrics.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Http {
    pub port: u16,
}

#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Webhook {
    pub port: u16,
    /// The Service in front; certificate names are made from it.
    pub service: String,
    /// ValidatingWebhookConfigurations whose `path` is kept, and (self-signed) `caBundle`.
    pub configurations: Vec<String>,
    /// MutatingWebhookConfigurations, likewise.
    pub mutating_configurations: Vec<String>,
    pub certificate: Certificate,
}

/// Where the webhook's certificate comes from.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum Certificate {
    /// Made and rotated by the operator, kept in a Secret.
    #[serde(rename_all = "camelCase")]
    SelfSigned { secret_name: String },
    /// `tls.crt`, `tls.key` and `ca.crt` in a directory, kept by somebody else (cert-manager).
    #[serde(rename_all = "camelCase")]
    Files { directory: PathBuf },
}

#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Lease {
    pub name: String,
    pub duration_seconds: u64,
}

/// The cluster's own addresses, beside those that are found.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cluster {
    pub pod_ranges: Vec<IpNet>,
    pub service_ranges: Vec<IpNet>,
    pub other_ranges: Vec<IpNet>,
    /// Of DNS.
    pub domain: DomainName,
}

#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Dns {
    /// DNS Services made of pods; those that do not exist are passed over.
    pub services: Vec<DnsService>,
    /// DNS servers that are no pods (NodeLocal DNSCache).
    pub addresses: Vec<IpAddr>,
}

#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsService {
    pub namespace: String,
    pub name: String,
}

/// What is injected into pods, and how it is spoken to.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Guard {
    pub image: String,
    #[serde(default = "default_pull_policy")]
    pub image_pull_policy: String,
    pub cpu_request: String,
    pub memory_request: String,
    pub memory_limit: String,
    /// Devices (extended resources) that guarded pods may ask for; `*` at the end of a name stands for anything.
    #[serde(default = "default_devices")]
    pub allowed_devices: Vec<String>,
    #[serde(default)]
    pub channel: ControlChannel,
    #[serde(default)]
    pub roots: Roots,
    #[serde(default)]
    pub proxy: Proxy,
}

/// Authorities that certificates of upstreams may lead to.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Roots {
    /// Those that every guard carries with it.
    pub public: bool,
    /// Others, in PEM.
    pub certificates: String,
}

/// A forward proxy, through which guards reach hosts.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Proxy {
    /// Of the proxy itself, as packets bear them; none: hosts are reached themselves.
    pub addresses: Vec<SocketAddr>,
}

impl Guard {
    /// What pods are injected with. `trust`: the key that policies are signed with.
    pub fn settings(&self, trust: &str) -> GuardSettings {
        let Self { image, image_pull_policy, cpu_request, memory_request, memory_limit, allowed_devices, channel: _, roots: _, proxy: _ } =
            self.clone();
        GuardSettings { image, trust: trust.to_owned(), image_pull_policy, cpu_request, memory_request, memory_limit, allowed_devices }
    }
}

/// Where guards ask for their policy: a Service of the operator without an address of its own, whose name leads to every replica.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ControlChannel {
    pub service: String,
    /// Where guards call.
    pub port: u16,
    /// Where the operator listens, if something lies between.
    pub listen_port: Option<u16>,
}

/// More are not tried.
const MOST_PROXIES: usize = 4;
/// A policy travels in a ConfigMap, beside what the scope says.
const LARGEST_ROOTS: usize = 128 * 1024;

fn are_certificates(pem: &str) -> bool {
    let mut found = CertificateDer::pem_slice_iter(pem.as_bytes()).peekable();
    // Whoever may read ConfigMaps reads it.
    pem.is_empty() || found.peek().is_some() && found.all(|one| one.is_ok()) && !pem.contains("PRIVATE KEY")
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Parse { path: PathBuf, message: String },
    #[error("{path}: {field}: {message}")]
    Field { path: PathBuf, field: &'static str, message: &'static str },
}

fn default_service_account() -> String {
    "remit".to_owned()
}

fn default_policies_account() -> String {
    "remit-policies".to_owned()
}

fn default_pull_policy() -> String {
    "IfNotPresent".to_owned()
}

/// What computes and is no network.
fn default_devices() -> Vec<String> {
    ["nvidia.com/gpu", "nvidia.com/mig-*", "amd.com/gpu", "gpu.intel.com/*", "google.com/tpu", "aws.amazon.com/neuron*", "habana.ai/gaudi"]
        .map(str::to_owned)
        .into()
}

fn default_shutdown() -> u64 {
    20
}

impl Default for Http {
    fn default() -> Self {
        Self { port: 8080 }
    }
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            port: 9443,
            service: "remit-webhook".to_owned(),
            configurations: ["remit-scope", "remit-recorder", "remit-pods"].map(str::to_owned).into(),
            mutating_configurations: vec!["remit-inject".to_owned()],
            certificate: Certificate::SelfSigned { secret_name: "remit-webhook-tls".to_owned() },
        }
    }
}

impl Default for ControlChannel {
    fn default() -> Self {
        Self { service: CHANNEL_SERVICE.to_owned(), port: CHANNEL_PORT, listen_port: None }
    }
}

impl Default for Roots {
    fn default() -> Self {
        Self { public: true, certificates: String::new() }
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self { name: "remit-operator".to_owned(), duration_seconds: 15 }
    }
}

impl Default for Dns {
    fn default() -> Self {
        let service = |namespace: &str, name: &str| DnsService { namespace: namespace.to_owned(), name: name.to_owned() };
        Self { services: vec![service("kube-system", "kube-dns")], addresses: Vec::new() }
    }
}

impl Config {
    /// The configuration in this file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|error| match error {
            Invalid::Parse(message) => ConfigError::Parse { path: path.to_owned(), message },
            Invalid::Field(field, message) => ConfigError::Field { path: path.to_owned(), field, message },
        })
    }

    fn parse(text: &str) -> Result<Self, Invalid> {
        let config: Self = serde_saphyr::from_str(text).map_err(|e| Invalid::Parse(e.to_string()))?;
        let roots = |holds: &dyn Fn(&Roots) -> bool| config.guard.as_ref().is_none_or(|guard| holds(&guard.roots));
        let proxies = || config.guard.iter().flat_map(|guard| &guard.proxy.addresses);
        let checks = [
            ("namespace", !config.namespace.is_empty(), "name the operator's namespace"),
            ("policiesAccount", !config.policies_account.is_empty(), "must not be empty"),
            (
                "guard.channel.service",
                config.channel().is_none_or(|c| c.name(&config.cluster.domain).is_some()),
                "must be the name of a Service",
            ),
            (
                "guard.roots",
                roots(&|roots| roots.public || !roots.certificates.is_empty()),
                "name an authority in certificates, or leave public true",
            ),
            (
                "guard.roots.certificates",
                roots(&|roots| roots.certificates.len() <= LARGEST_ROOTS && are_certificates(&roots.certificates)),
                "must be certificates in PEM, at most 128 KiB: all of them lie in each guard's policy",
            ),
            ("guard.proxy.addresses", proxies().count() <= MOST_PROXIES, "name at most 4"),
            (
                "guard.proxy.addresses",
                proxies().all(|address| address.port() != 0 && !never_a_destination(address.ip().to_canonical())),
                "must be addresses with ports that other hosts than the pod's own node reach",
            ),
            ("lease.name", !config.lease.name.is_empty(), "must not be empty"),
            ("lease.durationSeconds", (1..=3600).contains(&config.lease.duration_seconds), "must be from 1 to 3600"),
            ("shutdownSeconds", (1..=600).contains(&config.shutdown_seconds), "must be from 1 to 600"),
            ("http.port", config.http.port != config.webhook.port, "must differ from webhook.port"),
            (
                "guard.channel.port",
                config.guard.as_ref().is_none_or(|g| ![config.http.port, config.webhook.port].contains(&g.channel.port)),
                "must differ from http.port and webhook.port",
            ),
        ];
        match checks.into_iter().find(|(_, holds, _)| !holds) {
            Some((field, _, message)) => Err(Invalid::Field(field, message)),
            None => Ok(config),
        }
    }

    pub fn shutdown(&self) -> Duration {
        Duration::from_secs(self.shutdown_seconds)
    }

    /// How long the webhook still answers after it was told to stop: until the nodes' Service rules lead elsewhere.
    pub fn drain(&self) -> Duration {
        (self.shutdown() / 4).min(Duration::from_secs(5))
    }

    pub fn lease_duration(&self) -> Duration {
        Duration::from_secs(self.lease.duration_seconds)
    }

    /// Where guards ask for their policy, if there are guards.
    pub fn channel(&self) -> Option<ChannelFact> {
        let ControlChannel { service, port, listen_port: _ } = &self.guard.as_ref()?.channel;
        Some(ChannelFact { service: ObjectName::new(&self.namespace, service), port: *port })
    }

    /// Whom guards trust, where that is not the public authorities alone.
    pub fn roots(&self) -> Option<policy::Roots> {
        let Roots { public, certificates } = &self.guard.as_ref()?.roots;
        (!public || !certificates.is_empty()).then(|| policy::Roots {
            public: *public,
            certificates: Some(certificates.clone()).filter(|pem| !pem.is_empty()).into_iter().collect(),
        })
    }

    /// Where guards reach hosts through.
    pub fn proxy(&self) -> Option<policy::Proxy> {
        let addresses = &self.guard.as_ref()?.proxy.addresses;
        (!addresses.is_empty()).then(|| policy::Proxy { addresses: addresses.clone() })
    }

    /// DNS Services made of pods.
    pub fn dns_services(&self) -> Vec<ObjectName> {
        self.dns.services.iter().map(|DnsService { namespace, name }| ObjectName::new(namespace, name)).collect()
    }
}

#[derive(Debug, PartialEq)]
enum Invalid {
    Parse(String),
    Field(&'static str, &'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_enough() {
        let config = Config::parse("namespace: remit-system").unwrap();
        assert_eq!(config.http.port, 8080);
        assert_eq!(config.lease, Lease::default());
        assert_eq!((config.policies_account.as_str(), config.channel()), ("remit-policies", None));
        assert_eq!(config.dns_services()[0], ObjectName::new("kube-system", "kube-dns"));
        assert!(Config::parse("http: {port: 1}").is_err(), "the namespace is needed");
    }

    #[test]
    fn the_documented_file_is_read() {
        let page = include_str!("../../ARCHITECTURE.md");
        let (_, after) = page.split_once("```yaml\nnamespace: remit-system ").expect("the block");
        let (rest, _) = after.split_once("```").unwrap();
        let text = format!("namespace: remit-system {rest}");
        let config = Config::parse(&text).unwrap();
        assert_eq!(
            config,
            Config {
                guard: config.guard.clone(),
                deployment: config.deployment.clone(),
                ..Config::parse("namespace: remit-system").unwrap()
            }
        );
        let guard = config.guard.expect("the block names it");
        assert_eq!((guard.image_pull_policy.as_str(), guard.channel), ("IfNotPresent", ControlChannel::default()));
        // The other form that the block names, and what it leaves empty.
        let other = text
            .replace("{type: SelfSigned, secretName: remit-webhook-tls}", "{type: Files, directory: /etc/remit/tls}")
            .replace("podRanges: [], serviceRanges: []", "podRanges: [10.0.0.0/8], serviceRanges: ['fd00::/112']")
            .replace("appliers: []", "appliers: [system:serviceaccount:argocd:argocd-application-controller]");
        let config = Config::parse(&other).unwrap();
        assert_eq!(config.webhook.certificate, Certificate::Files { directory: "/etc/remit/tls".into() });
        assert_eq!((config.cluster.pod_ranges, config.appliers.len()), (vec!["10.0.0.0/8".parse().unwrap()], 1));
    }

    #[test]
    fn the_chart_allows_the_same_devices() {
        let values: serde_json::Value = serde_saphyr::from_str(include_str!("../../charts/remit/values.yaml")).unwrap();
        assert_eq!(values["guard"]["allowedDevices"], serde_json::json!(default_devices()));
    }

    #[test]
    fn errors_name_the_field() {
        for (text, named) in [
            ("namespace: a\nlese: {}", "lese"),
            ("namespace: a\nlease: {duration: 3}", "duration"),
            ("namespace: a\ncluster: {podRanges: [10.0.0.0/33]}", "podRanges"),
        ] {
            match Config::parse(text) {
                Err(Invalid::Parse(message)) => assert!(message.contains(named), "{message}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let port = "namespace: a\nguard: {image: a, cpuRequest: 1m, memoryRequest: 1Mi, memoryLimit: 1Mi, channel: {port: 8080}}";
        assert_eq!(Config::parse(port), Err(Invalid::Field("guard.channel.port", "must differ from http.port and webhook.port")));
        let service = "namespace: a\nguard: {image: a, cpuRequest: 1m, memoryRequest: 1Mi, memoryLimit: 1Mi, channel: {service: a b}}";
        assert_eq!(Config::parse(service), Err(Invalid::Field("guard.channel.service", "must be the name of a Service")));
        let guard = |more: &str| {
            Config::parse(&format!("namespace: a\nguard: {{image: a, cpuRequest: 1m, memoryRequest: 1Mi, memoryLimit: 1Mi, {more}}}"))
        };
        for (more, field) in [
            ("roots: {public: false}", "guard.roots"),
            ("roots: {certificates: x}", "guard.roots.certificates"),
            (
                "roots: {certificates: \"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n-----BEGIN PRIVATE KEY-----\\nAAAA\\n-----END PRIVATE KEY-----\\n\"}",
                "guard.roots.certificates",
            ),
            ("proxy: {addresses: ['10.0.0.1:0']}", "guard.proxy.addresses"),
            ("proxy: {addresses: ['127.0.0.1:3128']}", "guard.proxy.addresses"),
            ("proxy: {addresses: ['[::ffff:169.254.1.1]:3128']}", "guard.proxy.addresses"),
            ("proxy: {addresses: ['1.1.1.1:1', '1.1.1.1:2', '1.1.1.1:3', '1.1.1.1:4', '1.1.1.1:5']}", "guard.proxy.addresses"),
        ] {
            assert!(matches!(guard(more), Err(Invalid::Field(found, _)) if found == field), "{more}: {:?}", guard(more));
        }
        assert!(matches!(guard("proxy: {addresses: [proxy.example.com:3128]}"), Err(Invalid::Parse(_))));
        let config = guard("proxy: {addresses: ['10.0.0.1:3128', '[2001:db8::1]:3128']}").unwrap();
        assert_eq!((config.proxy().unwrap().addresses.len(), config.roots()), (2, None));
        let zero = Config::parse("namespace: a\nlease: {durationSeconds: 0}");
        assert_eq!(zero, Err(Invalid::Field("lease.durationSeconds", "must be from 1 to 3600")));
    }
}
