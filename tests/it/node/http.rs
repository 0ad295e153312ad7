//! HTTP, judged request by request in real pods: by the name in the clear, by a base URL, and within the app's own TLS; with clients that
//! nobody changed (curl, Python's requests, Go's TLS), each refusal against a stranger without Remit, and by what the servers heard.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::guard::guard_pid;
use super::{Namespace, RESTRICTED, cluster, eventually, installed, pods_ready, server, text};

/// A support bot with data sources of every way, and a stranger without Remit beside it. Each is a pod with two containers: `main` is the
/// probe, `real` has curl and Python with requests.
pub struct Asked {
    pub support: Namespace,
    pub shop: Namespace,
    pub web: Namespace,
}

/// What one connection said to a server.
#[derive(Deserialize)]
struct Heard {
    from: String,
    text: String,
}

/// An answer to curl or to requests.
#[derive(Debug)]
pub struct Answer {
    /// 0: there was none.
    pub status: u16,
    /// Or, where there is none, what the client said.
    pub body: String,
}

const REQUESTS: &str = "
import os, sys, requests
answer = requests.request(sys.argv[1], os.path.expandvars(sys.argv[2]), timeout=10, allow_redirects=False)
print(answer.text)
print(answer.status_code)
";

impl Asked {
    pub fn new(purpose: &str) -> Self {
        Self::of_mode(purpose, "Enforce")
    }

    fn of_mode(purpose: &str, mode: &str) -> Self {
        let asked = Self {
            support: Namespace::enrolled(purpose),
            shop: Namespace::new(&format!("{purpose}-shop"), &[]),
            web: Namespace::new(&format!("{purpose}-web"), &[]),
        };
        let mut objects = server(&asked.shop.name, "tickets", 80, 18080);
        objects += &pod(&asked.web.name, "stranger", "{app: stranger}");
        cluster().apply(&objects);
        cluster().apply(&asked.ceiling());
        cluster().apply(&asked.workload().replace("mode: Enforce", &format!("mode: {mode}")));
        pods_ready(&asked.shop.name);
        pods_ready(&asked.web.name);
        cluster().wait_ready(&asked.support.name, "support-bot");
        cluster().apply(&pod(&asked.support.name, "bot", "{app: support-bot}"));
        pods_ready(&asked.support.name);
        eventually("the bot reaches what is declared", Duration::from_secs(30), || asked.works().then_some(()));
        asked
    }

    fn ceiling(&self) -> String {
        format!(
            "
apiVersion: remit.dev/v1alpha1
kind: ScopeCeiling
metadata: {{name: {ns}}}
spec:
  namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {ns}}}}}
  classes: [Internal, Public]
  services: [{{name: shop, namespace: {shop}, services: ['*']}}]
  hosts: [{{name: all, host: '*.example.com', ports: [80, 443]}}]
