//! The guard for half an hour (`make soak`): at half of what it can carry, while upstreams are restarted every few seconds and clients break
//! off. Needs root.
//!
//! Fails where a client met an error that it did not deserve, or waited for ever, and where memory or descriptors grew. Deserved is an error
//! of a request that was under way while its upstream was away: 502, 503 and 504, or an answer that is seen to be broken off. Never deserved
//! is another status, a body that seems whole and is not, or no connection to the guard.
//!
//! What comes first: 10 GB through one connection, and some seconds without pauses, which say how much the half is. Client and
//! servers are those of `bench-http`.

#[path = "../beside/mod.rs"]
#[allow(dead_code, reason = "the benches need more of it")]
mod beside;
#[path = "../http/load.rs"]
#[allow(dead_code, reason = "the bench needs more of it")]
mod load;
#[path = "../http/peer.rs"]
#[allow(dead_code, reason = "the bench needs more of it")]
mod peer;
#[path = "../http/upstream.rs"]
#[allow(dead_code, reason = "the bench needs more of it")]
mod upstream;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use beside::pod::Pod;
use beside::world::{World, inside, listen};
use beside::{megabytes, millis};
use load::{Answered, One, Two, Way, What};
use peer::Peer;
use upstream::{ARTICLES, Certificates, HELP, LEDGER, Server};

/// Who waits longer hangs: the longest answer takes half a second. Shorter than from one restart of an upstream to the next, which would end it.
const HANG: Duration = Duration::from_secs(6);
/// How long the load without pauses is counted.
const CALIBRATION: Duration = Duration::from_secs(10);
/// One upstream after the other is restarted as often.
const RESTART: Duration = Duration::from_secs(3);
/// And is away for as long: not at all, so that only old connections are lost, or so that it is missed.
const AWAY: [Duration; 3] = [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(1)];
/// What may be resident more at the end than after the warm-up: the allocator's pages come and go, and a byte kept of each request would be more.
const GROWTH: u64 = 4 << 20;
/// What a transfer may need while it lasts: 64 KB are read at once, and a window of HTTP/2 is 64 KB for a stream.
const TRANSFER: u64 = 2 << 20;
/// How many descriptors may be more: places of clients that were just breaking off.
const MORE_DESCRIPTORS: usize = 16;
/// Of a kind of error and a lane, with when it was.
const MOST_SAID: usize = 5;

/// Some clients, each with one request at a time.
struct Lane {
    name: &'static str,
    way: Way,
    what: What,
    at_once: usize,
    /// They leave in the midst of the answer.
    leave: bool,
}

const fn lane(name: &'static str, way: Way, what: What, at_once: usize) -> Lane {
    Lane { name, way, what, at_once, leave: false }
}

const fn leaving(name: &'static str, way: Way, what: What, at_once: usize) -> Lane {
    Lane { name, way, what, at_once, leave: true }
}

const KB: What = What::Bytes(1 << 10);
const KB_32: What = What::Bytes(32 << 10);
const MB: What = What::Bytes(1 << 20);
const POST: What = What::Sent { size: 32 << 10, chunked: false };
const POST_CHUNKS: What = What::Sent { size: 32 << 10, chunked: true };
const EVENTS: What = What::Events { pause: Duration::from_millis(50) };

const LANES: [Lane; 15] = [
    lane("1 KB", Way::Service, KB, 16),
    lane("32 KB", Way::Service, KB_32, 8),
    lane("POST of 32 KB", Way::Service, POST, 4),
    lane("POST of 32 KB in chunks", Way::Service, POST_CHUNKS, 4),
    lane("events", Way::Service, EVENTS, 16),
    leaving("1 MB, left", Way::Service, MB, 4),
    leaving("events, left", Way::Service, EVENTS, 4),
    lane("1 KB, TLS to the upstream", Way::BaseUrl, KB, 8),
    lane("events, TLS to the upstream", Way::BaseUrl, EVENTS, 8),
    leaving("1 MB, TLS to the upstream, left", Way::BaseUrl, MB, 4),
    lane("1 KB, HTTP/2", Way::Two, KB, 16),
    lane("32 KB, HTTP/2", Way::Two, KB_32, 8),
    lane("POST of 32 KB, HTTP/2", Way::Two, POST, 4),
    lane("events, HTTP/2", Way::Two, EVENTS, 16),
    leaving("1 MB, HTTP/2, left", Way::Two, MB, 4),
];
/// Who leaves ends the whole connection of HTTP/2 as often.
const WHOLE: usize = 20;

