//! One declared client → who may come in, at which port.
//!
//! Promise: either pods or one address block, never both or none; holes lie strictly inside the block. In: a client of a spec and the
//! workload's namespace. Out: a [`Client`], or errors under the client's path.

use super::Errors;
use super::field::{block, is_label, port, selector};
use crate::api;
use crate::scope::{Client, ClientPeer, Ranges};

pub(super) fn client(path: &str, own: &str, client: &api::Client, errors: &mut Errors) -> Option<Client> {
    let api::Client { name, namespace, pod_selector, ip_block, port } = client;
    if !is_label(name, 63) {
        errors.push(path, "name: use lower-case letters, digits and dashes");
    }
    let peer = match (pod_selector, ip_block) {
        (Some(selector), None) => {
            let namespace = namespace.clone().unwrap_or_else(|| own.to_owned());
            if !is_label(&namespace, 63) {
                errors.push(format!("{path}.namespace"), "is not a valid name of a namespace");
            }
            ClientPeer::Pods { namespace, selector: self::selector(&format!("{path}.podSelector"), selector, errors) }
        }
        (None, Some(api::IpBlock { cidr, except })) => {
            if namespace.is_some() {
                errors.push(format!("{path}.namespace"), "goes with podSelector, not with ipBlock");
            }
            let cidr = block(&format!("{path}.ipBlock.cidr"), cidr, errors)?;
            let mut holes = Vec::new();
            for hole in except {
                let at = format!("{path}.ipBlock.except");
                let hole = block(&at, hole, errors)?;
                if !cidr.contains(&hole) || cidr == hole {
                    errors.push(at, format!("{hole} must lie strictly inside {cidr}"));
                }
                holes.push(hole);
            }
            ClientPeer::Block { cidr, except: Ranges::new(holes).blocks().to_vec() }
        }
        _ => {
            errors.push(path, "give podSelector or ipBlock, and only one of them");
            return None;
        }
    };
    Some(Client { name: name.clone(), peer, port: self::port(&format!("{path}.port"), *port, errors)? })
}
