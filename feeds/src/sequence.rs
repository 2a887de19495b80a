//! A sequence that counts every frame of a connection, so that a gap suspects all that came by it.

/// Where a connection's sequence stands.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sequence {
    /// The number of the next frame; none before the first.
    pub(crate) next: Option<u64>,
    /// A gap was found, and the connection is to be made anew.
    pub(crate) broken: bool,
}

/// The place of a frame in the sequence.
pub(crate) enum Place {
    Next,
    Again,
    Gap { expected: u64 },
}

impl Sequence {
    pub(crate) fn place(&self, number: u64) -> Place {
        match self.next {
            None => Place::Next,
            Some(next) if number == next => Place::Next,
            Some(next) if number.checked_add(1) == Some(next) => Place::Again,
            Some(expected) => Place::Gap { expected },
        }
    }

    /// Counts a frame, if it is the next one. Returns whether it is.
    #[inline]
    pub(crate) fn advance(&mut self, number: u64) -> bool {
        let is_next = matches!(self.place(number), Place::Next);
        if is_next {
            self.next = Some(number.saturating_add(1));
        }
        is_next
    }
}