/// Who is restarted.
const RESTARTED: [Server; 3] = [ARTICLES, LEDGER, HELP];

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    guard: PathBuf,
    /// Where the guard runs.
    #[arg(long)]
    core: usize,
    #[arg(long)]
    seconds: u64,
    /// Through one connection, before.
    #[arg(long)]
    bytes: usize,
}

/// What came of a lane's requests.
#[derive(Clone, Default)]
struct Tally {
    well: usize,
    longest: Duration,
    deserved: BTreeMap<String, usize>,
    /// With when the first of them ended.
    undeserved: BTreeMap<String, (usize, Duration)>,
}

/// When each upstream was away: from before it ended until after it listened again. None: still.
#[derive(Default)]
struct Away([Mutex<Vec<(Instant, Option<Instant>)>>; RESTARTED.len()]);

struct Soak {
    peer: Peer,
    away: Away,
    began: Instant,
    tallies: Mutex<Vec<Tally>>,
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().expect("no panic while locked")
}

fn main() -> ExitCode {
    let Arguments { guard, core, seconds, bytes } = Arguments::parse();
    let certificates = Certificates::new();
    let world = World::new(1, upstream::KNOWN);
    let mut pod = Pod::new(&world, 0, core).reading();
    pod.guard(&guard, &peer::policy(&certificates.authority, &["GET", "OPTIONS", "POST"]));
    let mut servers = RESTARTED.map(|server| Some(Running::start(&world, server, &certificates)));
    let soak = Arc::new(Soak { peer: Peer::of(pod), away: Away::default(), began: Instant::now(), tallies: Mutex::default() });
    let began = Instant::now();
    while let Err(error) = [Way::Service, Way::Two, Way::BaseUrl].into_iter().try_for_each(|way| load::served(&soak.peer, way)) {
        assert!(began.elapsed() < Duration::from_secs(30), "the guard does not serve ({error}): {}", soak.peer.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut failures = Vec::new();
    let idle = soak.sample().expect("the guard runs");

    large(&soak, bytes, &mut failures);

    eprintln!("{} s without pauses", CALIBRATION.as_secs());
    let (capacity, busy) = soak.run(None, CALIBRATION, || ());
    failures.extend(undeserved(&capacity).map(|text| format!("without pauses: {text}")));
    let pauses: Vec<Duration> = capacity
        .iter()
        .zip(&LANES)
        .map(|(tally, lane)| 2 * CALIBRATION * u32::try_from(lane.at_once).expect("few") / u32::try_from(tally.well.max(1)).expect("few"))
        .collect();

    eprintln!("{seconds} s at half of that");
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut samples = Vec::new();
    let (tallies, cpu) = std::thread::scope(|scope| {
        let restarts = scope.spawn(|| {
            let mut count = 0;
            while Instant::now() + RESTART < until {
                std::thread::sleep(RESTART);
                let n = count % RESTARTED.len();
                soak.restart(&world, &mut servers[n], n, AWAY[count / RESTARTED.len() % AWAY.len()], &certificates);
                count += 1;
            }
            count
        });
        let done = soak.run(Some(&pauses), Duration::from_secs(seconds), || {
            while Instant::now() < until {
                std::thread::sleep(Duration::from_secs(1));
                let Some(sample) = soak.sample() else { return };
                samples.push(sample);
                if samples.len() % 60 == 0 {
                    let tallies = locked(&soak.tallies);
                    let well: usize = tallies.iter().map(|tally| tally.well).sum();
                    let wrong: usize = tallies.iter().flat_map(|tally| tally.undeserved.values()).map(|(count, _)| count).sum();
                    eprintln!("{:5} s: {sample}, {well} requests, {wrong} undeserved errors", samples.len());
                }
            }
        });
        eprintln!("{} restarts", restarts.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        done
    });
    failures.extend(undeserved(&tallies));
    // Whoever was there is gone, which the guard has yet to see.
    let gone = Instant::now();
    let left = loop {
        match soak.sample() {
            Some(left) if left.descriptors > idle.descriptors && gone.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            left => break left,
        }
    };

    print(&tallies, seconds);
    println!("\nCPU of the guard: {:.0} % of a core without pauses, {:.0} % at half", busy * 100.0, cpu * 100.0);
    println!("\n| | resident, MB | descriptors |\n|---|---|---|");
    let row = |name: &str, Sample { resident, descriptors }: Sample| {
        println!("| {name} | {:.1} | {descriptors} |", megabytes(resident));
    };
    row("idle, before", idle);
    let part = (samples.len() / 6).clamp(1, 60);
    let warm = samples.len() / 4;
    if let (Some(left), Some(first), Some(last)) =
        (left, middle(samples.iter().skip(warm.min(60)).take(part)), middle(samples.iter().rev().take(part)))
    {
        row("after the warm-up", first);
        row("at the end", last);
        let most = |of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap_or_default();
        row("the most of all", Sample { resident: most(|s| s.resident), descriptors: most(|s| s.descriptors as u64) as usize });
        row("all clients gone", left);
        if last.resident > first.resident + GROWTH {
            failures.push(format!("memory grew from {:.1} to {:.1} MB", megabytes(first.resident), megabytes(last.resident)));
        }
        if last.descriptors > first.descriptors + MORE_DESCRIPTORS {
            failures.push(format!("descriptors grew from {} to {}", first.descriptors, last.descriptors));
        }
        if left.descriptors > idle.descriptors {
            failures.push(format!("{} descriptors stay behind", left.descriptors - idle.descriptors));
        }
    } else {
        failures.push(format!("the guard has ended: {}", soak.peer.said()));
    }
    println!();
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    for server in servers.into_iter().flatten() {
        server.end();
    }
    if !failures.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("soak: passed");
    ExitCode::SUCCESS
}

/// Bodies of a length and in chunks, both ways, through one connection; and through one stream after the other of HTTP/2.
fn large(soak: &Soak, bytes: usize, failures: &mut Vec<String>) {
    let size = bytes / 4;
    let whats = [What::Bytes(size), What::Chunks(size), What::Sent { size, chunked: false }, What::Sent { size, chunked: true }];
    for (name, way) in [("HTTP/1.1", Way::Service), ("HTTP/2", Way::Two)] {
        let before = soak.sample().expect("the guard runs").resident;
        let began = Instant::now();
        let passed = inside(&soak.peer.name, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                if way == Way::Two {
                    let mut two = Two::open().await?;
                    for what in whats {
                        two.ask(what, &mut Answered::default()).await?;
                    }
                    return Ok(());
                }
                let mut one = One::open(&soak.peer, way, whats[0]).await?;
                for what in whats {
                    one.turn_to(what);
                    one.ask(what, &mut Answered::default()).await?;
                }
                io::Result::Ok(())
            })
        });
        let took = began.elapsed();
        let (after, most) = (soak.peer.resident().unwrap_or_default(), soak.peer.most_resident().unwrap_or_default());
        println!(
            "{:.1} GB through one connection of {name}: {:.0} MB/s; resident {:.1} MB before, {:.1} MB after, {:.1} MB at most",
            bytes as f64 / 1e9,
            bytes as f64 / 1e6 / took.as_secs_f64(),
            megabytes(before),
            megabytes(after),
            megabytes(most),
        );
        if let Err(error) = passed {
            failures.push(format!("the transfer in {name}: {error}"));
        }
        if most > before + TRANSFER {
            failures.push(format!("the transfer in {name} needed {:.1} MB", megabytes(most - before)));
        }
    }
}

