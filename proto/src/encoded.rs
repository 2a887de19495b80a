//! How gRPC servers put a session's messages on the wire: as the bytes that were encoded once for all readers
//! ([`crate::frame`]).
//!
//! The generated servers have [`EncodedMessage`] for `SubscribeResponse` and `SessionResponse` (see `build.rs`), which have
//! the same bytes; all other messages have their own types, as on the side of the clients.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// The bytes of one `ticker.v1.SessionResponse` or `SubscribeResponse`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedMessage(Bytes);

impl EncodedMessage {
    /// The message with these bytes: one of [`crate::Encoded::messages`] in [`crate::Form::Protobuf`].
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

/// What a server can answer with.
pub trait Answer {
    /// Appends the message's bytes.
    fn put(&self, buf: &mut impl BufMut);
}

impl Answer for EncodedMessage {
    fn put(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }
}

impl<M: Message> Answer for M {
    fn put(&self, buf: &mut impl BufMut) {
        self.encode_raw(buf);
    }
}

/// The codec of the generated servers: requests `U` are decoded, answers `T` are encoded or go out as they are.
#[derive(Debug)]
pub struct ServerCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ServerCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Answer + Send + 'static, U: Message + Default + Send + 'static> Codec for ServerCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = AnswerEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> AnswerEncoder<T> {
        AnswerEncoder(PhantomData)
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstDecoder::default()
    }
}

/// See [`ServerCodec`].
#[derive(Debug)]
pub struct AnswerEncoder<T>(PhantomData<T>);

impl<T: Answer> Encoder for AnswerEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, answer: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        answer.put(buf);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Form, Notice, frame, v1};

    #[test]
    fn it_goes_out_as_it_is() {
        let bytes = frame::encode_notice(Form::Protobuf, &Notice::Pong { id: 7 });
        let (mut encoded, mut generated) = (Vec::new(), Vec::new());
        EncodedMessage::new(bytes.clone()).put(&mut encoded);
        v1::SubscribeResponse::decode(bytes.clone()).expect("the same bytes").put(&mut generated);
        assert_eq!((&encoded, &generated), (&bytes.to_vec(), &bytes.to_vec()));
    }
}
