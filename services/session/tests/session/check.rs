//! What a reader makes of what it is sent, and everything that it checks.

use prost::Message as _;
use ticker_market::{Class, Data, Event, Kind, Time, Topic};
use ticker_proto::message::Message;
use ticker_proto::{Form, Notice, convert, json, v1};
use ticker_session::{Mode, Outgoing};

use crate::reader::{Asked, Pending, Reader, Tapes, View};

impl Reader {
    /// The messages of what was taken of a plan. `cut`: only so many of them arrive before the connection breaks.
    pub(crate) fn receive(&mut self, tapes: &Tapes, taken: &[Outgoing], cut: usize, now: Time) {
        let mut left = cut;
        for item in taken {
            self.bytes += item.encoded().bytes.len();
            if self.form == Form::Sse {
                let text = std::str::from_utf8(&item.encoded().bytes).expect("text");
                for block in text.split_terminator("\n\n") {
                    if left == 0 {
                        return;
                    }
                    left -= 1;
                    let mut id = None;
                    let mut data = None;
                    let mut notice = false;
                    for line in block.lines() {
                        match line.split_once(": ").expect("a field") {
                            ("id", cursor) => id = Some(cursor),
                            ("data", json) => data = Some(json),
                            ("event", "notice") => notice = true,
                            other => panic!("{other:?}"),
                        }
                    }
                    let message = json::read_message(data.expect("data")).expect("a message");
                    assert_eq!(notice, matches!(message, Message::Notice(_)));
                    // An id counts only once its event is whole.
                    self.message(tapes, message, now);
                    if let Some(id) = id {
                        self.id_came(tapes, id);
                    }
                }
            } else {
                for bytes in item.encoded().messages() {
                    if left == 0 {
                        return;
                    }
                    left -= 1;
                    let message = match self.form {
                        Form::Json => json::read_message(std::str::from_utf8(&bytes).expect("text")).expect("json"),
                        Form::Protobuf => {
                            convert::message_from_wire(v1::SessionResponse::decode(bytes).expect("protobuf"))
                                .expect("a message")
                        }
                        other => panic!("{other:?}"),
                    };
                    self.message(tapes, message, now);
                }
            }
        }
    }

    fn message(&mut self, tapes: &Tapes, message: Message, now: Time) {
        if self.trace {
            match &message {
                Message::Notice(notice) => eprintln!("    {}: {notice:?}", self.name),
                Message::Event(part) => {
                    let (e, part) = (&part.event, part.part);
                    eprintln!(
                        "    {}: {} {} prev {} {:?} {part} at {}",
                        self.name,
                        e.topic,
                        e.seq,
                        e.prev,
                        e.kind,
                        now.millis()
                    );
                }
            }
        }
        match message {
            Message::Notice(notice) => self.notice(tapes, notice),
            Message::Event(part) => {
                if part.parts <= 1 {
                    let keys = part.raw.as_deref().map(keys_of);
                    return self.event(tapes, part.event, keys, now);
                }
                assert_eq!(part.part as usize, self.parts.len() + 1, "{}: parts in order", self.name);
                self.parts.push(part.event);
                if part.part == part.parts {
                    let mut parts = std::mem::take(&mut self.parts).into_iter();
                    let mut event = parts.next().expect("a part");
                    for part in parts {
                        if let (Data::Book(all), Data::Book(more)) = (&mut event.data, part.data) {
                            all.bids.extend(more.bids);
                            all.asks.extend(more.asks);
                        }
                    }
                    self.event(tapes, event, None, now);
                }
            }
        }
    }

