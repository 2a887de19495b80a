//! The simulated market, in real time.

use std::sync::Arc;
use std::time::Duration;

use ticker_feeds::Out;
use ticker_feeds::synthetic::Synthetic;
use ticker_market::Time;
use ticker_runtime::{Drain, clock};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::SyntheticConfig;
use crate::feed::{Feed, Gone};
use crate::progress;

/// How often the market moves on: often enough that events do not come in lumps which a person or a bench would see.
const STEP: Duration = Duration::from_millis(2);

/// A market that was held up for longer (the fanout was away) goes on where it was, instead of telling the lost time in
/// one burst.
const CATCH_UP_MAX_NANOS: i64 = 250_000_000;

pub(crate) async fn run(config: SyntheticConfig, mut feed: Feed, progress: Arc<progress::Source>, drain: Drain) {
    let SyntheticConfig { instruments, updates_per_second, seed } = config;
    let mut market = Synthetic::new(seed, instruments, updates_per_second);
    progress.set(true, format!("{instruments} instruments, {updates_per_second} updates a second each"));
    let ended: Result<(), Gone> = async {
        let mut out = Out::default();
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The market's own clock stands still while nobody takes what it tells; events carry the wall clock's time.
        let (mut lost_nanos, mut market_time) = (0, clock::now_nanos());
        while !drain.is_started() {
            tokio::select! {
                () = drain.started() => break,
                wanted = feed.retell_wanted() => {
                    wanted?;
                    feed.retelling();
                    market.retell(Time(clock::now_nanos()), &mut out);
                }
                _ = steps.tick() => {
                    let behind = clock::now_nanos() - lost_nanos - market_time;
                    if behind > CATCH_UP_MAX_NANOS {
                        lost_nanos += behind;
                    }
                    market_time = market_time.max(clock::now_nanos() - lost_nanos);
                    market.advance(Time(market_time), &mut out);
                    for update in &mut out.updates {
                        update.recv = update.recv.plus_nanos(lost_nanos);
                        update.ts = update.ts.map(|ts| ts.plus_nanos(lost_nanos));
                    }
                }
            }
            feed.publish(&mut out).await?;
        }
        Ok(())
    }
    .await;
    progress.set(false, if ended.is_ok() { "ended" } else { "the publisher is gone" });
}