/// An upstream that can be ended, with all its connections.
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Running {
    /// It listens by then.
    fn start(world: &World, server: Server, certificates: &Certificates) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (up, is_up) = oneshot::channel();
        let certificates = certificates.clone();
        let thread = world.serve(async move {
            let listener = listen((server.address, server.port));
            up.send(()).expect("it is waited for");
            tokio::select! {
                () = upstream::serve_at(server, listener, &certificates) => (),
                _ = stopped => (),
            }
        });
        is_up.blocking_recv().expect("it listens");
        Self { stop, thread }
    }

    fn end(self) {
        let Self { stop, thread } = self;
        drop(stop);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

/// What the guard holds at a moment.
#[derive(Clone, Copy)]
struct Sample {
    resident: u64,
    descriptors: usize,
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} MB, {} descriptors", megabytes(self.resident), self.descriptors)
    }
}

impl Soak {
    /// None: it has ended.
    fn sample(&self) -> Option<Sample> {
        let descriptors = self.peer.descriptors().filter(|count| *count > 0)?;
        Some(Sample { resident: self.peer.resident()?, descriptors })
    }

    fn restart(&self, world: &World, running: &mut Option<Running>, n: usize, away: Duration, certificates: &Certificates) {
        locked(&self.away.0[n]).push((Instant::now(), None));
        if let Some(running) = running.take() {
            running.end();
        }
        std::thread::sleep(away);
        *running = Some(Running::start(world, RESTARTED[n], certificates));
        if let Some((_, up)) = locked(&self.away.0[n]).last_mut() {
            *up = Some(Instant::now());
        }
    }

