//! `kubectl remit reach --from DIR`: what manifests let pods and accounts reach, for programs.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use serde::Serialize;

use super::{Exit, Message, Outcome, documents};
use crate::drift::network::{Port, Protocol};
use crate::drift::rbac::Query;
use crate::drift::{Snapshot, pairs};

/// What was typed.
#[derive(Args, Clone, Debug)]
pub(super) struct ReachArgs {
    /// Directory (or file) with manifests, as they are written or as `kubectl get -o yaml` prints them; nothing else is asked.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Every allowed connection between two pods (or Deployments and the like), a row each.
    #[arg(long, requires = "ports", conflicts_with = "rbac", required_unless_present = "rbac")]
    pairs: bool,
    /// Ports of destinations that are tried, such as `TCP/80,UDP/53`.
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = port)]
    ports: Vec<Port>,
    /// Whether what this file asks is allowed: a JSON list of objects with `user`, `groups`, `verb` and either `path` or `apiGroup`, `resource`,
    /// `subresource`, `name`, `namespace`. Answers stand in the same order.
    #[arg(long, value_name = "FILE")]
    rbac: Option<PathBuf>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Format::Json)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Json,
}

fn port(text: &str) -> Result<Port, String> {
    let parsed = text.split_once('/').and_then(|(protocol, number)| {
        let number: u16 = number.parse().ok().filter(|number| *number > 0)?;
        Some(Port { protocol: Protocol::from_str(&protocol.to_ascii_uppercase()).ok()?, number })
    });
    parsed.ok_or_else(|| "PROTOCOL/PORT, such as TCP/80; protocols are TCP, UDP and SCTP".to_owned())
}

pub(super) fn reach(args: &ReachArgs) -> Outcome {
    let ReachArgs { from, pairs: _, ports, rbac, output: Format::Json } = args;
    let (documents, mut problems) = documents::read(from, &mut std::io::empty());
    let (snapshot, more) = Snapshot::read(documents.into_iter().map(|document| document.value));
    problems.extend(more);
    let queries = rbac.as_deref().map(queries).transpose();
    if let Err(problem) = &queries {
        problems.push(problem.clone());
    }
    if !problems.is_empty() {
        // Half of the policies would give another answer than all of them.
        return Outcome { data: String::new(), messages: problems.into_iter().map(Message::Error).collect(), exit: Exit::BadInput };
    }
    let omitted = snapshot.omitted.iter().map(|omitted| Message::Note(format!("{} {}: present, not analysed", omitted.kind, omitted.name)));
    let messages = omitted.collect();
    let data = match queries.ok().flatten() {
        Some(queries) => json(&queries.iter().map(|query| snapshot.rbac.answer(query)).collect::<Vec<_>>()),
        None => json(&pairs(&snapshot, ports)),
    };
    Outcome { data, messages, exit: Exit::Done }
}

fn queries(file: &Path) -> Result<Vec<Query>, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read(file).map_err(|error| named(&error))?;
    serde_json::from_slice(&text).map_err(|error| named(&error))
}

fn json(rows: &impl Serialize) -> String {
    serde_json::to_string_pretty(rows).map(|text| text + "\n").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        assert_eq!(port("TCP/80"), Ok(Port { protocol: Protocol::Tcp, number: 80 }));
        assert_eq!(port("udp/53"), Ok(Port { protocol: Protocol::Udp, number: 53 }));
        for bad in ["", "80", "TCP", "TCP/", "TCP/0", "TCP/65536", "ICMP/1", "TCP/http"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }
}
