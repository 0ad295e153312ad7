//! The admission webhook.
//!
//! Promise: `/scope` lets an AIWorkload or ScopeCeiling through only if [`crate::plan::review`] and the authorizer say so, and refuses
//! when it cannot find out; `/inject` puts the guard into pods; `/admit` lets pods, what makes them, and connections into them through only if
//! [`crate::plan::admit()`] says so; `/record` lets everything through and remembers who wrote it; all answer only who knows their secret path.
//! In: AdmissionReviews over TLS. Out: answers, a ConfigMap of writers, the kept `caBundle` and `path`. It changes no object that it is
//! asked about (a patch is an answer) and does not reconcile.
//!
//! `server` (TLS, limits) → `paths` (who is answered) → `handler` (what is asked, the answer) → `access` (ceilings, authorizer)
//! and `recorder`, `pods` (which state is asked) → `verdict` (what it says); `certificate` decides about certificates, `keeper` does what it decided and publishes the paths.

mod access;
mod certificate;
mod handler;
mod keeper;
mod metrics;
mod paths;
mod pods;
mod recorder;
mod server;
#[cfg(test)]
mod tests;
mod verdict;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use metrics::Metrics;
pub(super) use paths::SECRET as PATH_SECRET;

use super::{Config, Keys, Writers, http};
use crate::cluster::SharedWorld;
use handler::{Authors, Handler};
use keeper::Keeper;
use paths::Known;
use pods::Pods;
use recorder::Recorder;
use server::Certificates;

/// What the webhook is given.
#[derive(Clone)]
pub struct Context {
    pub client: kube::Client,
    pub config: Arc<Config>,
    pub world: SharedWorld,
    pub keys: Keys,
    pub writers: Writers,
    pub metrics: Metrics,
    pub readiness: Readiness,
}

/// Whether the webhook can answer: it has a certificate and knows its paths.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    certificates: Certificates,
    paths: Known,
}

impl Readiness {
    pub fn is_ready(&self) -> bool {
        self.certificates.current().is_some() && self.paths.current().is_some()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("cannot listen on port {port}: {source}")]
    Listen { port: u16, source: std::io::Error },
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("a part of the webhook ended unexpectedly: {0}")]
    Ended(String),
}

/// Serves until `shutdown` resolves, and a while longer ([`Config::drain`]), for who does not know of it yet: pods wait for its answer. Then
/// it lets open requests end (the caller sets the deadline).
pub async fn run(context: Context, shutdown: impl Future<Output = ()> + Send) -> Result<(), WebhookError> {
    let port = context.config.webhook.port;
    let listener = http::listen(port).await.map_err(|source| WebhookError::Listen { port, source })?;
    serve(context, listener, shutdown).await
}

async fn serve(context: Context, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> Result<(), WebhookError> {
    let Context { client, config, world, writers, metrics, keys, readiness: Readiness { certificates, paths } } = context;
    let tls = server::tls(certificates.clone())?;
    let (stop, stopped) = watch::channel(false);
    let (drain, draining) = watch::channel(false);
    let (recorder, receiver) = Recorder::new(writers.clone());
    let keeper = Keeper::new(client.clone(), &config, certificates, paths.clone(), metrics.clone());
    let cluster = access::ApiServer::new(client.clone());
    let pods = Pods { world, guard: config.guard.clone(), keys };
    let handler = Handler { authors: Authors::new(&config), cluster, recorder, paths, pods, metrics: metrics.clone() };
    let mut parts = JoinSet::new();
    parts.spawn(keeper.run(stopped.clone()));
    parts.spawn(recorder::keep(client, config.namespace.clone(), writers, receiver, stopped.clone()));
    parts.spawn(server::serve(listener, tls, Arc::new(handler), draining, stopped));
    let shutdown = async {
        shutdown.await;
        drain.send_replace(true);
        tokio::time::sleep(config.drain()).await;
    };
    tokio::pin!(shutdown);
    let ended = tokio::select! {
        () = &mut shutdown => None,
        ended = parts.join_next() => Some(ended.map_or_else(|| "nothing ran".to_owned(), |e| format!("{e:?}"))),
    };
    // Nobody listens only if all parts have ended already.
    let _ = stop.send(true);
    while parts.join_next().await.is_some() {}
    ended.map_or(Ok(()), |what| Err(WebhookError::Ended(what)))
}
