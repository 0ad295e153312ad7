//! Whatever fails on the way, the cluster ends as if nothing had, and is at no instant wider than declared. Needs the API tier.
//!
//! Each scenario has a beginning, one act, and an end. It is run once undisturbed, and then with faults: the operator killed after every
//! single write, replies refused or lost, the API server away. Every end must equal the undisturbed one, and every state on the way (all of
//! them, see [`Changes`]) must be within what the beginning or the end permits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    ANY_EGRESS, ANY_INGRESS, Changes, Fault, Operator, OperatorConfig, Outage, Proxy, Reach, Verb, World, check, eventually,
    eventually_within, has_condition, kind, opened, run, state_of,
};

/// The scenarios.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    /// An AIWorkload is declared.
    Create,
    /// Its scope changes: a Role moves to another namespace, the network narrows in one place and widens in another.
    Update,
    /// It is deleted while a pod runs, and then the pod goes.
    Delete,
}

/// One run of a scenario, in namespaces of its own.
struct Run<'a> {
    world: &'a World,
    act: Act,
    own: String,
    shop: String,
    stock: String,
    /// The resource version before the pod was removed; 0: it was not.
    pod_removed: AtomicU64,
}

/// A state on the way, the runs' names replaced.
type End = BTreeMap<String, String>;

impl<'a> Run<'a> {
    /// The beginning. For all but Create an undisturbed operator has made it.
    async fn begin(world: &'a World, act: Act, name: &str) -> Self {
        let (own, shop, stock) = (
            world.namespace(&format!("{name}-bots")).await,
            world.namespace(&format!("{name}-shop")).await,
            world.namespace(&format!("{name}-stock")).await,
        );
        let run = Self { world, act, own, shop, stock, pod_removed: AtomicU64::new(0) };
        let Self { own, shop, stock, .. } = &run;
        let ceiling = format!(
            "unscopedPods: Allow
classes: [Restricted]
services: [{{name: own, services: ['*']}}, {{name: shop, namespace: {shop}, services: ['*']}}]
kubernetes:
- {{name: own, apiGroups: [''], resources: [configmaps], access: Read}}
- {{name: shop, namespace: {shop}, apiGroups: [shop.example.com], resources: [orders], access: ReadWrite}}
- {{name: stock, namespace: {stock}, apiGroups: [shop.example.com], resources: [orders], access: ReadWrite}}"
        );
        world.ceiling(&format!("{name}-wide"), json!({"kubernetes.io/metadata.name": own}), &ceiling).await;
        for (namespace, service) in [(own, "cache"), (shop, "orders"), (shop, "stock")] {
            world.service(namespace, service, 5432, json!(5432)).await;
        }
        if act != Act::Create {
            let operator = world.operator_with(&world.another_proxy().await, OperatorConfig::default()).await;
            world.declare(own, "bot", &run.before()).await;
            world.is_ready(own, "bot").await;
            operator.kill();
            if act == Act::Delete {
                world.pod(own, "bot-1", json!({"app": "bot"})).await;
            }
        }
        run
    }

    fn before(&self) -> String {
        let Self { shop, .. } = self;
        format!(
            "dataSources:
- {{name: cache, type: Service, access: ReadWrite, service: {{name: cache, port: 5432, protocol: TCP}}}}
- {{name: orders, type: Service, access: ReadWrite, service: {{name: orders, namespace: {shop}, port: 5432, protocol: TCP}}}}
- {{name: settings, type: Kubernetes, kubernetes: {{apiGroups: [''], resources: [configmaps]}}}}
- {{name: status, type: Kubernetes, access: ReadWrite, kubernetes: {{apiGroups: [shop.example.com], resources: [orders], namespace: {shop}}}}}
capabilities: {{clients: [{{name: web, podSelector: {{matchLabels: {{app: web}}}}, port: 8080}}]}}"
        )
    }

    fn after(&self) -> String {
        let Self { shop, stock, .. } = self;
        format!(
            "dataSources:
- {{name: orders, type: Service, access: ReadWrite, service: {{name: stock, namespace: {shop}, port: 5432, protocol: TCP}}}}
- {{name: settings, type: Kubernetes, kubernetes: {{apiGroups: [''], resources: [configmaps], resourceNames: [one]}}}}
- {{name: status, type: Kubernetes, kubernetes: {{apiGroups: [shop.example.com], resources: [orders], namespace: {stock}}}}}
capabilities: {{clients: [{{name: web, podSelector: {{matchLabels: {{app: web}}}}, port: 9090}}]}}"
        )
    }