---
",
            ns = self.support.name,
            shop = self.shop.name
        )
    }

    /// `tickets` in the clear, `help` by its base URL, `wiki` within the app's own TLS, `files` passed on as it is, `plain` outside in the clear.
    pub fn workload(&self) -> String {
        format!(
            "
apiVersion: remit.dev/v1alpha1
kind: AIWorkload
metadata: {{name: support-bot, namespace: {ns}}}
spec:
  selector: {{matchLabels: {{app: support-bot}}}}
  mode: Enforce
  dataSources:
  - name: tickets
    class: Internal
    type: Service
    access: Read
    service:
      name: tickets
      namespace: {shop}
      port: 80
      protocol: HTTP
      http:
      - paths: [{{type: PathPrefix, value: /v1}}]
      - paths: [{{type: PathPrefix, value: /live}}]
      - {{methods: [POST], paths: [{{type: Exact, value: /v1/search}}]}}
  - name: help
    class: Public
    type: Host
    access: Read
    host: {{name: help.example.com, port: 443, protocol: HTTPS, baseURLEnv: [HELP_URL], http: [{{paths: [{{type: PathPrefix, value: /articles}}]}}]}}
  - name: wiki
    class: Public
    type: Host
    access: Read
    host: {{name: wiki.example.com, port: 443, protocol: HTTPS, tlsInspection: Enabled}}
  - name: files
    class: Public
    type: Host
    access: ReadWrite
    host: {{name: files.example.com, port: 443, protocol: TLS}}
  - name: plain
    class: Public
    type: Host
    access: Read
    host: {{name: plain.example.com, port: 80, protocol: HTTP}}
---
",
            ns = self.support.name,
            shop = self.shop.name
        )
    }

    pub fn tickets(&self) -> String {
        format!("tickets.{}.svc.cluster.local", self.shop.name)
    }

    fn works(&self) -> bool {
        let tickets = format!("http://{}/v1/ready", self.tickets());
        [tickets.as_str(), "$HELP_URL/articles/ready", "https://files.example.com/ready", "http://plain.example.com/ready"]
            .iter()
            .all(|url| self.curl(Pod::Bot, &["-k", url]).status == 200)
    }

    fn whereabouts(&self, who: Pod) -> (&str, &'static str) {
        match who {
            Pod::Bot => (&self.support.name, "bot"),
            Pod::Stranger => (&self.web.name, "stranger"),
        }
    }

    /// Runs in this container.
    fn exec(&self, who: Pod, container: &str, command: &[&str]) -> std::process::Output {
        let (namespace, pod) = self.whereabouts(who);
        cluster().run("kubectl", &[&["exec", "-n", namespace, pod, "-c", container, "--"], command].concat())
    }

    /// A variable of the app's containers, as it is in the pod.
    fn variable(&self, name: &str) -> String {
        let print = format!("import os; print(os.environ.get('{name}', ''))");
        text(&self.exec(Pod::Bot, "real", &["python3", "-c", &print]).stdout).trim().to_owned()
    }

    /// Asked by curl, as it is: whom it trusts and where the base URL leads to are in its environment.
    pub fn curl(&self, who: Pod, args: &[&str]) -> Answer {
        let script = "import os, sys; os.execvp('curl', ['curl', '-sS', '-m', '10', '-w', '\\n%{http_code}'] + [os.path.expandvars(a) for a in sys.argv[1:]])";
        Answer::of(&self.exec(who, "real", &[&["python3", "-c", script], args].concat()))
    }

    /// Asked by Python's requests, as it is.
    fn requests(&self, who: Pod, method: &str, url: &str) -> Answer {
        Answer::of(&self.exec(who, "real", &["python3", "-c", REQUESTS, method, url]))
    }

    /// These bytes; what came back, and how it ended.
    pub fn say(&self, who: Pod, options: &[&str], to: &str, bytes: &[u8]) -> String {
        let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        let output = self.exec(who, "main", &[&["probe", "say"], options, &[to, &escaped]].concat());
        format!("{}{}", text(&output.stdout), text(&output.stderr))
    }

    /// What was said to the servers from this pod: a text for each connection, in the order in which they came; those outside first.
    pub fn heard(&self, who: Pod) -> Vec<String> {
        let (namespace, pod) = self.whereabouts(who);
        let from = cluster().pod_addresses(namespace, pod);
        let outside = cluster().ok("cluster.sh", &["heard"]);
        let inside = ["exec", "-n", &self.shop.name, "tickets", "--", "probe", "get", "http://127.0.0.1:18080/heard"];
        [outside, cluster().kubectl(&inside)]
            .iter()
            .flat_map(|list| serde_json::from_str::<Vec<Heard>>(list).expect("a list of connections"))
            .filter(|heard| from.contains(&heard.from))
            .map(|heard| heard.text)
            .collect()
    }

    /// The first lines of the requests from this pod for this path, wherever they arrived.
    pub fn arrived(&self, who: Pod, path: &str) -> Vec<String> {
        let line = |line: &str| {
            let mut words = line.split(' ');
            let (method, target, version) = (words.next()?, words.next()?, words.next()?);
            (version.trim_end() == "HTTP/1.1" && target == path).then(|| format!("{method} {target}"))
        };
        self.heard(who).iter().flat_map(|text| text.lines().filter_map(line).collect::<Vec<_>>()).collect()
    }

    /// The guard's records of this event about this path.
    fn records(&self, event: &str, path: &str) -> Vec<Value> {
        let log = cluster().kubectl(&["logs", "-n", &self.support.name, "bot", "-c", "remit-guard"]);
        let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|r| r["event"] == event && (r["path"] == path || r["attempted"]["request"]["path"] == path)).collect()
    }

    /// The stranger gets through with it and the bot does not: the problem document, which says why and what would declare it, and of which
    /// `kubectl remit explain` finds the record; nothing arrived from the bot.
    fn refused(&self, ask: &dyn Fn(Pod) -> Answer, reason: &str, path: &str) -> Value {
        let open = ask(Pod::Stranger);
        assert_eq!(open.status, 200, "positive control of {path}: {open:?}");
        assert_eq!(self.arrived(Pod::Stranger, path).len(), 1, "{path}");
        let answer = ask(Pod::Bot);
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
        let problem: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{path}: no problem document: {answer:?}"));
        assert_eq!((problem["reason"].as_str(), problem["status"].as_u64()), (Some(reason), Some(403)), "{problem}");
        assert_eq!(problem["attempted"]["path"], path, "{problem}");
        assert!(problem["declare"].as_str().is_some_and(|lines| lines.contains("dataSources")), "{problem}");
        assert_eq!(self.arrived(Pod::Bot, path), Vec::<String>::new(), "{path}");
        let id = problem["requestId"].as_str().expect("a requestId");
        let explained = self.explain(id);
        assert!(explained.contains(reason) && explained.contains(path), "{explained}");
        problem
    }

    /// It gets through, once, as it was meant.
    fn passes(&self, ask: &dyn Fn(Pod) -> Answer, method: &str, path: &str) {
        let answer = ask(Pod::Bot);
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        assert_eq!(self.arrived(Pod::Bot, path), [format!("{method} {path}")]);
    }

    fn explain(&self, id: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-remit"));
        command.args(["explain", id, "-n", &self.support.name]).env("KUBECTL", &cluster().kubectl).env("NO_COLOR", "1");
        let output = command.env("KUBECONFIG", cluster().kubeconfig()).output().expect("the plugin starts");
        assert!(output.status.success(), "explain {id}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pod {
    Bot,
    Stranger,
}

impl Answer {
    fn of(output: &std::process::Output) -> Self {
        let stdout = text(&output.stdout);
        let (body, status) = stdout.trim_end().rsplit_once('\n').unwrap_or(("", stdout.trim_end()));
        let body = if body.is_empty() { text(&output.stderr) } else { body.to_owned() };
        Self { status: status.parse().unwrap_or_default(), body }
    }
}

/// The probe, and clients that nobody changed.
fn pod(namespace: &str, name: &str, labels: &str) -> String {
    let probe = super::client(namespace, name, labels);
    let probe = probe.trim_end().trim_end_matches("---");
    format!(
        "{probe}
  - name: real
    image: remit.test/clients:1
    imagePullPolicy: Never
    command: [sleep, infinity]
    securityContext: {RESTRICTED}
---
"
    )
}

#[test]
fn requests_are_judged_by_whatever_way_they_come() {
    let (cluster, _installed) = installed();
    let asked = Asked::new("http");
    let ns = &asked.support.name;
    let tickets = |path: &str| format!("http://{}{path}", asked.tickets());

    // In the clear, by the name: curl.
    let get = |url: String| move |asked: &Asked, who| asked.curl(who, &[&url]);
    let post = |url: String| move |asked: &Asked, who| asked.curl(who, &["-d", "q=1", &url]);
    let (read, write) = (get(tickets("/v1/7")), post(tickets("/v1/8")));
    asked.passes(&|who| read(&asked, who), "GET", "/v1/7");
    let problem = asked.refused(&|who| write(&asked, who), "method_not_declared", "/v1/8");
    assert_eq!(problem["attempted"]["method"], "POST");
    let search = post(tickets("/v1/search"));
    asked.passes(&|who| search(&asked, who), "POST", "/v1/search");
    let other = get(tickets("/v10"));
    asked.refused(&|who| other(&asked, who), "path_not_declared", "/v10");

    // By the base URL that the webhook set: in every container, and the app's own TLS is not let through beside it.
    assert_eq!(asked.variable("HELP_URL"), "http://127.0.0.1:15474/help");
    let help = |method: &'static str, path: &str| {
        let own = format!("https://help.example.com{path}");
        let base = format!("$HELP_URL{path}");
        let asked = &asked;
        move |who| match who {
            Pod::Bot => asked.requests(who, method, &base),
            Pod::Stranger => asked.curl(who, &["-k", "-X", method, &own]),
        }
    };
    asked.passes(&help("GET", "/articles/1"), "GET", "/articles/1");
    asked.refused(&help("POST", "/articles/2"), "method_not_declared", "/articles/2");
    asked.refused(&help("GET", "/admin"), "path_not_declared", "/admin");
    let own = asked.curl(Pod::Bot, &["-k", "https://help.example.com/articles/3"]);
    assert_eq!((own.status, asked.arrived(Pod::Bot, "/articles/3").len()), (0, 0), "{own:?}");

    // Within the app's own TLS: whoever trusts what the variables name.
    let trust = "/var/run/remit/trust/bundle.pem";
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        assert_eq!(asked.variable(name), trust, "{name}");
    }
    let wiki = |method: &'static str, path: &str, client: fn(&Asked, &str, &str) -> Answer| {
        let url = format!("https://wiki.example.com{path}");
        let asked = &asked;
        move |who| match who {
            Pod::Bot => client(asked, method, &url),
            Pod::Stranger => asked.curl(who, &["-k", "-X", method, &url]),
        }
    };
    let curl: fn(&Asked, &str, &str) -> Answer = |asked, method, url| asked.curl(Pod::Bot, &["-X", method, url]);
    let requests: fn(&Asked, &str, &str) -> Answer = |asked, method, url| asked.requests(Pod::Bot, method, url);
    for (name, client) in [("curl", curl), ("requests", requests)] {
        let (read, write) = (format!("/pages/{name}"), format!("/edit/{name}"));
        asked.passes(&wiki("GET", &read, client), "GET", &read);
        asked.refused(&wiki("POST", &write, client), "method_not_declared", &write);
    }
    // Go's TLS: it trusts SSL_CERT_FILE, and without it nobody here.
    let page = b"GET /pages/go HTTP/1.1\r\nHost: wiki.example.com\r\nConnection: close\r\n\r\n";
    let said = asked.say(Pod::Bot, &["--tls"], "wiki.example.com:443", page);
    assert!(said.starts_with("HTTP/1.1 200 OK") && said.ends_with("(ended)\n"), "{said}");
    assert_eq!(asked.arrived(Pod::Bot, "/pages/go").len(), 1);
    let strange = ["env", "SSL_CERT_FILE=/dev/null", "probe", "say", "--tls", "wiki.example.com:443", "GET /pages/untrusted HTTP/1.1"];
    let strange = text(&asked.exec(Pod::Bot, "main", &strange).stderr);
    assert!(strange.contains("unknown authority"), "who does not trust the guard does not talk to it: {strange}");

    // Passed on by its name alone: the app sees the host's own certificate, and may do everything there.
    let own = asked.curl(Pod::Bot, &["-d", "x", "https://files.example.com/untrusted"]);
    assert_eq!(own.status, 200, "the bundle has whom the guard trusts as well: {own:?}");
    let drop = |who| asked.curl(who, &["-k", "-X", "DELETE", "https://files.example.com/anything"]);
    asked.passes(&drop, "DELETE", "/anything");

    // The status says what judges each.
    let sources = cluster.json(&["get", "aiw", "-n", ns, "support-bot"])["status"]["sources"].take();
    let judged: Vec<(&str, &str)> = sources
        .as_array()
        .expect("sources")
        .iter()
        .map(|source| (source["name"].as_str().expect("a name"), source["judgedBy"].as_str().expect("a word")))
        .collect();
    let wanted = [("tickets", "Requests"), ("help", "Requests"), ("wiki", "Requests"), ("files", "ServerName"), ("plain", "Requests")];
    assert!(wanted.iter().all(|pair| judged.contains(pair)) && judged.len() == wanted.len(), "{judged:?}");

    // And the operator's metrics count what was let through, and what was refused: as many as the guard wrote down.
    let log = cluster.kubectl(&["logs", "-n", ns, "bot", "-c", "remit-guard"]);
    let records: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for source in ["tickets", "help", "wiki"] {
        let passed = records.iter().filter(|r| r["event"] == "request" && r["source"] == source && r["status"] == 200).count();
        assert!(passed >= 2, "{source}: {passed}");
        let series =
            format!("remit_guard_requests_total{{namespace=\"{ns}\",workload=\"support-bot\",source=\"{source}\",answer=\"2xx\"}}");
        eventually("the operator counts it", Duration::from_secs(60), || (sum(&series) == passed).then_some(()));
    }
}

