//! Topics that come by an unreliable way and by the stream: the two overtake each other, and the newest wins.

use std::collections::HashMap;
use std::sync::Arc;

use ticker_market::{Class, Topic};
use ticker_proto::{Message, Notice};

use crate::options::Subscription;
use crate::transport::Item;

/// The place of what has come of each topic. There are no more than the service's limit of topics for a session.
#[derive(Debug, Default)]
pub(crate) struct Newest(HashMap<Arc<Topic>, u64>);

impl Newest {
    /// For whoever asks for datagrams.
    pub(crate) fn of(subscription: &Subscription) -> Option<Self> {
        (subscription.delivery.as_deref() == Some("datagram")).then(Self::default)
    }

    /// Is it at least as new as what came before of its topic?
    pub(crate) fn admits(&mut self, item: &Item) -> bool {
        match &item.message {
            Some(Message::Event(part)) if part.event.topic.channel.class() != Class::Event => {
                let newest = self.0.entry(Arc::clone(&part.event.topic)).or_default();
                let admitted = part.event.seq >= *newest;
                *newest = part.event.seq.max(*newest);
                admitted
            }
            // Another tape begins: its places are its own.
            Some(Message::Notice(Notice::Welcome { .. })) => {
                self.0.clear();
                true
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ticker_proto::json;

    fn item(text: &str) -> Item {
        json::read_message(text).expect("valid").into()
    }

    fn event(topic: &str, seq: u64) -> Item {
        let fields = r#""price":"1","size":"1","bid":"1","bid_size":"1","ask":null,"ask_size":null"#;
        item(&format!(r#"{{"topic":"{topic}","seq":{seq},"prev":0,"kind":"snapshot",{fields}}}"#))
    }

    #[test]
    fn a_state_never_goes_back_and_events_all_come() {
        let datagram = Subscription { delivery: Some("datagram".into()), ..Subscription::default() };
        let mut newest = Newest::of(&datagram).expect("it asks for datagrams");
        let came = [7, 9, 8, 9, 10].map(|seq| newest.admits(&event("quote/x/A", seq)));
        assert_eq!(came, [true, true, false, true, true]);
        assert!(newest.admits(&event("quote/x/B", 1)), "each topic has its own");
        let trade = |seq| {
            let text =
                format!(r#"{{"topic":"trade/x/A","seq":{seq},"prev":0,"kind":"update","price":"1","size":"1"}}"#);
            item(&text)
        };
        assert!(newest.admits(&trade(9)) && newest.admits(&trade(8)), "by the stream alone, in order");
        assert!(newest.admits(&item(r#"{"op":"welcome","version":"1","epoch":"f","cursor":"f-1","heartbeat_ms":1}"#)));
        assert!(newest.admits(&event("quote/x/A", 1)), "another tape has other places");
        assert!(Newest::of(&Subscription::default()).is_none());
    }
}
