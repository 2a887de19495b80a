//! Whom a packet on a shared socket is for: what of it can be told before any key is known (RFC 7983, RFC 8489).

/// The fixed part of a STUN message.
const HEADER_BYTES: usize = 20;

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Message types (§5).
const BINDING_REQUEST: u16 = 0x0001;

/// Attributes (§18.3, and RFC 8445 §16.1).
const USERNAME: u16 = 0x0006;
const USE_CANDIDATE: u16 = 0x0025;

/// A username is no longer (§14.3).
const USERNAME_BYTES_MAX: usize = 513;

/// A packet, by its first bytes (RFC 7983 §7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// A check of ICE: it names the agent that it is for.
    Check {
        /// The username fragment of that agent.
        to: &'a str,
        /// Its sender, who controls, wants this path.
        nominates: bool,
    },
    /// Another STUN message.
    Stun,
    /// A record of DTLS.
    Dtls,
    /// Nothing that we have use for.
    Other,
}

impl<'a> Packet<'a> {
    /// Looks at a packet; nothing in it is proven.
    pub fn of(bytes: &'a [u8]) -> Self {
        match bytes.first() {
            Some(0..=3) => check(bytes).unwrap_or(if is_stun(bytes) { Packet::Stun } else { Packet::Other }),
            Some(20..=63) => Packet::Dtls,
            _ => Packet::Other,
        }
    }
}

fn is_stun(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_BYTES && bytes[4..8] == MAGIC_COOKIE
}

fn check(bytes: &[u8]) -> Option<Packet<'_>> {
    let length = usize::from(u16_at(bytes, 2)?);
    if !is_stun(bytes) || u16_at(bytes, 0)? != BINDING_REQUEST || bytes.len() != HEADER_BYTES + length {
        return None;
    }
    let (mut to, mut nominates) = (None, false);
    let mut rest = &bytes[HEADER_BYTES..];
    while !rest.is_empty() {
        let (kind, length) = (u16_at(rest, 0)?, usize::from(u16_at(rest, 2)?));
        let value = rest.get(4..4 + length)?;
        match kind {
            USERNAME if value.len() <= USERNAME_BYTES_MAX => {
                to = std::str::from_utf8(value).ok()?.split_once(':').map(|(to, _)| to);
            }
            USE_CANDIDATE => nominates = true,
            _ => {}
        }
        // Values are padded to four bytes (§14).
        rest = rest.get(4 + length.next_multiple_of(4)..)?;
    }
    Some(Packet::Check { to: to?, nominates })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sample request of RFC 5769 §2.1, for `evtj:h6vY`.
    const SAMPLE: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\
        \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\x00\x06\x00\x09evtj:h6vY\x20\x20\x20\
        \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
        \x80\x28\x00\x04\xe5\x7a\x3b\xcf";

    #[test]
    fn a_check_names_its_addressee() {
        assert_eq!(Packet::of(SAMPLE), Packet::Check { to: "evtj", nominates: false });
        let mut nominating = SAMPLE.to_vec();
        nominating.extend_from_slice(&[0, 0x25, 0, 0]);
        nominating[3] += 4;
        assert_eq!(Packet::of(&nominating), Packet::Check { to: "evtj", nominates: true });
    }

    #[test]
    fn what_is_cut_or_odd_is_nobodys() {
        for length in 0..SAMPLE.len() {
            assert!(!matches!(Packet::of(&SAMPLE[..length]), Packet::Check { .. }), "{length}");
        }
        let mut success = SAMPLE.to_vec();
        success[0] = 1;
        assert_eq!(Packet::of(&success), Packet::Stun);
        assert_eq!(Packet::of(&[22, 254, 253]), Packet::Dtls);
        assert_eq!(Packet::of(&[0x80, 96]), Packet::Other);
        assert_eq!(Packet::of(&[]), Packet::Other);
    }
}
