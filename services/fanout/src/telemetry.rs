//! The metrics.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use ticker_market::{Channel, Interval, Time};

use crate::core::Core;

pub(crate) const EVENTS: &str = "ticker_fanout_events_total";
pub(crate) const REFUSED: &str = "ticker_fanout_refused_total";
pub(crate) const BATCHES_KNOWN: &str = "ticker_fanout_known_batches_total";
pub(crate) const BATCH_EVENTS: &str = "ticker_fanout_batch_events";
pub(crate) const PUBLISH_LATENCY: &str = "ticker_fanout_publish_latency_seconds";
pub(crate) const TAPE_BYTES: &str = "ticker_fanout_tape_bytes";
pub(crate) const TAPE_ENTRIES: &str = "ticker_fanout_tape_entries";
pub(crate) const TAPE_AGE: &str = "ticker_fanout_tape_oldest_age_seconds";
pub(crate) const TAPE_HEAD: &str = "ticker_fanout_tape_head";
pub(crate) const INSTRUMENTS: &str = "ticker_fanout_instruments";
pub(crate) const TOPICS: &str = "ticker_fanout_topics";
pub(crate) const SOURCES: &str = "ticker_fanout_sources";
pub(crate) const STREAMS: &str = "ticker_fanout_streams";
pub(crate) const SESSIONS: &str = "ticker_fanout_sessions";
pub(crate) const STREAMS_ENDED: &str = "ticker_fanout_streams_ended_total";
pub(crate) const REQUESTS_REFUSED: &str = "ticker_fanout_requests_refused_total";
pub(crate) const BACKFILL_EVENTS: &str = "ticker_fanout_backfill_events_total";

pub(crate) const BAR_TRADES_LEFT_OUT: &str = "ticker_fanout_bar_trades_left_out_total";

/// Says what each metric is.
pub(crate) fn describe() {
    describe_counter!(EVENTS, "Events put on the tape, derived ones included, by channel");
    describe_counter!(REFUSED, "Events and instruments of ingest services that were refused, by cause");
    describe_counter!(BATCHES_KNOWN, "Batches that were on the tape already, and were left out");
    describe_histogram!(BATCH_EVENTS, "Events in a batch of an ingest service");
    describe_histogram!(
        PUBLISH_LATENCY,
        Unit::Seconds,
        "From a batch's first event's receipt to its place on the tape"
    );
    describe_gauge!(TAPE_BYTES, Unit::Bytes, "Memory of the tape; it has a limit, tape_bytes_max");
    describe_gauge!(TAPE_ENTRIES, "Entries on the tape");
    describe_gauge!(TAPE_AGE, Unit::Seconds, "Age of the tape's oldest entry; it has a limit, tape_age_max_seconds");
    describe_gauge!(TAPE_HEAD, "The tape's last place");
    describe_gauge!(INSTRUMENTS, "Instruments known; there is a limit, instruments_max");
    describe_gauge!(TOPICS, "Topics known");
    describe_gauge!(SOURCES, "Ingest services whose stream is open; there is a limit, sources_max");
    describe_gauge!(STREAMS, "Edges that follow; there is a limit, streams_max");
    describe_gauge!(SESSIONS, "Subscriptions and sessions served here; there is a limit, sessions_max");
    describe_counter!(STREAMS_ENDED, "Followers' streams that were ended here, by reason");
    describe_counter!(REQUESTS_REFUSED, "Requests that were refused, by code");
    describe_counter!(BACKFILL_EVENTS, "Older events given by Backfill");
    describe_counter!(
        BAR_TRADES_LEFT_OUT,
        "Trades that a bar left out, by interval and cause: late (it was closed), ahead (more than 10 s)"
    );
}

/// Shows what the core holds.
pub(crate) fn show(core: &Core, now: Time, streams: usize, sessions: usize) {
    let tape = core.tape();
    for (channel, count) in Channel::ALL.iter().zip(core.counts) {
        if channel.is_served() {
            counter!(EVENTS, "channel" => channel.as_str()).absolute(count);
        }
    }
    for (at, interval) in Interval::ALL.into_iter().map(Interval::as_str).enumerate() {
        for (cause, counts) in [("late", &core.left_out.late), ("ahead", &core.left_out.ahead)] {
            counter!(BAR_TRADES_LEFT_OUT, "interval" => interval, "cause" => cause).absolute(counts[at]);
        }
    }
    gauge!(TAPE_BYTES).set(tape.bytes() as f64);
    gauge!(TAPE_ENTRIES).set(tape.len() as f64);
    gauge!(TAPE_AGE).set(tape.oldest_published().map_or(0.0, |t| now.since(t).max(0) as f64 / 1e9));
    gauge!(TAPE_HEAD).set(tape.head() as f64);
    gauge!(INSTRUMENTS).set(core.instruments_len() as f64);
    gauge!(TOPICS).set(core.topics_len() as f64);
    gauge!(SOURCES).set(core.sources.connected() as f64);
    gauge!(STREAMS).set(streams as f64);
    gauge!(SESSIONS).set(sessions as f64);
}