    /// All lanes for this time: what came of them, and how much of a core the guard needed.
    fn run(self: &Arc<Self>, pauses: Option<&[Duration]>, time: Duration, meanwhile: impl FnOnce()) -> (Vec<Tally>, f64) {
        *locked(&self.tallies) = vec![Tally::default(); LANES.len()];
        let (began, cpu) = (Instant::now(), self.peer.cpu().unwrap_or_default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                inside(&self.peer.name, || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                    runtime.block_on(async {
                        let mut working = JoinSet::new();
                        for (n, lane) in LANES.iter().enumerate() {
                            let two = Arc::new(tokio::sync::Mutex::new(None));
                            let pause = pauses.map(|pauses| pauses[n]);
                            for one in 0..lane.at_once {
                                let worker = Worker { soak: self.clone(), n, lane, one: None, two: two.clone(), left: one };
                                working.spawn(worker.work(pause, began + time));
                            }
                        }
                        while let Some(done) = working.join_next().await {
                            done.expect("it ends");
                        }
                    });
                });
            });
            meanwhile();
        });
        let needed = self.peer.cpu().unwrap_or_default().saturating_sub(cpu);
        (std::mem::take(&mut locked(&self.tallies)), needed.as_secs_f64() / began.elapsed().as_secs_f64())
    }
}

impl Away {
    /// The last time that began before this.
    fn last_before(&self, server: Server, at: Instant) -> Option<(Instant, Option<Instant>)> {
        let n = RESTARTED.iter().position(|restarted| restarted.name == server.name)?;
        locked(&self.0[n]).iter().rev().find(|(down, _)| *down < at).copied()
    }

    /// Whether it was away at some moment of this time.
    fn excuses(&self, server: Server, began: Instant, ended: Instant) -> bool {
        let n = RESTARTED.iter().position(|restarted| restarted.name == server.name);
        n.is_some_and(|n| locked(&self.0[n]).iter().rev().any(|(down, up)| *down <= ended && up.is_none_or(|up| began <= up)))
    }
}

/// One client.
struct Worker {
    soak: Arc<Soak>,
    n: usize,
    lane: &'static Lane,
    one: Option<One>,
    /// Shared by the lane.
    two: Arc<tokio::sync::Mutex<Option<Two>>>,
    left: usize,
}

impl Worker {
    async fn work(mut self, pause: Option<Duration>, until: Instant) {
        let mut next = Instant::now();
        if let Some(pause) = pause {
            // Not all at once.
            next += pause * u32::try_from(self.left).expect("few") / u32::try_from(self.lane.at_once).expect("few");
        }
        loop {
            sleep(next.saturating_duration_since(Instant::now())).await;
            if Instant::now() >= until {
                return;
            }
            let began = Instant::now();
            let asked = timeout(HANG, self.ask()).await;
            let ended = Instant::now();
            self.count(asked.unwrap_or_else(|_| Err((Wrong::Never, "hung".to_owned()))), began, ended);
            // Who is late does not catch up.
            next = (next + pause.unwrap_or_default()).max(ended);
        }
    }

    async fn ask(&mut self) -> Result<(), (Wrong, String)> {
        let Self { lane, .. } = *self;
        let unconnected = |error: io::Error| (Wrong::Never, format!("no connection to the guard: {error}"));
        if lane.way == Way::Two {
            let two = {
                let mut shared = self.two.lock().await;
                if shared.is_none() {
                    *shared =
                        Some(timeout(HANG, Two::open()).await.map_err(|_| unconnected(ErrorKind::TimedOut.into()))?.map_err(unconnected)?);
                }
                shared.clone()
            };
            let Some(mut two) = two else { return Ok(()) };
            let asked = match lane.leave {
                true => two.begin(lane.what).await,
                false => two.ask(lane.what, &mut Answered::default()).await,
            };
            self.left += 1;
            let asked = asked.map_err(wrong);
            let broken = asked.as_ref().is_err_and(|(_, text)| !text.starts_with(char::is_numeric));
            if broken || (lane.leave && self.left.is_multiple_of(WHOLE)) {
                *self.two.lock().await = None;
            }
            return asked;
        }
        let mut one = match self.one.take() {
            Some(one) => one,
            None => One::open(&self.soak.peer, lane.way, lane.what).await.map_err(unconnected)?,
        };
        if lane.leave {
            return one.begin().await.map_err(wrong);
        }
        one.ask(lane.what, &mut Answered::default()).await.map_err(wrong)?;
        self.one = Some(one);
        Ok(())
    }