    /// What happens in the cluster.
    async fn act(&self) {
        match self.act {
            Act::Create => _ = self.world.declare(&self.own, "bot", &self.before()).await,
            Act::Update => _ = self.world.declare(&self.own, "bot", &self.after()).await,
            Act::Delete => _ = self.world.admin.delete("AIWorkload", &self.own, "bot").await.expect("deleted"),
        }
    }

    /// Waits for the end. In Delete the pod goes as soon as its workload waits for it.
    async fn end(&self) -> End {
        let Self { world, own, .. } = self;
        if self.act == Act::Delete {
            eventually("it waits for the pod, or is gone", || async {
                let Some(workload) = world.admin.get("AIWorkload", own, "bot").await else { return Ok(()) };
                check(waits_for_a_pod(&workload), || workload["status"].to_string())
            })
            .await;
            self.remove_pod().await;
            eventually("the AIWorkload goes", || async {
                check(world.admin.get("AIWorkload", own, "bot").await.is_none(), || "it is there".into())
            })
            .await;
        } else {
            world.is_ready(own, "bot").await;
        }
        self.state().await
    }

    async fn state(&self) -> End {
        let Self { world, own, shop, stock, .. } = self;
        let prefix = world.name("");
        let names = [(own.as_str(), "OWN"), (shop.as_str(), "SHOP"), (stock.as_str(), "STOCK"), (prefix.as_str(), "WORLD-")];
        state_of(&world.admin, &[own, shop, stock], &names).await
    }

    /// The state becomes what the undisturbed run ended with.
    async fn ends_as(&self, expected: &End, what: &str) {
        self.end().await;
        eventually(&format!("{what}: the end is that of the undisturbed run"), || async {
            let end = self.state().await;
            for (key, value) in expected {
                check(end.get(key) == Some(value), || format!("{key}: {:?} instead of {value}", end.get(key)))?;
            }
            let extra: Vec<&String> = end.keys().filter(|k| !expected.contains_key(*k)).collect();
            check(extra.is_empty(), || format!("{extra:?} would not be there"))
        })
        .await;
    }

