//! Offers and answers of a connection that carries data channels and nothing else (RFC 8829, RFC 8841), and the fragments
//! with which they are added to (RFC 8840).
//!
//! What is read was written by strangers: each line is looked at by itself, and what is not known is passed over.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

/// An offer, an answer or a fragment is no larger, in bytes.
pub const BYTES_MAX: usize = 16 * 1024;

/// Media that an offer may ask for, all but one of which are refused.
const MEDIA_MAX: usize = 16;

/// Candidates that are kept; more are passed over.
const CANDIDATES_MAX: usize = 32;

/// ICE's own limits (RFC 8839 §5.4).
const UFRAG_BYTES: std::ops::RangeInclusive<usize> = 4..=256;
const PWD_BYTES: std::ops::RangeInclusive<usize> = 22..=256;

/// A name of a medium that is longer is nobody's.
const MID_BYTES_MAX: usize = 32;

/// What a peer takes that does not say (RFC 8841 §6).
const MESSAGE_BYTES_DEFAULT: u32 = 64 * 1024;

/// Why a description cannot be used. For whoever wrote it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SdpError {
    /// It is too large.
    #[error("an SDP of more than {BYTES_MAX} bytes")]
    TooLarge,
    /// It is no SDP at all.
    #[error("not an SDP: it begins with `v=0`")]
    NotSdp,
    /// Something is missing.
    #[error("the SDP has no {0}")]
    Missing(&'static str),
    /// Something is not as it must be.
    #[error("the SDP's {0} is not as it must be")]
    Malformed(&'static str),
}

/// Who begins the DTLS handshake (RFC 8842).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setup {
    /// Whoever is asked may choose: offers only.
    ActPass,
    /// The one who says so.
    Active,
    /// The other.
    Passive,
}

impl Setup {
    fn as_str(self) -> &'static str {
        match self {
            Setup::ActPass => "actpass",
            Setup::Active => "active",
            Setup::Passive => "passive",
        }
    }
}

/// A medium of a description, whether we take it or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Media {
    /// `application`, `audio`, …
    pub kind: String,
    /// `UDP/DTLS/SCTP`, …
    pub protocol: String,
    /// The formats, as they came.
    pub formats: String,
    /// Its name.
    pub mid: Option<String>,
}

/// How one end of a connection can be reached, and how it proves itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// It answers checks and sends none.
    pub lite: bool,
    /// ICE's name for this end.
    pub ufrag: String,
    /// ICE's password of this end.
    pub pwd: String,
    /// SHA-256 of its certificate.
    pub fingerprint: [u8; 32],
    /// Who begins the handshake.
    pub setup: Setup,
    /// All media, in order: an answer has as many as its offer.
    pub media: Vec<Media>,
    /// Which of them carries the data channels.
    pub data: usize,
    /// Largest message that this end takes, in bytes.
    pub message_bytes_max: u32,
    /// Its half of the SCTP handshake, in advance (draft-hancke-tsvwg-snap).
    pub sctp_init: Option<String>,
    /// Addresses (UDP) at which it may be reached.
    pub candidates: Vec<SocketAddr>,
    /// Addresses at which it takes connections (TCP, RFC 6544).
    pub tcp: Vec<SocketAddr>,
}

impl Media {
    /// Data channels, as every implementation writes them today (RFC 8841 §4).
    pub fn data(mid: &str) -> Self {
        Self {
            kind: "application".into(),
            protocol: "UDP/DTLS/SCTP".into(),
            formats: "webrtc-datachannel".into(),
            mid: Some(mid.into()),
        }
    }

    fn is_data(&self) -> bool {
        self.kind == "application" && self.protocol.ends_with("DTLS/SCTP") && self.formats == "webrtc-datachannel"
    }
}

/// What is said once for all media, or for each.
#[derive(Clone, Default)]
struct Attributes {
    ufrag: Option<String>,
    pwd: Option<String>,
    fingerprint: Option<[u8; 32]>,
    setup: Option<Setup>,
    message_bytes_max: Option<u32>,
    sctp_init: Option<String>,
    candidates: Vec<SocketAddr>,
    tcp: Vec<SocketAddr>,
}

