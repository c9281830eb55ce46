//! What the fuzz target calls: an answer as a server might send it, in pieces as a network might cut it. `host/fuzz` holds the
//! target; the corpus is replayed by the test below.
//!
//! The first byte of an input says which reader takes the rest, the next three how it is cut.
//!
//! Invariants: no panic; no more is kept than what is allowed; whatever the pieces, the same account, the same bytes out and
//! the same error.

use std::time::Instant;

use bytes::Bytes;
use tollgate_domain::record::Operation;

use crate::account::Account;
use crate::anthropic::stream::Translator;
use crate::exchange::PieceKind;
use crate::openai::ChunkReader;
use crate::reading::{EventReader, Source, Taken, WholeReader};

/// Most bytes of an event and of a plain answer; small, so that inputs get there.
const LIMIT: usize = 1024;
/// Most bytes that one event of Anthropic's gets longer by when it is translated: the names that are repeated in each chunk,
/// each character of four bytes, written out, and what stands around them.
const TRANSLATED: usize = 8 << 10;

/// What came of an answer.
#[derive(Debug, Default, PartialEq)]
struct Came {
    body: Vec<u8>,
    last: Vec<u8>,
    error: Option<String>,
    account: Account,
}

/// An answer.
pub fn answer(data: &[u8]) {
    let Some((&[which, cuts @ ..], answer)) = data.split_first_chunk::<4>() else { return };
    let at = Instant::now();
    let whole = came(which, &[answer], at);
    bounded(&whole, answer);
    assert_eq!(came(which, &pieces(answer, &cuts), at), whole, "as cut by the input");
    let single: Vec<&[u8]> = answer.chunks(1).collect();
    assert_eq!(came(which, &single, at), whole, "byte by byte");
}

fn source(which: u8) -> Source {
    let strip_usage = which & 1 == 1;
    let whole = |reader| Source::whole(reader, LIMIT);
    match (which >> 1) % 8 {
        0 | 1 => Source::events(EventReader::Chunks(ChunkReader { strip_usage }), LIMIT),
        2 => Source::events(EventReader::Responses, LIMIT),
        3 => {
            Source::events(EventReader::Anthropic(Box::new(Translator::at(!strip_usage, 7))), LIMIT)
        }
        4 => whole(WholeReader::OpenAi(Operation::Chat)),
        5 => whole(WholeReader::OpenAi(Operation::Responses)),
        6 => whole(WholeReader::Anthropic),
        _ => whole(WholeReader::Error { anthropic: strip_usage, told_as: Some(404) }),
    }
}

/// As an exchange takes it: what comes after the end or an error is not looked at.
fn came(which: u8, pieces: &[&[u8]], at: Instant) -> Came {
    let (mut source, mut came, mut over) = (source(which), Came::default(), false);
    let mut account = Account::default();
    let mut keep = |taken: Taken, account: &Account| {
        for piece in taken.pieces {
            assert!(!piece.bytes.is_empty(), "a piece has at least one byte");
            match piece.kind {
                PieceKind::Body => {
                    assert!(came.last.is_empty(), "nothing follows what is last");
                    came.body.extend_from_slice(&piece.bytes);
                }
                PieceKind::Last => came.last.extend_from_slice(&piece.bytes),
            }
        }
        came.error = taken.error.map(|error| error.to_string());
        came.error.is_some() || account.is_over()
    };
    for piece in pieces {
        let taken = source.take(&Bytes::copy_from_slice(piece), &mut account, at);
        let kept = source.kept();
        over = keep(taken, &account);
        assert!(over || kept <= LIMIT, "{kept} bytes are kept");
        if over {
            break;
        }
    }
    if !over {
        let taken = source.end(&mut account, at);
        keep(taken, &account);
    }
    if (which >> 1) % 8 == 6 {
        // A translated answer says when it was made.
        came.last.fill(0);
    }
    came.account = account;
    came
}

fn bounded(came: &Came, answer: &[u8]) {
    let lines = answer.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    let most = answer.len() + (lines + 1) * TRANSLATED;
    assert!(came.body.len() + came.last.len() <= most, "more goes out than came");
    let account = &came.account;
    let named = [&account.response_model, &account.response_id, &account.service_tier];
    let names = named.into_iter().flatten().chain(&account.finish_reasons);
    assert!(
        names.clone().count() <= 3 + 256 && names.clone().all(|name| name.chars().count() <= 256)
    );
    assert!(account.output_text.len() <= answer.len() + 1, "output is no longer than what told it");
}

/// Cut by what three bytes say: pieces of up to 256 bytes, of lengths that seem to have no order.
fn pieces<'a>(mut answer: &'a [u8], seed: &[u8]) -> Vec<&'a [u8]> {
    let mut state = seed.iter().fold(1_u32, |state, byte| (state << 8) | u32::from(*byte));
    let mut pieces = Vec::new();
    while !answer.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = usize::try_from(state >> 24).unwrap_or_default() % 256 + 1;
        let (piece, rest) = answer.split_at(length.min(answer.len()));
        pieces.push(piece);
        answer = rest;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_passes() {
        let corpus =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/upstream");
        let mut count = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            answer(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 10, "{count} inputs");
    }

    #[test]
    fn exchanges_pass_whoever_reads_them() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exchanges");
        for entry in std::fs::read_dir(folder).unwrap() {
            let exchange = std::fs::read(entry.unwrap().path()).unwrap();
            for which in 0..16 {
                for seed in 0..2 {
                    answer(&[&[which, 0, 1, seed], &exchange[..]].concat());
                }
            }
        }
    }
}