    async fn remove_pod(&self) {
        let admin = &self.world.admin;
        if admin.get("Pod", &self.own, "bot-1").await.is_none() {
            return;
        }
        let list = admin.request("GET", &format!("{}?limit=1", kind("Pod").path(&self.own, "")), None, None).await.expect("pods");
        let version = list["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).expect("a version");
        self.pod_removed.store(version, Ordering::Relaxed);
        admin.delete("Pod", &self.own, "bot-1").await.expect("the pod goes");
    }

    /// Every state must be within what the beginning or the end permits.
    async fn never_wider(&self, changes: Changes, what: &str) {
        let states: Vec<(Reach, u64)> = changes.finish(&self.own, &[("app", "bot")], "bot").await;
        let (first, last) = (&states.first().expect("a beginning").0, &states.last().expect("an end").0);
        let mut closed = first.is_closed();
        for (state, _) in &states {
            let beyond = match self.act {
                // At the beginning nothing selects the pods: they are open until the policy is there, and never again.
                Act::Create => {
                    let open = [ANY_EGRESS, ANY_INGRESS].into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
                    let open = Reach { permitted: if closed { BTreeSet::new() } else { open } };
                    state.beyond(&[last, &open]).join(", ")
                }
                Act::Update => state.beyond(&[first, last]).join(", "),
                // At the end the pod is gone, and with it the policy.
                Act::Delete => state.beyond(&[first]).into_iter().filter(|p| !p.ends_with("anything")).collect::<Vec<_>>().join(", "),
            };
            assert!(beyond.is_empty(), "{what}: {:?} permitted for a moment: {beyond}", self.act);
            // What denies comes first and goes last: who is not bounded is granted nothing.
            let granted = state.permitted.iter().any(|p| p.starts_with("may "));
            assert!(state.is_closed() || !granted, "{what}: granted while the network was open: {state:?}");
            closed |= state.is_closed();
        }
        assert!(states.len() > 1, "{what}: the recording saw the change");
        if self.act == Act::Delete {
            let removed = self.pod_removed.load(Ordering::Relaxed);
            let opened = states.iter().position(|(state, _)| !state.is_closed()).expect("the end is open");
            assert!(removed > 0 && states[opened].1 > removed, "{what}: the pod was set free before it was gone");
            let denied = &states[opened - 1].0;
            let nothing = denied.permitted.iter().all(|p| p.contains("\"app.kubernetes.io/component\":\"operator\""));
            assert!(nothing, "{what}: everything (but the guards' way to the operator) was denied before the policy went: {denied:?}");
            // A second try may put the policy there and take it away once more; it permits nothing.
            assert!(
                states[opened..]
                    .iter()
                    .all(|(state, _)| !state.is_closed() || state.permitted.is_empty() || state.permitted == denied.permitted),
                "{what}: {states:?}"
            );
        }
    }
}

/// Where the takeover is what a test is about.
const LEASE: Duration = Duration::from_secs(8);

/// An operator with a lease that soon runs out.
fn short_lease() -> OperatorConfig {
    OperatorConfig { settings: json!({"lease": {"durationSeconds": LEASE.as_secs()}}), ..OperatorConfig::default() }
}

/// What the undisturbed run ends with, and how many writes it takes.
async fn undisturbed(world: &World, act: Act) -> (End, usize) {
    let run = Run::begin(world, act, "calm").await;
    let changes = Changes::record(&world.admin).await;
    let operator = world.operator().await;
    world.proxy.clear();
    run.act().await;
    let end = run.end().await;
    let writes = world.proxy.writes().len();
    run.never_wider(changes, "undisturbed").await;
    operator.kill();
    (end, writes)
}

fn waits_for_a_pod(workload: &Value) -> bool {
    workload["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["reason"] == "Waiting")
}

/// kill -9 after the first, the second, … write, until a run completes before that write comes.
async fn killed_after_every_write(act: Act) {
    let world = World::new(&format!("kill{act:?}").to_lowercase()).await;
    let (expected, writes) = undisturbed(&world, act).await;
    let mut k = 1;
    loop {
        let run = Run::begin(&world, act, &format!("k{k}")).await;
        let changes = Changes::record(&world.admin).await;
        let operator = world.operator().await;
        world.proxy.kill_after(k, operator.killer());
        run.act().await;
        // Until it is dead, or done without reaching the k-th write.
        eventually("the operator dies or is done", || async {
            let workload = world.admin.get("AIWorkload", &run.own, "bot").await;
            let done = match act {
                Act::Create | Act::Update => workload.is_some_and(|w| has_condition(&w, "Ready", "True", "").is_ok()),
                Act::Delete => {
                    if workload.as_ref().is_some_and(waits_for_a_pod) {
                        run.remove_pod().await;
                    }
                    workload.is_none()
                }
            };
            check(done || operator.ended().is_some(), || "neither".into())
        })
        .await;
        // The last write is seen before its answer has been received.
        let died =
            tokio::time::timeout(Duration::from_secs(1), eventually("it dies", || async { check(world.proxy.sprung(), || "no".into()) }))
                .await
                .is_ok();
        world.proxy.disarm();
        let again = if died { Some(world.operator().await) } else { None };
        let what = format!("{act:?}, killed after write {k} of {writes}");
        run.ends_as(&expected, &what).await;
        run.never_wider(changes, &what).await;
        drop(again);
        if !died {
            break;
        }
        k += 1;
    }
    println!("{act:?}: {writes} writes; killed after each of {}, every end equal, nothing wider", k - 1);
    assert!(k > writes, "{act:?}: only {} kills for {writes} writes", k - 1);
}

#[test]
fn killed_after_every_write_of_a_creation() {
    run(killed_after_every_write(Act::Create));
}

#[test]
fn killed_after_every_write_of_an_update() {
    run(killed_after_every_write(Act::Update));
}

#[test]
fn killed_after_every_write_of_a_deletion() {
    run(killed_after_every_write(Act::Delete));
}

/// One fault on the first attempt of every write.
async fn first_attempts_fail(fault: Fault) {
    let world = World::new(&format!("{fault:?}").to_lowercase()).await;
    for act in [Act::Create, Act::Update, Act::Delete] {
        let calm = Run::begin(&world, act, &format!("{act:?}calm").to_lowercase()).await;
        let operator = world.operator().await;
        calm.act().await;
        let expected = calm.end().await;
        drop(operator);

        let run = Run::begin(&world, act, &format!("{act:?}hard").to_lowercase()).await;
        let operator = world.operator().await;
        let changes = Changes::record(&world.admin).await;
        world.proxy.clear();
        world.proxy.fail_first(Some(fault));
        run.act().await;
        let what = format!("{act:?} with {fault:?} on every first write");
        run.ends_as(&expected, &what).await;
        world.proxy.fail_first(None);
        run.never_wider(changes, &what).await;
        let failed = world.proxy.seen().iter().filter(|s| s.is_write() && s.code >= 400).count();
        assert!(failed > 2 || fault == Fault::ReplyLost, "{what}: {failed} writes failed");
        assert!(operator.ended().is_none(), "{what}: the operator goes on");
    }
}

#[test]
fn conflicts_on_every_first_write_change_nothing_about_the_end() {
    run(first_attempts_fail(Fault::Conflict));
}

#[test]
fn too_many_requests_on_every_first_write_change_nothing_about_the_end() {
    run(first_attempts_fail(Fault::TooManyRequests));
}

#[test]
fn internal_errors_on_every_first_write_change_nothing_about_the_end() {
    run(first_attempts_fail(Fault::InternalError));
}

#[test]
fn replies_lost_after_every_first_write_change_nothing_about_the_end() {
    run(first_attempts_fail(Fault::ReplyLost));
}

#[test]
fn after_a_minute_without_the_api_server_nothing_is_lost() {
    run(async {
        let world = World::new("outage").await;
        let own = world.namespace("bots").await;
        world.service(&own, "db", 5432, json!(5432)).await;
        let spec = "dataSources: [{name: db, type: Service, access: ReadWrite, service: {name: db, port: 5432, protocol: TCP}}]";
        world.declare(&own, "stays", spec).await;
        world.declare(&own, "edited", spec).await;
        world.declare(&own, "goes", spec).await;
        // As in a Deployment: a container that ends is started again.
        let mut operator = world.operator().await;
        for name in ["stays", "edited", "goes"] {
            world.is_ready(&own, name).await;
        }
        world.proxy.set_outage(Outage::Refuses);
        let began = Instant::now();
        // What happens meanwhile, directly at the API server.
        world.service(&own, "db", 5432, json!(6543)).await;
        world.declare(&own, "edited", "suspend: true").await;
        world.declare(&own, "new", spec).await;
        world.admin.delete("AIWorkload", &own, "goes").await.unwrap();
        let open = json!([{"op": "add", "path": "/spec/egress", "value": [{}]}]);
        world.admin.patch("NetworkPolicy", &own, "remit-stays", open).await.unwrap();
        let mut restarts = 0;
        while began.elapsed() < Duration::from_secs(60) {
            if operator.ended().is_some() {
                restarts += 1;
                operator = world.start(&world.proxy, &OperatorConfig::default());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        world.proxy.set_outage(Outage::None);
        let back = Instant::now();
        let ((), _) = eventually_within(Duration::from_secs(60), "everything is followed", || async {
            if operator.ended().is_some() {
                return Err("it ended".into());
            }
            for name in ["stays", "new"] {
                let policy = world.policy(&own, name).await.ok_or("no policy yet")?;
                check(opened(&policy).iter().any(|rule| rule["ports"][0]["port"] == 6543), || format!("{name}: {policy}"))?;
            }
            let policy = world.policy(&own, "edited").await.ok_or("no policy")?;
            check(opened(&policy).is_empty(), || format!("edited: {policy}"))?;
            check(world.admin.get("AIWorkload", &own, "goes").await.is_none(), || "goes is there".into())?;
            check(world.generated(&own, "goes").await.is_empty(), || "goes has objects".into())
        })
        .await;
        for name in ["stays", "edited", "new"] {
            world.is_ready(&own, name).await;
        }
        println!("after 60 s without the API server ({restarts} restarts) everything was as declared {:?} later", back.elapsed());
    });
}

#[test]
fn requests_that_are_never_answered_do_not_keep_it_from_starting() {
    run(async {
        let world = World::new("swallow").await;
        let own = world.namespace("bots").await;
        world.proxy.set_outage(Outage::Swallows);
        let operator = world.start(&world.proxy, &OperatorConfig::default());
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.proxy.set_outage(Outage::None);
        let began = Instant::now();
        world.declare(&own, "bot", "").await;
        eventually_within(Duration::from_secs(90), "the AIWorkload is held", || async {
            let workload = world.admin.get("AIWorkload", &own, "bot").await.ok_or("gone")?;
            has_condition(&workload, "Ready", "True", "")
        })
        .await;
        println!("requests of the first 3 s never answered: working {:?} later", began.elapsed());
        assert!(operator.ended().is_none());
    });
}

#[test]
fn a_selector_that_the_api_server_cannot_read_does_not_hold_a_deletion_for_ever() {
    run(async {
        let world = World::new("unreadable").await;
        let own = world.namespace("bots").await;
        let _operator = world.operator().await;
        world.declare(&own, "bot", "").await;
        world.is_ready(&own, "bot").await;
        world.pod(&own, "bot-1", json!({"app": "bot"})).await;
        // Nobody can declare one: what our validation accepts, this API server reads. Another one may read less.
        world.proxy.refuse(Some((Verb::List, "pods", 400)));
        world.admin.delete("AIWorkload", &own, "bot").await.unwrap();
        eventually("the AIWorkload goes", || async {
            check(world.admin.get("AIWorkload", &own, "bot").await.is_none(), || "it is there".into())
        })
        .await;
        assert_eq!(world.generated(&own, "bot").await, [""; 0]);
    });
}

/// Who holds the lease.
async fn leader(world: &World) -> Result<String, String> {
    let lease = world.admin.get("Lease", &world.system(), "remit-operator").await.ok_or("no lease")?;
    lease["spec"]["holderIdentity"].as_str().filter(|h| !h.is_empty()).map(str::to_owned).ok_or_else(|| "nobody".to_owned())
}

/// Two operators, each behind a proxy of its own, the first of them leading.
async fn two(world: &World) -> [(Proxy, Operator); 2] {
    let named = |name: &str| OperatorConfig { name: name.to_owned(), ..short_lease() };
    let first = world.operator_with(&world.proxy, named("first")).await;
    eventually("the first leads", || async { check(leader(world).await? == "first", || "not yet".into()) }).await;
    let proxy = world.another_proxy().await;
    let second = world.operator_with(&proxy, named("second")).await;
    [(world.proxy.clone(), first), (proxy, second)]
}

#[test]
fn of_two_operators_only_the_leader_writes_and_the_other_takes_over() {
    run(async {
        let world = World::new("pair").await;
        let own = world.namespace("bots").await;
        let [(_, first), (proxy, second)] = two(&world).await;
        world.declare(&own, "one", "").await;
        world.is_ready(&own, "one").await;
        let by_others: Vec<_> = proxy.writes().into_iter().filter(|w| w.namespace == own).collect();
        assert!(by_others.is_empty(), "the second only watches: {by_others:?}");

        first.kill();
        let killed = Instant::now();
        world.declare(&own, "two", "").await;
        world.is_ready(&own, "two").await;
        println!("after kill -9 of the leader (lease 8 s) the other had applied a new AIWorkload {:?} later", killed.elapsed());
        assert_eq!(leader(&world).await.unwrap(), "second");
        assert!(proxy.writes().iter().any(|w| w.namespace == own));

        // The first comes back and waits.
        world.proxy.clear();
        let first = world.operator_with(&world.proxy, OperatorConfig { name: "first".to_owned(), ..short_lease() }).await;
        world.declare(&own, "three", "").await;
        world.is_ready(&own, "three").await;
        let by_first: Vec<_> = world.proxy.writes().into_iter().filter(|w| w.namespace == own).collect();
        assert!(by_first.is_empty(), "{by_first:?}");

        // SIGTERM lets go of the lease: the other takes over sooner than it would run out.
        let (status, took) = second.terminate(Duration::from_secs(20)).await;
        assert!(status.success(), "{status}");
        let ((), waited) =
            eventually("the first leads again", || async { check(leader(&world).await? == "first", || "not yet".into()) }).await;
        println!("SIGTERM ended the leader after {took:?}; the other led {waited:?} later");
        world.declare(&own, "four", "").await;
        world.is_ready(&own, "four").await;
        drop(first);
    });
}

#[test]
fn a_leader_that_lost_its_lease_writes_no_more() {
    run(async {
        let world = World::new("stale").await;
        let own = world.namespace("bots").await;
        let [(first_proxy, first), (second_proxy, _second)] = two(&world).await;
        // The leader hangs: its requests neither pass nor fail. Meanwhile the other takes over.
        first_proxy.set_outage(Outage::Hangs);
        world.declare(&own, "one", "").await;
        eventually("the other leads", || async { check(leader(&world).await? == "second", || "not yet".into()) }).await;
        world.is_ready(&own, "one").await;
        first_proxy.clear();
        second_proxy.clear();
        first_proxy.set_outage(Outage::None);
        eventually("the former leader has ended, or leads no more", || async {
            if first.ended().is_some() {
                return Ok(());
            }
            check(first.metric("remit_leader", &[]).await == Some(0.0), || "it believes to lead".into())
        })
        .await;
        world.declare(&own, "two", "").await;
        world.is_ready(&own, "two").await;
        let late: Vec<_> = first_proxy.writes().into_iter().filter(|w| w.namespace == own).collect();
        assert!(late.is_empty(), "a former leader wrote: {late:?}");
    });
}

#[test]
fn no_write_of_a_leader_arrives_after_its_lease_ran_out() {
    run(async {
        let world = World::new("late").await;
        let own = world.namespace("bots").await;
        let bots: Vec<String> = (0..6).map(|n| format!("bot-{n}")).collect();
        let declare = async |bot: &str, port: usize| {
            world.declare(&own, bot, &format!("capabilities: {{clients: [{{name: web, podSelector: {{}}, port: {port}}}]}}")).await;
        };
        let [(first_proxy, first), (_, _second)] = two(&world).await;
        for bot in &bots {
            declare(bot, 8000).await;
            world.is_ready(&own, bot).await;
        }
        first_proxy.clear();
        // It cannot renew, but sees and writes; each write is under way for nearly as long as it may be (a third of the lease). Many at
        // once, so that some are under way at any time.
        first_proxy.set_outage(Outage::LeaseLost { writes: LEASE / 3 - Duration::from_millis(300) });
        // The last renewal was sent before this.
        let ends = Instant::now() + LEASE;
        let mut round = 0;
        while leader(&world).await.is_ok_and(|holder| holder == "first") {
            round += 1;
            declare(&bots[round % bots.len()], 8000 + round).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let taken = Instant::now();
        for bot in &bots {
            world.is_ready(&own, bot).await;
        }
        eventually("the former leader ends", || async { first.ended().ok_or_else(|| "it runs".to_owned()) }).await;
        let writes: Vec<_> = first_proxy.writes().into_iter().filter(|w| w.namespace == own).collect();
        let late = writes.iter().filter(|w| w.at > ends.min(taken)).count();
        println!("a leader that cannot renew: {} writes, {late} of them after its lease had run out", writes.len());
        assert!(!writes.is_empty(), "it wrote at first");
        assert_eq!(late, 0, "{writes:?}");
    });
}

#[test]
fn one_sigterm_ends_it_also_when_the_api_server_is_away() {
    run(async {
        for (short, outage) in [("termok", Outage::None), ("termrefused", Outage::Refuses), ("termhangs", Outage::Hangs)] {
            let world = World::new(short).await;
            let own = world.namespace("bots").await;
            let config =
                OperatorConfig { settings: json!({"shutdownSeconds": 8, "lease": {"durationSeconds": 15}}), ..OperatorConfig::default() };
            let operator = world.operator_with(&world.proxy, config).await;
            world.declare(&own, "bot", "").await;
            world.is_ready(&own, "bot").await;
            world.proxy.set_outage(outage);
            let (status, took) = operator.terminate(Duration::from_secs(12)).await;
            println!("SIGTERM, API server {outage:?}: ended after {took:?}, {status}");
            assert!(took < Duration::from_secs(8), "{outage:?}: {took:?}");
            if outage == Outage::None {
                assert!(status.success(), "{status}");
                assert!(leader(&world).await.is_err(), "the lease is released");
            }
            world.proxy.set_outage(Outage::None);
        }
    });
}
