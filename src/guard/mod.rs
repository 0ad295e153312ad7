//! The guard: a sidecar through which everything that leaves a pod must go.
//!
//! `redirect` sends the pod's traffic here (an init container of its own). `keeper` holds the newest valid policy, which
//! comes from a file and over `channel`. `dns` answers declared
//! names, `resolver` finds and remembers their addresses, `tcp` lets connections through that [`crate::policy`] permits, `http` their
//! requests, `authority` vouches to the app for the guard where it looks into TLS, `record` writes down what was refused, `usage` counts what passed, `health` says when it is ready, `harden` takes from the guard what it does not need. One thread; memory
//! and connections are bounded.
//!
//! Promise: no connection of the app is made without a [`crate::policy::Permit`]; without a valid policy nothing is permitted. Without one
//! go the guard's own ways: questions to the cluster's DNS, for names that the policy declares (in Observe also what the app asks), and
//! the control channel, to where the policy says.

mod authority;
pub mod channel;
mod check;
mod dns;
mod gate;
mod harden;
mod health;
mod http;
mod jks;
mod keeper;
mod newest;
mod peer;
mod record;
pub mod redirect;
mod resolver;
mod stream;
mod tcp;
mod upstream;
mod usage;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::signal::unix::SignalKind;
use tokio::sync::watch;

use crate::policy::GuardPolicy;

pub use authority::Places;
pub use check::check;
pub use keeper::Authority;
pub use record::Records;

/// The policy that holds now. None: none was valid yet.
pub type Held = watch::Receiver<Option<Arc<GuardPolicy>>>;

/// What the guard is told when it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file with the policy.
    pub policy: PathBuf,
    /// Whose policies count, and for whom; a key is also that of the operator who is asked for newer ones.
    pub authority: Authority,
    /// The file with the token by which the operator knows this pod, beside the policy.
    pub token: PathBuf,
    /// Where the pod's search list stands; at [`Options::listen`], the nameservers as well, for a policy that names none.
    pub resolv_conf: PathBuf,
    /// Outside of a cluster: as a base URL and a forward proxy at this address, and nothing else. None: as a pod's sidecar.
    pub listen: Option<SocketAddr>,
    /// For looking into the app's TLS. None: where a policy asks for it, TLS is refused.
    pub inspection: Option<Places>,
    /// How long open connections may go on after the guard was told to end (the app has ended by then).
    pub drain: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("the guard does not run unprotected: {0}")]
    Harden(#[from] harden::HardenError),
    #[error("cannot listen on {at}: {source}")]
    Listen { at: SocketAddr, source: io::Error },
    #[error("signals: {0}")]
    Signals(io::Error),
    #[error(
        "--listen {0}: whoever reaches it may reach what the policy declares; hint: an address of this machine alone, such as 127.0.0.1:8080"
    )]
    Open(SocketAddr),
    #[error(transparent)]
    Inspection(#[from] authority::AuthorityError),
    #[error("the control channel: {0}")]
    Channel(#[from] channel::ChannelError),
}

/// Until SIGTERM, or Ctrl-C.
pub async fn run(options: Options) -> Result<(), GuardError> {
    let Options { policy, authority, token, resolv_conf, listen, inspection, drain } = options;
    if let Some(at) = listen.filter(|at| !at.ip().is_loopback()) {
        return Err(GuardError::Open(at));
    }
    let hardening = harden::begin()?;
    let resolv_conf = std::fs::read_to_string(&resolv_conf).unwrap_or_default();
    let (records, usage) = (Arc::new(Records::stdout()), Arc::new(usage::Usage::default()));
    let signal = |kind| tokio::signal::unix::signal(kind).map_err(GuardError::Signals);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let client = match &authority {
        Authority::Signed(trust, _) => Some(channel::Client::new(trust.public_key())?),
        // Nobody could be believed.
        Authority::File => None,
    };
    let nameservers = listen.map(|_| resolver::nameservers(&resolv_conf)).unwrap_or_default();
    let keeper = Arc::new(keeper::Keeper::new(authority, records.clone()).asking(nameservers));
    let held = keeper.held();
    let inspection = match inspection {
        Some(places) => {
            // Whom the guard may vouch for is decided while it can still write.
            if let Ok(note) = std::fs::read(&policy) {
                keeper.offer(keeper::Source::File, &note);
            }
            let policy = held.borrow().clone();
            Some(Arc::new(authority::Inspection::begin(&places, policy.as_deref(), &records)?))
        }
        None => None,
    };
    let resolver = Arc::new(resolver::Resolver::new(held.clone()));
    let sidecar = match listen {
        Some(_) => None,
        None => {
            let search = resolver::search_list(&resolv_conf);
            let health = health::listen().await?;
            Some((health, dns::Server::listen(held.clone(), resolver.clone(), records.clone(), search).await?))
        }
    };
    let gate = gate::Gate {
        held: held.clone(),
        resolver: resolver.clone(),
        records: records.clone(),
        usage: usage.clone(),
        upstreams: upstream::Upstreams::default(),
        inspection: inspection.clone(),
    };
    let tcp = match listen {
        Some(at) => tcp::Server::listen_at(at, Arc::new(gate), hardening.connections()).await?,
        None => tcp::Server::listen(Arc::new(gate), hardening.connections()).await?,
    };
    hardening.confine(&policy, &records)?;
    let last = records.clone();
    let counter = tokio::spawn({
        let (records, held) = (records.clone(), held.clone());
        async move { tokio::join!(records.count(), records.write_together(), authority::watch(inspection, held, records.clone())) }
    });
    let channel = client.map(|client| {
        let speaker = channel::Speaker { client, token, keeper: keeper.clone(), resolver, records, usage };
        tokio::spawn(Arc::new(speaker).speak())
    });
    let file = tokio::spawn(async move { keeper.follow(policy).await });
    let sidecar = sidecar.map(|(health, dns)| [tokio::spawn(health::serve(health, held)), tokio::spawn(dns.serve())]);
    let open = tcp.open();
    let tcp = tokio::spawn(tcp.serve());
    let drain = tokio::select! {
        _ = terminate.recv() => drain,
        // Who sits before it waits for nobody.
        _ = interrupt.recv() => Duration::ZERO,
    };
    tcp.abort();
    open.drained(drain).await;
    last.written();
    counter.abort();
    for part in [file].into_iter().chain(sidecar.into_iter().flatten()).chain(channel) {
        part.abort();
    }
    Ok(())
}

/// Where a redirected connection wanted to go.
pub(crate) fn original_destination(socket: SockRef<'_>) -> io::Result<SocketAddr> {
    let six = socket.local_addr()?.is_ipv6();
    let found = if six { socket.original_dst_v6() } else { socket.original_dst_v4() }?;
    found.as_socket().ok_or_else(|| io::Error::other("no internet address"))
}
