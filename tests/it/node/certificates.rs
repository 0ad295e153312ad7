//! The webhook's certificate is rotated under pods that are created all the time: none is refused, each is guarded.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use super::guard::init_containers;
use super::{Cluster, eventually};

const SECRET: &str = "remit-webhook-tls";
const NAME: &str = "remit-webhook.remit-system.svc";
/// Creates under way at the same time.
const AT_ONCE: usize = 4;
const DAY: u64 = 24 * 3600;
/// From now on until two thirds of the certificate's time are over.
const YOUNG: u64 = 10;

/// Two replicas of the operator, with a certificate that is about to be replaced for its age.
pub struct Aged {
    cluster: &'static Cluster,
    until: u64,
    bundle: String,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Authority, certificate and key of 80 days ago, and when they end.
fn aged_certificate() -> ([String; 3], u64) {
    let at = |seconds: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let begins = now() - 80 * DAY;
    let ends = begins + (80 * DAY + YOUNG) / 2 * 3;
    let (from, until) = (at(begins), at(ends));
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    authority.distinguished_name.push(DnType::CommonName, "aged authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let mut serving = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
    for params in [&mut authority, &mut serving] {
        (params.not_before, params.not_after) = (from, until);
    }
    let keys = [(); 2].map(|()| KeyPair::generate().expect("a key"));
    let signed = authority.self_signed(&keys[0]).expect("an authority");
    let issued = serving.signed_by(&keys[1], &Issuer::from_params(&authority, &keys[0])).expect("a certificate");
    ([signed.pem(), issued.pem(), keys[1].serialize_pem()], ends)
}

impl Aged {
    /// For who has the cluster alone: admission is away for a moment while the aged one takes its place.
    pub fn new(cluster: &'static Cluster) -> Self {
        let mut aged = Self { cluster, until: 0, bundle: String::new() };
        // With the chart's own lease: a leader that loses a short one under this load would end, and its webhook with it.
        cluster.helm_install("helm", &["--set", "replicas=2", "--set", "lease.durationSeconds=15", "--force-conflicts"]);
        let ([authority, certificate, key], until) = aged_certificate();
        aged.until = until;
        let data = json!({"stringData": {"ca.crt": authority, "tls.crt": certificate, "tls.key": key}, "data": {"next.crt": null, "next.key": null}});
        cluster.kubectl(&["patch", "secret", "-n", "remit-system", SECRET, "--type=merge", "-p", &data.to_string()]);
        aged.wake();
        eventually("both replicas serve the aged one", Duration::from_secs(60), || {
            aged.expiries().iter().all(|expiry| *expiry == aged.until).then_some(())
        });
        aged.bundle = aged.published();
        aged
    }

    /// A change of a configuration wakes the operator, which else looks twice a minute.
    fn wake(&self) {
        let woken = format!("remit.test/woken={}", now());
        self.cluster.kubectl(&["annotate", "--overwrite", "validatingwebhookconfiguration", "remit-scope", &woken]);
    }

    /// When what each replica serves ends; 0 of one that is not there to be asked (it may be going).
    fn expiries(&self) -> Vec<u64> {
        let pods = ["get", "pods", "-n", "remit-system", "-l", "app.kubernetes.io/component=operator", "-o", "name"];
        let pods = self.cluster.kubectl(&pods);
        let expiry = |pod: &str| {
            let path = format!("/api/v1/namespaces/remit-system/pods/{}:8080/proxy/metrics", pod.trim_start_matches("pod/"));
            let metrics = super::text(&self.cluster.run("kubectl", &["get", "--raw", &path]).stdout);
            let line = metrics.lines().find_map(|l| l.strip_prefix("remit_webhook_certificate_expiry_timestamp_seconds "));
            line.and_then(|seconds| seconds.parse::<f64>().ok()).unwrap_or_default() as u64
        };
        pods.lines().map(expiry).collect()
    }

    async fn client(&self) -> kube::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(&self.cluster.kubeconfig).expect("the kubeconfig can be read");
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a usable kubeconfig");
        config.default_retry = false;
        kube::Client::try_from(config).expect("a client")
    }

    /// Whom the API server trusts in the injecting webhook.
    fn published(&self) -> String {
        self.cluster.json(&["get", "mutatingwebhookconfiguration", "remit-inject"])["webhooks"][0]["clientConfig"]["caBundle"]
            .as_str()
            .expect("published")
            .to_owned()
    }

    /// Pods are created until the new certificate is served by both replicas, and the API server has met it.
    pub fn rotates_under_creates(&self, namespace: &str) {
        let (created, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        // As fast as they are answered, so that no moment is left out: they pass admission, and are not kept.
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"generateName": "rotate-", "labels": {"app": "support-bot"}},
            "spec": {"containers": [{"name": "main", "image": "remit.test/probe:1", "imagePullPolicy": "Never", "securityContext": {
                "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 65532,
                "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
            }}]},
        }))
        .expect("a pod");
        let count = || created.load(Ordering::Relaxed);
        let report = std::thread::scope(|scope| {
            let _end = End(&stop);
            let creating = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let pods: Api<Pod> = Api::namespaced(self.client().await, namespace);
                    let one = async || {
                        while !stop.load(Ordering::Relaxed) {
                            let made = pods.create(&dry, &pod).await.unwrap_or_else(|e| panic!("refused after {}: {e}", count()));
                            let made = serde_json::to_value(&made).expect("a pod is JSON");
                            assert_eq!(init_containers(&made), ["remit-redirect", "remit-guard"]);
                            created.fetch_add(1, Ordering::Relaxed);
                        }
                    };
                    futures::future::join_all((0..AT_ONCE).map(|_| one())).await;
                });
            });
            // Also where the creating fails: what is awaited below must not go on for its whole time.
            let until = |what: &str, within, mut condition: Box<dyn FnMut() -> bool + '_>| {
                eventually(what, Duration::from_secs(within), || (creating.is_finished() || condition()).then_some(()));
                count()
            };
            let before = until("some are created before", 30, Box::new(|| count() >= 50));
            let promoted = until("both serve the next", 180, Box::new(|| self.expiries().iter().all(|expiry| *expiry > self.until + DAY)));
            // The connection that the API server goes on with may be of before; for another bundle it begins another.
            let trusted = self.published();
            let ByteString(mut bundle) = serde_json::from_value(json!(trusted)).expect("base64");
            bundle.push(b'\n');
            let patch = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": ByteString(bundle)}]);
            self.cluster.kubectl(&["patch", "mutatingwebhookconfiguration", "remit-inject", "--type=json", "-p", &patch.to_string()]);
            until("the operator puts it back", 30, Box::new(|| self.published() == trusted));
            let anew = count();
            let after = until("some are created after", 60, Box::new(|| count() >= anew + 50));
            stop.store(true, Ordering::Relaxed);
            creating.join().map(|()| format!("{before} before, {} during the rotation, {} after", promoted - before, after - promoted))
        });
        match report {
            Ok(report) => println!("pods created and guarded while the certificate was rotated: {report}"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        assert_ne!(self.published(), self.bundle, "the authorities are others than before");
    }
}

/// Also where what is awaited does not come.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Aged {
    fn drop(&mut self) {
        _ = self.cluster.run("helm", &["rollback", "remit", "-n", "remit-system", "--wait", "--timeout", "120s", "--force-conflicts"]);
    }
}
