//! Everything at random: drops, delays, freezes, reconnects, restarts. Every reader checks every promise at every message.

use fastrand::Rng;

use crate::operation::Operation;
use crate::world::{World, small_limits};

fn operation(rng: &mut Rng) -> Operation {
    let reader = rng.u8(..);
    match rng.u8(..100) {
        0..20 => Operation::Happen { topic: rng.u8(..), times: rng.u8(..) },
        20..38 => Operation::Deliver(rng.u8(..)),
        38..46 => Operation::Change,
        46..53 => Operation::Backfill { which: rng.u8(..), fails: rng.u8(..) },
        53..55 => Operation::Open { form: rng.u8(..), topics: rng.u16(..), from: rng.u8(..), options: rng.u8(..) },
        55..61 => Operation::Subscribe { reader, topics: rng.u16(..), from: rng.u8(..), options: rng.u8(..) },
        61..62 => Operation::Unsubscribe { reader, topics: rng.u16(..) },
        62..63 => Operation::Limit { reader, limit: rng.u8(..) },
        63..78 => Operation::Pass,
        78..81 => Operation::Transport { reader, budget: rng.u8(..), takes: rng.u8(..), frozen: rng.bool() },
        81..84 => Operation::Thaw(reader),
        84..86 => Operation::Cut { reader, messages: rng.u8(..) },
        86..88 => Operation::Poll { reader, topics: rng.u16(..), wait: rng.u8(..) },
        88..93 => Operation::Time(rng.u8(..)),
        93 => Operation::Resume,
        94 => Operation::Announce,
        95 => Operation::Evict { topic: rng.u8(..), keep: rng.u8(..30) },
        96 => Operation::Settle,
        _ => match rng.u8(..30) {
            0 => Operation::Epoch(rng.u8(..)),
            1 | 2 => Operation::Anew,
            3 => Operation::Goodbye,
            4 | 5 => Operation::Close(reader),
            _ => Operation::Pass,
        },
    }
}

/// `quiet`: no heartbeat wakes a session that was forgotten.
fn run(operations: impl IntoIterator<Item = Operation>, quiet: bool) -> World {
    let mut limits = small_limits();
    if quiet {
        limits.heartbeat_ms = 3_600_000;
    }
    let mut world = World::new(limits);
    for operation in operations {
        world.apply(&operation);
    }
    world.converge();
    world.leave();
    world
}

/// Says which seed it was if a run fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}: SESSION_SEED={} runs it alone", self.0, self.0);
        }
    }
}

fn simulate(seed: u64, steps: usize) -> World {
    let _seed = Seed(seed);
    let mut rng = Rng::with_seed(seed);
    let mut trace = std::env::var_os("SESSION_TRACE").is_some().then_some(0);
    let operations = (0..steps).map(|_| {
        let operation = operation(&mut rng);
        if let Some(n) = &mut trace {
            eprintln!("{n}: {operation:?}");
            *n += 1;
        }
        operation
    });
    run(operations, seed % 2 == 1)
}

#[test]
fn every_promise_holds_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = match number("SESSION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SESSION_SEEDS").unwrap_or(150),
    };
    let steps = number("SESSION_STEPS").unwrap_or(800) as usize;
    let (mut events, mut slow, mut fetched, mut gaps) = (0, 0, 0, 0);
    for seed in seeds.clone() {
        let world = simulate(seed, steps);
        events += world.readers.iter().map(|r| r.events).sum::<u64>();
        gaps += world.readers.iter().map(|r| r.gaps).sum::<u64>();
        slow += world.slow_closings;
        fetched += world.upstream.fetched;
    }
    println!("{seeds:?} seeds of {steps} steps: {events} events, {fetched} pages, {slow} closed as slow, {gaps} gaps");
}

#[test]
fn every_promise_holds_for_any_operations() {
    let operations = bolero::produce::<Vec<Operation>>().with().len(0..=150_usize);
    bolero::check!().with_generator(operations).with_iterations(400).for_each(|operations| {
        run(operations.iter().cloned(), operations.len() % 2 == 1);
    });
}