    fn notice(&mut self, tapes: &Tapes, notice: Notice) {
        if let Some(cursor) = notice.cursor() {
            let (epoch, seq) = cursor.split_once('-').expect("a cursor");
            let seq: u64 = seq.parse().expect("a cursor");
            if let Notice::Welcome { epoch: welcome, .. } = &notice {
                assert_eq!(welcome, epoch);
                if *epoch != self.epoch {
                    assert!(
                        matches!(self.notices.last(), Some(Notice::Gap { topic: None, .. })) || !self.heard,
                        "{}: gap, then welcome",
                        self.name
                    );
                    self.new_epoch(epoch, seq);
                }
            }
            assert_eq!(epoch, self.epoch, "{}: {notice:?}", self.name);
            self.cursor_is_safe(tapes, seq, &format!("{notice:?}"));
            self.cursor = self.cursor.max(Some(seq));
        }
        match &notice {
            Notice::Subscribed { id, cursor, .. } => {
                let pending = self.pending.remove(id).unwrap_or_else(|| panic!("{}: nobody asked {id}", self.name));
                let seq = cursor.split_once('-').expect("a cursor").1.parse().expect("a cursor");
                self.joined(tapes, &pending, *id, seq);
            }
            Notice::Gap { topic: Some(text), reason } => {
                assert_eq!(reason, "cursor_expired");
                let topic: Topic = text.parse().expect("a topic");
                let tape = &tapes[&self.epoch];
                self.gaps += 1;
                if let Some(view) = self.views.get_mut(&topic) {
                    assert!(view.owes() && tape.evicted(&topic) > view.pos.unwrap_or(0), "{}: gap {topic}", self.name);
                    if topic.channel.class() == Class::Event || view.closed_only {
                        view.gap = true;
                    } else {
                        (view.pos, view.shown, view.last) = (None, false, 0);
                        view.closed_only = topic.channel.is_bar();
                    }
                }
            }
            Notice::Gap { topic: None, reason } => {
                assert_eq!(reason, "epoch_changed");
                assert!(self.gap_all_allowed, "{}: a gap without reason", self.name);
            }
            Notice::Error { id: Some(id), code, .. } => {
                assert_eq!(code, "bad_request", "{}: {notice:?}", self.name);
                self.pending.remove(id);
                self.views.retain(|_, v| v.request != *id);
                self.refused(*id);
            }
            Notice::Heartbeat { conflated, .. } => self.conflated_told += conflated,
            _ => {}
        }
        self.notices.push(notice);
        self.heard = true;
    }

    /// A request was refused later on: its patterns are forgotten.
    fn refused(&mut self, id: u64) {
        let asked = self.asked.remove(&id).unwrap_or_default();
        self.wishes.retain(|(p, ..)| !asked.contains(&p.to_string()));
    }

    pub(crate) fn epoch_changed(&mut self) {
        self.gap_all_allowed = true;
        self.countable = false;
    }

    fn new_epoch(&mut self, epoch: &str, seq: u64) {
        self.epoch = epoch.to_owned();
        self.cursor = None;
        self.sse_id = None;
        for (topic, view) in &mut self.views {
            let pending = self.pending.get(&view.request);
            // A request that was made after the epoch had changed, before the reader was told, is of the new one.
            if let Some(pending) = pending.filter(|p| p.epoch == *epoch) {
                view.pos = view.pos.filter(|_| pending.from.is_some());
                (view.gap, view.last, view.shown) = (pending.earliest, 0, false);
                continue;
            }
            let pending = pending.is_some();
            view.closed_only = topic.channel.is_bar();
            let goes_on = topic.channel.class() == Class::Event || (view.closed_only && !view.every);
            view.pos = (goes_on && !pending).then_some(seq);
            (view.gap, view.last, view.shown) = (false, 0, false);
        }
        self.wishes.iter_mut().for_each(|w| w.2 = seq);
    }

    /// `subscribed` came: everything that it covers is here.
    fn joined(&mut self, tapes: &Tapes, pending: &Pending, id: u64, seq: u64) {
        let tape = &tapes[&self.epoch];
        for topic in &pending.topics {
            let Some(view) = self.views.get_mut(topic).filter(|v| v.request == id) else { continue };
            let is_state = !view.every && tape.last_at(topic, seq).is_some();
            if is_state && pending.epoch == self.epoch && self.mode == Mode::Stream {
                assert!(view.shown, "{}: subscribed to {topic} without a snapshot", self.name);
            }
            if view.owes() {
                let floor =
                    if view.gap { view.pos.unwrap_or(0).max(tape.evicted(topic)) } else { view.pos.unwrap_or(seq) };
                let missing = tape.owed(topic, view.closed_only, floor, seq + 1);
                assert_eq!(missing, 0, "{}: subscribed to {topic} at {seq}, has {:?}", self.name, view.pos);
                if view.pos.is_none() {
                    let none = tape.last_at(topic, seq).is_none();
                    let is_event = topic.channel.class() == Class::Event || !view.every;
                    assert!(is_event || none || pending.epoch != self.epoch, "{}: {topic} without snapshot", self.name);
                    if is_event || (none && pending.epoch == self.epoch) {
                        view.pos = Some(seq);
                    }
                }
            }
        }
    }

    /// May a reader resume at `seq`? Nothing of what it was promised lies between what it has and there.
    pub(crate) fn cursor_is_safe(&self, tapes: &Tapes, seq: u64, why: &str) {
        self.safe(tapes, seq + 1, false, why);
    }

