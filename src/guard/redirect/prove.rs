//! The proof that nothing gets out: forbidden probes of our own must arrive at the guard's ports, or not leave at all.
//!
//! Not vacuous: a probe counts only when it was received here, with the forbidden address as where it wanted to go. The guard is not
//! there yet, so its ports are free.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::SockRef;

use crate::guard::original_destination;
use crate::policy::pod::{DNS_PORT, TCP_PORT};

#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("{0}")]
    Leak(String),
    #[error("no family has a way out, so nothing could be proven: the pod has no network")]
    Nothing,
}

/// Addresses of each family that no scope can mean: of documentation, and private ones, for clusters that route nothing else.
const FORBIDDEN: [[IpAddr; 2]; 2] = [
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(10, 255, 255, 254))],
    [
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xffff, 0, 0, 0, 1)),
        IpAddr::V6(Ipv6Addr::new(0xfdff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xfffe)),
    ],
];
const PORT: u16 = 9;
const PATIENCE: Duration = Duration::from_secs(5);

/// What was proven, in words.
pub fn prove() -> Result<Vec<String>, ProofError> {
    let mut proven = Vec::new();
    for (addresses, loopback) in FORBIDDEN.into_iter().zip([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]) {
        let family = if loopback.is_ipv4() { "IPv4" } else { "IPv6" };
        let mut routed = false;
        for forbidden in addresses {
            match family_proof(forbidden, loopback) {
                Ok(()) => routed = true,
                Err(Proof::NoWayOut) => {}
                Err(Proof::Failed(error)) => return Err(error),
            }
        }
        let what = if routed { "TCP and DNS lead to the guard, other UDP does not leave" } else { "no route leads out" };
        proven.push(format!("{family}: {what}"));
    }
    if proven.iter().all(|line| line.ends_with("no route leads out")) {
        return Err(ProofError::Nothing);
    }
    Ok(proven)
}

enum Proof {
    NoWayOut,
    Failed(ProofError),
}

impl From<ProofError> for Proof {
    fn from(error: ProofError) -> Self {
        Self::Failed(error)
    }
}

fn family_proof(forbidden: IpAddr, loopback: IpAddr) -> Result<(), Proof> {
    let failed = |what: &'static str| move |source: io::Error| Proof::Failed(ProofError::Io { what, source });
    let any = SocketAddr::new(if forbidden.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }, 0);
    // Asks for a route, and sends nothing: an answer from outside that somebody cannot be reached would be a leak.
    match UdpSocket::bind(any).and_then(|socket| socket.connect((forbidden, PORT))) {
        Err(error) if matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable | ErrorKind::Unsupported) => {
            return Err(Proof::NoWayOut);
        }
        asked => asked.map_err(failed("cannot ask for a route"))?,
    }
    let tcp = TcpListener::bind((loopback, TCP_PORT)).map_err(failed("cannot bind the guard's TCP port"))?;
    let dns = UdpSocket::bind((loopback, DNS_PORT)).map_err(failed("cannot bind the guard's DNS port"))?;
    let dns_tcp = TcpListener::bind((loopback, DNS_PORT)).map_err(failed("cannot bind the guard's DNS port (TCP)"))?;
    dns.set_read_timeout(Some(PATIENCE)).map_err(failed("DNS port"))?;

    for (port, listener) in [(PORT, &tcp), (53, &dns_tcp)] {
        let to = SocketAddr::new(forbidden, port);
        let mut probe =
            TcpStream::connect_timeout(&to, PATIENCE).map_err(failed("a forbidden TCP probe did not reach the guard's port"))?;
        let token = std::process::id().to_be_bytes();
        probe.write_all(&token).map_err(failed("a forbidden TCP probe"))?;
        listener.set_nonblocking(true).map_err(failed("TCP port"))?;
        let (mut arrived, _) = listener.accept().map_err(|_| {
            Proof::Failed(ProofError::Leak(format!("a TCP connection to {to} was established, but not with the guard: traffic gets out")))
        })?;
        arrived.set_nonblocking(false).and_then(|()| arrived.set_read_timeout(Some(PATIENCE))).map_err(failed("TCP port"))?;
        let mut got = [0; 4];
        arrived.read_exact(&mut got).map_err(failed("a forbidden TCP probe"))?;
        let wanted = original_destination(SockRef::from(&arrived)).map_err(failed("where a redirected connection wanted to go"))?;
        if got != token || wanted != to {
            return Err(ProofError::Leak(format!("a probe to {to} arrived as one to {wanted}")).into());
        }
    }

    let probe = UdpSocket::bind(any).map_err(failed("a UDP probe"))?;
    let token = std::process::id().to_be_bytes();
    probe.send_to(&token, (forbidden, 53)).map_err(failed("a forbidden DNS probe"))?;
    let mut got = [0; 16];
    match dns.recv(&mut got) {
        Ok(length) if got[..length] == token => {}
        Ok(_) => return Err(ProofError::Leak("another datagram than the probe arrived".into()).into()),
        Err(_) => return Err(ProofError::Leak(format!("a DNS query to {forbidden} did not arrive at the guard: it gets out")).into()),
    }
    match probe.send_to(&token, (forbidden, PORT)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        Err(source) => Err(failed("a forbidden UDP probe")(source)),
        Ok(_) => Err(ProofError::Leak(format!("a UDP datagram to {forbidden}:{PORT} left the pod")).into()),
    }
}
