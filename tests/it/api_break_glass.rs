//! An exception for debugging is shown while it lasts, told when it begins and ends, and taken away afterwards. Needs the API tier.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::support::{Api, Operator, OperatorConfig, Outage, Refused, Verb, World, check, eventually, run, workload};

const ANNOTATION: &str = "remit.dev/break-glass";
/// What is promised for its end.
const PROMISED: Duration = Duration::from_secs(2);

/// When an exception that is asked for now will end.
fn in_seconds(seconds: i64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap()
}

fn text(until: Timestamp, by: &str, reason: &str) -> String {
    json!({"until": until, "by": by, "reason": reason}).to_string()
}

async fn annotate(who: &Api, namespace: &str, name: &str, value: Option<&str>) -> Result<Value, Refused> {
    who.patch("AIWorkload", namespace, name, json!({"metadata": {"annotations": {ANNOTATION: value}}})).await
}

fn shown(workload: &Value) -> Option<String> {
    let conditions = workload["status"]["conditions"].as_array()?;
    Some(conditions.iter().find(|c| c["type"] == "BreakGlass")?["message"].as_str()?.to_owned())
}

/// Waits until the status shows this exception.
async fn lasts(world: &World, namespace: &str, name: &str, message: &str) {
    eventually(&format!("{name} shows `{message}`"), || async {
        let found = world.condition(namespace, name, "BreakGlass", "True", "Debugging").await;
        check(found == message, || found)
    })
    .await;
}

/// Waits until nothing of an exception is left.
async fn is_over(world: &World, namespace: &str, name: &str) {
    eventually(&format!("{name} has no exception any more"), || async {
        let workload = world.admin.get("AIWorkload", namespace, name).await.ok_or("it is gone")?;
        check(shown(&workload).is_none(), || workload["status"].to_string())?;
        check(workload["metadata"]["annotations"].get(ANNOTATION).is_none(), || workload["metadata"].to_string())
    })
    .await;
}

/// The Events about exceptions: reason, type, note, how often. Oldest first.
async fn told(world: &World, namespace: &str) -> Vec<(String, String, String, u64)> {
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let mut events = world.admin.list("Event", namespace, "").await;
    events.retain(|event| text(event, "reason").starts_with("BreakGlass"));
    events.sort_by_key(|event| text(event, "eventTime"));
    let row = |e: &Value| (text(e, "reason"), text(e, "type"), text(e, "note"), e["series"]["count"].as_u64().unwrap_or(1));
    events.iter().map(row).collect()
}

fn begun(note: &str) -> (String, String, String, u64) {
    ("BreakGlassBegun".into(), "Warning".into(), note.into(), 1)
}

fn ended(note: &str) -> (String, String, String, u64) {
    ("BreakGlassEnded".into(), "Normal".into(), format!("No longer in force: {note}"), 1)
}

/// Waits until the operator that runs now has looked at the AIWorkload.
async fn looked_at(world: &World, namespace: &str, name: &str, purpose: &str) -> Value {
    world.admin.patch("AIWorkload", namespace, name, json!({"spec": {"purpose": purpose}})).await.expect("another purpose");
    world.is_ready(namespace, name).await;
    world.admin.get("AIWorkload", namespace, name).await.expect("it is there")
}

