//! The operator's end of the control channel: guards ask for newer policies, and say what they enforce.
//!
//! Promise: who is answered is one pod, with one key, and gets the policy of the AIWorkload that governs it and no other's; nobody holds
//! more than a share. In: connections of guards. Out: signed policies as they lie in the cluster, and what was [`Collected`]. It writes
//! nothing but Events, and connects to no pod.
//!
//! `server` (TLS, limits) → `tokens` (which pod) → `handler` (which AIWorkload, which key, what is newer) → `collected` →
//! `usage` (metrics).

mod cluster;
mod collected;
mod enrolled;
mod handler;
mod metrics;
mod pace;
mod policies;
mod server;
mod tls;
mod tokens;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

pub use cluster::{ApiServer, AskError, Cluster, SeenGuard, SeenPod};
pub use collected::{Collected, Guarded, Totals};
pub use metrics::Metrics;
pub use policies::{InCluster, Note, Policies, note_of};
pub use usage::UsageMetrics;

use super::events::Events;
use super::{Keys, config, http};
use crate::cluster::SharedWorld;
use handler::Handler;

/// How often it is looked for pods that are gone.
const SWEEP: Duration = Duration::from_secs(5);

/// What the channel is given.
pub struct Context<C, P> {
    pub keys: Keys,
    pub world: SharedWorld,
    pub cluster: C,
    pub policies: P,
    pub collected: Collected,
    pub metrics: Metrics,
}

#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("cannot listen on port {port} (guard.channel.port): {source}")]
    Listen { port: u16, source: std::io::Error },
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// The whole of it, for a cluster.
pub(super) struct Parts {
    pub client: kube::Client,
    pub guard: config::Guard,
    pub events: Events,
    pub keys: Keys,
    pub policies: InCluster,
    pub world: SharedWorld,
    pub collected: Collected,
    pub metrics: Metrics,
}

/// Listens and serves until told to stop.
pub(super) async fn run(parts: Parts, stop: watch::Receiver<bool>) -> Result<(), ChannelError> {
    let Parts { client, guard, events, keys, policies, world, collected, metrics } = parts;
    let port = guard.channel.listen_port.unwrap_or(guard.channel.port);
    let listener = http::listen(port).await.map_err(|source| ChannelError::Listen { port, source })?;
    let cluster = ApiServer::new(client, events, guard, keys.clone());
    serve(listener, Context { keys, world, cluster, policies, collected, metrics }, stop).await
}

/// Serves until told to stop; what is held back is answered then.
pub async fn serve<C: Cluster, P: Policies>(
    listener: TcpListener,
    context: Context<C, P>,
    stop: watch::Receiver<bool>,
) -> Result<(), ChannelError> {
    let Context { keys, world, cluster, policies, collected, metrics } = context;
    let tls = tls::acceptor(keys)?;
    let handler = Arc::new(Handler::new(world, cluster, policies, collected, metrics, stop.clone()));
    let sweep = {
        let handler = handler.clone();
        async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                handler.sweep();
            }
        }
    };
    tokio::select! {
        () = server::serve(listener, tls, handler, stop) => Ok(()),
        () = sweep => Ok(()),
    }
}
