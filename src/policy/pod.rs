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
/// Where the app asks the guard itself, on loopback: base URLs, and as a forward proxy.
pub const HTTP_PORT: u16 = 15_474;
/// `/readyz`, for the kubelet: on every address.
pub const HEALTH_PORT: u16 = 15_470;

/// One is drawn for each pod, and one more as its group: whoever could choose them for an app would walk round the guard, and an image
/// that bears a user of its own cannot be seen at admission.
pub const IDS: RangeInclusive<u32> = 2_000_000_000..=2_099_999_999;
