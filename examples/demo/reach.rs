//! What this pod can reach, tried with real connections: what somebody sees who runs code of their own in the AI container.

use std::path::Path;
use std::thread;

use crate::net::{self, Attempt, Response, Url};

/// Where Kubernetes mounts the token of a pod's ServiceAccount.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// `NAME=URL` each: a line for each address, `reached` or `cut off` in the fourth column; then whether there is an API token.
/// A server which answers anything at all was reached (a TLS server answers plain HTTP with an error).
pub fn table(targets: &[&str]) -> Result<(), String> {
    let mut parsed = Vec::new();
    for target in targets {
        let url = target.split_once('=').and_then(|(name, url)| Some((name, Url::parse(url)?)));
        parsed.push(url.ok_or_else(|| format!("{target}: expected NAME=http://HOST:PORT/PATH"))?);
    }
    thread::scope(|scope| {
        let asked: Vec<_> = parsed.iter().map(|(name, url)| (name, url, scope.spawn(|| net::ask_all("GET", url, "")))).collect();
        for (name, url, thread) in asked {
            match thread.join() {
                Ok(Ok(attempts)) => attempts.into_iter().for_each(|attempt| row(name, url, attempt)),
                Ok(Err(failure)) => println!("{name:<16}  {:<24}  {:<4}  cut off  {failure}", url.host, "-"),
                Err(_) => println!("{name:<16}  {:<24}  {:<4}  cut off  the asking thread broke", url.host, "-"),
            }
        }
    });
    let token = if Path::new(TOKEN).exists() { "present" } else { "absent" };
    println!("{:<16}  {:<24}  {:<4}  {token}", "api token", "in this container", "-");
    Ok(())
}

fn row(name: &str, url: &Url, Attempt { address, outcome }: Attempt) {
    let (verdict, detail) = match outcome {
        Ok(Response { status, body }) => ("reached", format!("{status} {}", body.lines().next().unwrap_or_default())),
        // Whoever answers in another language than HTTP was reached all the same.
        Err(failure @ net::Failure::NotHttp) => ("reached", failure.to_string()),
        Err(failure) => ("cut off", failure.to_string()),
    };
    let detail: String = detail.chars().take(34).collect();
    let place = if address.is_ipv4() { format!("{address}:{}", url.port) } else { address.to_string() };
    println!("{name:<16}  {place:<24}  {}  {verdict}  {detail}", net::family(address));
}

pub fn call(url: &str) -> Result<(), String> {
    let url = Url::parse(url).ok_or_else(|| format!("{url} is not an http:// URL"))?;
    let attempts = net::ask_all("GET", &url, "").map_err(|failure| format!("{url}: {failure}"))?;
    let mut reached = false;
    for Attempt { address, outcome } in attempts {
        match outcome {
            Ok(Response { status, body }) => {
                reached = true;
                println!("{} {address}: {status} {body}", net::family(address));
            }
            Err(failure) => println!("{} {address}: {failure}", net::family(address)),
        }
    }
    if reached { Ok(()) } else { Err(format!("{url} cannot be reached")) }
}
