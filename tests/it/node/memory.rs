//! A guard that runs out of memory: the kernel ends it, and while it is away its pod reaches nothing.

use std::time::Duration;

use super::guard::{Setting, guard_pid};
use super::{eventually, installed};

/// Leaves the container of this process half a MiB more than it has.
const TIGHTEN: &str = r#"
set -e
if [ -d /sys/fs/cgroup/memory ]; then
  dir=/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' "/proc/$0/cgroup")
  echo $(($(cat "$dir/memory.usage_in_bytes") + 524288)) >"$dir/memory.limit_in_bytes"
else
  dir=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$0/cgroup")
  echo $(($(cat "$dir/memory.current") + 524288)) >"$dir/memory.max"
fi"#;

#[test]
fn a_guard_that_runs_out_of_memory_lets_nothing_pass_and_comes_back() {
    let (cluster, _installed) = installed();
    let setting = Setting::with_bot("memory");
    let (ns, all) = (&setting.support.name, [setting.forbidden(), setting.declared()].concat());
    let guard = || cluster.json(&["get", "pod", "-n", ns, "bot"])["status"]["initContainerStatuses"][1].take();
    let orders = format!("orders.{}.svc.cluster.local:5432", setting.shop.name);
    cluster.ok("cluster.sh", &["counts", "reset"]);
    // The second time the kubelet waits before it starts the guard again: long enough to try everything.
    for ended in 1..=2 {
        let pid = guard_pid(cluster, ns, "bot").expect("the guard runs");
        cluster.ok("cluster.sh", &["exec", "bash", "-c", TIGHTEN, &pid]);
        cluster.kubectl(&["exec", "-n", ns, "bot", "--", "probe", "hold", "--count=2000", "--say=hold", "--for=3s", &orders]);
        eventually("the kernel ended it for its memory", Duration::from_secs(20), || {
            let guard = guard();
            let last = [&guard["lastState"], &guard["state"]].map(|state| state["terminated"]["reason"] == "OOMKilled");
            (last.contains(&true) && guard["restartCount"].as_i64() >= Some(ended - 1)).then_some(())
        });
        if ended == 1 {
            eventually("it is back", Duration::from_secs(60), || {
                (cluster.reached(ns, "bot", &setting.declared()) == setting.declared()).then_some(())
            });
        }
    }
    eventually("it waits to be started", Duration::from_secs(20), || guard()["state"]["waiting"].is_object().then_some(()));
    assert_eq!(cluster.reached(ns, "bot", &all), Vec::<String>::new(), "away");
    assert!(guard()["state"]["waiting"].is_object(), "it was away all the time");
    eventually("it is back again", Duration::from_secs(60), || {
        (cluster.reached(ns, "bot", &setting.declared()) == setting.declared()).then_some(())
    });
    assert_eq!(cluster.reached(ns, "bot", &all), setting.declared());
    assert_eq!(setting.strayed("bot"), vec![]);
}
