//! What the operator and the guard agree on about a pod: names, ports, paths, ids.

use std::ops::RangeInclusive;

/// The init container that sends the pod's traffic to the guard.
pub const REDIRECT_CONTAINER: &str = "remit-redirect";
/// The sidecar.
pub const GUARD_CONTAINER: &str = "remit-guard";
/// The volume with the policy and the guard's token, mounted into the guard only.
pub const POLICY_VOLUME: &str = "remit-policy";
pub const POLICY_DIRECTORY: &str = "/etc/remit/policy";
/// Name of the ConfigMap with the policy of an AIWorkload, and of its NetworkPolicy.
pub fn generated_name(workload: &str) -> String {
    format!("remit-{workload}")
}
/// The key of the ConfigMap, and the file in the directory: the signed policy.
pub const POLICY_FILE: &str = "policy.note";
/// The file in the directory by which the operator knows the guard, its audience, and how long it is good for.
pub const TOKEN_FILE: &str = "token";
pub const TOKEN_AUDIENCE: &str = "remit.dev/guard";
pub const TOKEN_SECONDS: i64 = 3600;

/// The Service of the operator through which guards ask for their policy, and its port, where nothing else is said.
pub const CHANNEL_SERVICE: &str = "remit-guards";
pub const CHANNEL_PORT: u16 = 9444;
/// Labels of the operator's pods, as the chart sets them.
pub const OPERATOR_LABELS: [(&str, &str); 2] = [("app.kubernetes.io/name", "remit"), ("app.kubernetes.io/component", "operator")];

/// Where redirected TCP arrives, on loopback.
pub const TCP_PORT: u16 = 15_471;
/// Where redirected DNS arrives, UDP and TCP, on loopback.
pub const DNS_PORT: u16 = 15_473;
/// Where base URLs lead, and who asks for a host by a forward proxy: TCP, on loopback.
pub const HTTP_PORT: u16 = 15_474;
/// `/readyz`, for the kubelet: on every address.
pub const HEALTH_PORT: u16 = 15_470;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// All of them: nobody else in the pod may answer there.
pub const LISTENS: [(Transport, u16); 5] = [
    (Transport::Tcp, TCP_PORT),
    (Transport::Tcp, DNS_PORT),
    (Transport::Udp, DNS_PORT),
    (Transport::Tcp, HEALTH_PORT),
    (Transport::Tcp, HTTP_PORT),
];

/// The base URL of a data source, for the pod itself.
pub fn base_url(source: &str) -> String {
    format!("http://127.0.0.1:{HTTP_PORT}/{source}")
}

/// Where a guard ends the app's TLS: the volume with whom the app is to trust. The guard writes it, containers of the app can only read it.
pub const TRUST_VOLUME: &str = "remit-trust";
pub const TRUST_DIRECTORY: &str = "/var/run/remit/trust";
/// The file there with everybody whom the guard trusts, and its own authority, in PEM.
pub const TRUST_BUNDLE: &str = "bundle.pem";
/// The file there with its own authority alone, in PEM.
pub const TRUST_CA: &str = "ca.pem";
/// The file there with the same as the bundle, for Java.
pub const TRUST_JAVA: &str = "truststore.jks";
/// The volume that keeps the authority over restarts of the guard's container: no other mounts it.
pub const CA_VOLUME: &str = "remit-ca";
pub const CA_DIRECTORY: &str = "/var/run/remit/ca";
/// As the guard is told where they are.
pub const TRUST_ARGUMENT: &str = "--trust-store=";
pub const CA_ARGUMENT: &str = "--ca=";

/// The guard's volumes: in no other pod may one bear these names.
pub const VOLUMES: [&str; 3] = [POLICY_VOLUME, TRUST_VOLUME, CA_VOLUME];

/// One is drawn for each pod, and one more as its group: whoever could choose them for an app would walk round the guard, and an image
/// that bears a user of its own cannot be seen at admission.
pub const IDS: RangeInclusive<u32> = 2_000_000_000..=2_099_999_999;
