//! The guard as a process: what it may do, who may look into it, what a connection costs.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use super::{ORDERS, Outcome, World, connect, policy, signer};

/// A file of the kernel about the guard, which everybody may read.
fn about(world: &World, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{}/{file}", world.pid())).expect("it runs")
}

fn status(world: &World) -> BTreeMap<String, String> {
    let text = about(world, "status");
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

#[test]
fn the_kernel_says_that_it_is_confined_and_the_log_says_so_too() {
    let world = World::guarded(&policy());
    let status = status(&world);
    for (field, expected) in [
        ("Seccomp", "2"),
        ("NoNewPrivs", "1"),
        ("CapEff", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("Threads", "1"),
    ] {
        assert_eq!(status[field], expected, "{field}");
    }
    let limits = about(&world, "limits");
    let limit = |name: &str| -> Vec<&str> { limits.lines().find_map(|l| l.strip_prefix(name)).unwrap().split_whitespace().collect() };
    assert_eq!(limit("Max core file size")[..2], ["0", "0"]);
    assert_eq!(limit("Max open files")[0], "12872");

    let mut record = world.records("event", "hardened").pop().expect("a record");
    assert!(record["time"].take().is_u64());
    let abi = record["landlock"]["abi"].take().as_u64().expect("a number");
    assert!(abi > 0, "this test needs a kernel with landlock");
    assert_eq!(
        record,
        json!({
            "time": null, "event": "hardened", "uid": world.uid, "gid": world.gid, "capabilities": "none", "noNewPrivileges": true,
            "dumpable": false, "seccomp": "list, or killed",
            "landlock": {"abi": null, "files": true, "bind": abi >= 4, "scopes": abi >= 6},
            "openFiles": 12_872, "connections": 4_096,
        })
    );
    let lacking = world.records("event", "trouble").len();
    assert_eq!(lacking, usize::from(abi < 4) + usize::from(abi < 6), "{}", world.log());
}

#[test]
fn its_own_user_cannot_look_into_it() {
    let world = World::guarded(&policy());
    let user = |pid: u32, command: &str| {
        let ids = [world.uid.to_string(), world.gid.to_string()];
        let done = Command::new("setpriv")
            .args(["--clear-groups", "--reuid", &ids[0], "--regid", &ids[1], "sh", "-c", &command.replace("PID", &pid.to_string())])
            .stdout(Stdio::null())
            .output();
        let done = done.expect("it runs");
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let mut other = Command::new("setpriv")
        .args(["--clear-groups", "--reuid", &world.uid.to_string(), "--regid", &world.gid.to_string(), "sleep", "60"])
        .spawn()
        .expect("it starts");
    world.eventually("the other process runs", || match std::fs::read_to_string(format!("/proc/{}/comm", other.id())) {
        Ok(name) if name == "sleep\n" => Ok(()),
        name => Err(format!("{name:?}")),
    });
    // What ptrace is asked for is asked for each of these as well.
    for attempt in [
        "cat /proc/PID/environ",
        "cat /proc/PID/maps",
        ": </proc/PID/mem",
        ": >/proc/PID/mem",
        "ls /proc/PID/fd/",
        "readlink /proc/PID/exe",
    ] {
        let control = user(other.id(), attempt);
        assert!(control.0, "control: {attempt}: {}", control.1);
        let (done, said) = user(world.pid(), attempt);
        assert!(!done, "{attempt}");
        assert!(said.is_empty() || said.contains("ermission denied"), "{attempt}: {said}");
    }
    other.kill().and_then(|()| other.wait()).expect("it ends");
}

#[test]
fn whom_it_guards_it_is_told_with_the_key() {
    let said = |arguments: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_remit-guard")).arg("run").args(arguments).output().expect("it starts");
        assert_eq!(done.status.code(), Some(2), "{arguments:?}");
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let trust = super::signer().trust().to_string();
    assert!(said(&["--trust", &trust]).contains("--workload <NAMESPACE/NAME/UID>"));
    for workload in ["support/bot", "support/bot/", "support/bot/u/v", ""] {
        let said = said(&["--trust", &trust, "--workload", workload]);
        assert!(said.contains("namespace/name/uid") || said.contains("a value is required"), "{workload}: {said}");
    }
    assert!(said(&["--unsigned", "--workload", "support/bot/u"]).contains("cannot be used with"));
}

#[test]
fn it_refuses_to_be_more_than_a_user() {
    let world = World::new();
    world.policy(&policy());
    let uid = world.uid.to_string();
    let refused = |by: &[&str], user: &[&str], words: &str| {
        let _ = std::fs::remove_file(world.path("guard.log"));
        world.start_with(&[&["timeout", "--signal", "KILL", "5"], by].concat(), user);
        let ended = world.guard.lock().unwrap().take().unwrap().wait().unwrap();
        assert_eq!(ended.code(), Some(1), "{words}: {}", world.log());
        assert!(world.log().contains(words), "`{words}` in {}", world.log());
        assert!(world.records("event", "hardened").is_empty());
    };
    refused(&[], &["--reuid", "0"], "it has the user root; hint:");
    refused(&[], &["--reuid", "0", "--bounding-set", "-all"], "it has the user root; hint:");
    refused(&[], &["--ruid", "0", "--euid", &uid], "it has the user root; hint:");
    let capability = ["--reuid", &uid, "--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"];
    refused(&[], &capability, "it has capabilities (0x1000); hint:");
    refused(&["prlimit", "--nofile=586:586"], &["--reuid", &uid], "586 open files leave no room for connections; hint:");
}

#[test]
fn few_open_files_are_few_connections_and_said() {
    let world = World::new();
    world.redirect();
    world.policy(&policy());
    world.start_with(&["prlimit", "--nofile=611:611"], &["--reuid", &world.uid.to_string()]);
    world.ready();
    let said = world.records("what", "hardened");
    assert_eq!(said.len(), 1, "{}", world.log());
    assert_eq!(said[0]["message"], "611 open files are enough for 9 connections only; hint: a hard limit of 12872");
    let open: Vec<TcpStream> = world.in_pod(|| (0..9).map(|_| connect(ORDERS, 5432).unwrap()).collect());
    world.eventually("the tenth is refused", || match world.tcp(ORDERS, 5432, b"ping") {
        Outcome::Error(ErrorKind::ConnectionReset) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(!world.denials("too_many_connections").is_empty());
    drop(open);
    world.eventually("there is room again", || match world.tcp(ORDERS, 5432, b"ping") {
        Outcome::Echo => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn it_reads_no_file_but_its_policy() {
    let world = World::guarded(&policy());
    let elsewhere = tempfile::tempdir().expect("a directory");
    let file = elsewhere.path().join("policy.note");
    let mut other = policy();
    other["generation"] = json!(2);
    other["destinations"] = json!([]);
    std::fs::write(&file, signer().sign(&other.to_string())).expect("written");
    for path in [elsewhere.path(), &file] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
    }
    std::fs::remove_file(world.path("policy.note")).expect("removed");
    std::os::unix::fs::symlink(&file, world.path("policy.note")).expect("a link out of the directory");
    world.eventually("it is not read", || if world.log().contains("Permission denied") { Ok(()) } else { Err(world.log()) });
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo, "the last good policy holds");
}

#[test]
fn its_own_ports_lead_nowhere() {
    let mut observe = policy();
    observe["mode"] = json!("Observe");
    for policy in [policy(), observe] {
        let world = World::guarded(&policy);
        // As a port-forward would, and an app: not redirected, but asked for.
        for address in ["127.0.0.1", "::1"] {
            let outcome = world.tcp(address, remit::policy::pod::TCP_PORT, b"ping");
            assert_eq!(outcome, Outcome::Error(ErrorKind::ConnectionReset), "{address}");
        }
        assert_eq!(world.arrived(), Default::default());
        assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo);
    }
}

#[test]
fn what_an_idle_connection_costs() {
    const CONNECTIONS: usize = 2_000;
    const MOST_EACH: usize = 64 * 1024;
    // Both ends of each are in this process.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("the hard limit");
    let world = World::guarded(&policy());
    let resident = || -> usize { status(&world)["VmRSS"].trim_end_matches(" kB").parse::<usize>().expect("a figure") * 1024 };
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo);
    let before = resident();
    let open: Vec<TcpStream> = world.in_pod(|| {
        let used = || {
            let mut stream = connect(ORDERS, 5432)?;
            stream.write_all(b"ping")?;
            stream.read_exact(&mut [0; 4])?;
            std::io::Result::Ok(stream)
        };
        (0..CONNECTIONS).map(|n| used().unwrap_or_else(|e| panic!("connection {n}: {e}"))).collect()
    });
    let after = resident();
    let each = after.saturating_sub(before) / open.len();
    println!("{CONNECTIONS} idle connections: {} KiB before, {} KiB after, {each} bytes each", before / 1024, after / 1024);
    assert!(each <= MOST_EACH, "{each} bytes each");
}