impl Attributes {
    fn read(&mut self, name: &str, value: &str) -> Result<(), SdpError> {
        match name {
            "ice-ufrag" => self.ufrag = Some(ice_chars(value, UFRAG_BYTES).ok_or(SdpError::Malformed("ice-ufrag"))?),
            "ice-pwd" => self.pwd = Some(ice_chars(value, PWD_BYTES).ok_or(SdpError::Malformed("ice-pwd"))?),
            // Others may stand beside it (RFC 8122 §5); this one is always there.
            "fingerprint" => self.fingerprint = fingerprint(value)?.or(self.fingerprint),
            "setup" => {
                let all = [Setup::ActPass, Setup::Active, Setup::Passive];
                let setup = all.into_iter().find(|s| s.as_str() == value);
                self.setup = Some(setup.ok_or(SdpError::Malformed("setup"))?);
            }
            "max-message-size" => {
                self.message_bytes_max = Some(value.parse().map_err(|_| SdpError::Malformed("max-message-size"))?);
            }
            "sctp-init" => self.sctp_init = Some(value.to_owned()),
            "candidate" if self.candidates.len() + self.tcp.len() < CANDIDATES_MAX => match candidate(value) {
                Some((address, false)) => self.candidates.push(address),
                Some((address, true)) => self.tcp.push(address),
                None => {}
            },
            _ => {}
        }
        Ok(())
    }
}

impl Description {
    /// Reads an offer or an answer.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > BYTES_MAX {
            return Err(SdpError::TooLarge);
        }
        let mut lines = text.lines().map(str::trim_end);
        if lines.next() != Some("v=0") {
            return Err(SdpError::NotSdp);
        }
        let (mut session, mut lite) = (Attributes::default(), false);
        let mut media: Vec<(Media, Attributes)> = Vec::new();
        for line in lines {
            if let Some(line) = line.strip_prefix("m=") {
                if media.len() == MEDIA_MAX {
                    return Err(SdpError::Malformed("number of media"));
                }
                media.push((medium(line).ok_or(SdpError::Malformed("m= line"))?, Attributes::default()));
                continue;
            }
            let Some(attribute) = line.strip_prefix("a=") else { continue };
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            match (name, media.last_mut()) {
                ("ice-lite", _) => lite = true,
                ("mid", Some((medium, _))) => medium.mid = Some(mid(value).ok_or(SdpError::Malformed("mid"))?),
                (_, Some((_, attributes))) => attributes.read(name, value)?,
                (_, None) => session.read(name, value)?,
            }
        }
        let data = media.iter().position(|(m, _)| m.is_data()).ok_or(SdpError::Missing("data channels"))?;
        let own = std::mem::take(&mut media[data].1);
        let all = session;
        Ok(Self {
            lite,
            ufrag: own.ufrag.or(all.ufrag).ok_or(SdpError::Missing("ice-ufrag"))?,
            pwd: own.pwd.or(all.pwd).ok_or(SdpError::Missing("ice-pwd"))?,
            fingerprint: own.fingerprint.or(all.fingerprint).ok_or(SdpError::Missing("fingerprint with sha-256"))?,
            setup: own.setup.or(all.setup).ok_or(SdpError::Missing("setup"))?,
            media: media.into_iter().map(|(m, _)| m).collect(),
            data,
            message_bytes_max: own.message_bytes_max.or(all.message_bytes_max).unwrap_or(MESSAGE_BYTES_DEFAULT),
            sctp_init: own.sctp_init,
            candidates: own.candidates,
            tcp: own.tcp,
        })
    }
}

