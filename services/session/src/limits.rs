//! What a session may use, and what a hub keeps.

/// Limits, each with the reader's view of what happens when it is reached.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Topics of one session, patterns expanded: `too_many_topics`.
    pub session_topics_max: usize,
    /// Patterns with `*` of one session: `too_many_topics`.
    pub session_patterns_max: usize,
    /// Sessions of this hub: `too_many_sessions`.
    pub sessions_max: usize,
    /// Events that a topic keeps, so the backlog that a reader of an event channel may have: `slow_consumer`.
    pub backlog_events_max: usize,
    /// Updates that a book topic keeps for merging; a reader further behind gets a snapshot.
    pub book_updates_max: usize,
    /// Levels in the updates that a book topic keeps, likewise.
    pub book_levels_max: usize,
    /// Requests of one session a second, with as many at once: `rate_limited`.
    pub requests_per_second_max: u32,
    /// Events asked for with one backfill.
    pub backfill_page_events: u32,
    /// Past events of each topic that `recent` may ask for; more is cut to it.
    pub recent_events_max: u32,
    /// How often a session hears a heartbeat.
    pub heartbeat_ms: u32,
    /// How long a cursor may lie ahead of this hub (gained on an edge that is further) before it is refused.
    pub cursor_ahead_ms_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            session_topics_max: 1_000,
            session_patterns_max: 64,
            sessions_max: 100_000,
            backlog_events_max: 1_024,
            book_updates_max: 128,
            book_levels_max: 16_384,
            requests_per_second_max: 100,
            backfill_page_events: 1_000,
            recent_events_max: 1_000,
            heartbeat_ms: 15_000,
            cursor_ahead_ms_max: 5_000,
        }
    }
}
