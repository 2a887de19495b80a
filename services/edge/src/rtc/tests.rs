//! Who gets which packet.

use super::*;

fn service() -> Arc<Service> {
    let config = Config { rtc_listen: Some(([127, 0, 0, 1], 0).into()), ..Config::default() };
    Service::open(&config, Arc::default()).expect("a free port").expect("configured")
}

fn register(service: &Arc<Service>, name: &str) -> (Registration, inbox::Receiver<Packet>, inbox::Receiver<Control>) {
    let (packets, received) = inbox::queue(INBOX_MAX);
    let (control, controls) = inbox::queue(CONTROLS_MAX);
    let entry = Entry { control, fragment: name.into(), remote: "abcd".into(), mid: "0".into(), is_ending: false };
    (Registration::new(service, &format!("id-{name}"), entry, packets), received, controls)
}

/// A check for that agent, proven to nobody.
fn check(to: &str) -> Vec<u8> {
    let name = format!("{to}:abcd");
    let padded = name.len().next_multiple_of(4);
    let mut bytes = vec![0, 1, 0, padded as u8 + 4, 0x21, 0x12, 0xa4, 0x42];
    bytes.extend_from_slice(&[7; 12]);
    bytes.extend_from_slice(&[0, 6, 0, name.len() as u8]);
    bytes.extend_from_slice(name.as_bytes());
    bytes.resize(20 + 4 + padded, 0);
    bytes
}

const RECORD: &[u8] = &[22, 254, 253, 0];

#[tokio::test]
async fn checks_go_by_name_and_records_by_address() {
    let service = service();
    let (mut first, _inbox, _control) = register(&service, "aaaa");
    let (mut second, _inbox, _control) = register(&service, "bbbb");
    let here: SocketAddr = ([192, 0, 2, 1], 5_000).into();
    let is = |peer: &Registration, bytes: &[u8]| service.addressee(here, bytes).is_some_and(|p| p.same(&peer.packets));
    assert!(is(&first, &check("aaaa")) && is(&second, &check("bbbb")));
    assert!(service.addressee(here, &check("cccc")).is_none());
    assert!(service.addressee(here, RECORD).is_none(), "nobody has proven to be there");
    first.bind(here);
    assert!(is(&first, RECORD));
    // Another has it now; the first one's end does not take it away.
    second.bind(here);
    drop(first);
    assert!(is(&second, RECORD) && service.addressee(here, &check("aaaa")).is_none());
    drop(second);
    assert!(service.addressee(here, RECORD).is_none());
    let table = service.table();
    assert!(table.peers.is_empty() && table.fragments.is_empty() && table.sources.is_empty());
    assert_eq!(service.connecting.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_peer_has_few_addresses() {
    let service = service();
    let (mut peer, _inbox, _control) = register(&service, "aaaa");
    (0..100).for_each(|port| peer.bind(([192, 0, 2, 1], 1_000 + port).into()));
    assert_eq!((peer.sources.len(), service.table().sources.len()), (SOURCES_MAX, SOURCES_MAX));
}

#[tokio::test]
async fn a_new_run_of_ice_has_a_new_name() {
    let service = service();
    let (mut peer, _inbox, _control) = register(&service, "aaaa");
    peer.rename("zzzz", "wxyz");
    let here: SocketAddr = ([192, 0, 2, 1], 5_000).into();
    assert!(service.addressee(here, &check("aaaa")).is_none() && service.addressee(here, &check("zzzz")).is_some());
    let entry = service.table().peers["id-aaaa"].clone();
    assert_eq!((entry.fragment.as_str(), entry.remote.as_str()), ("zzzz", "wxyz"));
}

#[tokio::test]
async fn certificates_are_changed() {
    let service = service();
    let now = Instant::now();
    let first = service.certificate(now).expect("one").fingerprint;
    assert_eq!(service.certificate(now + Duration::from_secs(60)).expect("one").fingerprint, first);
    assert_ne!(service.certificate(now + CERTIFICATE_MAX).expect("another").fingerprint, first);
}