impl fmt::Display for Description {
    /// The text of an offer or an answer. Candidates are told whole: there will be no others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The number of the session means nothing to anybody, but must be there (RFC 8866 §5.2).
        f.write_str("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n")?;
        if let Some(mid) = &self.media[self.data].mid {
            write!(f, "a=group:BUNDLE {mid}\r\n")?;
        }
        if self.lite {
            f.write_str("a=ice-lite\r\n")?;
        }
        for (at, Media { kind, protocol, formats, mid }) in self.media.iter().enumerate() {
            let (port, address) = match self.candidates.first() {
                _ if at != self.data => (0, None),
                Some(first) => (first.port(), Some(first.ip())),
                // RFC 8840 §4.1.1.
                None => (9, None),
            };
            write!(f, "m={kind} {port} {protocol} {formats}\r\n")?;
            match address {
                Some(IpAddr::V6(address)) => write!(f, "c=IN IP6 {address}\r\n")?,
                Some(IpAddr::V4(address)) => write!(f, "c=IN IP4 {address}\r\n")?,
                None => f.write_str("c=IN IP4 0.0.0.0\r\n")?,
            }
            if let Some(mid) = mid {
                write!(f, "a=mid:{mid}\r\n")?;
            }
            if at == self.data {
                self.write_data(f)?;
            }
        }
        Ok(())
    }
}

impl Description {
    fn write_data(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a=setup:{}\r\n", self.setup.as_str())?;
        write!(f, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.ufrag, self.pwd)?;
        f.write_str("a=fingerprint:sha-256 ")?;
        for (at, byte) in self.fingerprint.iter().enumerate() {
            write!(f, "{}{byte:02X}", if at == 0 { "" } else { ":" })?;
        }
        write!(f, "\r\na=sctp-port:5000\r\na=max-message-size:{}\r\n", self.message_bytes_max)?;
        if let Some(init) = &self.sctp_init {
            write!(f, "a=sctp-init:{init}\r\n")?;
        }
        f.write_str(&candidates(&self.candidates, &self.tcp))
    }
}

/// Candidates, one a line, and that there are no others: addresses of UDP, and those that take connections of TCP.
fn candidates(udp: &[SocketAddr], tcp: &[SocketAddr]) -> String {
    let mut text = String::new();
    let mut tell = |transport: &str, priority: u32, address: &SocketAddr, tail: &str| {
        let (at, ip, port) = (text.matches('\n').count() + 1, address.ip(), address.port());
        // Writing to a string cannot fail.
        let _ = write!(text, "a=candidate:{at} 1 {transport} {priority} {ip} {port} typ host{tail}\r\n");
    };
    for (at, address) in udp.iter().enumerate() {
        // RFC 8445 §5.1.2.1: a host's, the first the dearest, of the one component.
        tell("udp", (126u32 << 24) | (u32::from(u16::MAX) - at as u32) << 8 | 255, address, "");
    }
    for (at, address) in tcp.iter().enumerate() {
        // RFC 6544 §4.2: behind all of UDP; the direction (passive: 4) stands above the address.
        let preference = (4 << 13) | (0x1fff - at as u32);
        tell("tcp", (90u32 << 24) | preference << 8 | 255, address, " tcptype passive");
    }
    text.push_str("a=end-of-candidates\r\n");
    text
}

/// What is added to a description later: other credentials, other candidates (RFC 8840 §9).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fragment {
    /// Credentials; others than before mean that ICE begins anew.
    pub credentials: Option<(String, String)>,
    /// Addresses.
    pub candidates: Vec<SocketAddr>,
}

impl Fragment {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > BYTES_MAX {
            return Err(SdpError::TooLarge);
        }
        let mut all = Attributes::default();
        for line in text.lines().map(str::trim_end) {
            if let Some(attribute) = line.strip_prefix("a=") {
                let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
                if matches!(name, "ice-ufrag" | "ice-pwd" | "candidate") {
                    all.read(name, value)?;
                }
            }
        }
        let credentials = match (all.ufrag, all.pwd) {
            (Some(ufrag), Some(pwd)) => Some((ufrag, pwd)),
            (None, None) => None,
            (Some(_), None) => return Err(SdpError::Missing("ice-pwd")),
            (None, Some(_)) => return Err(SdpError::Missing("ice-ufrag")),
        };
        Ok(Self { credentials, candidates: all.candidates })
    }

    /// The text that answers one in which ICE began anew.
    pub fn answer(ufrag: &str, pwd: &str, mid: &str, udp: &[SocketAddr], tcp: &[SocketAddr]) -> String {
        format!(
            "a=ice-lite\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n{}",
            candidates(udp, tcp)
        )
    }
}

