//! The guard beside HAProxy and Envoy (`make bench-guard`): what a connection, a byte and a place cost, and what waits how long.
//!
//! `beside`: namespaces, programs in them, figures. `upstream`, `peer`, `load`: who serves, who is measured, the client. All targets take turns, in another
//! order in each round, and are compared within the turn. Needs root.

#[path = "../beside/mod.rs"]
#[allow(dead_code, reason = "bench-http needs more of it")]
mod beside;
mod load;
mod peer;
mod upstream;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::Value;

use beside::figures::{self, Figures};
use beside::world::World;
use beside::{at, megabytes, micros, millis};
use load::Mode;
use peer::{Peer, Program};

/// Connections that are opened in a second, and then held.
const HELD: usize = 1_000;
/// How often the targets take turns in a round, for what is soon measured: the machine is another one a second later.
const TURNS: usize = 5;
const SHORT: usize = 400;
const AT_ONCE: usize = 4;
const FIRST_BYTES: usize = 100;
const ROUND_TRIPS: usize = 1_000;
const BULK: u64 = 32 << 20;
const EVENTS: u64 = 100;
const EVENT_EVERY: Duration = Duration::from_millis(5);
const CHANGES: usize = 20;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    guard: PathBuf,
    /// Another build of the guard, to compare with.
    #[arg(long)]
    base: Option<PathBuf>,
    #[arg(long, default_value = "haproxy")]
    haproxy: PathBuf,
    #[arg(long)]
    envoy: PathBuf,
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Where what is measured runs.
    #[arg(long)]
    core: usize,
}

fn main() {
    let Arguments { guard, base, haproxy, envoy, rounds, core } = Arguments::parse();
    let mut programs = vec![Program::Direct, Program::guard("guard", guard)];
    programs.extend(base.map(|base| Program::guard("guard (base)", base)));
    programs.extend([Program::HAProxy(haproxy), Program::Envoy(envoy)]);
    let world = World::new(programs.len(), upstream::KNOWN);
    world.serve(upstream::serve());
    let names: Vec<&str> = programs.iter().map(Program::name).collect();
    let mut figures = Figures::new(&names, (2..names.len()).map(|other| (1, other)).collect());
    let mut loads = Vec::new();
    for round in 0..rounds {
        loads.push(figures::load_average());
        eprintln!("round {} of {rounds}, load {}", round + 1, loads.last().map_or("", String::as_str));
        let order: Vec<usize> = (0..programs.len()).map(|n| (n + round) % programs.len()).collect();
        let mut peers: Vec<(usize, Peer)> = order.iter().map(|&n| (n, Peer::start(&world, n, &programs[n], core))).collect();
        // What starts has settled.
        std::thread::sleep(Duration::from_millis(500));
        for (n, peer) in &peers {
            figures.add("exec → first connection served, ms", *n, peer.started.map(millis));
            figures.add("resident, idle, MB", *n, peer.resident().map(megabytes));
        }
        for mode in [Mode::Address, Mode::ServerName] {
            for (turns, measure) in MEASURES {
                for (n, peer) in (0..turns).flat_map(|_| &peers) {
                    measure(&mut figures, peer, mode, *n);
                }
            }
        }
        for (_, peer) in &mut peers {
            peer.pod.end();
        }
    }
    loads.push(figures::load_average());
    println!("{rounds} rounds, load before each and at the end: {}\n", loads.join(" "));
    figures.print();
    if let Some((n, program)) = programs.iter().enumerate().find(|(_, program)| matches!(program, Program::Guard { .. })) {
        changes(&world, n, program, core);
    }
}

type Measure = fn(&mut Figures, &Peer, Mode, usize);

/// In this order: what a place costs is asked of a program that has held none.
const MEASURES: [(usize, Measure); 6] = [(1, held), (TURNS, short), (TURNS, first_byte), (TURNS, round_trips), (TURNS, bulk), (1, events)];

