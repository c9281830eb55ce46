//! Between the bytes of an answer and the pieces for the client: by what the answer is, it is framed, collected or left alone.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use tollgate_domain::record::Operation;

use crate::account::{Account, ReportedError};
use crate::anthropic::stream::Translator;
use crate::error::UpstreamError;
use crate::exchange::{Piece, PieceKind};
use crate::json::Members;
use crate::openai::{self, ChunkReader, Garbage, Verdict};
use crate::sse::{Found, Framer, TooLong};
use crate::{anthropic, responses};

/// How an answer is read.
#[derive(Debug)]
pub(crate) enum Source {
    /// Server-sent events.
    Events { framer: Framer, reader: EventReader, last_seen: bool },
    /// A plain answer: it is read once all of it is there.
    Whole { collected: BytesMut, reader: WholeReader, limit: usize },
    /// Nothing is known of it. `held`: what came last, since it might be the last; a stream (`live`) is not held up by that.
    Opaque { held: Option<Bytes>, live: bool },
}

/// Who reads events.
#[derive(Debug)]
pub(crate) enum EventReader {
    Chunks(ChunkReader),
    Responses,
    Anthropic(Box<Translator>),
}

/// Who reads plain answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WholeReader {
    OpenAi(Operation),
    Anthropic,
    /// An error, of either, with its status if it is told in OpenAI's form whatever it is.
    Error {
        anthropic: bool,
        told_as: Option<u16>,
    },
}

/// What came of some bytes.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub pieces: Vec<Piece>,
    /// It comes after the pieces.
    pub error: Option<UpstreamError>,
}

impl Source {
    pub fn events(reader: EventReader, longest: usize) -> Self {
        Self::Events { framer: Framer::new(longest), reader, last_seen: false }
    }

    pub fn whole(reader: WholeReader, limit: usize) -> Self {
        Self::Whole { collected: BytesMut::new(), reader, limit }
    }

    /// Takes what arrived.
    pub fn take(&mut self, bytes: &Bytes, account: &mut Account, at: Instant) -> Taken {
        match self {
            Self::Events { framer, reader, last_seen } => {
                framer.push(bytes);
                let mut out = Out { last_seen: *last_seen, ..Out::default() };
                let result = loop {
                    // What comes after the end is not looked at, whether it came along or would have come later.
                    if account.is_over() {
                        break Ok(());
                    }
                    match framer.find() {
                        Ok(Some(found)) => {
                            if let Err(error) = out.event(framer, reader, &found, account, at) {
                                break Err(error);
                            }
                        }
                        Ok(None) => break Ok(()),
                        Err(TooLong) => break Err(too_long(framer)),
                    }
                };
                let taken = out.ended(framer, result);
                *last_seen |= taken.pieces.iter().any(|piece| piece.kind == PieceKind::Last);
                taken
            }
            Self::Whole { collected, limit, .. } => {
                if collected.len().saturating_add(bytes.len()) > *limit {
                    let error = UpstreamError::TooLarge { what: "the answer", limit: *limit };
                    return Taken { error: Some(error), ..Taken::default() };
                }
                collected.extend_from_slice(bytes);
                Taken::default()
            }
            Self::Opaque { live: true, .. } => {
                Taken { pieces: vec![body(bytes.clone())], error: None }
            }
            Self::Opaque { held, .. } => Taken {
                pieces: held.replace(bytes.clone()).map(body).into_iter().collect(),
                error: None,
            },
        }
    }