fn medium(line: &str) -> Option<Media> {
    let mut words = line.splitn(4, ' ');
    let (kind, _port, protocol, formats) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    if ![kind, protocol, formats].into_iter().all(plain) {
        return None;
    }
    Some(Media { kind: kind.into(), protocol: protocol.into(), formats: formats.into(), mid: None })
}

fn mid(value: &str) -> Option<String> {
    let fits = !value.is_empty() && value.len() <= MID_BYTES_MAX && value.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| value.to_owned())
}

fn ice_chars(value: &str, bytes: std::ops::RangeInclusive<usize>) -> Option<String> {
    let fits = bytes.contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_'));
    fits.then(|| value.to_owned())
}

/// `None`: of a hash that we do not use.
fn fingerprint(value: &str) -> Result<Option<[u8; 32]>, SdpError> {
    let malformed = || SdpError::Malformed("fingerprint");
    let (hash, digits) = value.split_once(' ').ok_or_else(malformed)?;
    if !hash.eq_ignore_ascii_case("sha-256") {
        return Ok(None);
    }
    let mut bytes = [0; 32];
    let mut pairs = digits.split(':');
    for byte in &mut bytes {
        let pair = pairs.next().filter(|p| p.len() == 2).ok_or_else(malformed)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
    }
    if pairs.next().is_some() { Err(malformed()) } else { Ok(Some(bytes)) }
}

