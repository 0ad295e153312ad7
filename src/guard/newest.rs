//! Tasks for clients, so many at once: one more ends the oldest, so that clients which only wait keep nobody out.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::task::AbortHandle;

pub struct Newest {
    most: usize,
    tasks: Mutex<VecDeque<AbortHandle>>,
}

impl Newest {
    pub fn new(most: usize) -> Self {
        Self { most, tasks: Mutex::default() }
    }

    pub async fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        {
            let mut tasks = self.tasks.lock().unwrap_or_else(|e| e.into_inner());
            tasks.retain(|task| !task.is_finished());
            while tasks.len() >= self.most {
                tasks.pop_front().inspect(AbortHandle::abort);
            }
            tasks.push_back(tokio::spawn(task).abort_handle());
        }
        // What was ended closes its files before there are more.
        tokio::task::yield_now().await;
    }
}