    fn safe(&self, tapes: &Tapes, below: u64, unclosed: bool, why: &str) {
        let tape = &tapes[&self.epoch];
        for (topic, view) in &self.views {
            // An epoch changed while it was on its way: it stands where the new one began, which `welcome` says.
            let closed = !self.pending.contains_key(&view.request);
            if !view.owes() || (!closed && !unclosed) {
                continue;
            }
            if let Some(pos) = view.pos {
                let floor = if view.gap { pos.max(tape.evicted(topic)) } else { pos };
                let missing = tape.owed(topic, view.closed_only, floor, below);
                assert_eq!(
                    missing, 0,
                    "{}: {topic} had up to {pos}, and {missing} are missing below {below}: {why}",
                    self.name
                );
            }
        }
    }

    fn id_came(&mut self, tapes: &Tapes, cursor: &str) {
        let (epoch, seq) = cursor.split_once('-').expect("a cursor");
        assert_eq!(epoch, self.epoch);
        let seq = seq.parse().expect("a cursor");
        assert!(self.sse_id <= Some(seq), "{}: ids only rise: {:?}, then {seq}", self.name, self.sse_id);
        self.sse_id = Some(seq);
        self.safe(tapes, seq + 1, true, "id");
        for (topic, view) in &self.views {
            // Who resumes here gets what comes after, and no snapshot.
            let begins = view.every && view.pos.is_none() && topic.channel.class() != Class::Event;
            let nothing = tapes[&self.epoch].last_at(topic, seq).is_none();
            assert!(!begins || nothing, "{}: id {seq} before {topic} has begun", self.name);
        }
    }

    fn event(&mut self, tapes: &Tapes, event: Event, keys: Option<Vec<String>>, now: Time) {
        let name = self.name.clone();
        let tape = &tapes[&self.epoch];
        let topic = Topic::clone(&event.topic);
        let seq = event.seq;
        let what = format!("{name}: {topic} {seq} {:?}", event.kind);
        let view = self.views.get_mut(&topic).unwrap_or_else(|| panic!("{what}: not subscribed to"));
        let original = tape.at(&topic, seq).unwrap_or_else(|| panic!("{what}: not on the tape"));
        let class = topic.channel.class();
        self.events += 1;
        self.log.push((topic.to_string(), seq, event.kind));
        view.events += 1;
        let is_json = keys.is_some();
        if let Some(keys) = keys {
            check_fields(&what, &view.asked, &topic, event.kind, &keys);
        }
        let snapshot = event.kind == Kind::Snapshot;
        let whole = view.asked.fields.is_none();
        let is_closed = original.event.is_closed_bar() && !snapshot;
        if view.closed_only && is_closed {
            if let Some(pos) = view.pos {
                let floor = if view.gap { pos.max(tape.evicted(&topic)) } else { pos };
                assert!(seq > pos, "{what}: closed bars come once, had up to {pos}");
                assert_eq!(tape.owed(&topic, true, floor, seq), 0, "{what}: closed bars are missing after {floor}");
            }
            assert!(seq > view.last || !view.shown, "{what}: after {}", view.last);
            assert_eq!((event.prev, event.kind), (original.event.prev, original.event.kind), "{what}");
            if view.shown {
                self.conflated_seen += tape.between(&topic, view.last, seq);
            }
            (view.pos, view.gap) = (Some(seq), false);
        } else if view.every && !view.closed_only {
            match view.pos {
                None if class != Class::Event => {
                    let first = tape.last_at(&topic, seq - 1).is_none();
                    assert!(snapshot || event.kind == Kind::Invalid || first, "{what}: a snapshot comes first");
                    assert!(seq >= view.last, "{what}: after {}", view.last);
                }
                None => {}
                Some(pos) => {
                    let next = tape.first_after(&topic, pos).map(|f| f.event.seq);
                    let skipped = tape.between(&topic, pos, seq);
                    let after_gap =
                        view.gap && seq > pos && tape.between(&topic, pos.max(tape.evicted(&topic)), seq) == 0;
                    assert!(
                        next == Some(seq) || after_gap,
                        "{what}: had up to {pos}; {skipped} skipped, next is {next:?}"
                    );
                }
            }
            view.gap = false;
            view.pos = Some(seq);
            if view.shown || class == Class::Event {
                assert_eq!(event.prev, original.event.prev, "{what}");
                assert_eq!(event.kind, original.event.kind, "{what}");
            }
        } else {
            assert!(
                view.shown
                    || snapshot
                    || event.kind == Kind::Invalid
                    || (self.mode == Mode::Once && class == Class::State)
                    || (view.every && tape.last_at(&topic, seq - 1).is_none()),
                "{what}: a snapshot comes first"
            );
            assert!(
                seq > view.last || (event.prev == 0 && seq == view.last) || !view.shown,
                "{what}: after {}",
                view.last
            );
            let left_out = tape.between(&topic, view.last, seq);
            if view.shown {
                self.conflated_seen += left_out;
            }
            if let (Some(rate), Some(at)) = (view.asked.max_rate, view.sent_at)
                && rate > 0.0
                && view.shown
                && event.kind == Kind::Update
            {
                let interval = (1e9 / rate) as i64;
                assert!(now.since(at) >= interval, "{what}: {} ns after the last, at {rate} a second", now.since(at));
            }
            view.sent_at = Some(now);
            if view.every {
                // Of a bar of which every event is wanted, the state has come: from here on nothing is left out.
                (view.closed_only, view.pos) = (false, Some(seq));
            }
            if event.kind == Kind::Update && view.shown {
                if class == Class::Book {
                    assert_eq!(event.prev, view.last, "{what}: the chain of a book never breaks");
                } else {
                    assert_eq!(event.prev, original.event.prev, "{what}");
                }
            }
        }
        match &event.data {
            Data::Book(levels) => {
                let Data::Book(proof) = &original.event.data else { panic!("{what}: the tape has no book") };
                if snapshot {
                    view.book.replace(levels).expect("small");
                    view.valid = true;
                } else if view.valid {
                    view.book.apply(levels).expect("small");
                }
                assert_eq!((levels.crc, levels.sum), (proof.crc, proof.sum), "{what}");
                if view.valid {
                    assert_eq!((view.book.crc(), view.book.sum()), (proof.crc, proof.sum), "{what}: the book differs");
                }
            }
            Data::Invalid(_) => view.valid = false,
            data if whole && is_json => assert_eq!(*data, original.event.data, "{what}"),
            _ => {}
        }
        view.shown |= !is_closed || !view.closed_only;
        view.last = seq;
        if snapshot {
            assert_eq!(event.prev, 0, "{what}");
        } else {
            // Promise 2: nothing of the event channels below it is still to come.
            self.safe(tapes, seq, false, &what);
            self.cursor = self.cursor.max(Some(seq));
        }
    }

