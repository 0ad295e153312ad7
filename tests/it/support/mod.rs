//! What the tests of the API tier stand on: the real API server, the real operator beside it, and a proxy between them.
//!
//! A test opens a [`World`]: namespaces of its own, a proxy that shows an operator nothing but those, and operators that are started
//! and killed at will. So tests run side by side on one API server, and each sees exactly what its own operator writes.
//! Nothing here sleeps for a fixed time: whatever takes a while is waited for with [`eventually`].

mod api;
mod changes;
mod operator;
mod proxy;
mod state;
mod world;

pub use api::{Api, Refused, kind};
pub use changes::{ANY_EGRESS, ANY_INGRESS, Changes, Reach};
pub use operator::{Operator, OperatorConfig, http_get};
pub use proxy::{Fault, Outage, Proxy, Verb};
pub use state::state_of;
pub use world::{World, has_condition, opened, workload};

use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

/// One runtime for all tests of the process: clients, proxies and recorders outlive the test that first needed them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime"));

/// Runs a test.
pub fn run(test: impl Future<Output = ()>) {
    run_within(Duration::from_secs(300), test);
}

/// Runs a long one.
pub fn run_within(limit: Duration, test: impl Future<Output = ()>) {
    RUNTIME.block_on(async {
        assert!(tokio::time::timeout(limit, test).await.is_ok(), "the test does not end within {limit:?}");
    });
}

/// How long anything may take that should happen soon. Generous, because the machine may be busy; what is promised within a time
/// is measured by the test itself.
pub const SOON: Duration = Duration::from_secs(30);

/// Polls until the condition yields a value, and says how long that took. Panics with `what` and the last complaint after [`SOON`].
pub async fn eventually<T, F: Future<Output = Result<T, String>>>(what: &str, condition: impl FnMut() -> F) -> (T, Duration) {
    eventually_within(SOON, what, condition).await
}

/// [`eventually`] with another deadline.
pub async fn eventually_within<T, F: Future<Output = Result<T, String>>>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) -> (T, Duration) {
    let began = Instant::now();
    loop {
        let complaint = match condition().await {
            Ok(value) => return (value, began.elapsed()),
            Err(complaint) => complaint,
        };
        assert!(began.elapsed() < deadline, "{what}: not within {deadline:?}; last seen: {complaint}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Watches a condition for a while: it must hold at every look.
pub async fn always<F: Future<Output = Result<(), String>>>(period: Duration, what: &str, mut condition: impl FnMut() -> F) {
    let began = Instant::now();
    while began.elapsed() < period {
        if let Err(complaint) = condition().await {
            panic!("{what}: broken after {:?}: {complaint}", began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `Ok` if true, else the complaint.
pub fn check(holds: bool, complaint: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(complaint()) }
}
