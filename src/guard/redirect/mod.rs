//! The init container: send the pod's traffic to the guard, prove that it is so, and fail the pod otherwise.
//!
//! Needs NET_ADMIN in the pod's own network namespace, and nothing else.

mod prove;
mod table;

use std::io;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

use prove::ProofError;
pub use prove::prove;
pub use table::Exempt;
use table::{Answering, Messages, table};

use crate::policy::pod::{DNS_PORT, TCP_PORT};

#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    #[error("the kernel does not take the rules (message {message}): {source}; is NET_ADMIN there, and nf_tables with nat and ct?")]
    Refused { message: u32, source: io::Error },
    #[error("netlink: {0}")]
    Netlink(#[from] io::Error),
    #[error("the kernel's answer cannot be read")]
    Answer,
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// Installs the rules, in both families, and proves them. Returns what was proven, in words.
pub fn redirect(exempt: Exempt) -> Result<Vec<String>, RedirectError> {
    send(&table(exempt, TCP_PORT, DNS_PORT, Answering::Anybody))?;
    let proven = prove()?;
    send(&table(exempt, TCP_PORT, DNS_PORT, Answering::Guard))?;
    Ok(proven)
}

fn send(messages: &Messages) -> Result<(), RedirectError> {
    const ERROR: u16 = 2;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER)).map_err(io::Error::from)?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, messages.bytes(), SendFlags::empty(), &kernel).map_err(io::Error::from)?;
    let mut waiting = messages.count;
    let mut buffer = vec![0; 64 * 1024];
    while waiting > 0 {
        let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty()).map_err(io::Error::from)?;
        let mut rest = &buffer[..length];
        while let Some(header) = rest.get(..16) {
            let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let (length, kind, message) = (word(0) as usize, u16::from_ne_bytes([header[4], header[5]]), word(8));
            if kind == ERROR {
                let code = rest.get(16..20).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes).ok_or(RedirectError::Answer)?;
                if code != 0 {
                    return Err(RedirectError::Refused { message, source: io::Error::from_raw_os_error(-code) });
                }
                waiting = waiting.saturating_sub(1);
            }
            if length < 16 {
                return Err(RedirectError::Answer);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    Ok(())
}
