//! Holds the newest valid policy of the file. A bad one is refused and the last good one stays; one that is gone as well.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::record::Records;
use crate::policy::{Document, GuardPolicy};

/// How often the file is looked at. (The kubelet swaps a whole directory; there is nothing to be told by.)
const EVERY: Duration = Duration::from_millis(500);

pub async fn keep(file: PathBuf, held: watch::Sender<Option<Arc<GuardPolicy>>>, records: Arc<Records>) {
    let mut seen: Option<Vec<u8>> = None;
    let mut trouble: Option<String> = None;
    loop {
        // Without a thread of its own: the file is small and in memory, and the guard may start none.
        let next = match std::fs::read(&file) {
            Ok(bytes) if seen.as_ref() == Some(&bytes) => None,
            Ok(bytes) => {
                let read = Document::read(&bytes).and_then(GuardPolicy::try_from).map_err(|e| e.to_string());
                seen = Some(bytes);
                Some(read)
            }
            Err(error) => Some(Err(format!("{}: {error}", file.display()))),
        };
        let now = held.borrow().clone();
        let refused = match next {
            None => None,
            Some(Err(error)) => Some(error),
            Some(Ok(next)) => match now {
                Some(now) if !now.may_become(&next) => Some(format!(
                    "generation {} of {}/{} is older than the one that holds ({}), or of another AIWorkload",
                    next.generation, next.workload.namespace, next.workload.name, now.generation
                )),
                _ => {
                    records.policy(&next);
                    held.send_replace(Some(Arc::new(next)));
                    trouble = None;
                    None
                }
            },
        };
        // Each trouble is said once, however often it is met.
        if let Some(refused) = refused
            && trouble.as_ref() != Some(&refused)
        {
            records.trouble("policy", &refused);
            trouble = Some(refused);
        }
        if held.is_closed() {
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}
