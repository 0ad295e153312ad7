//! `remit-operator run`: everything together, and how it ends.
//!
//! All replicas watch and serve the webhook; only the holder of the lease reconciles. A lost lease ends the process at once, non-zero. One SIGTERM
//! ends it within `shutdownSeconds`, whatever the API server does: what runs may finish, the lease is released if it can be, and the process
//! exits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::client::ClientBuilder;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tower::timeout::TimeoutLayer;

use super::config::Config;
use super::events::Events;
use super::guarded::Watcher;
use super::http::{self, Answers};
use super::lease::Election;
use super::metrics::{self, Metrics};
use super::queue::Queue;
use super::reconcile::{Next, Reconciler};
use super::{Keys, Writers, channel, policies, webhook};
use crate::api;
use crate::cluster::{Clients, Hands, Key, Settings, SharedWorld, WorkloadFact, watch};
use crate::plan::BreakGlass;
use crate::scope::ObjectName;

/// Reconciles at once.
const WORKERS: usize = 8;
/// Changes that come together are answered together.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// The first delay after an error; it doubles up to the last.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot find a cluster: {0}")]
    Config(#[from] kube::config::InferConfigError),
    #[error("cannot build a client: {0}")]
    Client(#[from] kube::Error),
    #[error("cannot listen on port {port} (http.port): {source}")]
    Listen { port: u16, source: std::io::Error },
    #[error("cannot listen for signals: {0}")]
    Signal(std::io::Error),
    #[error("the lease was lost; another process reconciles now")]
    LeaseLost,
    #[error("webhook: {0}")]
    Webhook(#[from] webhook::WebhookError),
    #[error("control channel: {0}")]
    Channel(#[from] channel::ChannelError),
    #[error("a watch ended")]
    WatchEnded,
    #[error("not everything could be removed: {0}")]
    Uninstall(String),
    #[error("not all had ended when shutdownSeconds had passed")]
    Deadline,
}

/// The most that the head of any answer may take (a watch's comes at once). Without it one request that is never answered, because a
/// connection died without a word, would keep the operator from ever being ready.
const HEAD: Duration = Duration::from_secs(30);

/// A client for the cluster of the environment.
pub async fn client() -> Result<Client, RunError> {
    Ok(client_of(kube::Config::infer().await?)?)
}

/// A client for this cluster. TLS is rustls with ring, chosen once.
pub(super) fn client_of(mut config: kube::Config) -> kube::Result<Client> {
    // An error means that it has been chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(ClientBuilder::try_from(config)?.with_layer(&TimeoutLayer::new(HEAD)).build())
}

/// Runs until a signal or an error ends it.
pub async fn run(config: Config) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    let config = Arc::new(config);
    let cluster = kube::Config::infer().await?;
    let token = policies::Token::default();
    let mut once = cluster.clone();
    once.default_retry = false;
    let clients = Clients { own: client_of(cluster.clone())?, once: client_of(once)?, policies: policies::client(cluster, token.clone())? };
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut work = std::pin::pin!(operate(config.clone(), clients, token, stopped));
    tokio::select! {
        ended = &mut work => return ended,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("shutting down");
    // Nobody listens only if all has ended already.
    let _ = stop.send(true);
    let deadline = config.shutdown().saturating_sub(Duration::from_millis(500));
    tokio::time::timeout(deadline, work).await.unwrap_or(Err(RunError::Deadline))
}

async fn stopping(mut stopped: tokio::sync::watch::Receiver<bool>) {
    // An error means that the sender is gone, which means the same.
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn operate(
    config: Arc<Config>,
    clients: Clients,
    token: policies::Token,
    stopped: tokio::sync::watch::Receiver<bool>,
) -> Result<(), RunError> {
    let client = clients.own.clone();
    let queue: Arc<Queue<Key>> = Arc::default();
    let world = SharedWorld::new(settings(&config));
    let (metrics, webhook_metrics, readiness) = (Metrics::default(), webhook::Metrics::default(), webhook::Readiness::default());
    let writers = Writers::default();
    let keys = Keys::default();
    let (collected, channel_metrics) = (channel::Collected::default(), channel::Metrics::default());

    let port = config.http.port;
    let listener = http::listen(port).await.map_err(|source| RunError::Listen { port, source })?;
    let guarded = config.guard.is_some().then(|| keys.clone());
    let usage = channel::UsageMetrics {
        world: world.clone(),
        collected: collected.clone(),
        leads: {
            let metrics = metrics.clone();
            Arc::new(move || metrics.is_leader())
        },
    };
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    webhook_metrics.register(&mut registry);
    channel_metrics.register(&mut registry);
    registry.register_collector(Box::new(usage));
    let answers = answers(&world, &queue, &metrics, registry, &readiness, guarded.clone(), token.clone());
    let mut background = JoinSet::new();
    background.spawn(http::serve(listener, answers));
    let account = ObjectName::new(&config.namespace, &config.policies_account);
    background.spawn(token.keep(client.clone(), account));
    if let Some(keys) = guarded {
        background.spawn(sign_anew(keys.changes(), world.clone(), queue.clone()));
        background.spawn(keys.keep(client.clone(), config.namespace.clone()));
    }

    let notify: watch::Notify = {
        let queue = queue.clone();
        Arc::new(move |keys| queue.add(keys, DEBOUNCE))
    };
    let mut watches = JoinSet::new();
    for watch in watch::watches(&clients, &world, &notify) {
        watches.spawn(watch);
    }

    let context = webhook::Context {
        client: client.clone(),
        config: config.clone(),
        world: world.clone(),
        keys: keys.clone(),
        writers: writers.clone(),
        metrics: webhook_metrics,
        readiness,
    };
    let webhook = webhook::run(context, stopping(stopped.clone()));

    let identity = identity();
    let events = Events::new(client.clone(), identity.clone(), metrics.clone());
    let policies = channel::InCluster::new(world.clone(), keys.clone());
    let guards = {
        let parts = config.guard.clone().map(|guard| channel::Parts {
            client: client.clone(),
            guard,
            events: events.clone(),
            keys: keys.clone(),
            policies: policies.clone(),
            world: world.clone(),
            collected: collected.clone(),
            metrics: channel_metrics,
        });
        let stopped = stopped.clone();
        async move {
            match parts {
                Some(parts) => channel::run(parts, stopped).await.map_err(RunError::from),
                None => Ok(()),
            }
        }
    };
    let watcher = Watcher::new(world.clone(), collected, policies);
    if config.guard.is_some() {
        let queue = queue.clone();
        background.spawn(watcher.clone().watch(move |keys| queue.add(keys, DEBOUNCE)));
    }
    let lease = ObjectName::new(&config.namespace, &config.lease.name);
    let mut election = Election::new(client.clone(), &lease, identity.clone(), config.lease_duration());
    let lead = async {
        tokio::select! {
            () = election.acquire() => {}
            () = stopping(stopped.clone()) => return Ok(()),
        }
        tracing::info!(identity, "leading");
        metrics.leads(true);
        let hold = election.hold();
        // No write starts unless the lease lasts longer than the write may take.
        let limit = config.lease_duration() / 3;
        let hands = Hands {
            clients: clients.clone(),
            world: world.clone(),
            gate: Arc::new(move || hold.lasts(limit)),
            count: {
                let metrics = metrics.clone();
                Arc::new(move |kind, verb| metrics.wrote(kind, verb))
            },
            timeout: limit,
            account: ObjectName::new(&config.namespace, &config.service_account),
        };
        let requeue = {
            let queue = queue.clone();
            move |keys| queue.add(keys, DEBOUNCE)
        };
        let reconciler =
            Arc::new(Reconciler::new(hands, metrics.clone(), events.clone(), writers.clone(), keys.clone(), watcher.clone(), requeue));
        let mut workers = workers(&queue, &world, &reconciler, &metrics, &stopped);
        let lost = tokio::select! {
            () = election.keep() => true,
            () = async { while workers.join_next().await.is_some() {} } => false,
        };
        metrics.leads(false);
        workers.abort_all();
        if lost {
            // No write starts any more; the webhook, which needs no lease, answers who is under way.
            tokio::time::sleep(config.drain()).await;
            return Err(RunError::LeaseLost);
        }
        election.release().await;
        Ok(())
    };
    let ended = async {
        watches.join_next().await;
        Err(RunError::WatchEnded)
    };
    tokio::select! {
        both = async { tokio::try_join!(lead, async { webhook.await.map_err(RunError::from) }, guards) } => both.map(drop),
        ended = ended => ended,
    }
}

/// Whatever was signed with another key is signed anew.
async fn sign_anew(mut keys: tokio::sync::watch::Receiver<Option<Arc<super::Key>>>, world: SharedWorld, queue: Arc<Queue<Key>>) {
    // An error means that nobody is left who could change it.
    while keys.changed().await.is_ok() {
        let all = world.read().all_keys();
        queue.add(all, DEBOUNCE);
    }
}

/// Workers that end when `stopped` says so, each after the reconcile that it is in.
fn workers(
    queue: &Arc<Queue<Key>>,
    world: &SharedWorld,
    reconciler: &Arc<Reconciler>,
    metrics: &Metrics,
    stopped: &tokio::sync::watch::Receiver<bool>,
) -> JoinSet<()> {
    let attempts: Arc<Mutex<HashMap<Key, u32>>> = Arc::default();
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (queue, world, reconciler) = (queue.clone(), world.clone(), reconciler.clone());
        let (metrics, stopped, attempts) = (metrics.clone(), stopped.clone(), attempts.clone());
        workers.spawn(async move {
            loop {
                let key = tokio::select! {
                    () = stopping(stopped.clone()) => return,
                    key = queue.next() => key,
                };
                // Nothing is decided before everything has been listed once.
                if !world.read().is_ready() {
                    queue.done(&key);
                    queue.add([key], Duration::from_secs(1));
                    continue;
                }
                let next = match &key {
                    Key::Workload(name) => reconciler.workload(name).await,
                    Key::Namespace(name) => reconciler.namespace(name).await,
                };
                queue.done(&key);
                let again = {
                    let mut attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
                    match next {
                        Next::Retry | Next::RetryWithin(_) => {
                            let attempt = attempts.entry(key.clone()).or_default();
                            *attempt += 1;
                            let most = if let Next::RetryWithin(most) = next { most } else { LAST_RETRY };
                            Some(backoff(*attempt).min(most))
                        }
                        Next::After(delay) => Some(delay),
                        Next::Change => {
                            attempts.remove(&key);
                            None
                        }
                    }
                };
                metrics.reconciled(match next {
                    Next::Retry | Next::RetryWithin(_) => "retry",
                    Next::After(_) => "wait",
                    Next::Change => "done",
                });
                if let Some(delay) = again {
                    queue.add([key], delay);
                }
            }
        });
    }
    workers
}

fn backoff(attempt: u32) -> Duration {
    FIRST_RETRY.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1))).min(LAST_RETRY)
}