    /// What happened when, for whoever looks for the cause.
    fn say(&self, text: &str, began: Instant, ended: Instant) {
        let since = |at: Instant| at.saturating_duration_since(self.soak.began).as_secs_f64();
        let away = self.soak.away.last_before(self.server(), ended).map_or_else(String::new, |(down, up)| {
            format!("; its upstream was away from {:.3} to {:.3}", since(down), up.map_or(f64::INFINITY, since))
        });
        eprintln!("{}: {text}, from {:.3} to {:.3}{away}", self.lane.name, since(began), since(ended));
    }

    fn server(&self) -> Server {
        match self.lane.way {
            Way::Two => LEDGER,
            Way::BaseUrl => HELP,
            Way::Service | Way::Intercepted => ARTICLES,
        }
    }

    fn count(&self, asked: Result<(), (Wrong, String)>, began: Instant, ended: Instant) {
        let server = self.server();
        let mut tallies = locked(&self.soak.tallies);
        let tally = &mut tallies[self.n];
        tally.longest = tally.longest.max(ended - began);
        match asked {
            Ok(()) => tally.well += 1,
            Err((Wrong::WhileAway, text)) if self.soak.away.excuses(server, began, ended) => *tally.deserved.entry(text).or_default() += 1,
            Err((_, text)) => {
                let (count, _) = tally.undeserved.entry(text.clone()).or_insert((0, ended - self.soak.began));
                *count += 1;
                if *count <= MOST_SAID {
                    self.say(&text, began, ended);
                }
            }
        }
    }
}

/// When an error is deserved.
#[derive(Clone, Copy)]
enum Wrong {
    WhileAway,
    Never,
}

/// What is wrong, in a few words of which there are few.
fn wrong(error: io::Error) -> (Wrong, String) {
    let text = error.to_string();
    if let Some(rest) = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/2 ")) {
        let status = rest.get(..3).unwrap_or_default();
        let reason = rest.split_once("\"reason\":\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or("?");
        let when = if ["502", "503", "504"].contains(&status) { Wrong::WhileAway } else { Wrong::Never };
        return (when, format!("{status} {reason}"));
    }
    if text.ends_with(" events") || text.contains(" bytes of ") {
        return (Wrong::Never, "a body that seems whole and is not".to_owned());
    }
    (Wrong::WhileAway, format!("broken off: {}", text.to_lowercase()))
}

fn undeserved(tallies: &[Tally]) -> impl Iterator<Item = String> {
    tallies.iter().zip(&LANES).flat_map(|(tally, lane)| {
        tally
            .undeserved
            .iter()
            .map(|(what, (count, first))| format!("{}: {what}, {count} times, first after {:.1} s", lane.name, first.as_secs_f64()))
    })
}

fn middle<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<Sample> {
    let samples: Vec<&Sample> = samples.collect();
    let mut resident: Vec<u64> = samples.iter().map(|sample| sample.resident).collect();
    let mut descriptors: Vec<usize> = samples.iter().map(|sample| sample.descriptors).collect();
    resident.sort_unstable();
    descriptors.sort_unstable();
    let at = samples.len() / 2;
    Some(Sample { resident: *resident.get(at)?, descriptors: *descriptors.get(at)? })
}

fn print(tallies: &[Tally], seconds: u64) {
    println!("\n| | at once | well | a second | longest, ms | deserved errors | others |\n|---|---|---|---|---|---|---|");
    for (tally, lane) in tallies.iter().zip(&LANES) {
        let deserved: usize = tally.deserved.values().sum();
        let others: usize = tally.undeserved.values().map(|(count, _)| count).sum();
        println!(
            "| {} | {} | {} | {:.1} | {:.0} | {deserved} | {others} |",
            lane.name,
            lane.at_once,
            tally.well,
            tally.well as f64 / seconds.max(1) as f64,
            millis(tally.longest)
        );
    }
    let mut kinds = BTreeMap::new();
    for (kind, count) in tallies.iter().flat_map(|tally| &tally.deserved) {
        *kinds.entry(kind).or_insert(0) += count;
    }
    println!("\n| deserved: while the upstream was away | |\n|---|---|");
    for (kind, count) in kinds {
        println!("| {kind} | {count} |");
    }
}
