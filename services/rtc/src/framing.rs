//! Packets on a stream, each behind its length (RFC 4571): over TCP.

/// A packet is no larger: what UDP would carry, with room to spare.
pub const PACKET_BYTES_MAX: usize = 2_000;

/// Bytes of a length.
const LENGTH: usize = 2;

/// Puts a packet behind others.
pub fn put(packet: &[u8], out: &mut Vec<u8>) {
    // Packets of ours are smaller than a path's MTU.
    if let Ok(length) = u16::try_from(packet.len()) {
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(packet);
    }
}

/// Cuts packets out of what has come.
#[derive(Debug, Default)]
pub struct Frames(Vec<u8>);

/// A packet that is larger than any may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLarge;

impl Frames {
    /// Where what comes is put behind what is there.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// Is there no part of a packet?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives each whole packet to `each`, and keeps the rest: less than one packet.
    ///
    /// # Errors
    /// When a packet is announced that is too large; nothing after it can be read.
    pub fn take(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), TooLarge> {
        let mut rest = &self.0[..];
        while let Some((length, after)) = rest.split_first_chunk::<LENGTH>() {
            let length = usize::from(u16::from_be_bytes(*length));
            if length > PACKET_BYTES_MAX {
                return Err(TooLarge);
            }
            let Some((packet, after)) = after.split_at_checked(length) else { break };
            each(packet);
            rest = after;
        }
        let taken = self.0.len() - rest.len();
        self.0.drain(..taken);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_wherever_they_are_split() {
        let sent: Vec<Vec<u8>> = [0, 1, 700, PACKET_BYTES_MAX].map(|n| vec![n as u8; n]).into();
        let mut bytes = Vec::new();
        sent.iter().for_each(|packet| put(packet, &mut bytes));
        for step in [1, 2, 3, 64, bytes.len()] {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for part in bytes.chunks(step) {
                frames.buffer().extend_from_slice(part);
                frames.take(|packet| got.push(packet.to_vec())).expect("none is too large");
            }
            assert!(got == sent && frames.is_empty(), "in steps of {step}");
        }
    }

    #[test]
    fn hostile_framing_does_no_harm() {
        bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
            let (mut frames, mut taken) = (Frames::default(), 0);
            for part in bytes.chunks(7) {
                frames.buffer().extend_from_slice(part);
                if frames.take(|packet| taken += packet.len() + LENGTH).is_err() {
                    return;
                }
                assert!(frames.0.len() < LENGTH + PACKET_BYTES_MAX);
            }
            assert_eq!(taken + frames.0.len(), bytes.len());
        });
    }
}