    /// Everything has been sent: the reader's state is the tape's.
    pub(crate) fn converged(&self, tapes: &Tapes, name: &str, beats: bool) {
        let tape = &tapes[&self.epoch];
        assert_eq!(&*tape.epoch, name, "{}: still in an old epoch", self.name);
        // What the new epoch does not know (yet) is waited for.
        let known = |t: &Topic| tape.instruments.iter().any(|i| i.venue == t.venue && i.symbol == t.symbol);
        for pending in self.pending.values() {
            assert!(!pending.topics.iter().all(known), "{}: unanswered: {pending:?}", self.name);
        }
        let waiting = |view: &View| self.pending.contains_key(&view.request);
        for (topic, view) in &self.views {
            let Some(last) = tape.events_of(topic).last().filter(|_| !waiting(view)) else { continue };
            if view.owes() {
                let floor = if view.gap { view.pos.max(Some(tape.evicted(topic))) } else { view.pos };
                let floor = floor.unwrap_or_else(|| panic!("{}: {topic} was never joined", self.name));
                let missing = tape.owed(topic, view.closed_only, floor, u64::MAX);
                assert_eq!(missing, 0, "{}: {topic} has {floor}", self.name);
            }
            if !view.every {
                assert_eq!(view.last, last.event.seq, "{}: {topic} is not at its newest", self.name);
                assert_eq!(
                    view.valid,
                    last.event.kind != Kind::Invalid && topic.channel.class() == Class::Book,
                    "{}: {topic}",
                    self.name
                );
            }
        }
        if beats && self.countable && self.mode == Mode::Stream {
            assert_eq!(self.conflated_told, self.conflated_seen, "{}: conflation is never silent", self.name);
        }
    }
}

fn keys_of(raw: &str) -> Vec<String> {
    let value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(raw).expect("an object");
    value.keys().cloned().collect()
}

fn check_fields(what: &str, asked: &Asked, topic: &Topic, kind: Kind, keys: &[String]) {
    let always = ["topic", "seq", "prev", "kind"];
    if let Some(fields) = &asked.fields
        && topic.channel.class() != Class::Book
        && kind != Kind::Invalid
    {
        for key in keys {
            let stays = always.contains(&key.as_str()) || (topic.channel.is_bar() && key == "closed");
            assert!(stays || fields.contains(key), "{what}: {key} was not asked for");
        }
    }
    assert!(!topic.channel.is_bar() || keys.iter().any(|k| k == "closed"), "{what}: closed is always told");
    for key in always {
        assert!(keys.iter().any(|k| k == key), "{what}: no {key}");
    }
}
