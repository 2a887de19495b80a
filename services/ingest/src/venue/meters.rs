//! A live venue's metrics.

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use ticker_feeds::Fault;
use ticker_market::Channel;

pub(crate) struct Meters {
    venue: String,
    pub(crate) connected: Gauge,
    pub(crate) frames: Counter,
    pub(crate) bytes: Counter,
    pub(crate) sends: Counter,
    pub(crate) refreshes: Counter,
    pub(crate) decode_seconds: Histogram,
    pub(crate) lag_seconds: Gauge,
    pub(crate) skew_seconds: Gauge,
}

impl Meters {
    pub(crate) fn new(venue: &str) -> Self {
        let label = || venue.to_owned();
        Self {
            venue: label(),
            connected: gauge!("ticker_ingest_venue_connected", "venue" => label()),
            frames: counter!("ticker_ingest_venue_frames_total", "venue" => label()),
            bytes: counter!("ticker_ingest_venue_bytes_total", "venue" => label()),
            sends: counter!("ticker_ingest_venue_sends_total", "venue" => label()),
            refreshes: counter!("ticker_ingest_book_refreshes_total", "venue" => label()),
            decode_seconds: histogram!("ticker_ingest_decode_seconds", "venue" => label()),
            lag_seconds: gauge!("ticker_ingest_venue_lag_seconds", "venue" => label()),
            skew_seconds: gauge!("ticker_ingest_venue_clock_skew_seconds", "venue" => label()),
        }
    }

    /// A connection ended; `cause` is a short stable word.
    pub(crate) fn disconnected(&self, cause: &'static str) {
        self.connected.set(0.0);
        counter!("ticker_ingest_venue_disconnects_total", "venue" => self.venue.clone(), "cause" => cause).increment(1);
    }

    /// A channel is mute.
    pub(crate) fn mute(&self, channel: Channel) {
        let (venue, channel) = (self.venue.clone(), channel.as_str());
        counter!("ticker_ingest_venue_channel_silences_total", "venue" => venue, "channel" => channel).increment(1);
    }

    /// A REST request ended so: `ok`, or a short stable word.
    pub(crate) fn fetched(&self, result: &'static str) {
        counter!("ticker_ingest_venue_fetches_total", "venue" => self.venue.clone(), "result" => result).increment(1);
    }
}

/// An adapter found something wrong.
pub(crate) fn fault(venue: &str, fault: Fault) {
    counter!("ticker_ingest_faults_total", "venue" => venue.to_owned(), "cause" => fault.as_str()).increment(1);
}

/// Tells the recorder what the metrics mean.
pub(crate) fn describe() {
    describe_gauge!("ticker_ingest_venue_connected", "1 while the venue's WebSocket is open, else 0.");
    describe_counter!("ticker_ingest_venue_frames_total", "Text and binary frames received from the venue.");
    describe_counter!("ticker_ingest_venue_bytes_total", "Bytes in the frames received from the venue.");
    describe_counter!("ticker_ingest_venue_sends_total", "Text frames and pings sent to the venue.");
    describe_counter!(
        "ticker_ingest_book_refreshes_total",
        "Books that were asked for again, because the venue's rule does not prove them whole."
    );
    describe_counter!("ticker_ingest_venue_disconnects_total", "Connections that failed or ended, by cause.");
    describe_counter!("ticker_ingest_venue_fetches_total", "REST requests, by result.");
    describe_histogram!("ticker_ingest_decode_seconds", "Time to decode one frame.");
    describe_gauge!(
        "ticker_ingest_venue_lag_seconds",
        "From the venue's time of the newest event to its receipt; negative where the venue's clock runs ahead."
    );
    describe_gauge!(
        "ticker_ingest_venue_clock_skew_seconds",
        "From the venue's time to receipt, the least of the last one to two minutes; negative where the venue's clock runs \
         ahead."
    );
    describe_counter!(
        "ticker_ingest_venue_channel_silences_total",
        "Connections that were replaced because one of their channels was silent, by channel."
    );
    describe_counter!(
        "ticker_ingest_faults_total",
        "Undecodable frames, gaps, wrong checksums, crossed and contradicted books, refused requests."
    );
}
