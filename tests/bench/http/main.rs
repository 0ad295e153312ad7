//! The guard beside nginx, HAProxy and Envoy as they pass HTTP on (`make bench-http`): what a request, a stream and a place cost, and what
//! waits how long.
//!
//! `beside`: namespaces, programs in them, figures. `upstream`, `peer`, `load`: who serves, who is measured, the client. `counts`: what is
//! counted instead of timed. All targets take turns, in another order in each round, and are compared within the turn. Needs root.

#[path = "../beside/mod.rs"]
#[allow(dead_code, reason = "bench-guard needs more of it")]
mod beside;
mod counts;
#[allow(dead_code, reason = "the soak needs more of it")]
mod load;
#[allow(dead_code, reason = "the soak needs more of it")]
mod peer;
mod upstream;

use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;

use beside::figures::{self, Figures};
use beside::pod::Pod;
use beside::world::World;
use beside::{megabytes, micros, millis};
use load::{WAYS, Way, What};
use peer::{Peer, Program};
use upstream::{BURSTS, Certificates, EVENTS, SERVERS};

/// How often the targets take turns in a round: the machine is another one a second later.
const TURNS: usize = 3;
const HELD: usize = 1_000;

struct Scenario {
    name: &'static str,
    way: Way,
    what: What,
    at_once: usize,
    requests: usize,
}

const KB: What = What::Bytes(1 << 10);
const KB_32: What = What::Bytes(32 << 10);

const fn scenario(name: &'static str, way: Way, what: What, at_once: usize, requests: usize) -> Scenario {
    Scenario { name, way, what, at_once, requests }
}

const SCENARIOS: [Scenario; 10] = [
    scenario("1 KB, c=1", Way::Service, KB, 1, 1_500),
    scenario("1 KB, c=16", Way::Service, KB, 16, 4_000),
    scenario("1 KB, c=64", Way::Service, KB, 64, 4_000),
    scenario("32 KB, c=16", Way::Service, KB_32, 16, 1_600),
    scenario("stream, c=16", Way::Service, What::EVENTS, 16, 96),
    scenario("1 KB, c=16, TLS to the upstream", Way::BaseUrl, KB, 16, 3_200),
    scenario("32 KB, c=16, TLS to the upstream", Way::BaseUrl, KB_32, 16, 960),
    scenario("1 KB, c=16, TLS on both sides", Way::Intercepted, KB, 16, 3_200),
    scenario("1 KB, HTTP/2, 1 stream", Way::Two, KB, 1, 1_200),
    scenario("1 KB, HTTP/2, 16 streams", Way::Two, KB, 16, 3_200),
];

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    guard: PathBuf,
    /// Another build of the guard, to compare with.
    #[arg(long)]
    base: Option<PathBuf>,
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    #[arg(long, default_value = "haproxy")]
    haproxy: PathBuf,
    #[arg(long)]
    envoy: PathBuf,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where what is measured runs.
    #[arg(long)]
    core: usize,
    /// Only scenarios whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Leave the instructions uncounted.
    #[arg(long)]
    no_instructions: bool,
}

