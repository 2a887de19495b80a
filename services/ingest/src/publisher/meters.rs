//! The publisher's metrics.

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

#[derive(Clone)]
pub(super) struct Meters {
    pub(super) waiting: Gauge,
    pub(super) queue_bundles: Gauge,
    pub(super) queue_bytes: Gauge,
    pub(super) unacked_batches: Gauge,
    pub(super) unacked_bytes: Gauge,
    pub(super) batches: Counter,
    pub(super) batch_events: Histogram,
    pub(super) publish_seconds: Histogram,
    pub(super) accepted: Counter,
    pub(super) refused: Counter,
    pub(super) dropped: Counter,
    pub(super) superseded: Counter,
    pub(super) streams: Counter,
    pub(super) resets: Counter,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            waiting: gauge!("ticker_ingest_publish_waiting"),
            queue_bundles: gauge!("ticker_ingest_publish_queue_bundles"),
            queue_bytes: gauge!("ticker_ingest_publish_queue_bytes"),
            unacked_batches: gauge!("ticker_ingest_publish_unacked_batches"),
            unacked_bytes: gauge!("ticker_ingest_publish_unacked_bytes"),
            batches: counter!("ticker_ingest_publish_batches_total"),
            batch_events: histogram!("ticker_ingest_publish_batch_events"),
            publish_seconds: histogram!("ticker_ingest_publish_seconds"),
            accepted: counter!("ticker_ingest_publish_accepted_total"),
            refused: counter!("ticker_ingest_publish_refused_total"),
            dropped: counter!("ticker_ingest_publish_dropped_total"),
            superseded: counter!("ticker_ingest_publish_superseded_total"),
            streams: counter!("ticker_ingest_publish_streams_total"),
            resets: counter!("ticker_ingest_publish_resets_total"),
        }
    }
}

/// Tells the recorder what the metrics mean.
pub(crate) fn describe() {
    describe_gauge!(
        "ticker_ingest_publish_waiting",
        "1 while the fanout is away or too slow, so that sources stop reading; else 0."
    );
    describe_gauge!("ticker_ingest_publish_queue_bundles", "Bundles of events that wait to be sent to the fanout.");
    describe_gauge!("ticker_ingest_publish_queue_bytes", "Bytes of events that wait to be sent to the fanout.");
    describe_gauge!("ticker_ingest_publish_unacked_batches", "Batches that are sent and not yet on the tape.");
    describe_gauge!("ticker_ingest_publish_unacked_bytes", "Bytes that are sent and not yet on the tape.");
    describe_counter!(
        "ticker_ingest_publish_batches_total",
        "Batches made, each counted once however often it is sent."
    );
    describe_histogram!("ticker_ingest_publish_batch_events", "Events in a batch.");
    describe_histogram!(
        "ticker_ingest_publish_seconds",
        "From the moment that the oldest event of a batch was decoded to the answer that it is on the tape."
    );
    describe_counter!("ticker_ingest_publish_accepted_total", "Events that are on the tape.");
    describe_counter!("ticker_ingest_publish_refused_total", "Events that the fanout refused; its log says why.");
    describe_counter!(
        "ticker_ingest_publish_dropped_total",
        "Events that were sent, not acknowledged, and given up because the fanout began anew or would not take them."
    );
    describe_counter!(
        "ticker_ingest_publish_superseded_total",
        "Book events that were left out because a snapshot that holds them follows."
    );
    describe_counter!("ticker_ingest_publish_streams_total", "Streams to the fanout that were begun.");
    describe_counter!("ticker_ingest_publish_resets_total", "Times that everything was told again to a fanout.");
}