fn held(figures: &mut Figures, peer: &Peer, mode: Mode, n: usize) {
    let before = peer.resident();
    let (open, times) = load::opened_in_a_second(peer, mode, HELD);
    figures.times(&format!("{mode}: connect + first byte at {HELD} connections/s"), n, &times);
    std::thread::sleep(Duration::from_millis(100));
    let resident = peer.resident();
    figures.add(&format!("{mode}: resident with {HELD} connections, MB"), n, resident.map(megabytes));
    if mode == Mode::Address {
        let each = resident.zip(before).map(|(after, before)| after.saturating_sub(before) as f64 / 1024.0 / HELD as f64);
        figures.add("KB for each of them", n, each);
    }
    drop(open);
    std::thread::sleep(Duration::from_millis(300));
}

fn short(figures: &mut Figures, peer: &Peer, mode: Mode, n: usize) {
    let cpu = peer.cpu_of(|| load::short(peer, mode, SHORT, AT_ONCE));
    figures.add(&format!("{mode}: CPU per connection, µs"), n, cpu.map(|cpu| micros(cpu) / SHORT as f64));
}

fn first_byte(figures: &mut Figures, peer: &Peer, mode: Mode, n: usize) {
    figures.times(&format!("{mode}: connect + first byte"), n, &load::first_bytes(peer, mode, FIRST_BYTES));
}

fn round_trips(figures: &mut Figures, peer: &Peer, mode: Mode, n: usize) {
    let mut times = Vec::new();
    let cpu = peer.cpu_of(|| times = load::round_trips(peer, mode, ROUND_TRIPS));
    figures.times(&format!("{mode}: round trip"), n, &times);
    figures.add(&format!("{mode}: CPU per round trip, µs"), n, cpu.map(|cpu| micros(cpu) / ROUND_TRIPS as f64));
}

/// Once the server is known, bytes are bytes: one mode says it.
fn bulk(figures: &mut Figures, peer: &Peer, mode: Mode, n: usize) {
    if mode != Mode::Address {
        return;
    }
    for (what, up, down) in [("down", 0, BULK), ("up", BULK, 1)] {
        let mut took = Duration::ZERO;
        let cpu = peer.cpu_of(|| took = load::transfer(peer, mode, up, down));
        let size = (BULK >> 20) as f64;
        figures.add(&format!("CPU per MB {what}, ms"), n, cpu.map(|cpu| millis(cpu) / size));
        figures.more_is_better(&format!("MB/s {what}"), n, Some(size / took.as_secs_f64()));
    }
}

fn events(figures: &mut Figures, peer: &Peer, mode: Mode, n: usize) {
    if mode == Mode::ServerName {
        figures.times(&format!("{mode}: event of a stream, one each {EVENT_EVERY:?}"), n, &load::events(peer, mode, EVENTS, EVENT_EVERY));
    }
}

/// From the moment at which the file is swapped: until an open connection is cut, and until a new one passes again.
fn changes(world: &World, n: usize, program: &Program, core: usize) {
    let mut guard = Peer::start(world, n, program, core);
    let (mut cut, mut passes) = (Vec::new(), Vec::new());
    for change in 0..CHANGES {
        let mut open = load::Connection::open(&guard, Mode::Address).expect("it passes");
        open.ask(0, 1, None).expect("it answers");
        // At any moment between two looks.
        std::thread::sleep(Duration::from_millis(37 * change as u64 % 500));
        let generation = 2 + 2 * change as u64;
        let began = Instant::now();
        guard.policy(&peer::policy(generation, |p| p["destinations"] = Value::Array(Vec::new())));
        open.ended();
        cut.push(began.elapsed());
        let began = Instant::now();
        guard.policy(&peer::policy(generation + 1, |_| ()));
        while load::Connection::open(&guard, Mode::Address).and_then(|mut c| c.ask(0, 1, None)).is_err() {
            std::thread::sleep(Duration::from_millis(2));
        }
        passes.push(began.elapsed());
    }
    guard.pod.end();
    println!("\nA policy in the mounted file, {CHANGES} changes (p50, p99, ms):");
    for (what, mut times) in [("what it forbids is cut", cut), ("what it permits passes", passes)] {
        times.sort();
        println!("  {what}: {:.0}, {:.0}", millis(at(&times, 50)), millis(at(&times, 99)));
    }
}
