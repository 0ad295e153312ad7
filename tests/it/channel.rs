//! The control channel: the guard's end and the operator's, over real TLS. What the API server would say is made up. Needs no cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::watcher::Event;
use remit::cluster::facts::{self, NamespaceFact};
use remit::cluster::{Settings, SharedWorld};
use remit::guard::channel::{Answer, ChannelError, Client, Connection};
use remit::operator::Keys;
use remit::operator::channel::{self, AskError, Cluster, Collected, Context, Metrics, Note, Policies, SeenGuard, SeenPod};
use remit::policy::channel::{OTHER, REPORT_FORMAT, Report, Usage};
use remit::policy::signed::{Signer, Trust};
use remit::policy::{Document, Edition};
use remit::scope::ObjectName;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The operator's end, with everything that it would ask a cluster for. Clones are the same one.
#[derive(Clone)]
pub struct Operator {
    pub seed: [u8; 32],
    said: Arc<Mutex<Said>>,
    changed: watch::Sender<u64>,
    pub world: SharedWorld,
    pub collected: Collected,
}

#[derive(Default)]
struct Said {
    tokens: BTreeMap<String, Value>,
    pods: BTreeMap<ObjectName, SeenPod>,
    notes: BTreeMap<ObjectName, Note>,
    reviews: usize,
    warnings: Vec<(String, &'static str)>,
}

/// A server that runs until this is dropped.
pub struct Running {
    pub at: SocketAddr,
    stop: watch::Sender<bool>,
    ended: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(ended) = self.ended.take() {
            let _ = ended.join();
        }
    }
}

impl Operator {
    /// AIWorkload support/bot governs the pods labelled app=bot of an enrolled namespace.
    pub fn new(seed: [u8; 32]) -> Self {
        let world = SharedWorld::new(Settings::default());
        {
            let mut world = world.write();
            for (name, enrolled) in [("support", "true"), ("elsewhere", "false")] {
                let labels = [("remit.dev/enrolled".to_owned(), enrolled.to_owned())].into();
                world.on_namespace(Event::Apply((name.to_owned(), NamespaceFact { labels, ..NamespaceFact::default() })));
                let workload = json!({
                    "apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": {"namespace": name, "name": "bot", "uid": "w"},
                    "spec": {"mode": "Enforce", "selector": {"matchLabels": {"app": "bot"}}, "dataSources": [
                        {"name": "orders", "type": "Service", "access": "ReadWrite", "service": {"name": "orders", "namespace": "shop", "port": 5432, "protocol": "TCP"}},
                        {"name": "help", "type": "Host", "access": "ReadWrite", "host": {"name": "help.example.com", "port": 443}},
                    ]},
                });
                world.on_workload(Event::Apply(facts::workload(serde_json::from_value(workload).unwrap())));
            }
        }
        Self { seed, said: Arc::default(), changed: watch::Sender::new(0), world, collected: Collected::default() }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap()
    }

    pub fn public_key(&self) -> [u8; 32] {
        *self.trust().public_key()
    }

    fn trust(&self) -> Trust {
        Signer::from_seed(&self.seed).trust().clone()
    }

    /// A pod, and the token of its guard.
    pub fn pod(&self, namespace: &str, name: &str, app: &str, restarts: Option<i32>) -> String {
        let (token, uid) = (format!("token-{namespace}-{name}"), format!("uid-{name}"));
        let mut said = self.said();
        let extra = json!({"authentication.kubernetes.io/pod-name": [name], "authentication.kubernetes.io/pod-uid": [uid]});
        let user = json!({"username": format!("system:serviceaccount:{namespace}:bot"), "extra": extra});
        let status = json!({"authenticated": true, "audiences": ["remit.dev/guard"], "user": user});
        said.tokens.insert(token.clone(), status);
        let labels = [("app".to_owned(), app.to_owned())].into();
        let guard = restarts.map(|restarts| SeenGuard { workload: ObjectName::new(namespace, "bot"), restarts });
        said.pods.insert(ObjectName::new(namespace, name), SeenPod { uid, labels, guard });
        token
    }

    /// What lies in the cluster from now on.
    pub fn publish(&self, policy: &Value) -> String {
        let text = Signer::from_seed(&self.seed).sign(&policy.to_string());
        let note = Note::read(text.as_str().into(), &self.trust()).expect("a policy");
        self.said().notes.insert(ObjectName::new("support", "bot"), note);
        self.changed.send_modify(|count| *count += 1);
        text
    }