fn main() {
    let Arguments { guard, base, nginx, haproxy, envoy, rounds, core, only, no_instructions } = Arguments::parse();
    let mut programs = vec![Program::Direct, Program::Guard { name: "guard", path: guard.clone() }];
    programs.extend(base.map(|path| Program::Guard { name: "guard (base)", path }));
    programs.extend([Program::Copy(guard), Program::Nginx(nginx), Program::HAProxy(haproxy), Program::Envoy(envoy)]);
    let certificates = Certificates::new();
    let world = World::new(programs.len(), upstream::KNOWN);
    world.serve(upstream::serve(certificates.clone()));
    // On a thread of their own, which may begin after the first who asks.
    beside::world::inside(&world.world, || {
        let began = Instant::now();
        while !SERVERS.iter().all(|server| TcpStream::connect((server.address, server.port)).is_ok()) {
            assert!(began.elapsed() < Duration::from_secs(10), "the servers do not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let names: Vec<&str> = programs.iter().map(Program::name).collect();
    let nginx = names.iter().position(|name| *name == "nginx").expect("nginx takes part");
    let mut figures = Figures::new(&names, (1..names.len()).filter(|n| *n != nginx).map(|n| (n, nginx)).collect());
    let ways = ways(&world, &programs, &certificates, core);
    let mut loads = Vec::new();
    for round in 0..rounds {
        loads.push(figures::load_average());
        eprintln!("round {} of {rounds}, load {}", round + 1, loads.last().map_or("", String::as_str));
        let order = (0..programs.len()).map(|n| (n + round) % programs.len()).filter(|n| !ways[*n].is_empty());
        let start = |n: usize| Peer::start(Pod::new(&world, n, core).reading(), &programs[n], &certificates, Duration::from_secs(30));
        let mut peers: Vec<(usize, Peer)> = order.map(|n| (n, start(n).unwrap_or_else(|error| panic!("{error}")))).collect();
        // What starts has settled.
        std::thread::sleep(Duration::from_millis(500));
        for (n, peer) in &peers {
            figures.add("exec → first answer, ms", *n, peer.started.map(millis));
            held(&mut figures, peer, *n).expect("answers");
        }
        for scenario in SCENARIOS.iter().filter(|scenario| scenario.name.contains(&only)) {
            for (n, peer) in (0..TURNS).flat_map(|_| &peers).filter(|(n, _)| ways[*n].contains(&scenario.way)) {
                measure(&mut figures, peer, *n, scenario).unwrap_or_else(|error| panic!("{}, {}: {error}", names[*n], scenario.name));
            }
        }
        for (n, peer) in &peers {
            figures.add(WRITES, *n, counts::writes(peer).expect("answers"));
        }
        // The same each time.
        for (n, peer) in peers.iter().filter(|_| round + 1 == rounds && !no_instructions) {
            for (what, count) in counts::instructions(peer).unwrap_or_else(|error| panic!("{}: {error}", names[*n])) {
                figures.add(what, *n, Some(count));
            }
        }
        for (_, peer) in &mut peers {
            peer.pod.end();
        }
    }
    loads.push(figures::load_average());
    println!("{rounds} rounds, load before each and at the end: {}\n", loads.join(" "));
    figures.print();
    println!();
    goals(&figures, &names, nginx);
}

/// The ways that lead to an answer by each. The guard may lack some, and has no figures for them then; the others may not.
fn ways(world: &World, programs: &[Program], certificates: &Certificates, core: usize) -> Vec<Vec<Way>> {
    let of = |(n, program): (usize, &Program)| {
        let name = program.name();
        let pod = Pod::new(world, n, core);
        let peer = match Peer::start(pod, program, certificates, Duration::from_secs(10)) {
            Ok(peer) => peer,
            Err(error) if program.is_guard() => {
                eprintln!("left out: {error}");
                return Vec::new();
            }
            Err(error) => panic!("{error}"),
        };
        let mut ways = Vec::new();
        for way in WAYS {
            match load::served(&peer, way) {
                Ok(()) => ways.push(way),
                Err(error) if program.is_guard() => eprintln!("left out: {name}, {way:?}: {error}"),
                // It has no TLS of its own.
                Err(_) if matches!(program, Program::Copy(_)) => (),
                Err(error) => panic!("{name}, {way:?}: {error}: {}", peer.said()),
            }
        }
        if !matches!(program, Program::Direct | Program::Copy(_)) {
            let refused = load::refused(&peer).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(refused, "{name} lets through what is not permitted");
        }
        ways
    };
    programs.iter().enumerate().map(of).collect()
}

const WRITES: &str = "writes for each stream of 10 bursts";
const IDLE: &str = "resident, idle, MB";
const AT_64: &str = "resident after 64 connections at once, MB";
const AT_HELD: &str = "resident with 1000 idle connections, MB";
const EACH: &str = "KB for each of them";

/// What a place costs: asked of a program that has held none.
fn held(figures: &mut Figures, peer: &Peer, n: usize) -> io::Result<()> {
    let idle = peer.resident();
    figures.add(IDLE, n, idle.map(megabytes));
    let at_64 = load::with(peer, Way::Service, KB, 64, |load| {
        load.ask(64 * 10)?;
        io::Result::Ok(peer.resident())
    })??;
    figures.add(AT_64, n, at_64.map(megabytes));
    let at_held = load::with(peer, Way::Service, KB, HELD, |_| {
        std::thread::sleep(Duration::from_millis(100));
        peer.resident()
    })?;
    figures.add(AT_HELD, n, at_held.map(megabytes));
    figures.add(EACH, n, at_held.zip(idle).map(|(after, before)| after.saturating_sub(before) as f64 / 1024.0 / HELD as f64));
    Ok(())
}

fn measure(figures: &mut Figures, peer: &Peer, n: usize, scenario: &Scenario) -> io::Result<()> {
    let Scenario { name, way, what, at_once, requests } = *scenario;
    load::with(peer, way, what, at_once, |load| {
        let mut answered = Ok(load::Answered::default());
        let cpu = peer.cpu_of(|| answered = load.ask(requests));
        let answered = answered?;
        let unit = if matches!(what, What::Events { .. }) { "stream" } else { "request" };
        figures.add(&format!("{name}: CPU per {unit}, µs"), n, cpu.map(|cpu| micros(cpu) / answered.times.len() as f64));
        if matches!(what, What::Events { .. }) {
            figures.times(&format!("{name}: first event"), n, &answered.first);
            figures.add(&format!("{name}: reads of the client"), n, Some(answered.reads as f64 / answered.times.len() as f64));
        } else {
            figures.times(&format!("{name}: answer"), n, &answered.times);
        }
        Ok(())
    })?
}

enum Is {
    Itself,
    BesideNginx,
    BesideEnvoy,
}

/// What is aimed at: which goal, the most that is allowed, of which row, and what of it.
const GOALS: [(&str, &str, &str, Is); 16] = [
    ("G1", "1.25", "1 KB, c=1: CPU per request, µs", Is::BesideNginx),
    ("G1", "1.25", "1 KB, c=16: CPU per request, µs", Is::BesideNginx),
    ("G1", "1.4", "1 KB, c=64: CPU per request, µs", Is::BesideNginx),
    ("G2", "2.0", "32 KB, c=16: CPU per request, µs", Is::BesideNginx),
    ("G2", "1.0", "32 KB, c=16: CPU per request, µs", Is::BesideEnvoy),
    ("G3", "1.05", "stream, c=16: CPU per stream, µs", Is::BesideNginx),
    ("G3", "12", WRITES, Is::Itself),
    ("G5", "1.3", "1 KB, c=1: answer, added p50, µs", Is::BesideNginx),
    ("G5", "0.6", "1 KB, c=1: answer, added p50, µs", Is::BesideEnvoy),
    ("G8", "12", IDLE, Is::Itself),
    ("G8", "20", AT_64, Is::Itself),
    ("G8", "64", EACH, Is::Itself),
    ("G9", "25", "exec → first answer, ms", Is::Itself),
    ("G10", "130", counts::OF_1_KB, Is::Itself),
    ("G10", "1300", counts::OF_32_KB, Is::Itself),
    ("G10", "8", counts::OF_AN_EVENT, Is::Itself),
];

/// Markdown, for all: how far the goals of the guard are from what others do.
fn goals(figures: &Figures, names: &[&str], nginx: usize) {
    let envoy = names.iter().position(|name| *name == "Envoy");
    println!("| goal | | at most | {} |\n|{}", names[1..].join(" | "), "---|".repeat(names.len() + 2));
    for (goal, most, row, is) in &GOALS {
        let (beside, of) = match is {
            Is::Itself => (None, ""),
            Is::BesideNginx => (Some(nginx), " / nginx"),
            Is::BesideEnvoy => (envoy, " / Envoy"),
        };
        let cell = |n: usize| figures.median(row, n, beside).map_or("–".to_owned(), |figure| format!("{figure:.2}"));
        let cells: Vec<String> = (1..names.len()).map(cell).collect();
        println!("| {goal} | {row}{of} | {most} | {} |", cells.join(" | "));
    }
    println!("\nA stream: {BURSTS} bursts of {EVENTS} events.");
}
