//! What a policy that people wrote means: for whoever wrote it.

use crate::policy::{Document, GuardPolicy, Http, HttpAccess, Inspect, Scheme, Target};
use crate::scope::SAFE_METHODS;

/// A line for each destination; or what is wrong, with the name of the field.
pub fn check(bytes: &[u8]) -> Result<Vec<String>, String> {
    let document = Document::by_hand(bytes).map_err(|e| e.to_string())?;
    let mut rows: Vec<[String; 3]> = Vec::new();
    for destination in &document.destinations {
        let (what, how) = match &destination.target {
            Target::Service { name, namespace, ports, addresses: _, http } => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                let to = format!("{name}.{namespace}.svc.{}:{}", document.network.domain, ports.join(","));
                let how = http
                    .as_ref()
                    .map_or_else(|| "bytes pass, nothing in them is judged".to_owned(), |http| judged(http, &destination.source, ""));
                (to, how)
            }
            Target::Host { name, port, http } => {
                let tunnel = || "TLS passes by its server name, nothing in it is judged".to_owned();
                (
                    format!("{name}:{port}"),
                    http.as_ref().map_or_else(tunnel, |http| judged(http, &destination.source, ", or as of a proxy")),
                )
            }
            Target::Kubernetes { addresses } => {
                let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                (all.join(","), "the API server, which judges by itself".to_owned())
            }
        };
        rows.push([destination.source.clone(), what, how]);
    }
    GuardPolicy::try_from(document).map_err(|e| e.to_string())?;
    let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or_default();
    let (source, what) = (width(0), width(1));
    let lines = rows.iter().map(|[a, b, how]| format!("{a:source$}  {b:what$}  {how}")).collect();
    Ok(lines)
}

/// How requests are judged, and by which ways they come.
fn judged(http: &Http, source: &str, proxied: &str) -> String {
    let Http { scheme, inspect, port: _, access, rules } = http;
    let methods = match access {
        HttpAccess::Read => SAFE_METHODS.join(", "),
        HttpAccess::ReadWrite => "every method".to_owned(),
    };
    let allowed = match rules.len() {
        0 => format!("{methods} on every path"),
        1 => format!("1 rule, and {methods} where it names no methods"),
        many => format!("{many} rules, and {methods} where they name no methods"),
    };
    let ways = match (scheme, inspect) {
        (Scheme::Http, _) => proxied,
        (Scheme::Https, Inspect::BaseUrl) => "",
        (Scheme::Https, Inspect::Intercept) => ", or in TLS of the app's own (--trust-store)",
    };
    format!("requests are judged ({}): {allowed}; asked at /{source}{ways}", scheme.as_str())
}
