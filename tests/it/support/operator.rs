//! The real operator as a process of this machine: started, asked whether it is ready, ended politely or not.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::eventually;

/// How an operator is started.
#[derive(Clone, Debug)]
pub struct OperatorConfig {
    /// Merged over the configuration file of the world.
    pub settings: Value,
    /// Its name in the logs, and its POD_NAME.
    pub name: String,
    /// Environment variables beside the usual ones.
    pub environment: Vec<(String, String)>,
}

impl Default for OperatorConfig {
    fn default() -> Self {
        Self { settings: json!({}), name: "operator-0".to_owned(), environment: Vec::new() }
    }
}

/// A running operator. It ends with this value, and with the test's process.
pub struct Operator {
    child: Arc<Mutex<Child>>,
    pub pid: u32,
    pub http: u16,
    /// Where guards call.
    pub guards: u16,
    log: PathBuf,
}

impl Operator {
    /// Starts it with this configuration file content, against the API server of this kubeconfig.
    pub(super) fn start(directory: &Path, kubeconfig: &Path, namespace: &str, mut settings: Value, config: &OperatorConfig) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let [http, webhook, guards] = free_ports();
        merge(&mut settings, &json!({"http": {"port": http}, "webhook": {"port": webhook}, "guard": {"channel": {"listenPort": guards}}}));
        merge(&mut settings, &config.settings);
        let file = directory.join(format!("{}-{number}.yaml", config.name));
        std::fs::write(&file, serde_json::to_vec_pretty(&settings).expect("JSON")).expect("the configuration is written");
        let log = file.with_extension("log");
        let output = File::create(&log).expect("a log file");
        let child = Command::new(env!("CARGO_BIN_EXE_remit-operator"))
            .args(["run", "--config"])
            .arg(&file)
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAME", &config.name)
            .env("POD_NAMESPACE", namespace)
            .env("REMIT_LOG", std::env::var("REMIT_TEST_LOG").unwrap_or_else(|_| "info".to_owned()))
            .env("REMIT_LOG_FORMAT", "text")
            .envs(config.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("the operator starts");
        let pid = child.id();
        watchdog('+', pid);
        Self { child: Arc::new(Mutex::new(child)), pid, http, guards, log }
    }

    /// Waits until /readyz says yes.
    pub async fn ready(&self) {
        eventually(&format!("operator {} is ready (log: {})", self.pid, self.log.display()), || async {
            if let Some(status) = self.ended() {
                return Ok(Err(status));
            }
            let (code, body) = http_get(self.http, "/readyz").await?;
            super::check(code == 200, || format!("{code} {body}")).map(Ok)
        })
        .await
        .0
        .unwrap_or_else(|status| panic!("the operator ended by itself, {status}:\n{}", self.log_tail()));
    }

    /// The value of a metric, summed over its series whose labels contain all these `key="value"` texts. None: there is no such metric.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let (_, text) = http_get(self.http, "/metrics").await.ok()?;
        let values: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with(name) && line[name.len()..].starts_with([' ', '{']))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// kill -9.
    pub fn kill(&self) {
        kill(&self.child);
    }

    /// What kills it, to be handed to somebody who knows when.
    pub fn killer(&self) -> impl FnOnce() + Send + 'static {
        let child = Arc::clone(&self.child);
        move || kill(&child)
    }

    /// SIGTERM; how it ended and how long that took.
    pub async fn terminate(&self, deadline: Duration) -> (ExitStatus, Duration) {
        let began = Instant::now();
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.pid)]).status().expect("sh");
        assert!(sent.success());
        let (status, _) = super::eventually_within(deadline, "the operator ends after SIGTERM", || async {
            self.ended().ok_or_else(|| "it still runs".to_owned())
        })
        .await;
        (status, began.elapsed())
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        let status = self.child.lock().expect("no panic while locked").try_wait().expect("its state");
        if status.is_some() {
            watchdog('-', self.pid);
        }
        status
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- end of the operator's log, {}\n{}", self.log.display(), self.log_tail());
        }
    }
}

fn kill(child: &Mutex<Child>) {
    let mut child = child.lock().expect("no panic while locked");
    // An error means that it has ended already.
    let _ = child.kill();
    let _ = child.wait();
    watchdog('-', child.id());
}

/// Tells the watchdog of a process that began (`+`) or ended (`-`). When this process ends, however it ends, the watchdog's input
/// is closed and it kills what is left.
fn watchdog(what: char, pid: u32) {
    static WATCHDOG: LazyLock<Mutex<Child>> = LazyLock::new(|| {
        const SCRIPT: &str = r#"all=" "
            while read -r what pid; do
              case "$what $all" in
                +*) all="$all$pid " ;;
                *" $pid "*) all="${all%% $pid *} ${all#* $pid }" ;;
              esac
            done
            for pid in $all; do kill -9 "$pid"; done 2>/dev/null"#;
        let command =
            |c: &mut Command| c.args(["sh", "-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        // A session of its own: it outlives the terminal's interrupt.
        Mutex::new(command(&mut Command::new("setsid")).expect("setsid and sh"))
    });
    let mut watchdog = WATCHDOG.lock().expect("no panic while locked");
    writeln!(watchdog.stdin.as_mut().expect("piped"), "{what} {pid}").expect("the watchdog listens");
}

/// A GET of a plain HTTP server on loopback: status code and body.
pub async fn http_get(port: u16, path: &str) -> Result<(u16, String), String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    });
    let text = asked.await.expect("no panic").map_err(|e| e.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no head")?;
    let code = head.split(' ').nth(1).and_then(|c| c.parse().ok()).ok_or("no status")?;
    Ok((code, body.to_owned()))
}

/// Ports that nobody listens on. Asked for on all addresses, as the operator does: a port that is free on one may still be held by what is left of
/// a connection on another.
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("0.0.0.0:0").expect("a free port"));
    listeners.map(|l| l.local_addr().expect("bound").port())
}

/// Members of `more` win.
fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}