fn answers(
    world: &SharedWorld,
    queue: &Arc<Queue<Key>>,
    metrics: &Metrics,
    registry: Registry,
    readiness: &webhook::Readiness,
    keys: Option<Keys>,
    token: policies::Token,
) -> Answers {
    let registry = Arc::new(registry);
    let not_ready = {
        let (world, readiness) = (world.clone(), readiness.clone());
        move || {
            let key = keys.as_ref().is_none_or(|keys| keys.current().is_some());
            let parts = [
                ("caches", world.read().is_ready()),
                ("webhook", readiness.is_ready()),
                ("key of guards", key),
                ("account of policies", token.is_there()),
            ];
            parts.into_iter().filter(|(_, ready)| !ready).map(|(name, _)| name).collect()
        }
    };
    let (world, queue, metrics) = (world.clone(), queue.clone(), metrics.clone());
    let text = move || {
        let mut counts = [("True", 0), ("False", 0), ("Unknown", 0)];
        for (_, fact) in world.read().workloads.iter() {
            let ready = fact.object.status.as_ref().and_then(|s| api::condition(&s.conditions, api::READY));
            let status = ready.map_or("Unknown", |c| c.status.as_str());
            if let Some((_, count)) = counts.iter_mut().find(|(name, _)| *name == status) {
                *count += 1;
            }
        }
        metrics.workloads(counts);
        let now = Timestamp::now();
        let lasts = |fact: &WorkloadFact| BreakGlass::lasting(fact.object.metadata.annotations.as_ref(), now).is_some();
        metrics.exceptions(world.read().workloads.iter().filter(|(_, fact)| lasts(fact)).count());
        metrics.queued(queue.len());
        metrics::text(&registry)
    };
    Answers { not_ready: Arc::new(not_ready), metrics: Arc::new(text) }
}

fn settings(config: &Config) -> Settings {
    Settings {
        pod_ranges: config.cluster.pod_ranges.clone(),
        service_ranges: config.cluster.service_ranges.clone(),
        other_ranges: config.cluster.other_ranges.clone(),
        dns_services: config.dns_services(),
        dns_addresses: config.dns.addresses.clone(),
        domain: config.cluster.domain.clone(),
        namespace: config.namespace.clone(),
        channel: config.channel(),
        roots: config.roots(),
        proxy: config.proxy(),
    }
}

/// Who we are to the lease: no two processes that run at one time may bear the same.
fn identity() -> String {
    match std::env::var("POD_NAME") {
        Ok(name) if !name.is_empty() => name,
        _ => format!("process-{}", std::process::id()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_are_capped() {
        let delays: Vec<_> = [1, 2, 3, 50, u32::MAX].map(backoff).map(|d| d.as_millis()).into();
        assert_eq!(delays, [250, 500, 1000, 30_000, 30_000]);
    }
}
