//! Sends requests that are encoded already.

use bytes::{BufMut, Bytes};
use ticker_proto::v1;
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// An encoded `PublishRequest`, in two pieces.
#[derive(Debug)]
pub(super) struct Encoded {
    /// What only the first request of a stream has; empty on the others.
    pub(super) header: Bytes,
    pub(super) body: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct PublishCodec;

#[derive(Debug)]
pub(super) struct CopyEncoder;

impl Encoder for CopyEncoder {
    type Item = Encoded;
    type Error = Status;

    fn encode(&mut self, item: Encoded, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.header.len() + item.body.len());
        buffer.put(item.header);
        buffer.put(item.body);
        Ok(())
    }
}

impl Codec for PublishCodec {
    type Encode = Encoded;
    type Decode = v1::PublishResponse;
    type Encoder = CopyEncoder;
    type Decoder = ProstDecoder<v1::PublishResponse>;

    fn encoder(&mut self) -> CopyEncoder {
        CopyEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}
