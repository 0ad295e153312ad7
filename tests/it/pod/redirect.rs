//! The init container's proof is one: with a rule missing, or with the rules of others before it, in either family, the pod does not start.

use std::io::Write;
use std::process::{Command, Stdio};

use remit::guard::redirect::prove;
use serde_json::{Value, json};

use super::{EVIL, World, ip};

/// In JSON: as text, `redirect` is no name of a chain.
fn nft(world: &World, commands: &Value) -> Value {
    let mut nft = Command::new("ip");
    nft.args(["netns", "exec", &world.pod, "nft", "-j", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut nft = nft.spawn().expect("`nft` (nftables) is there");
    nft.stdin.take().expect("piped").write_all(json!({"nftables": commands}).to_string().as_bytes()).expect("it reads");
    let output = nft.wait_with_output().expect("it ends");
    assert!(output.status.success(), "nft {commands}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn equals(left: Value, right: Value) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right}})
}

/// Packets of this family to this port.
fn packets(family: &str, transport: &str, port: u16) -> [Value; 2] {
    let port = equals(json!({"payload": {"protocol": transport, "field": "dport"}}), json!(port));
    [equals(json!({"meta": {"key": "nfproto"}}), json!(family)), port]
}

/// The table as the proof meets it: nobody has the guard's ports yet, and whoever listens there may answer.
fn before_the_proof() -> World {
    let world = World::new();
    let routes = |what: &str| {
        ip(&format!("-n {} route {what} default via {}", world.pod, super::GATEWAY[0]));
        ip(&format!("-n {} -6 route {what} default via {}", world.pod, super::GATEWAY[1]));
    };
    routes("del");
    let (code, said) = world.redirected();
    assert!(code == Some(1) && said.contains("no family has a way out"), "{code:?}: {said}");
    routes("add");
    world
}

#[test]
fn a_rule_that_is_missing_is_noticed() {
    const MISSING: [(&str, &str, u16, &str); 4] = [
        ("redirect", "tcp", 9, "did not reach the guard's port"),
        ("redirect", "tcp", 53, "did not reach the guard's port"),
        ("redirect", "udp", 53, "a forbidden DNS probe"),
        ("deny", "udp", 9, "left the pod"),
    ];
    std::thread::scope(|scope| {
        for family in ["ipv4", "ipv6"] {
            scope.spawn(move || {
                let world = before_the_proof();
                // A program that another test starts has this process's sockets until it runs: so long a port is not free again.
                let proven = || {
                    let once = || match world.in_pod(|| prove().map_err(|error| error.to_string())) {
                        Err(error) if error.contains("Address already in use") => Err(error),
                        proven => Ok(proven),
                    };
                    world.eventually("the ports of the last proof are free", once).0
                };
                let all = proven().expect("control: nothing is missing");
                assert!(all.len() == 2 && all.iter().all(|line| line.contains("lead to the guard")), "{all:?}");
                for (chain, transport, port, words) in MISSING {
                    // What passes before the rule comes is as if there were none.
                    let [of, to] = packets(family, transport, port);
                    let rule = json!({"family": "inet", "table": "remit", "chain": chain, "expr": [of, to, {"accept": null}], "comment": "missing"});
                    nft(&world, &json!([{"insert": {"rule": rule}}]));
                    let what = format!("{family}: {transport} {port}");
                    let error = proven().expect_err(&what);
                    assert!(error.contains(words), "{what}: {error}");
                    let table = nft(&world, &json!([{"list": {"table": {"family": "inet", "name": "remit"}}}]));
                    let mut rules = table["nftables"].as_array().expect("a list").iter().map(|o| &o["rule"]);
                    let handle = &rules.find(|rule| rule["comment"] == "missing").expect("the rule")["handle"];
                    nft(&world, &json!([{"delete": {"rule": {"family": "inet", "table": "remit", "chain": chain, "handle": handle}}}]));
                }
                proven().expect("control: they are all there again");
                nft(&world, &json!([{"delete": {"table": {"family": "inet", "name": "remit"}}}]));
                let error = proven().expect_err("without the table");
                assert!(error.contains("did not reach the guard's port"), "{error}");
                assert_eq!(world.arrived(), Default::default());
            });
        }
    });
}

#[test]
fn rules_of_others_that_come_first_stop_the_pod() {
    std::thread::scope(|scope| {
        for (family, table, evil, loopback) in [("ipv4", "ip", EVIL[0], "127.0.0.1"), ("ipv6", "ip6", EVIL[1], "::1")] {
            for (transport, port, elsewhere, words) in [
                ("tcp", 9, json!({"addr": evil, "port": 443}), "did not reach the guard's port"),
                ("udp", 53, json!({"addr": evil, "port": 53}), "a forbidden DNS probe"),
                ("udp", 9, json!({"addr": loopback}), "left the pod"),
            ] {
                scope.spawn(move || {
                    let world = World::new();
                    let [_, to] = packets(family, transport, port);
                    nft(
                        &world,
                        &json!([
                            {"add": {"table": {"family": table, "name": "first"}}},
                            {"add": {"chain": {"family": table, "table": "first", "name": "out", "type": "nat", "hook": "output", "prio": -150, "policy": "accept"}}},
                            {"add": {"rule": {"family": table, "table": "first", "chain": "out", "expr": [to, {"dnat": elsewhere}]}}},
                        ]),
                    );
                    let (code, said) = world.redirected();
                    assert_eq!(code, Some(1), "{family}: {transport} {port}: {said}");
                    assert!(said.contains(words), "{family}: {transport} {port}: {said}");
                    assert_eq!(world.arrived(), Default::default());
                });
            }
        }
    });
}