/// The address of a candidate that is reached by its number, and whether by TCP, where it takes connections; names (`.local`)
/// are not asked for.
fn candidate(value: &str) -> Option<(SocketAddr, bool)> {
    let mut words = value.split_ascii_whitespace();
    let (_foundation, component, transport) = (words.next()?, words.next()?, words.next()?);
    let (_priority, address, port) = (words.next()?, words.next()?, words.next()?);
    let tcp = transport.eq_ignore_ascii_case("tcp") && words.skip_while(|w| *w != "tcptype").nth(1) == Some("passive");
    if component != "1" || !tcp && !transport.eq_ignore_ascii_case("udp") {
        return None;
    }
    let address = SocketAddr::new(address.parse().ok()?, port.parse().ok()?);
    (address.port() != 0 && !address.ip().is_multicast() && !address.ip().is_unspecified()).then_some((address, tcp))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str =
        "sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F";

    /// As a browser's, with a microphone that is not wanted.
    fn offer() -> String {
        format!(
            "v=0\r\no=- 7 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=fingerprint:sha-512 AA\r\na=fingerprint:{DIGITS}\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111 9\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:else\r\na=setup:active\r\n\
             m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdefghijkl\r\n\
             a=ice-options:trickle\r\na=setup:actpass\r\na=mid:1\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n\
             a=candidate:1 1 udp 2113937151 198.51.100.7 54321 typ host\r\na=candidate:2 1 tcp 1 198.51.100.7 9 typ host tcptype active\r\n\
             a=candidate:3 1 UDP 1 0b0a.local 5 typ host\r\na=candidate:4 1 udp 1 2001:db8::7 5 typ srflx raddr :: rport 9\r\n\
             a=candidate:5 1 TCP 1 198.51.100.7 443 typ host tcptype passive generation 0\r\n"
        )
    }

    #[test]
    fn an_offer_is_read() {
        let read = Description::parse(&offer()).expect("an offer");
        assert_eq!((read.ufrag.as_str(), read.pwd.as_str()), ("abcd", "0123456789abcdefghijkl"));
        assert_eq!((read.setup, read.message_bytes_max, read.lite), (Setup::ActPass, 262_144, false));
        assert_eq!((read.fingerprint[31], read.data, read.media.len()), (0x1f, 1, 2));
        let expected = ["198.51.100.7:54321", "[2001:db8::7]:5"].map(|a| a.parse().expect("an address"));
        assert_eq!(read.candidates, expected);
        assert_eq!(read.tcp, [([198, 51, 100, 7], 443).into()]);
    }

    #[test]
    fn an_answer_has_every_medium_of_its_offer_and_reads_back() {
        let read = Description::parse(&offer()).expect("an offer");
        let answer = Description {
            lite: true,
            setup: Setup::Passive,
            sctp_init: Some("AQID".into()),
            candidates: vec![([203, 0, 113, 9], 8444).into()],
            tcp: vec![([203, 0, 113, 9], 8445).into()],
            ..read
        };
        let text = answer.to_string();
        assert!(text.contains("m=audio 0 UDP/TLS/RTP/SAVPF 111 9\r\n"), "{text}");
        assert!(
            text.contains("m=application 8444 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 203.0.113.9\r\n"),
            "{text}"
        );
        assert!(text.contains(&format!("a=fingerprint:{DIGITS}\r\n")), "{text}");
        assert_eq!(Description::parse(&text), Ok(answer));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (without, error) in [
            ("v=0", SdpError::NotSdp),
            ("a=ice-ufrag:abcd", SdpError::Missing("ice-ufrag")),
            ("a=ice-pwd:0123456789abcdefghijkl", SdpError::Missing("ice-pwd")),
            ("a=setup:actpass", SdpError::Missing("setup")),
            ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", SdpError::Missing("data channels")),
        ] {
            assert_eq!(Description::parse(&offer().replace(without, "x=")), Err(error), "{without}");
        }
        assert_eq!(
            Description::parse(&offer().replace("sha-256", "sha-1")),
            Err(SdpError::Missing("fingerprint with sha-256"))
        );
        assert_eq!(Description::parse(&offer().replace(":1F", "")), Err(SdpError::Malformed("fingerprint")));
        assert_eq!(Description::parse(&offer().replace(":abcd", ":ab d")), Err(SdpError::Malformed("ice-ufrag")));
        assert_eq!(Description::parse(&"v".repeat(BYTES_MAX + 1)), Err(SdpError::TooLarge));
    }

    #[test]
    fn a_fragment_trickles_or_begins_anew() {
        let trickled = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 5 typ host\r\n";
        let read = Fragment::parse(trickled).expect("a fragment");
        assert_eq!((read.credentials, read.candidates.len()), (None, 1));
        let answer = Fragment::answer("wxyz", "lkjihgfedcba9876543210", "0", &[([203, 0, 113, 9], 8444).into()], &[]);
        let read = Fragment::parse(&answer).expect("our own");
        assert_eq!(read.credentials, Some(("wxyz".into(), "lkjihgfedcba9876543210".into())));
        assert_eq!(Fragment::parse("a=ice-ufrag:abcd"), Err(SdpError::Missing("ice-pwd")));
    }

    #[test]
    fn hostile_descriptions_do_no_harm() {
        let offer = offer();
        bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let _ = Fragment::parse(&text);
            let _ = Description::parse(&text);
            // An offer with lines taken out, doubled and written over.
            let mut lines: Vec<&str> = offer.lines().collect();
            for pair in bytes.chunks_exact(2).take(8) {
                let at = usize::from(pair[0]) % lines.len();
                match pair[1] % 3 {
                    0 if lines.len() > 1 => drop(lines.remove(at)),
                    1 => lines.insert(at, lines[usize::from(pair[1]) % lines.len()]),
                    _ => lines[at] = text.lines().next().unwrap_or(""),
                }
            }
            if let Ok(read) = Description::parse(&lines.join("\r\n")) {
                // What was read can be written, and reads back.
                assert_eq!(Description::parse(&read.to_string()).map(|r| r.media), Ok(read.media));
            }
        });
    }
}
