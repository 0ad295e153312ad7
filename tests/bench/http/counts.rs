//! What is counted instead of timed: writes by strace, and the instructions of user space by stepping through them one by one.
//!
//! Stepping works where there is no counter of the processor (in most virtual machines), and on the guard as it is: callgrind knows neither
//! of its fences and cannot run it. An instruction that repeats itself, as for a copy of memory, counts once.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::libc::user_regs_struct;
use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::load::{self, Way, What};
use super::peer::Peer;
use super::upstream::{ARTICLES, BURSTS, EVENTS};

pub const OF_1_KB: &str = "1 KB: thousand instructions per request";
pub const OF_32_KB: &str = "32 KB: thousand instructions per request";
pub const OF_AN_EVENT: &str = "stream: thousand instructions per event";

/// How many requests, and how many parts of each. Who is stepped through is slow: the bursts of a stream stay apart.
const KINDS: [(&str, What, usize, usize); 3] = [
    (OF_1_KB, What::Bytes(1 << 10), 10, 1),
    (OF_32_KB, What::Bytes(32 << 10), 5, 1),
    (OF_AN_EVENT, What::Events { pause: Duration::from_millis(300) }, 1, BURSTS * EVENTS),
];
const WARM: usize = 50;
const STREAMS: usize = 10;

/// For each stream, whatever they are for: one is that of the request.
pub fn writes(peer: &Peer) -> io::Result<Option<f64>> {
    let Some(id) = peer.id() else { return Ok(None) };
    let file = peer.path("writes");
    load::with(peer, Way::Service, What::EVENTS, 1, |load| {
        let mut strace = Command::new("strace")
            .args(["-f", "-c", "-U", "calls,name", "-e", "trace=write,writev,sendto,sendmsg,sendfile,splice", "-o", &file])
            .args(["-p", &id.to_string()])
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(300));
        let asked = load.ask(STREAMS);
        kill(pid(strace.id()), Signal::SIGINT)?;
        strace.wait()?;
        asked?;
        let text = std::fs::read_to_string(&file)?;
        let total = text.lines().find(|line| line.ends_with(" total")).and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(Some(total.unwrap_or_default() / STREAMS as f64))
    })?
}

/// Of the thread that does the work.
pub fn instructions(peer: &Peer) -> io::Result<Vec<(&'static str, f64)>> {
    let mut all = Vec::new();
    if peer.id().is_none() {
        return Ok(all);
    }
    for (name, what, requests, parts) in KINDS {
        let steps = load::with(peer, Way::Service, what, 1, |load| {
            let before: BTreeMap<u32, Duration> = peer.threads().collect();
            load::with(peer, Way::Service, What::Bytes(1), 1, |load| load.ask(WARM))??;
            let since = |(id, cpu): &(u32, Duration)| cpu.saturating_sub(before.get(id).copied().unwrap_or_default());
            let (worker, _) = peer.threads().max_by_key(since).ok_or(io::ErrorKind::NotFound)?;
            steps(pid(worker), || load.ask(requests).map(drop))
        })??;
        all.push((name, steps as f64 / (requests * parts) as f64 / 1e3));
    }
    Ok(all)
}

/// How many steps this thread takes for it, and for clearing up after it.
fn steps(thread: Pid, act: impl FnOnce() -> io::Result<()>) -> io::Result<u64> {
    let done = AtomicBool::new(false);
    // Both on one core: whoever is stepped through and whoever steps wake each other at every instruction.
    let (theirs, ours) = (sched_getaffinity(thread)?, sched_getaffinity(Pid::from_raw(0))?);
    sched_setaffinity(thread, &ours)?;
    let counted = std::thread::scope(|scope| {
        let counting = scope.spawn(|| count(thread, &done));
        std::thread::sleep(Duration::from_millis(50));
        let acted = act();
        std::thread::sleep(Duration::from_millis(200));
        done.store(true, Ordering::Relaxed);
        // Something to do, so that it is there to be let go.
        drop(TcpStream::connect((ARTICLES.address, ARTICLES.port)));
        let counted = counting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        acted.and(Ok(counted?))
    });
    sched_setaffinity(thread, &theirs)?;
    counted
}

fn count(thread: Pid, done: &AtomicBool) -> nix::Result<u64> {
    ptrace::seize(thread, Options::empty())?;
    ptrace::interrupt(thread)?;
    let (mut steps, mut last) = (0, 0);
    loop {
        let stopped = waitpid(thread, Some(WaitPidFlag::__WALL))?;
        if done.load(Ordering::Relaxed) {
            ptrace::detach(thread, None)?;
            return Ok(steps);
        }
        match stopped {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                let now = address(&ptrace::getregs(thread)?);
                steps += u64::from(now != last);
                last = now;
                ptrace::step(thread, None)?;
            }
            // Interrupted.
            WaitStatus::PtraceEvent(..) => ptrace::step(thread, None)?,
            WaitStatus::Stopped(_, signal) => ptrace::step(thread, signal)?,
            _ => return Err(nix::Error::ESRCH),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn address(registers: &user_regs_struct) -> u64 {
    registers.rip
}

#[cfg(target_arch = "aarch64")]
fn address(registers: &user_regs_struct) -> u64 {
    registers.pc
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).expect("an id of Linux"))
}