    /// On threads of its own, so that it can be killed like a process.
    pub fn serve(&self, listener: std::net::TcpListener) -> Running {
        let at = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = watch::channel(false);
        let operator = self.clone();
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let keys = Keys::default();
                keys.set(operator.seed);
                let context = Context {
                    keys,
                    world: operator.world.clone(),
                    cluster: operator.clone(),
                    policies: operator.clone(),
                    collected: operator.collected.clone(),
                    metrics: Metrics::default(),
                };
                channel::serve(tokio::net::TcpListener::from_std(listener).unwrap(), context, stopped).await.unwrap();
            });
        });
        Running { at, stop, ended: Some(ended) }
    }

    fn here(&self) -> Running {
        self.serve(std::net::TcpListener::bind("127.0.0.1:0").unwrap())
    }
}

impl Cluster for Operator {
    async fn review(&self, token: &str) -> Result<TokenReviewStatus, AskError> {
        let mut said = self.said();
        said.reviews += 1;
        let status = said.tokens.get(token).cloned().unwrap_or(json!({"authenticated": false}));
        Ok(serde_json::from_value(status).unwrap())
    }

    async fn pod(&self, pod: &ObjectName) -> Result<Option<SeenPod>, AskError> {
        Ok(self.said().pods.get(pod).cloned())
    }

    async fn warn(&self, about: ObjectReference, reason: &'static str, _: String) {
        self.said().warnings.push((about.name.unwrap_or_default(), reason));
    }
}