    /// Takes the end.
    pub fn end(&mut self, account: &mut Account, at: Instant) -> Taken {
        match self {
            Self::Events { framer, reader, last_seen } => {
                let mut out = Out { last_seen: *last_seen, ..Out::default() };
                let result = match framer.rest() {
                    Ok(Some(found)) => out.event(framer, reader, &found, account, at),
                    Ok(None) => Ok(()),
                    Err(TooLong) => Err(too_long(framer)),
                };
                let result = result.and_then(|()| whole_stream(reader, account));
                out.ended(framer, result)
            }
            Self::Whole { collected, reader, .. } => {
                let collected = std::mem::take(collected).freeze();
                match reader.read(collected, account, at) {
                    Ok(bytes) => Taken { pieces: last(bytes).into_iter().collect(), error: None },
                    Err(error) => Taken { error: Some(error), ..Taken::default() },
                }
            }
            Self::Opaque { held, .. } => {
                account.ended = true;
                Taken { pieces: held.take().and_then(last).into_iter().collect(), error: None }
            }
        }
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Source {
    /// Bytes that it keeps.
    pub fn kept(&self) -> usize {
        match self {
            Self::Events { framer, .. } => framer.kept(),
            Self::Whole { collected, .. } => collected.len(),
            Self::Opaque { held, .. } => held.as_ref().map_or(0, Bytes::len),
        }
    }
}

/// Whether a stream that ended without the word for it is whole: every choice that it has said why it ended.
fn whole_stream(reader: &EventReader, account: &mut Account) -> Result<(), UpstreamError> {
    if account.is_over() {
        return Ok(());
    }
    let choices = usize::try_from(account.choices).unwrap_or(usize::MAX);
    let finished = choices > 0 && account.finish_reasons.len() >= choices;
    if matches!(reader, EventReader::Chunks(_)) && finished {
        account.ended = true;
        return Ok(());
    }
    Err(UpstreamError::CutOff)
}

fn too_long(framer: &Framer) -> UpstreamError {
    UpstreamError::TooLarge { what: "an event", limit: framer.longest() }
}

fn body(bytes: Bytes) -> Piece {
    Piece { bytes, kind: PieceKind::Body }
}

fn last(bytes: Bytes) -> Option<Piece> {
    (!bytes.is_empty()).then_some(Piece { bytes, kind: PieceKind::Last })
}

/// What goes out of one arrival. As long as nothing is changed it is the framer's own run of bytes; after the first change
/// it is a copy.
#[derive(Default)]
struct Out {
    pieces: Vec<Piece>,
    edited: BytesMut,
    last_seen: bool,
}

impl Out {
    fn event(
        &mut self,
        framer: &mut Framer,
        reader: &mut EventReader,
        found: &Found,
        account: &mut Account,
        at: Instant,
    ) -> Result<(), UpstreamError> {
        let (name, data) = framer.parts(found);
        let Some(data) = data else {
            // A comment, to keep the connection alive.
            if !matches!(reader, EventReader::Anthropic(_)) || name.is_none() {
                return self.judged(framer, found, Verdict::Pass);
            }
            return self.judged(framer, found, Verdict::Drop);
        };
        let garbage = |Garbage| UpstreamError::Garbage { expected: "a stream of JSON events" };
        let verdict = match reader {
            EventReader::Chunks(reader) => reader.read(name, &data, account, at),
            EventReader::Responses => responses::read_event(&data, account, at),
            EventReader::Anthropic(translator) => {
                let translated = translator.read(&data, account, at).map_err(garbage)?;
                drop(data);
                self.copy_run(framer);
                self.edited.extend_from_slice(&translated.body);
                if !translated.last.is_empty() {
                    self.flush(framer);
                    self.pieces.extend(last(translated.last.into()));
                    self.last_seen = true;
                }
                return self.judged(framer, found, Verdict::Drop);
            }
        };
        let verdict = verdict.map_err(garbage)?;
        drop(data);
        self.judged(framer, found, verdict)
    }

    fn judged(
        &mut self,
        framer: &mut Framer,
        found: &Found,
        verdict: Verdict,
    ) -> Result<(), UpstreamError> {
        match verdict {
            Verdict::Pass if !self.last_seen => framer.pass(found),
            Verdict::Pass | Verdict::Last => {
                self.flush(framer);
                self.last_seen = true;
                self.pieces.extend(last(framer.take(found)));
            }
            Verdict::Drop => {
                self.copy_run(framer);
                framer.take(found);
            }
            Verdict::Cut(range) => {
                let Some((start, _)) = Framer::data_place(found) else {
                    framer.pass(found);
                    return Ok(());
                };
                self.copy_run(framer);
                let event = framer.take(found);
                let (from, to) = (start + range.start, start + range.end);
                self.edited.extend_from_slice(event.get(..from).unwrap_or_default());
                self.edited.extend_from_slice(event.get(to..).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// What has passed joins what was changed.
    fn copy_run(&mut self, framer: &mut Framer) {
        if let Some(run) = framer.take_run() {
            self.edited.extend_from_slice(&run);
        }
    }

    /// All so far becomes a piece.
    fn flush(&mut self, framer: &mut Framer) {
        let run = framer.take_run();
        if self.edited.is_empty() {
            self.pieces.extend(run.map(body));
            return;
        }
        self.edited.extend_from_slice(&run.unwrap_or_default());
        self.pieces.push(body(self.edited.split().freeze()));
    }

    fn ended(mut self, framer: &mut Framer, result: Result<(), UpstreamError>) -> Taken {
        self.flush(framer);
        Taken { pieces: self.pieces, error: result.err() }
    }
}

impl WholeReader {
    /// Reads an answer; what the client gets of it.
    fn read(
        self,
        bytes: Bytes,
        account: &mut Account,
        at: Instant,
    ) -> Result<Bytes, UpstreamError> {
        let garbage = |Garbage| UpstreamError::Garbage { expected: "JSON" };
        match self {
            Self::OpenAi(Operation::Other) => {
                // Whatever it is, it goes out.
                let _ = openai::read_whole(&bytes, account, at);
                account.ended = true;
                Ok(bytes)
            }
            Self::OpenAi(Operation::Responses) => {
                responses::read_whole(&bytes, account, at).map_err(garbage)?;
                Ok(bytes)
            }
            Self::OpenAi(_) => {
                openai::read_whole(&bytes, account, at).map_err(garbage)?;
                Ok(bytes)
            }
            Self::Anthropic => anthropic::answer::translate(&bytes, account, at).map_err(garbage),
            Self::Error { anthropic, told_as } => {
                account.ended = true;
                let (error, bytes) = match told_as {
                    _ if anthropic => anthropic::answer::translate_error(&bytes),
                    Some(status) if !is_error_object(&bytes) => {
                        let error = read_error(&bytes);
                        let kind =
                            if status < 500 { "invalid_request_error" } else { "server_error" };
                        let written = error.written(kind);
                        (error, written.into())
                    }
                    _ => (read_error(&bytes), bytes),
                };
                account.error = Some(error);
                Ok(bytes)
            }
        }
    }
}

/// What servers write where an error is expected.
#[derive(serde::Deserialize)]
struct WrittenAnswer<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    /// FastAPI's.
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
}

/// Whether it is an error in OpenAI's form, which clients know to read.
fn is_error_object(body: &[u8]) -> bool {
    let body: Option<WrittenAnswer<'_>> = serde_json::from_slice(body).ok();
    let error = body.and_then(|body| body.error);
    error.is_some_and(|error| {
        let members: Option<Members<'_>> = serde_json::from_str(error.get()).ok();
        let message = members.and_then(|members| members.get("message"));
        message.is_some_and(|message| message.get().starts_with('"'))
    })
}

/// The error of an answer with an error status, whatever its form.
pub(crate) fn read_error(body: &[u8]) -> ReportedError {
    let text = String::from_utf8_lossy(body);
    let written: Option<WrittenAnswer<'_>> = serde_json::from_str(&text).ok();
    let error = written.and_then(|written| written.error.or(written.detail));
    ReportedError::read(error.map_or(&text, RawValue::get))
}

/// Reads the frames of a chat completion's stream; how many bytes come out. For the benchmark, which measures what no part
/// of the public interface does without a socket.
#[doc(hidden)]
#[must_use]
pub fn reading_bench(frames: &[Bytes], strip_usage: bool) -> usize {
    let mut source = Source::events(EventReader::Chunks(ChunkReader { strip_usage }), 16 << 20);
    let mut account = Account::default();
    let mut out = 0;
    for frame in frames {
        let taken = source.take(frame, &mut account, Instant::now());
        out += taken.pieces.iter().map(|piece| piece.bytes.len()).sum::<usize>();
    }
    out
}

#[cfg(test)]
mod tests;