/// Keeps everybody else from the webhook's port while no operator listens there: the API server goes on asking it.
fn kept(config: &OperatorConfig) -> TcpSocket {
    let port = config.settings["webhook"]["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(([0, 0, 0, 0], port).into()).expect("a free port");
    socket
}

async fn terminate(operator: &Operator) {
    // It gives the lease back.
    operator.terminate(Duration::from_secs(25)).await;
}

#[test]
fn an_exception_is_shown_and_told_and_ends_by_itself() {
    run(async {
        let world = World::new("glass").await;
        let config = world.admission().await;
        let _port = kept(&config);
        let operator = world.operator_with(&world.proxy, config.clone()).await;
        let own = world.namespace("bots").await;
        let dana = world.person("dana", &[(&own, &world.name("remit-break-glass"))]).await;
        world.declare(&own, "bot", "").await;
        world.is_ready(&own, "bot").await;
        eventually("the webhook is asked", || async {
            let answer = annotate(&world.admin, &own, "bot", Some("nonsense")).await;
            annotate(&world.admin, &own, "bot", None).await.map_err(|e| e.to_string())?;
            check(answer.is_err(), || "it is not asked yet".into())
        })
        .await;
        let refused = annotate(&dana, &own, "bot", Some(&text(in_seconds(60), "dana", "it hangs\nsam approved it"))).await.unwrap_err();
        assert!(refused.message.contains("`reason` must be one line of plain text"), "{refused}");

        // It begins, and is extended.
        let (first, longer) = (in_seconds(60), in_seconds(3600));
        annotate(&dana, &own, "bot", Some(&text(first, "dana", "it hangs"))).await.expect("dana may");
        let one = format!("Until {first}, by dana: it hangs");
        lasts(&world, &own, "bot", &one).await;
        assert_eq!(operator.metric("remit_break_glass", &[]).await, Some(1.0));
        annotate(&dana, &own, "bot", Some(&text(longer, "dana", "it hangs still"))).await.expect("dana may");
        let two = format!("Until {longer}, by dana: it hangs still");
        lasts(&world, &own, "bot", &two).await;

        // Another operator shows it as well, and tells it no second time.
        terminate(&operator).await;
        let operator = world.operator_with(&world.proxy, config.clone()).await;
        let seen = looked_at(&world, &own, "bot", "Answers").await;
        assert_eq!(shown(&seen), Some(two.clone()));
        let mut expected = vec![begun(&one), begun(&format!("{two} (in place of: {one})"))];
        assert_eq!(told(&world, &own).await, expected);

        // Whoever began it ends it early.
        annotate(&dana, &own, "bot", None).await.expect("ending needs nothing");
        is_over(&world, &own, "bot").await;
        expected.push(ended(&two));
        assert_eq!(told(&world, &own).await, expected);

        // Or the clock does, through the operator's own webhook. It was not shown for less than it lasted.
        let until = in_seconds(4);
        annotate(&dana, &own, "bot", Some(&text(until, "dana", "once more"))).await.expect("dana may");
        let three = format!("Until {until}, by dana: once more");
        lasts(&world, &own, "bot", &three).await;
        is_over(&world, &own, "bot").await;
        let late = Timestamp::now().duration_since(until);
        println!("the end of an exception was shown {late:?} later");
        assert!(late >= SignedDuration::ZERO && late.unsigned_abs() < PROMISED, "{late:?}");
        expected.extend([begun(&three), ended(&three)]);
        assert_eq!(told(&world, &own).await, expected);
        assert_eq!(operator.metric("remit_break_glass", &[]).await, Some(0.0));

        // While no operator runs.
        let until = in_seconds(4);
        annotate(&dana, &own, "bot", Some(&text(until, "dana", "and again"))).await.expect("dana may");
        let four = format!("Until {until}, by dana: and again");
        lasts(&world, &own, "bot", &four).await;
        terminate(&operator).await;
        eventually("it has ended", || async { check(Timestamp::now() >= until, || "not yet".into()) }).await;
        let left = world.admin.get("AIWorkload", &own, "bot").await.expect("it is there");
        assert_eq!(shown(&left), Some(four.clone()), "nobody was there to take it away");
        let _operator = world.operator_with(&world.proxy, config).await;
        is_over(&world, &own, "bot").await;
        expected.extend([begun(&four), ended(&four)]);
        assert_eq!(told(&world, &own).await, expected);
    });
}

/// An AIWorkload that is made with an exception.
fn excepted(namespace: &str, name: &str, spec: &str, exception: &str) -> Value {
    let mut object = workload(namespace, name, spec);
    object["metadata"]["annotations"] = json!({ANNOTATION: exception});
    object
}

#[test]
fn an_exception_is_shown_however_the_aiworkload_stands() {
    run(async {
        let world = World::new("glasses").await;
        let (own, plain) = (world.namespace("bots").await, world.namespace_with("plain", json!({})).await);
        let operator = world.operator().await;
        let until = in_seconds(600);
        let (exception, message) = (text(until, "dana", "it hangs"), format!("Until {until}, by dana: it hangs"));
        let invalid = "dataSources: [{name: x, type: Kubernetes, kubernetes: {apiGroups: [''], resources: [secrets]}}]";
        world.declare(&own, "older", "").await;
        world.is_ready(&own, "older").await;
        for (namespace, name, spec) in [
            (&own, "observing", "mode: Observe"),
            (&own, "invalid", invalid),
            (&own, "younger", "selector: {matchLabels: {app: older}}"),
            (&own, "going", ""),
            (&own, "kept", "mode: Observe"),
            (&plain, "nowhere", ""),
        ] {
            let mut object = excepted(namespace, name, spec, &exception);
            if name == "kept" {
                object["metadata"]["finalizers"] = json!(["remit.test/kept"]);
            }
            world.admin.apply(object).await.unwrap_or_else(|e| panic!("{name}: {e}"));
            lasts(&world, namespace, name, &message).await;
        }
        world.condition(&own, "invalid", "Accepted", "False", "Invalid").await;
        world.condition(&own, "younger", "Accepted", "False", "Conflict").await;
        world.condition(&plain, "nowhere", "Accepted", "False", "NamespaceNotEnrolled").await;
        // In deletion: held by us, and by somebody else.
        world.is_ready(&own, "going").await;
        world.pod(&own, "going-1", json!({"app": "going"})).await;
        for name in ["going", "kept"] {
            world.admin.delete("AIWorkload", &own, name).await.expect("a deletion");
            lasts(&world, &own, name, &message).await;
        }
        world.condition(&own, "going", "Ready", "False", "Waiting").await;
        // Taken off while nobody looks.
        terminate(&operator).await;
        let all = [(&own, "observing"), (&own, "invalid"), (&own, "younger"), (&own, "going"), (&own, "kept"), (&plain, "nowhere")];
        for (namespace, name) in all {
            annotate(&world.admin, namespace, name, None).await.expect("no webhook here");
        }
        let _operator = world.operator().await;
        for (namespace, name) in all {
            is_over(&world, namespace, name).await;
        }
        let told = [told(&world, &own).await, told(&world, &plain).await].concat();
        assert_eq!(told.iter().filter(|event| **event == begun(&message)).count(), all.len(), "{told:?}");
        assert_eq!(told.iter().filter(|event| **event == ended(&message)).count(), all.len(), "{told:?}");
        let _ = world.admin.patch("AIWorkload", &own, "kept", json!({"metadata": {"finalizers": null}})).await;
    });
}

#[test]
fn what_is_no_exception_is_left_alone() {
    run(async {
        let world = World::new("noglass").await;
        let own = world.namespace("bots").await;
        let _operator = world.operator().await;
        let far = |seconds: i64| text(in_seconds(8 * 3600 + seconds), "dana", "it hangs");
        let (unreadable, too_far) = ("soon".to_owned(), far(3600));
        for (name, exception) in [("unreadable", &unreadable), ("far", &too_far)] {
            world.admin.apply(excepted(&own, name, "", exception)).await.unwrap();
            world.is_ready(&own, name).await;
            let before = world.tally_in(&[&own]);
            let workload = looked_at(&world, &own, name, "Answers").await;
            assert_eq!((shown(&workload), workload["metadata"]["annotations"][ANNOTATION].as_str()), (None, Some(exception.as_str())));
            let patches = |tally: &std::collections::BTreeMap<String, usize>| tally.get("patch aiworkloads").copied();
            assert_eq!(patches(&world.tally_in(&[&own])), patches(&before), "no try to take it away");
        }
        assert_eq!(told(&world, &own).await, []);
        // What admission would honour in a moment is shown from then on, and what was written past admission is shown as plain text.
        let until = in_seconds(8 * 3600 + 3);
        world.admin.apply(excepted(&own, "soon", "", &text(until, "da\nna", "\u{1b}[2K"))).await.unwrap();
        lasts(&world, &own, "soon", &format!("Until {until}, by da�na: �[2K")).await;
        assert!(until.duration_since(Timestamp::now()) <= SignedDuration::from_hours(8));
        assert_eq!(told(&world, &own).await, [begun(&format!("Until {until}, by da�na: �[2K"))]);
    });
}

#[test]
fn a_newer_exception_is_never_taken_away() {
    run(async {
        let world = World::new("newglass").await;
        let own = world.namespace("bots").await;
        let operator = world.operator().await;
        world.declare(&own, "bot", "").await;
        world.is_ready(&own, "bot").await;
        let until = in_seconds(3);
        annotate(&world.admin, &own, "bot", Some(&text(until, "dana", "one"))).await.unwrap();
        lasts(&world, &own, "bot", &format!("Until {until}, by dana: one")).await;
        // Every write of the operator arrives late: the condition's, then the annotation's, before which another exception is asked for.
        world.proxy.set_outage(Outage::LeaseLost { writes: Duration::from_millis(1500) });
        eventually("the condition is gone", || async {
            let workload = world.admin.get("AIWorkload", &own, "bot").await.ok_or("it is gone")?;
            check(shown(&workload).is_none(), || workload["status"].to_string())
        })
        .await;
        let newer = in_seconds(600);
        let asked = annotate(&world.admin, &own, "bot", Some(&text(newer, "sam", "two"))).await.unwrap();
        let late = || world.proxy.seen().into_iter().find(|s| s.resource == "aiworkloads" && s.code == 409);
        eventually("the write that came too late is refused", || async { check(late().is_some(), || "it is not there".into()) }).await;
        world.proxy.set_outage(Outage::None);
        lasts(&world, &own, "bot", &format!("Until {newer}, by sam: two")).await;
        let workload = world.admin.get("AIWorkload", &own, "bot").await.unwrap();
        assert_eq!(workload["metadata"]["annotations"], asked["metadata"]["annotations"]);
        assert!(operator.ended().is_none());
    });
}

#[test]
fn an_exception_ends_in_time_while_all_else_fails() {
    run(async {
        let world = World::new("lateglass").await;
        let own = world.namespace("bots").await;
        let _operator = world.operator().await;
        // Tried again with growing delay: when the exception ends, the next try is seconds away.
        world.proxy.refuse(Some((Verb::Apply, "networkpolicies", 500)));
        let until = in_seconds(11);
        world.admin.apply(excepted(&own, "bot", "", &text(until, "dana", "it hangs"))).await.unwrap();
        lasts(&world, &own, "bot", &format!("Until {until}, by dana: it hangs")).await;
        is_over(&world, &own, "bot").await;
        let late = Timestamp::now().duration_since(until);
        assert!(late >= SignedDuration::ZERO && late.unsigned_abs() < PROMISED, "{late:?}");
    });
}

#[test]
fn an_operator_that_is_killed_has_told_what_it_showed() {
    run(async {
        let world = World::new("killglass").await;
        let own = world.namespace("bots").await;
        let config = OperatorConfig { settings: json!({"lease": {"durationSeconds": 8}}), ..OperatorConfig::default() };
        let operator = world.operator_with(&world.proxy, config.clone()).await;
        world.declare(&own, "bot", "").await;
        world.is_ready(&own, "bot").await;
        // The condition is its only write but for the Event.
        world.proxy.kill_after(1, operator.killer());
        let until = in_seconds(600);
        annotate(&world.admin, &own, "bot", Some(&text(until, "dana", "it hangs"))).await.unwrap();
        eventually("it is killed", || async { check(world.proxy.sprung(), || "it runs".into()) }).await;
        world.proxy.disarm();
        let message = format!("Until {until}, by dana: it hangs");
        let killed = world.admin.get("AIWorkload", &own, "bot").await.unwrap();
        assert_eq!((shown(&killed), told(&world, &own).await), (Some(message.clone()), vec![begun(&message)]));
        let _operator = world.operator_with(&world.proxy, config).await;
        looked_at(&world, &own, "bot", "Answers").await;
        assert_eq!(told(&world, &own).await, [begun(&message)], "told no second time");
    });
}
