//! A program in its pod: started on a core of its own with what it needs in a directory, and asked how much it needed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use remit::policy::signed::Signer;
use serde_json::{Value, json};

use super::world::{DNS, World};

/// The guard's user and group, and the group that the redirect of the others leaves alone.
const IDS: (u32, u32) = (2_000_000_101, 2_000_000_102);

pub struct Pod {
    pub name: String,
    directory: tempfile::TempDir,
    core: usize,
    child: Option<Child>,
    read: bool,
}

impl Pod {
    /// What runs there has this core, and the client and the upstream another: who shares one with whom would else be drawn anew in each turn.
    pub fn new(world: &World, n: usize, core: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
        Self { name: world.pods[n].clone(), directory, core, child: None, read: false }
    }

    /// What the program says on stdout is read and forgotten, as a container runtime reads it. Else it goes to the log.
    pub fn reading(mut self) -> Self {
        self.read = true;
        self
    }

    /// As in a pod of a cluster. Signs the policy as the operator does.
    pub fn guard(&mut self, path: &Path, policy: &Value) -> Instant {
        let (uid, gid) = IDS;
        // Its user may not read where it was built.
        let path = self.copy(path, "remit-guard");
        self.run(&[&path, "redirect", "--uid", &uid.to_string(), "--gid", &gid.to_string()], None);
        self.policy(policy);
        self.write("resolv.conf", &format!("nameserver {DNS}\n"));
        let (note, resolv) = (self.path("policy.note"), self.path("resolv.conf"));
        let trust = signer().trust().to_string();
        // As the volumes of a pod.
        let [ca, store] = ["ca", "trust-store"].map(|name| {
            let path = self.path(name);
            std::fs::create_dir_all(&path).expect("a directory");
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("permissions");
            path
        });
        let words = ["run", "--policy", &note, "--trust", &trust, "--workload", "support/bot/u", "--resolv-conf", &resolv];
        let guard = [&[&*path][..], &words, &["--ca", &ca, "--trust-store", &store]].concat();
        self.spawn(&["--reuid", &uid.to_string()], &guard)
    }

    /// A program that the redirect leaves alone.
    pub fn proxy(&mut self, words: &[&str]) -> Instant {
        self.spawn(&[], words)
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file is written");
    }

    fn copy(&self, from: &Path, name: &str) -> String {
        std::fs::copy(from, self.path(name)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        self.path(name)
    }

    /// Swapped as a whole, as the kubelet does.
    pub fn policy(&self, policy: &Value) {
        self.write("policy.new", &signer().sign(&policy.to_string()));
        std::fs::rename(self.path("policy.new"), self.path("policy.note")).expect("the policy is there");
    }

    fn run(&self, words: &[&str], input: Option<&str>) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("`ip` is there");
        child.stdin.take().expect("piped").write_all(input.unwrap_or_default().as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// As the guard's, but by hand: what leaves goes to the proxy by these rules, unless it is the proxy's own.
    pub fn redirect(&self, rules: &[String]) {
        let rules = format!(
            "table ip bench
            delete table ip bench
            table ip bench {{
                chain out {{
                    type nat hook output priority -100
                    meta skgid {} accept
                    fib daddr type local accept
                    {}
                }}
            }}",
            IDS.1,
            rules.join("\n")
        );
        self.run(&["nft", "-f", "-"], Some(&rules));
    }

    fn spawn(&mut self, user: &[&str], words: &[&str]) -> Instant {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let core = self.core.to_string();
        let began = Instant::now();
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.name, "taskset", "-c", &core, "setpriv", "--clear-groups", "--regid", &IDS.1.to_string()])
            .args(user)
            .args(words)
            .stdin(Stdio::null())
            .stdout(if self.read { Stdio::piped() } else { log.try_clone().expect("a second handle").into() })
            .stderr(log)
            .spawn()
            .expect("`ip` is there");
        if let Some(mut said) = child.stdout.take() {
            std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        }
        self.child = Some(child);
        began
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// How its log begins, for whoever looks for what went wrong.
    pub fn said(&self) -> String {
        self.log().lines().take(5).collect::<Vec<_>>().join("\n")
    }

    pub fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn id(&self) -> Option<u32> {
        Some(self.child.as_ref()?.id())
    }

    fn process(&self) -> Option<PathBuf> {
        Some(PathBuf::from(format!("/proc/{}", self.id()?)))
    }

    /// Its threads, with the user and system time of each by the scheduler's clock: ticks are too coarse.
    pub fn threads(&self) -> impl Iterator<Item = (u32, Duration)> {
        let tasks = self.process().map(|process| std::fs::read_dir(process.join("task")).expect("it runs"));
        tasks.into_iter().flatten().flatten().filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            let time = Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?);
            Some((task.file_name().to_str()?.parse().ok()?, time))
        })
    }

    /// User and system time of all of it so far.
    pub fn cpu(&self) -> Option<Duration> {
        self.process()?;
        Some(self.threads().map(|(_, time)| time).sum())
    }

    /// What it needs for this, and for clearing up after it. None: nobody is between.
    pub fn cpu_of(&self, work: impl FnOnce()) -> Option<Duration> {
        let before = self.cpu();
        work();
        std::thread::sleep(Duration::from_millis(100));
        Some(self.cpu()?.saturating_sub(before?))
    }

    pub fn resident(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    /// The most that was resident at any time.
    pub fn most_resident(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(self.process()?.join("status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> Option<usize> {
        Some(std::fs::read_dir(self.process()?.join("fd")).ok()?.count())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.end();
    }
}

fn signer() -> Signer {
    Signer::from_seed(&[7; 32])
}

/// A policy of the bench's cluster.
pub fn policy(format: u32, generation: u64, destinations: &Value) -> Value {
    json!({
        "format": format, "workload": {"namespace": "support", "name": "bot", "uid": "u"}, "generation": generation, "digest": "bench",
        "mode": "Enforce", "suspended": false,
        "network": {"domain": "cluster.local", "dns": [format!("{DNS}:53")], "services": ["10.96.0.0/16"], "own": ["10.96.0.0/16", "10.244.0.0/16"]},
        "destinations": destinations,
    })
}
