use super::*;

const A: Session = *b"000000001A";

fn packet(session: &Session, sequence: u64, messages: &[&[u8]]) -> Vec<u8> {
    let mut bytes = session.to_vec();
    bytes.extend(sequence.to_be_bytes());
    bytes.extend((messages.len() as u16).to_be_bytes());
    for message in messages {
        bytes.extend((message.len() as u16).to_be_bytes());
        bytes.extend(*message);
    }
    bytes
}

/// What a packet brought about, as text.
fn take(receiver: &mut Receiver, bytes: &[u8]) -> Vec<String> {
    let mut told = Vec::new();
    receiver.packet(bytes, &mut |d| told.push(text(d))).expect("a packet");
    told
}

fn text(delivery: Delivery<'_>) -> String {
    match delivery {
        Delivery::Began(session) => format!("began {}", String::from_utf8_lossy(&session)),
        Delivery::Message(number, message) => format!("{number} {}", String::from_utf8_lossy(message)),
        Delivery::Lost { from, to } => format!("lost {from}..{to}"),
        Delivery::Ended => "ended".to_owned(),
    }
}

fn ask(receiver: &mut Receiver, now: i64) -> (Option<(u64, u16)>, Vec<String>) {
    let mut told = Vec::new();
    let request = receiver.request(Time::from_millis(now), &mut |d| told.push(text(d)));
    let read = |r: [u8; HEADER_BYTES]| {
        assert_eq!(r[..10], A);
        (u64::from_be_bytes(r[10..18].try_into().expect("8")), u16::from_be_bytes([r[18], r[19]]))
    };
    (request.map(read), told)
}

#[test]
fn messages_come_in_order_and_once() {
    let mut receiver = Receiver::new();
    assert_eq!(take(&mut receiver, &packet(&A, 7, &[b"x", b"y"])), ["began 000000001A", "7 x", "8 y"]);
    assert!(take(&mut receiver, &packet(&A, 7, &[b"x", b"y"])).is_empty(), "again");
    assert_eq!(take(&mut receiver, &packet(&A, 8, &[b"y", b"z"])), ["9 z"], "overlapping");
    assert!(take(&mut receiver, &packet(&A, 10, &[])).is_empty(), "a heartbeat");
    assert!(!receiver.is_missing());
    assert_eq!(ask(&mut receiver, 0), (None, vec![]));
}

#[test]
fn what_is_missing_is_asked_for_and_what_came_early_waits() {
    let mut receiver = Receiver::new();
    take(&mut receiver, &packet(&A, 1, &[b"a"]));
    assert!(take(&mut receiver, &packet(&A, 6, &[b"f"])).is_empty());
    assert!(take(&mut receiver, &packet(&A, 4, &[b"d", b"e"])).is_empty());
    assert_eq!(ask(&mut receiver, 0).0, Some((2, 2)));
    assert_eq!(ask(&mut receiver, 50).0, None, "it may still come");
    assert_eq!(receiver.next_request(), Some(Time::from_millis(REQUEST_RETRY_MS)));
    assert_eq!(ask(&mut receiver, REQUEST_RETRY_MS).0, Some((2, 2)));
    assert_eq!(take(&mut receiver, &packet(&A, 2, &[b"b"])), ["2 b"]);
    assert_eq!(ask(&mut receiver, REQUEST_RETRY_MS).0, Some((3, 1)), "the rest is asked for at once");
    assert_eq!(take(&mut receiver, &packet(&A, 3, &[b"c"])), ["3 c", "4 d", "5 e", "6 f"]);
    assert_eq!(receiver.next_request(), None);
}

#[test]
fn a_heartbeat_and_the_end_show_a_gap_too() {
    let mut receiver = Receiver::new();
    take(&mut receiver, &packet(&A, 1, &[b"a"]));
    take(&mut receiver, &packet(&A, 3, &[]));
    assert_eq!(ask(&mut receiver, 0).0, Some((2, 1)));
    let mut end = packet(&A, 4, &[]);
    end[18..20].copy_from_slice(&END_OF_SESSION.to_be_bytes());
    assert!(take(&mut receiver, &end).is_empty(), "something is missing before it");
    assert_eq!(ask(&mut receiver, 1_000).0, Some((2, 2)));
    assert_eq!(take(&mut receiver, &packet(&A, 2, &[b"b", b"c"])), ["2 b", "3 c", "ended"]);
    assert!(take(&mut receiver, &end).is_empty(), "told once");
}

#[test]
fn what_does_not_come_is_given_up() {
    let mut receiver = Receiver::new();
    take(&mut receiver, &packet(&A, 1, &[b"a"]));
    take(&mut receiver, &packet(&A, 5, &[b"e"]));
    let mut now = 0;
    for _ in 0..REQUESTS_MAX {
        assert_eq!(ask(&mut receiver, now).0, Some((2, 3)));
        now += REQUEST_RETRY_MS;
    }
    assert_eq!(ask(&mut receiver, now), (None, vec!["lost 2..5".to_owned(), "5 e".to_owned()]));
    assert_eq!(take(&mut receiver, &packet(&A, 6, &[b"f"])), ["6 f"]);
}

#[test]
fn what_is_held_is_bounded() {
    let mut receiver = Receiver::new();
    take(&mut receiver, &packet(&A, 1, &[b"a"]));
    let mut told = Vec::new();
    for number in 0..=HELD_PACKETS_MAX as u64 {
        assert!(told.is_empty());
        told = take(&mut receiver, &packet(&A, 3 + number, &[b"x"]));
    }
    assert_eq!((told.len(), &*told[0], &*told[1]), (HELD_PACKETS_MAX + 2, "lost 2..3", "3 x"));
    assert!(receiver.held.is_empty() && receiver.held_bytes == 0);
}

#[test]
fn another_session_begins_anew() {
    let mut receiver = Receiver::new();
    take(&mut receiver, &packet(&A, 9, &[b"a"]));
    take(&mut receiver, &packet(&A, 12, &[b"d"]));
    assert_eq!(take(&mut receiver, &packet(b"000000002B", 1, &[b"n"])), ["began 000000002B", "1 n"]);
    assert!(!receiver.is_missing());
}

#[test]
fn what_is_no_packet_is_told() {
    let mut receiver = Receiver::new();
    let mut none = |_: Delivery<'_>| panic!("nothing is delivered");
    assert_eq!(receiver.packet(&[0; 19], &mut none), Err(PacketError::Header(19)));
    let whole = packet(&A, 1, &[b"a", b"bc"]);
    assert_eq!(receiver.packet(&whole[..whole.len() - 1], &mut none), Err(PacketError::Cut { at: 1, count: 2 }));
    assert_eq!(receiver.packet(&packet(&A, u64::MAX, &[b"a"]), &mut none), Err(PacketError::Sequence));
}
