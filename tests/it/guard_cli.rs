//! `remit-guard` as people run it on their own machine: what it checks, refuses, and says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::text;

const GUARD: &str = env!("CARGO_BIN_EXE_remit-guard");

struct Place(tempfile::TempDir);

impl Place {
    fn new(policy: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(directory.path().join("policy.json"), policy).unwrap();
        Self(directory)
    }

    fn policy(&self) -> String {
        self.0.path().join("policy.json").display().to_string()
    }
}

/// As an ordinary user, whoever runs the tests.
fn guard(words: &[&str]) -> Command {
    let mut command = match rustix::process::getuid().is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", GUARD]);
            command
        }
        false => Command::new(GUARD),
    };
    command.args(words).stdin(Stdio::null());
    command
}

fn ended(mut command: Command) -> (Option<i32>, String, String) {
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

/// The example of the documentation.
fn example() -> String {
    let page = text("docs/guard-cli.md");
    let begin = page.find("```json\n").expect("an example") + "```json\n".len();
    page[begin..].split("```").next().unwrap().to_owned()
}

#[test]
fn check_says_what_a_policy_means() {
    let place = Place::new(&example());
    let (code, said, error) = ended(guard(&["check", &place.policy()]));
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(text("docs/guard-cli.md").contains(&said), "docs/guard-cli.md shows what is said:\n{said}");
}

#[test]
fn check_names_what_is_wrong() {
    let host = |more: &str| {
        format!(
            r#"{{"destinations": [{{"source": "help", "target": {{"type": "Host", "name": "help.example.com", "port": 443{more}}}}}]}}"#
        )
    };
    let wrong = [
        (String::new(), "cannot be read"),
        ("{}".into(), "missing field `destinations`"),
        (host(r#", "protocol": "TLS""#), "unknown field `protocol`"),
        (host(r#", "http": {"scheme": "Https"}"#), "missing field `access`"),
        (host(r#", "http": {"scheme": "Https", "access": "All"}"#), "unknown variant `All`"),
        (
            host(r#", "http": {"scheme": "Https", "access": "Read", "rules": [{"methods": ["PUT"]}]}"#),
            "data source help: http.rules[0]: methods: PUT is no reading",
        ),
    ];
    for (policy, words) in wrong {
        let place = Place::new(&policy);
        let (code, said, error) = ended(guard(&["check", &place.policy()]));
        assert_eq!((code, said.as_str()), (Some(1), ""), "{policy}");
        assert!(error.starts_with("error: ") && error.contains(&place.policy()) && error.contains(words), "{error}");
    }
    let (code, _, error) = ended(guard(&["check", "/nowhere/policy.json"]));
    assert!(code == Some(1) && error.contains("/nowhere/policy.json"), "{error}");
}

#[test]
fn run_says_what_it_does_not_do() {
    let place = Place::new(r#"{"destinations": []}"#);
    let run = |words: &[&str]| ended(guard(&[&["run", "--policy", &place.policy()], words].concat()));
    let (code, _, error) = run(&["--unsigned", "--listen", "0.0.0.0:8080"]);
    assert!(code == Some(1) && error.contains("--listen 0.0.0.0:8080") && error.contains("127.0.0.1"), "{error}");
    let (code, _, error) = run(&["--listen", "127.0.0.1:8080"]);
    assert!(code == Some(2) && error.contains("--trust"), "{error}");
    let (code, _, error) = run(&["--unsigned", "--listen", "127.0.0.1:8080", "--ca", "/tmp"]);
    assert!(code == Some(2) && error.contains("--trust-store"), "{error}");
    let broken = Place::new("{");
    let store = place.0.path().join("store");
    let arguments =
        ["run", "--unsigned", "--listen", "127.0.0.1:0", "--policy", &broken.policy(), "--trust-store", store.to_str().unwrap()];
    let (code, said, error) = ended(guard(&arguments));
    assert!(code == Some(1) && error.contains("no valid policy at the start") && said.contains("cannot be read"), "{said}{error}");
    if rustix::process::getuid().is_root() {
        let mut root = Command::new(GUARD);
        root.args(["run", "--unsigned", "--listen", "127.0.0.1:0", "--policy", &place.policy()]);
        let (code, _, error) = ended(root);
        assert!(code == Some(1) && error.contains("without sudo"), "{error}");
    }
}

struct Running(Child, SocketAddr);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn new(place: &Place) -> Self {
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let arguments = ["run", "--unsigned", "--listen", &at.to_string(), "--policy", &place.policy()];
        let child = guard(&arguments).stdout(Stdio::null()).spawn().unwrap();
        let running = Self(child, at);
        let began = Instant::now();
        while TcpStream::connect(at).is_err() || running.says("GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n").contains("no_policy") {
            assert!(began.elapsed() < Duration::from_secs(20), "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    fn says(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.1).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1).as_bytes()).unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    }
}

/// Nothing here leaves the machine: no name is asked for, and no address but loopback.
#[test]
fn run_refuses_what_is_not_declared() {
    let place = Place::new(&example());
    let guard = Running::new(&place);
    for (request, status, reason) in [
        ("GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n", "403", "source_not_declared"),
        ("GET /help/other HTTP/1.1\r\nHost: localhost\r\n\r\n", "403", "path_not_declared"),
        ("DELETE /help/articles/7 HTTP/1.1\r\nHost: localhost\r\n\r\n", "403", "method_not_declared"),
        ("GET /help/articles/../admin HTTP/1.1\r\nHost: localhost\r\n\r\n", "400", "path_ambiguous"),
        ("GET /help/articles/7 HTTP/1.1\r\nHost: evil.example.com\r\n\r\n", "421", "host_mismatch"),
        ("GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "403", "name_not_declared"),
        ("GET http://evil.example.com/ HTTP/1.1\r\nHost: evil.example.com\r\n\r\n", "403", "name_not_declared"),
        ("CONNECT evil.example.com:443 HTTP/1.1\r\nHost: evil.example.com:443\r\n\r\n", "403", "name_not_declared"),
        ("CONNECT help.example.com:22 HTTP/1.1\r\nHost: help.example.com:22\r\n\r\n", "403", "port_not_declared"),
        ("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n", "403", "name_not_declared"),
    ] {
        let said = guard.says(request);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")) && said.contains(&format!("\"reason\":\"{reason}\"")), "{request}{said}");
    }
}
