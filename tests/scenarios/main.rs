//! Every scenario over every transport, over real sockets: what the contract promises, held against what was published.
//!
//! A trial is named `scenario/transport`, so that one of them runs by its name. A scenario that means nothing on a
//! transport is listed with the reason, as ignored. A new transport is a line in `transport.rs`, a new scenario one here.

#![allow(clippy::panic, reason = "a test says what it found, and dies of it")]

mod beginnings;
mod datagrams;
mod derived;
mod endings;
mod limits;
mod raw;
mod refusals;
mod resuming;
mod rig;
mod screen;
mod slowness;
mod source;
mod transport;
mod valve;

use std::pin::Pin;

use libtest_mimic::{Arguments, Failed, Trial};

use ticker_client::Over;
use transport::{At, TRANSPORTS, Transport};

/// Trials that run at once, where the command line says nothing: they mostly wait.
const THREADS: usize = 16;

type Running = Pin<Box<dyn Future<Output = ()>>>;

struct Scenario {
    name: &'static str,
    run: fn(&'static Transport) -> Running,
    /// Why it means nothing on a transport.
    unfit: fn(&Transport) -> Option<&'static str>,
}

const fn scenario(name: &'static str, run: fn(&'static Transport) -> Running) -> Scenario {
    Scenario { name, run, unfit: |_| None }
}

const fn unfit(scenario: Scenario, unfit: fn(&Transport) -> Option<&'static str>) -> Scenario {
    Scenario { unfit, ..scenario }
}

fn one_way(t: &Transport) -> Option<&'static str> {
    (!t.is_duplex()).then_some("it has no back channel: one connects again with the cursor")
}

fn polled(t: &Transport) -> Option<&'static str> {
    t.is_polled().then_some("an answer is whole or not there: nobody waits for its reader")
}

fn of_fanout(t: &Transport) -> Option<&'static str> {
    (t.at == At::Fanout).then_some("the fanout is what ends: its sessions end with it")
}

fn without_datagrams(t: &Transport) -> Option<&'static str> {
    (!matches!(t.over, Over::WebTransport | Over::Quic | Over::Rtc)).then_some("it has no way that may lose anything")
}

fn unheld(t: &Transport) -> Option<&'static str> {
    (t.over == Over::Rtc).then_some("what holds back its packets would have to change the addresses in its offers")
}

fn without_datagrams_or_unheld(t: &Transport) -> Option<&'static str> {
    without_datagrams(t).or_else(|| unheld(t))
}

fn unheld_or_polled(t: &Transport) -> Option<&'static str> {
    unheld(t).or_else(|| polled(t))
}

fn framed(t: &Transport) -> Option<&'static str> {
    t.is_clients().then_some("its framing has tests and clients of its own: python/test_secure.py, test_rtc.py")
}

/// What the contract promises, scenario by scenario.
const SCENARIOS: &[Scenario] = &[
    scenario("snapshot_then_updates", |t| Box::pin(beginnings::snapshot_then_updates(t))),
    scenario("first_events", |t| Box::pin(beginnings::first_events(t))),
    scenario("recent", |t| Box::pin(beginnings::recent(t))),
    scenario("fields", |t| Box::pin(beginnings::fields(t))),
    scenario("every_event", |t| Box::pin(beginnings::every_event(t))),
    scenario("have", |t| Box::pin(beginnings::have(t))),
    scenario("parts", |t| Box::pin(beginnings::parts(t))),
    scenario("patterns", |t| Box::pin(beginnings::patterns(t))),
    scenario("invalid", |t| Box::pin(beginnings::invalid(t))),
    scenario("corrections", |t| Box::pin(beginnings::corrections(t))),
    unfit(scenario("changing_topics", |t| Box::pin(beginnings::changing_topics(t))), one_way),
    unfit(scenario("resume", |t| Box::pin(resuming::resume(t))), unheld),
    scenario("resume_elsewhere", |t| Box::pin(resuming::resume_elsewhere(t))),
    scenario("earliest", |t| Box::pin(resuming::earliest(t))),
    scenario("expired_cursor", |t| Box::pin(resuming::expired_cursor(t))),
    scenario("other_epoch", |t| Box::pin(resuming::other_epoch(t))),
    scenario("cursor_ahead", |t| Box::pin(resuming::cursor_ahead(t))),
    unfit(scenario("epoch_changes", |t| Box::pin(resuming::epoch_changes(t))), of_fanout),
    scenario("closed_bars", |t| Box::pin(derived::closed_bars(t))),
    scenario("running_bars", |t| Box::pin(derived::running_bars(t))),
    scenario("past_bars", |t| Box::pin(derived::past_bars(t))),
    scenario("best", |t| Box::pin(derived::best(t))),
    unfit(scenario("datagrams", |t| Box::pin(datagrams::datagrams(t))), without_datagrams),
    unfit(
        scenario("datagrams_over_loss", |t| Box::pin(datagrams::datagrams_over_loss(t))),
        without_datagrams_or_unheld,
    ),
    scenario("max_rate", |t| Box::pin(limits::max_rate(t))),
    unfit(scenario("max_kbps", |t| Box::pin(limits::max_kbps(t))), unheld),
    scenario("changing_limits", |t| Box::pin(limits::changing_limits(t))),
    unfit(scenario("slow_reader", |t| Box::pin(slowness::slow_reader(t))), unheld),
    unfit(scenario("slow_consumer", |t| Box::pin(slowness::slow_consumer(t))), unheld_or_polled),
    scenario("heartbeat", |t| Box::pin(endings::heartbeat(t))),
    scenario("goodbye", |t| Box::pin(endings::goodbye(t))),
    scenario("refused", |t| Box::pin(refusals::refused_requests(t))),
    scenario("too_many_topics", |t| Box::pin(refusals::too_many_topics(t))),
    scenario("too_many_sessions", |t| Box::pin(refusals::too_many_sessions(t))),
    unfit(scenario("rate_limited", |t| Box::pin(refusals::rate_limited(t))), one_way),
    unfit(scenario("message_too_large", |t| Box::pin(refusals::message_too_large(t))), framed),
    unfit(scenario("garbage", |t| Box::pin(refusals::garbage(t))), framed),
];

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let mut trials = Vec::new();
    for scenario in SCENARIOS {
        for transport in TRANSPORTS {
            let name = format!("{}/{}", scenario.name, transport.name);
            trials.push(match (scenario.unfit)(transport) {
                Some(why) => Trial::test(format!("{name}: {why}"), || Ok(())).with_ignored_flag(true),
                None => {
                    let run = scenario.run;
                    Trial::test(name, move || perform(run, transport))
                }
            });
        }
    }
    trials.push(Trial::test("crowd_of_peers/rtc", || {
        perform(|_| Box::pin(beginnings::crowd_of_peers()), &TRANSPORTS[0])
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

fn perform(run: fn(&'static Transport) -> Running, transport: &'static Transport) -> Result<(), Failed> {
    // One thread: a trial mostly waits, and several run at once.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(transport));
    Ok(())
}