/// What all replicas of the operator say of a series.
fn sum(series: &str) -> usize {
    let pods = ["get", "pods", "-n", "remit-system", "-l", "app.kubernetes.io/component=operator", "-o", "name"];
    let value = |pod: &str| {
        let path = format!("/api/v1/namespaces/remit-system/pods/{}:8080/proxy/metrics", pod.trim_start_matches("pod/"));
        let metrics = text(&cluster().run("kubectl", &["get", "--raw", &path]).stdout);
        metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<usize>().ok()).unwrap_or_default()
    };
    cluster().kubectl(&pods).lines().map(value).sum()
}

/// The authority is the pod's, and not that of one process.
#[test]
fn the_apps_trust_outlives_its_guard() {
    let (cluster, _installed) = installed();
    let asked = Asked::new("trust");
    let ns = &asked.support.name;
    let authority = || {
        let print = "print(open('/var/run/remit/trust/ca.pem').read())";
        text(&asked.exec(Pod::Bot, "real", &["python3", "-c", print]).stdout)
    };
    // A client that reads once whom it trusts, as most do, and asks on a new connection for each line that is said to it. (requests would
    // read the file anew each time.)
    let script = "
import http.client, ssl, sys
trust = ssl.create_default_context()
for path in sys.stdin:
    try:
        connection = http.client.HTTPSConnection('wiki.example.com', timeout=10, context=trust)
        connection.request('GET', path.strip())
        print(connection.getresponse().status, flush=True)
    except OSError as error:
        print(error, flush=True)
";
    let mut kubectl = cluster.command(&cluster.kubectl);
    kubectl.args(["exec", "-i", "-n", ns, "bot", "-c", "real", "--", "python3", "-c", script]);
    let mut session = kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("kubectl starts");
    let mut to = session.stdin.take().expect("piped");
    let mut answers = BufReader::new(session.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut ask = |path: &str| {
        use std::io::Write;
        writeln!(to, "{path}").expect("python reads");
        answers.next().expect("python answers")
    };
    assert_eq!(ask("/pages/before"), "200");
    let before = authority();
    assert!(before.contains("BEGIN CERTIFICATE"), "{before}");
    for round in 1..=2 {
        let pid = guard_pid(cluster, ns, "bot").expect("the guard runs");
        cluster.ok("cluster.sh", &["exec", "kill", "-KILL", &pid]);
        let restarts = || cluster.json(&["get", "pod", "-n", ns, "bot"])["status"]["initContainerStatuses"][1]["restartCount"].as_i64();
        eventually("the kubelet started it anew, and it lets through", Duration::from_secs(90), || {
            (restarts() >= Some(round) && asked.works()).then_some(())
        });
        assert_eq!(ask(&format!("/pages/after/{round}")), "200", "the trust that was read before still holds");
        let answer = asked.curl(Pod::Bot, &["-d", "x", &format!("https://wiki.example.com/edit/after/{round}")]);
        assert_eq!(answer.status, 403, "it judges as before: {answer:?}");
        assert_eq!(authority(), before, "the authority is the same");
    }
    drop(to);
    session.wait().expect("python ends");
}

/// A stream of curl that goes on until somebody ends it.
struct Streaming {
    kubectl: Child,
    lines: Receiver<String>,
}

impl Streaming {
    fn open(asked: &Asked, who: Pod, url: &str) -> Self {
        let (namespace, pod) = asked.whereabouts(who);
        let mut kubectl = cluster().command(&cluster().kubectl);
        kubectl.args(["exec", "-n", namespace, pod, "-c", "real", "--", "curl", "-sSN", "-m", "120", url]);
        let mut kubectl = kubectl.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl starts");
        let (to, lines) = channel();
        let said = BufReader::new(kubectl.stdout.take().expect("piped"));
        std::thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        let stream = Self { kubectl, lines };
        assert_eq!(stream.lines.recv_timeout(Duration::from_secs(20)).as_deref(), Ok("more"), "{url}");
        stream
    }

    fn goes_on(&self) -> bool {
        while self.lines.try_recv() != Err(TryRecvError::Empty) {}
        self.lines.recv_timeout(Duration::from_secs(5)).is_ok()
    }

    /// So long after that moment nothing more comes, and curl says that it is not the end.
    fn is_cut(&mut self, since: Instant, within: Duration, what: &str) {
        while self.lines.recv_timeout(Duration::from_secs(1)).is_ok() {
            assert!(since.elapsed() < Duration::from_secs(40), "{what}: it goes on");
        }
        let (status, _) = eventually("curl ends", within, || self.kubectl.try_wait().expect("kubectl can be asked"));
        let took = since.elapsed();
        println!("{what}: cut after {took:?}");
        assert!(took <= within, "{what}: {took:?}");
        assert!(!status.success(), "{what}: curl must not take it for the end of the answer");
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        _ = self.kubectl.kill();
        _ = self.kubectl.wait();
    }
}

#[test]
fn a_rule_that_is_taken_away_cuts_the_streams_that_it_let_through() {
    let (cluster, _installed) = installed();
    let asked = Asked::new("rules");
    let url = format!("http://{}/live/stream", asked.tickets());
    let mut live = Streaming::open(&asked, Pod::Bot, &url);
    let other = Streaming::open(&asked, Pod::Bot, &url.replace("/live/", "/v1/"));
    let base = Streaming::open(&asked, Pod::Bot, "http://127.0.0.1:15474/help/articles/stream");
    let mut wiki = Streaming::open(&asked, Pod::Bot, "https://wiki.example.com/pages/stream");
    let stranger = Streaming::open(&asked, Pod::Stranger, &url);
    let narrow = asked.workload().replace("      - paths: [{type: PathPrefix, value: /live}]\n", "");
    assert!(!narrow.contains("/live"), "{narrow}");
    let began = Instant::now();
    cluster.apply(&narrow);
    live.is_cut(began, Duration::from_secs(3), "a rule was taken away");
    assert!(other.goes_on() && base.goes_on() && wiki.goes_on() && stranger.goes_on(), "what is declared goes on");
    eventually("the cut is written down", Duration::from_secs(3), || {
        let records = asked.records("denied", "/live/stream");
        (records.len() == 1 && records[0]["reason"] == "path_not_declared").then_some(())
    });
    let answer = asked.curl(Pod::Bot, &["-m", "5", &url]);
    assert_eq!(answer.status, 403, "{answer:?}");
    // Within the app's own TLS as well.
    let narrower = narrow.replace("tlsInspection: Enabled}", "tlsInspection: Enabled, http: [{paths: [{type: Exact, value: /only}]}]}");
    assert_ne!(narrow, narrower);
    let began = Instant::now();
    cluster.apply(&narrower);
    wiki.is_cut(began, Duration::from_secs(3), "a rule came to an inspected host");
    assert!(other.goes_on() && base.goes_on(), "what is declared goes on");
}

#[test]
fn observe_writes_down_what_enforce_would_refuse_and_lets_it_pass() {
    let (_, _installed) = installed();
    let asked = Asked::of_mode("watched", "Observe");
    let tickets = format!("http://{}", asked.tickets());
    for (method, url, path, reason) in [
        ("GET", tickets.as_str(), "/v1/7", None),
        ("POST", &tickets, "/v1/8", Some("method_not_declared")),
        ("GET", &tickets, "/other", Some("path_not_declared")),
        ("POST", "$HELP_URL", "/articles/9", Some("method_not_declared")),
    ] {
        let ask = |who| asked.curl(who, &["-X", method, &format!("{url}{path}")]);
        asked.passes(&ask, method, path);
        let records = || asked.records("would_deny", path);
        match reason {
            None => assert_eq!(records(), Vec::<Value>::new()),
            Some(reason) => {
                let (record, _) = eventually("it is written down", Duration::from_secs(5), || records().into_iter().next());
                assert_eq!(record["reason"], reason, "{record}");
                assert_eq!(record["attempted"]["request"]["method"], method, "{record}");
            }
        }
        eventually("each request has its line", Duration::from_secs(5), || (asked.records("request", path).len() == 1).then_some(()));
    }
    // Nobody looks into the app's TLS: no authority is given to it, and it passes with a record.
    assert_eq!(asked.variable("SSL_CERT_FILE"), "");
    let wiki = |who| asked.curl(who, &["-k", "-d", "x", "https://wiki.example.com/edit"]);
    asked.passes(&wiki, "POST", "/edit");
    eventually("it is written down", Duration::from_secs(5), || {
        let log = cluster().kubectl(&["logs", "-n", &asked.support.name, "bot", "-c", "remit-guard"]);
        let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let named = |r: &Value| r["attempted"]["server"]["name"] == "wiki.example.com";
        records.filter(named).any(|r| r["event"] == "would_deny" && r["reason"] == "not_inspected").then_some(())
    });
}
