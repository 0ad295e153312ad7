//! The guard outside of a cluster, as docs/guard-cli.md has it: no redirect, a policy written by hand, curl.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::World;
use super::inspect::Inspected;

/// Ends with the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command where the app is.
fn here(world: &World, words: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", world.pod_name()]).args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn start(world: &World, policy: &Value) -> Guard {
    std::fs::set_permissions(world.path(""), std::fs::Permissions::from_mode(0o777)).expect("permissions");
    std::fs::write(world.path("policy.json"), serde_json::to_string_pretty(policy).expect("text")).expect("a policy");
    let log = std::fs::File::create(world.path("guard.log")).expect("a log");
    let (uid, gid) = (world.uid.to_string(), world.gid.to_string());
    let user = ["setpriv", "--clear-groups", "--reuid", &uid, "--regid", &gid];
    let guard = here(world, &user)
        .args([env!("CARGO_BIN_EXE_remit-guard"), "run", "--unsigned", "--listen", "127.0.0.1:8080", "--drain-seconds", "0"])
        .args(["--policy", &world.path("policy.json"), "--resolv-conf", &world.path("resolv.conf"), "--trust-store", &world.path("trust")])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a handle"))
        .stderr(log)
        .spawn()
        .expect("it starts");
    let guard = Guard(guard);
    world.eventually("the guard listens", || match curl(world, &[], &["http://127.0.0.1:8080/"]) {
        (Some(0), _) => Ok(()),
        other => Err(format!("{other:?}; {}", world.log())),
    });
    guard
}

/// What curl says, with the status at its end, and how it ends.
fn curl(world: &World, variables: &[(&str, &str)], words: &[&str]) -> (Option<i32>, String) {
    let mut curl = here(world, &["curl", "-s", "--max-time", "10", "-w", " %{http_code}"]);
    let done = curl.args(words).envs(variables.iter().copied()).output().expect("curl is there");
    (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned())
}

#[test]
fn an_app_by_base_url_and_by_proxy() {
    let pod = Inspected::unguarded();
    let world = &pod.world;
    // No nameserver is named: those of resolv.conf are asked.
    let policy = json!({
        "network": {"roots": pod.policy["network"]["roots"]},
        "destinations": [
            {"source": "help", "target": {"type": "Host", "name": "help.example.com", "port": 8443, "http": {
                "scheme": "Https", "access": "Read", "inspect": "Intercept"}}},
            {"source": "self", "target": {"type": "Host", "name": "localhost.example.com", "port": 8443}},
        ],
    });
    let _guard = start(world, &policy);
    let proxy = [("HTTPS_PROXY", "http://127.0.0.1:8080"), ("HTTP_PROXY", "http://127.0.0.1:8080")];
    let trusting = [proxy[0], ("CURL_CA_BUNDLE", &*world.path("trust/ca.pem"))];

    assert_eq!(curl(world, &[], &["http://127.0.0.1:8080/help/a"]), (Some(0), "hello 200".into()));
    assert_eq!(curl(world, &trusting, &["https://help.example.com:8443/a"]), (Some(0), "hello 200".into()));
    assert_eq!(pod.arrived(), ["GET /a HTTP/1.1 of help.example.com"; 2]);

    let (_, said) = curl(world, &[], &["-X", "POST", "http://127.0.0.1:8080/help/a"]);
    assert!(said.contains("method_not_declared") && said.ends_with(" 403"), "{said}");
    let (_, said) = curl(world, &trusting, &["-X", "POST", "https://help.example.com:8443/a"]);
    assert!(said.contains("method_not_declared") && said.ends_with(" 403"), "{said}");
    assert_eq!(curl(world, &proxy, &["https://help.example.com:8443/a"]), (Some(60), " 000".into()), "whoever does not trust it");
    assert_eq!(curl(world, &proxy, &["https://evil.example.com/"]).0, Some(56), "CONNECT is refused");
    let (_, said) = curl(world, &[proxy[1]], &["--proxy", "http://127.0.0.1:8080", "http://evil.example.com/"]);
    assert!(said.contains("name_not_declared") && said.ends_with(" 403"), "{said}");
    // Nothing else is served: neither health, nor DNS, nor redirected connections.
    for port in ["15470", "15471", "15473", "15474"] {
        assert_eq!(curl(world, &[], &[&format!("http://127.0.0.1:{port}/")]).0, Some(7), "{port}");
    }
    // The file is read again when it changes.
    let mut narrower = policy.clone();
    narrower["destinations"][0]["target"]["http"]["rules"] = json!([{"paths": [{"type": "PathPrefix", "value": "/b"}]}]);
    std::fs::write(world.path("new.json"), narrower.to_string()).expect("a policy");
    std::fs::rename(world.path("new.json"), world.path("policy.json")).expect("the policy");
    world.eventually("it is narrower", || match curl(world, &[], &["http://127.0.0.1:8080/help/a"]).1 {
        said if said.contains("path_not_declared") => Ok(()),
        said => Err(said),
    });
    let hardened = world.records("event", "hardened");
    assert_eq!(hardened[0]["seccomp"], json!("list, or killed"));
}