impl Policies for Operator {
    fn note(&self, workload: &ObjectName) -> Option<Note> {
        self.said().notes.get(workload).cloned()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

pub fn policy(generation: i64, serial: u64) -> Value {
    json!({
        "format": 1, "workload": {"namespace": "support", "name": "bot", "uid": "w"}, "generation": generation, "serial": serial,
        "digest": "d", "mode": "Enforce", "suspended": false,
        "network": {"domain": "cluster.local", "dns": [], "services": [], "own": []}, "destinations": [],
    })
}

fn report(enforced: Option<(i64, u64)>) -> Report {
    let edition = |(generation, serial)| Edition { uid: "w".into(), generation, serial, digest: "d".into() };
    Report {
        format: REPORT_FORMAT,
        version: "0".into(),
        reads: 3,
        life: 1,
        enforced: enforced.map(edition),
        denials: [("suspended".to_owned(), 2)].into(),
        would_deny: Default::default(),
        usage: [("orders".to_owned(), Usage { connections: 1, sent: 20, received: 300, ..Usage::default() })].into(),
    }
}

async fn connect(running: &Running, operator: &Operator) -> Connection {
    Client::new(&operator.public_key()).unwrap().connect(running.at).await.unwrap()
}

fn refusal(answer: Answer) -> (u16, String) {
    match answer {
        Answer::Refused { status, reason, message: _ } => (status, reason),
        other => panic!("{other:?}"),
    }
}

/// Whether there is no answer for a while.
async fn holds(connection: &mut Connection, token: &str, report: &Report) -> bool {
    tokio::time::timeout(Duration::from_millis(300), connection.ask(token, report)).await.is_err()
}

#[tokio::test]
async fn a_newer_policy_is_answered_at_once_and_an_older_one_never() {
    let operator = Operator::new([1; 32]);
    let running = operator.here();
    let token = operator.pod("support", "bot-1", "bot", Some(0));
    let client = Client::new(&operator.public_key()).unwrap();
    let mut connection = client.connect(running.at).await.unwrap();
    let first = operator.publish(&policy(1, 10));
    assert_eq!(connection.ask(&token, &report(None)).await.unwrap(), Answer::Policy(first.into()));
    let other = operator.pod("support", "bot-2", "bot", Some(0));
    for held in [(1, 10), (1, 11), (2, 5)] {
        let mut connection = client.connect(running.at).await.unwrap();
        assert!(holds(&mut connection, &other, &report(Some(held))).await, "{held:?}");
    }
    let mut times = Vec::new();
    for serial in 11..31 {
        let asked = tokio::spawn({
            let (mut connection, token) = (connection, token.clone());
            async move { (connection.ask(&token, &report(Some((1, serial - 1)))).await, connection) }
        });
        tokio::time::sleep(Duration::from_millis(150)).await;
        let began = Instant::now();
        let text = operator.publish(&policy(1, serial));
        let (answer, back) = asked.await.unwrap();
        times.push(began.elapsed());
        assert_eq!(answer.unwrap(), Answer::Policy(text.into()));
        connection = back;
    }
    times.sort();
    println!(
        "a changed policy is answered within {:?} (median), {:?} (longest of {})",
        times[times.len() / 2],
        times[times.len() - 1],
        times.len()
    );
    assert!(times[times.len() / 2] < Duration::from_millis(200), "{times:?}");
    assert_eq!(operator.said().reviews, 2, "each token was asked about once");
    let guarded = operator.collected.get("uid-bot-1").expect("it was heard of");
    assert_eq!((guarded.reads, guarded.totals().denials["suspended"]), (3, 2), "21 reports say one thing");
    assert_eq!(guarded.enforced.unwrap().serial, 29);
}

/// As a replica meets it that was gone from DNS, and whose held calls broke.
#[tokio::test]
async fn what_is_said_again_is_not_counted_again() {
    let operator = Operator::new([1; 32]);
    let running = operator.here();
    operator.publish(&policy(1, 10));
    let token = operator.pod("support", "bot-1", "bot", Some(0));
    let client = Client::new(&operator.public_key()).unwrap();
    let usage = |connections| Usage { connections, sent: 20 * connections, received: 300 * connections, ..Usage::default() };
    let said = |life, connections| Report {
        life,
        denials: [("suspended".to_owned(), 2 * connections), ("of_tomorrow".to_owned(), 1)].into(),
        would_deny: [("too_slow".to_owned(), connections)].into(),
        usage: [("orders".to_owned(), usage(connections)), ("not-declared".to_owned(), usage(1))].into(),
        ..report(Some((1, 10)))
    };
    // Each is held until its connection breaks.
    for (life, connections) in [(1, 4), (1, 4), (1, 3), (1, 6)] {
        let mut connection = client.connect(running.at).await.unwrap();
        assert!(holds(&mut connection, &token, &said(life, connections)).await);
    }
    let sums = || operator.collected.sums().remove(&ObjectName::new("support", "bot")).unwrap();
    assert_eq!(sums().usage, [("orders".to_owned(), usage(6)), (OTHER.to_owned(), usage(1))].into());
    assert_eq!((sums().denials, sums().would_deny), ([("suspended", 12), (OTHER, 1)].into(), [("too_slow", 6)].into()));
    // Restarted, with another key.
    operator.pod("support", "bot-1", "bot", Some(1));
    let client = Client::new(&operator.public_key()).unwrap();
    for _ in 0..2 {
        let mut connection = client.connect(running.at).await.unwrap();
        assert!(holds(&mut connection, &token, &said(2, 1)).await);
    }
    assert_eq!(sums().usage["orders"], usage(7));
    assert_eq!(operator.collected.get("uid-bot-1").unwrap().totals().usage["orders"], usage(1), "of its newest life");
}

#[tokio::test]
async fn who_is_believed_and_who_is_answered() {
    let operator = Operator::new([1; 32]);
    let running = operator.here();
    operator.publish(&policy(1, 10));
    // The guard believes one key.
    let other = Client::new(&Operator::new([2; 32]).public_key()).unwrap();
    assert!(matches!(other.connect(running.at).await, Err(ChannelError::Tls(_))), "another's key");

    let token = operator.pod("support", "bot-1", "bot", Some(0));
    let table = [
        (token.clone(), None),
        ("nobodys".to_owned(), Some((401, "TokenRefused"))),
        (operator.pod("elsewhere", "bot-2", "bot", Some(0)), Some((403, "NotEnrolled"))),
        (operator.pod("support", "stray", "other", Some(0)), Some((403, "NotGuarded"))),
        (operator.pod("support", "bare", "bot", None), Some((403, "NotGuarded"))),
        (
            {
                let token = operator.pod("support", "gone", "bot", Some(0));
                operator.said().pods.remove(&ObjectName::new("support", "gone"));
                token
            },
            Some((403, "NotGuarded")),
        ),
        (
            {
                // Another pod of that name by now.
                let token = operator.pod("support", "again", "bot", Some(0));
                operator.said().pods.get_mut(&ObjectName::new("support", "again")).unwrap().uid = "other".into();
                token
            },
            Some((403, "NotGuarded")),
        ),
        (
            {
                let token = operator.pod("support", "audience", "bot", Some(0));
                operator.said().tokens.get_mut(&token).unwrap()["audiences"] = json!(["vault"]);
                token
            },
            Some((401, "TokenRefused")),
        ),
    ];
    for (token, expected) in table {
        let mut connection = connect(&running, &operator).await;
        let answer = connection.ask(&token, &report(None)).await.unwrap();
        match expected {
            None => assert!(matches!(answer, Answer::Policy(_)), "{token}: {answer:?}"),
            Some((status, reason)) => assert_eq!(refusal(answer), (status, reason.to_owned()), "{token}"),
        }
    }
    // A connection is one pod's.
    let mut connection = connect(&running, &operator).await;
    let second = operator.pod("support", "bot-3", "bot", Some(0));
    assert!(matches!(connection.ask(&second, &report(None)).await.unwrap(), Answer::Policy(_)));
    assert_eq!(refusal(connection.ask(&token, &report(None)).await.unwrap()), (403, "TokenRefused".to_owned()));
}

#[tokio::test]
async fn one_key_for_each_pod() {
    let operator = Operator::new([1; 32]);
    let running = operator.here();
    operator.publish(&policy(1, 10));
    let token = operator.pod("support", "bot-1", "bot", Some(0));
    let guard = Client::new(&operator.public_key()).unwrap();
    let thief = Client::new(&operator.public_key()).unwrap();
    let ask = async |client: &Client| client.connect(running.at).await.unwrap().ask(&token, &report(None)).await.unwrap();
    assert!(matches!(ask(&guard).await, Answer::Policy(_)));
    assert_eq!(refusal(ask(&thief).await), (403, "KeyRefused".to_owned()));
    assert_eq!(operator.said().warnings, [("bot".to_owned(), "GuardKeyRefused")]);
    assert!(matches!(ask(&guard).await, Answer::Policy(_)), "the guard is not disturbed");
    // The kubelet says a moment later that the guard was restarted.
    let restarted = Client::new(&operator.public_key()).unwrap();
    let (answer, ()) = tokio::join!(ask(&restarted), async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        operator.pod("support", "bot-1", "bot", Some(1));
    });
    assert!(matches!(answer, Answer::Policy(_)), "{answer:?}");
    assert_eq!(refusal(ask(&guard).await), (403, "KeyRefused".to_owned()), "the key of a process that is gone");
    assert_eq!(operator.said().warnings.len(), 1, "one pod is not warned of again and again");
}

#[tokio::test]
async fn nobody_asks_too_often_or_on_too_many_connections() {
    let operator = Operator::new([1; 32]);
    let running = operator.here();
    operator.publish(&policy(1, 10));
    let token = operator.pod("support", "bot-1", "bot", Some(0));
    let client = Client::new(&operator.public_key()).unwrap();
    let mut connection = client.connect(running.at).await.unwrap();
    let mut refused = None;
    for _ in 0..40 {
        match connection.ask(&token, &report(None)).await.unwrap() {
            Answer::Policy(_) => {}
            other => {
                refused = Some(refusal(other));
                break;
            }
        }
    }
    assert_eq!(refused, Some((429, "TooMany".to_owned())));
    // Tokens that nobody knows are asked about so many times in a second.
    let mut answers = BTreeSet::new();
    let before = operator.said().reviews;
    for n in 0..25 {
        let mut connection = client.connect(running.at).await.unwrap();
        answers.insert(refusal(connection.ask(&format!("made-up-{n}"), &report(None)).await.unwrap()));
    }
    assert_eq!(answers, [(401, "TokenRefused".to_owned()), (429, "TooMany".to_owned())].into());
    assert!(operator.said().reviews - before < 25);
    // Four connections of a pod are enough for as many replicas' worth of addresses.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut open = Vec::new();
    for n in 0..5 {
        let mut connection = client.connect(running.at).await.unwrap();
        match (n, connection.ask(&token, &report(None)).await.unwrap()) {
            (0..4, Answer::Policy(_)) => {}
            (4, other) => assert_eq!(refusal(other), (429, "TooMany".to_owned())),
            (n, other) => panic!("{n}: {other:?}"),
        }
        open.push(connection);
    }
}

#[tokio::test]
async fn a_replica_that_ends_answers_what_it_held_back() {
    let operator = Operator::new([1; 32]);
    let running = operator.here();
    let token = operator.pod("support", "bot-1", "bot", Some(0));
    let mut connection = connect(&running, &operator).await;
    let asked = tokio::spawn(async move { connection.ask(&token, &report(None)).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    tokio::task::spawn_blocking(move || drop(running)).await.unwrap();
    assert_eq!(asked.await.unwrap().unwrap(), Answer::Nothing);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn only_the_operators_own_policies_are_handed_out() {
    let (own, other) = (Signer::from_seed(&[1; 32]), Signer::from_seed(&[2; 32]));
    let text = policy(1, 10).to_string();
    let read = |note: &str| Note::read(note.into(), own.trust());
    assert_eq!(read(&own.sign(&text)).unwrap().edition, Document::read(text.as_bytes()).unwrap().edition());
    for note in [other.sign(&text), text.clone(), own.sign(&text).replace("Enforce", "Observe"), own.sign("{}")] {
        assert_eq!(read(&note), None);
    }
}
