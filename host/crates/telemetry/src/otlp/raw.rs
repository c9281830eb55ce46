//! A request whose bytes are there already: spans that were written without messages, and what is sent
//! on as it came, unknown fields included. Where a receiver wants JSON it is made of them.

use std::fmt;
use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, skip_field};
use prost::{DecodeError, Message};

use crate::json;
use crate::otlp::signal::{PartialSuccess, Signal};

/// The bytes of a request of the signal `S`.
pub(crate) struct Raw<S> {
    bytes: Bytes,
    of: PhantomData<fn() -> S>,
}

impl<S> Raw<S> {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, of: PhantomData }
    }
}

impl<S> Default for Raw<S> {
    fn default() -> Self {
        Self::new(Bytes::new())
    }
}

impl<S> fmt::Debug for Raw<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// It is written only: whoever reads a request wants to know what is in it.
impl<S: Signal> Message for Raw<S> {
    fn encode_raw(&self, to: &mut impl BufMut) {
        to.put_slice(&self.bytes);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, from, context)
    }

    fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
    }
}

impl<S: Signal> Signal for Raw<S> {
    type Response = S::Response;
    const METHOD: &'static str = S::METHOD;
    const REJECTED: &'static str = S::REJECTED;
    const JSON: &'static json::Message = S::JSON;

    fn partial(response: Self::Response) -> Option<PartialSuccess> {
        S::partial(response)
    }

    fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}
