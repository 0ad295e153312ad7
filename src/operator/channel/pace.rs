//! How often somebody may ask: one call each [`EVERY`], and [`BURST`] at once after a rest.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(super) const EVERY: Duration = Duration::from_millis(100);
pub(super) const BURST: u32 = 10;
/// So many are remembered; whoever rests is forgotten first.
const MOST: usize = 16 * 1024;

pub(super) struct Pace<K> {
    /// When each will have rested.
    rested: Mutex<HashMap<K, Instant>>,
}

impl<K> Default for Pace<K> {
    fn default() -> Self {
        Self { rested: Mutex::default() }
    }
}

impl<K: Eq + Hash> Pace<K> {
    /// Whether it may ask now; if so, it counts.
    pub fn take(&self, key: K, now: Instant) -> bool {
        let mut rested = self.rested.lock().unwrap_or_else(PoisonError::into_inner);
        if rested.len() >= MOST {
            rested.retain(|_, at| *at > now);
        }
        let full = rested.len() >= MOST;
        let known = rested.get(&key).copied();
        if known.is_none() && full {
            return false;
        }
        let next = known.unwrap_or(now).max(now) + EVERY;
        let may = next <= now + EVERY * BURST;
        if may {
            rested.insert(key, next);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_after_the_other() {
        let (pace, start) = (Pace::default(), Instant::now());
        let at = |millis: u64| start + Duration::from_millis(millis);
        let burst = (0..20).filter(|_| pace.take("a", at(0))).count();
        assert_eq!(burst, BURST as usize);
        assert!(pace.take("b", at(0)), "others are not concerned");
        assert!(!pace.take("a", at(99)) && pace.take("a", at(100)) && !pace.take("a", at(150)));
        assert_eq!((0..20).filter(|_| pace.take("a", at(60_000))).count(), BURST as usize);
    }

    #[test]
    fn it_remembers_so_many() {
        let (pace, start) = (Pace::default(), Instant::now());
        assert!((0..MOST).all(|n| pace.take(n, start)));
        assert!(!pace.take(MOST, start), "no room");
        assert!(pace.take(MOST, start + EVERY * 2), "those who rest are forgotten");
    }
}
