//! Whom a packet on a shared socket is for: what of it can be told before any key is known (RFC 7983, RFC 8489). And the
//! path that a client uses before it says that it has chosen it.

use std::net::SocketAddr;

use str0m::net::Protocol;

use crate::crypto;

/// The fixed part of a STUN message.
const HEADER_BYTES: usize = 20;

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Message types (§5).
const BINDING_REQUEST: u16 = 0x0001;

/// Attributes (§18.3, and RFC 8445 §16.1).
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
const FINGERPRINT: u16 = 0x8028;
const USE_CANDIDATE: u16 = 0x0025;

/// Bytes of an attribute's type and length, and of HMAC-SHA-1.
const ATTRIBUTE_BYTES: usize = 4;
const HMAC_BYTES: usize = 20;

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
    for (kind, value) in attributes(&bytes[HEADER_BYTES..]) {
        match kind? {
            USERNAME if value.len() <= USERNAME_BYTES_MAX => {
                to = std::str::from_utf8(value).ok()?.split_once(':').map(|(to, _)| to);
            }
            USE_CANDIDATE => nominates = true,
            _ => {}
        }
    }
    Some(Packet::Check { to: to?, nominates })
}

/// Types and values; a type that is none where the bytes are cut, and then no more.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (Option<u16>, &[u8])> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let whole = (|| {
            let (kind, length) = (u16_at(rest, 0)?, usize::from(u16_at(rest, 2)?));
            // Values are padded to four bytes (§14).
            let next = rest.get(ATTRIBUTE_BYTES + length.next_multiple_of(4)..)?;
            Some((kind, rest.get(ATTRIBUTE_BYTES..ATTRIBUTE_BYTES + length)?, next))
        })();
        let (kind, value, next) = match whole {
            Some((kind, value, next)) => (Some(kind), value, next),
            None => (None, &rest[..0], &rest[..0]),
        };
        rest = next;
        Some((kind, value))
    })
}

/// The path that a client uses before it has said that it has chosen it.
///
/// A lite agent sends by the path that the other end nominates. Browsers begin their handshake when the first check is
/// answered, and nominate 50 ms later; where that check is lost, after another second. To send by a path that has proven to
/// work is allowed meanwhile (RFC 8445 §12.1.1), but str0m does not, so it is shown the check again as one that nominates.
#[derive(Debug)]
pub enum Unchosen {
    /// The client has chosen none.
    Yes {
        /// Ours: checks are proven by it.
        password: String,
        /// The last check that was proven to come from the client, and the way that it came.
        check: Option<(Protocol, SocketAddr, Vec<u8>)>,
    },
    /// It has.
    No,
}

impl Unchosen {
    /// Our password: checks are proven by it.
    pub fn new(password: String) -> Self {
        Self::Yes { password, check: None }
    }

    /// A packet came that way; of a check it is proven that the client sent it. Returns the check that would have nominated
    /// the way, once it is used.
    pub fn take(
        &mut self,
        looked: Packet<'_>,
        (protocol, from): (Protocol, SocketAddr),
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        let Self::Yes { password, check } = self else { return None };
        match looked {
            Packet::Check { nominates: true, .. } => *self = Self::No,
            Packet::Check { .. } => *check = Some((protocol, from, bytes.to_vec())),
            Packet::Dtls => {
                let (_, _, check) = check.as_ref().filter(|(p, at, _)| (*p, *at) == (protocol, from))?;
                let chosen = nominating(check, password.as_bytes());
                *self = Self::No;
                return chosen;
            }
            Packet::Stun | Packet::Other => {}
        }
        None
    }
}

/// The same check with USE-CANDIDATE (RFC 8445 §7.1.2), and proven anew (§14.5).
fn nominating(check: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let mut out = check.get(..HEADER_BYTES)?.to_vec();
    let put = |out: &mut Vec<u8>, kind: u16, value: &[u8]| {
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
    };
    for (kind, value) in attributes(&check[HEADER_BYTES..]) {
        match kind? {
            MESSAGE_INTEGRITY | MESSAGE_INTEGRITY_SHA256 | FINGERPRINT | USE_CANDIDATE => {}
            kind => put(&mut out, kind, value),
        }
    }
    put(&mut out, USE_CANDIDATE, &[]);
    // The length counts the proof, which is over what stands before it.
    let length = u16::try_from(out.len() - HEADER_BYTES + ATTRIBUTE_BYTES + HMAC_BYTES).ok()?;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    let proof = crypto::hmac_sha1(password, &out);
    put(&mut out, MESSAGE_INTEGRITY, &proof);
    Some(out)
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
    fn a_path_in_use_is_chosen() {
        let at: SocketAddr = ([192, 0, 2, 1], 5_000).into();
        let mut path = Unchosen::new("VOkJxbRl1RmTxUk/WvJxBt".to_owned());
        let [udp, tcp] = [(Protocol::Udp, at), (Protocol::Tcp, at)];
        assert_eq!(path.take(Packet::Dtls, udp, &[22]), None, "nobody has shown to be there");
        assert_eq!(path.take(Packet::of(SAMPLE), udp, SAMPLE), None);
        assert_eq!(path.take(Packet::Dtls, tcp, &[22]), None, "another way");
        let chosen = path.take(Packet::Dtls, udp, &[22]).expect("the same way");
        assert_eq!(path.take(Packet::Dtls, udp, &[22]), None, "once");
        assert_eq!(Packet::of(&chosen), Packet::Check { to: "evtj", nominates: true });
        assert_eq!(chosen[4..HEADER_BYTES], SAMPLE[4..HEADER_BYTES], "the same transaction");
        // Whose proof is the sample's own where nothing was added: its length then counts the fingerprint too.
        let (plain, proof) = (&SAMPLE[..0x58 + HEADER_BYTES - 8 - HMAC_BYTES - ATTRIBUTE_BYTES], &SAMPLE[80..100]);
        let mut counted = plain.to_vec();
        counted[3] -= 8;
        assert_eq!(crypto::hmac_sha1(b"VOkJxbRl1RmTxUk/WvJxBt", &counted), proof);
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
