use crate::chunk::chunk_payload_data::ChunkPayloadData;

use alloc::collections::VecDeque;

/// Memory for so many chunks is kept while nothing is in flight.
const CHUNKS_KEPT: usize = 32;

/// What has been sent and is not confirmed. Our own TSNs follow each other without a gap, so the place of a chunk is its
/// distance from the first one.
#[derive(Default, Debug)]
pub(crate) struct FlightQueue {
    chunks: VecDeque<ChunkPayloadData>,
    n_bytes: usize,
}

impl FlightQueue {
    fn index(&self, tsn: u32) -> Option<usize> {
        let index = tsn.wrapping_sub(self.chunks.front()?.tsn) as usize;
        (index < self.chunks.len()).then_some(index)
    }

    /// The chunk has the TSN after the last one's.
    pub(crate) fn push(&mut self, chunk: ChunkPayloadData) {
        debug_assert!(
            self.chunks
                .back()
                .is_none_or(|last| last.tsn.wrapping_add(1) == chunk.tsn)
        );
        self.n_bytes += chunk.user_data.len();
        self.chunks.push_back(chunk);
    }

    /// pop pops only if the oldest chunk's TSN matches the given TSN.
    pub(crate) fn pop(&mut self, tsn: u32) -> Option<ChunkPayloadData> {
        if self.chunks.front()?.tsn != tsn {
            return None;
        }
        let chunk = self.chunks.pop_front()?;
        self.n_bytes = self.n_bytes.saturating_sub(chunk.user_data.len());
        if self.chunks.is_empty() && self.chunks.capacity() > 2 * CHUNKS_KEPT {
            self.chunks.shrink_to(CHUNKS_KEPT);
        }
        Some(chunk)
    }

    pub(crate) fn get(&self, tsn: u32) -> Option<&ChunkPayloadData> {
        self.chunks.get(self.index(tsn)?)
    }

    pub(crate) fn get_mut(&mut self, tsn: u32) -> Option<&mut ChunkPayloadData> {
        let index = self.index(tsn)?;
        self.chunks.get_mut(index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ChunkPayloadData> {
        self.chunks.iter()
    }

    /// Abandon siblings by identity, including nonconsecutive TSNs.
    pub(crate) fn abandon_message(&mut self, message_id: u64) -> usize {
        let mut released = 0;
        for chunk in &mut self.chunks {
            if chunk.message_id == message_id {
                released += chunk.user_data.len();
                chunk.user_data.clear();
                chunk.abandoned = true;
                chunk.retransmit = false;
            }
        }
        self.n_bytes -= released;
        released
    }

    pub(crate) fn mark_all_to_retransmit(&mut self) {
        for chunk in &mut self.chunks {
            if !chunk.acked && !chunk.abandoned {
                chunk.retransmit = true;
            }
        }
    }

    pub(crate) fn mark_as_acked(&mut self, tsn: u32) -> usize {
        let Some(chunk) = self.get_mut(tsn) else {
            return 0;
        };
        chunk.acked = true;
        chunk.retransmit = false;
        let n = chunk.user_data.len();
        chunk.user_data.clear();
        self.n_bytes -= n;
        n
    }

    pub(crate) fn contains_stream(&self, stream_identifier: u16) -> bool {
        self.chunks
            .iter()
            .any(|chunk| chunk.stream_identifier == stream_identifier)
    }

    pub(crate) fn get_num_bytes(&self) -> usize {
        self.n_bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }
}
