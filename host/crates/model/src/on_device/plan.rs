//! Where the tokens of a pass are, and which of them attend together.
//!
//! Sequences that read one token each (those that write) attend together: by a kernel that takes each as
//! long as it is, or, without one, filled up to the longest; to bound what that wastes, only such as are
//! about equally long. A prompt attends by itself, and
//! a long one in pieces, so that the scores that are written down at once are bounded. The pass has its
//! tokens in the order of these parts.

use candle_core::{DType, Device, Result, Tensor};

use super::attention::has_kernel;
use crate::config::LlamaConfig;
use crate::decoder::Row;
use crate::kv::BLOCK_TOKENS;
use crate::rope::Rope;

/// Scores that are written down at once, at most: 256 MiB of f32.
const MOST_SCORES: usize = 1 << 26;
/// Numbers of keys that are put side by side at once, at most, and of values as many.
const MOST_GATHERED: usize = 1 << 26;
/// Sequences shorter than this count as equally long.
const SHORT: usize = 128;
/// What a score loses where a token may not look. The exponential of what is left is 0.
const UNSEEN: f64 = -1e30;
/// Later than any token.
const NEVER: u32 = u32::MAX;

/// A pass over some rows.
pub(crate) struct Plan {
    /// `[tokens]`.
    pub(crate) tokens: Tensor,
    /// Places that keys and values go to, `[tokens]`.
    pub(crate) places: Tensor,
    /// Cosines and sines for keys, `[tokens, head_dim / 2]`, and for queries, which are scaled too.
    pub(crate) key_angles: (Tensor, Tensor),
    pub(crate) query_angles: (Tensor, Tensor),
    /// Tokens that attend together, one part after another.
    pub(crate) parts: Vec<Part>,
    /// Where each row's tokens begin, in the order of the rows.
    pub(crate) starts: Vec<usize>,
}

/// Sequences that attend together, each with as many tokens as the others.
pub(crate) struct Part {
    pub(crate) sequences: usize,
    /// Of each sequence.
    pub(crate) tokens: usize,
    /// Places that each sequence looks at, or is filled up to.
    pub(crate) looked_at: usize,
    pub(crate) looks: Looks,
}

/// What a part looks at.
pub(crate) enum Looks {
    /// To be put side by side.
    SideBySide {
        /// Head by head the rows of the places, `[sequences, kv_heads, looked_at]` flattened.
        heads: Tensor,
        /// What scores lose, `[sequences, 1, tokens, looked_at]`; none where all may look at all.
        unseen: Option<Tensor>,
    },
    /// Where they are, by a kernel for one token of each sequence.
    InPlace {
        /// `[sequences, looked_at]`.
        places: Tensor,
        /// How many of these each sequence has.
        lengths: Tensor,
    },
}

/// Some tokens of a row: which row, from where, how many.
#[derive(Clone, Copy)]
struct Piece {
    row: usize,
    start: usize,
    tokens: usize,
}

impl Plan {
    pub(crate) fn new(
        config: &LlamaConfig,
        rope: &Rope,
        rows: &[Row<'_>],
        empty_place: usize,
        device: &Device,
    ) -> Result<Self> {
        let in_place = has_kernel(config, device);
        let groups = groups(config, rows, in_place);
        let mut starts = vec![0; rows.len()];
        let (mut tokens, mut positions, mut places) = (Vec::<u32>::new(), Vec::new(), Vec::new());
        for piece in groups.iter().flatten() {
            let Some(row) = rows.get(piece.row) else { continue };
            if let Some(start) = starts.get_mut(piece.row).filter(|_| piece.start == row.start) {
                *start = tokens.len();
            }
            let from = piece.start - row.start;
            tokens.extend(row.tokens.iter().skip(from).take(piece.tokens));
            for position in piece.start..piece.start + piece.tokens {
                positions.push(position);
                places.push(place(row, position));
            }
        }
        let parts = groups.iter().map(|group| {
            let looked_at = group.iter().map(|piece| piece.looks_at(config)).max().unwrap_or(0);
            let tokens = group.first().map_or(0, |piece| piece.tokens);
            let looks = match in_place && tokens == 1 {
                true => Looks::in_place(config, rows, group, (looked_at, empty_place), device),
                false => Looks::side_by_side(config, rows, group, (looked_at, empty_place), device),
            };
            Ok(Part { sequences: group.len(), tokens, looked_at, looks: looks? })
        });
        let parts = parts.collect::<Result<_>>()?;
        let count = tokens.len();
        let (cos, sin) = rope.angles(positions.into_iter());
        let angles =
            |numbers: Vec<f32>| Tensor::from_vec(numbers, (count, config.head_dim / 2), device);
        let key_angles = (angles(cos)?, angles(sin)?);
        let scale = 1.0 / (config.head_dim as f64).sqrt();
        let query_angles = ((&key_angles.0 * scale)?, (&key_angles.1 * scale)?);
        Ok(Self {
            tokens: Tensor::from_vec(tokens, count, device)?,
            places: Tensor::from_vec(places, count, device)?,
            key_angles,
            query_angles,
            parts,
            starts,
        })
    }
}

impl Looks {
    fn side_by_side(
        config: &LlamaConfig,
        rows: &[Row<'_>],
        group: &[Piece],
        (looked_at, empty_place): (usize, usize),
        device: &Device,
    ) -> Result<Self> {
        let (sequences, tokens) = (group.len(), group.first().map_or(0, |piece| piece.tokens));
        let places = places(config, rows, group, (looked_at, empty_place));
        let (mut keys, mut queries) = (Vec::new(), Vec::new());
        for piece in group {
            let end = piece.start + piece.tokens;
            let first = end - piece.looks_at(config);
            let filled = keys.len() + looked_at;
            keys.extend((first..end).map(|position| position as u32));
            keys.resize(filled, NEVER);
            queries.extend((piece.start..end).map(|position| position as u32));
        }
        let unseen = match tokens > 1 || keys.contains(&NEVER) {
            true => Some(unseen(config, keys, queries, (sequences, tokens, looked_at), device)?),
            false => None,
        };
        let kv_heads = config.kv_heads as u32;
        let places: Vec<u32> = places.into_iter().map(|place| place * kv_heads).collect();
        let places = Tensor::from_vec(places, (sequences, 1, looked_at), device)?;
        let each = Tensor::arange(0, kv_heads, device)?.reshape((1, config.kv_heads, 1))?;
        let heads = places.broadcast_add(&each)?.flatten_all()?;
        Ok(Self::SideBySide { heads, unseen })
    }

    fn in_place(
        config: &LlamaConfig,
        rows: &[Row<'_>],
        group: &[Piece],
        (looked_at, empty_place): (usize, usize),
        device: &Device,
    ) -> Result<Self> {
        let places = places(config, rows, group, (looked_at, empty_place));
        let lengths = group.iter().map(|piece| piece.looks_at(config) as u32);
        let lengths = lengths.collect::<Vec<_>>();
        Ok(Self::InPlace {
            places: Tensor::from_vec(places, (group.len(), looked_at), device)?,
            lengths: Tensor::from_vec(lengths, group.len(), device)?,
        })
    }
}

impl Piece {
    /// Positions that its tokens look at, the last of which is its own last one.
    fn looks_at(&self, config: &LlamaConfig) -> usize {
        let window = config.sliding_window.unwrap_or(usize::MAX);
        let first = (self.start + 1).saturating_sub(window);
        self.start + self.tokens - first
    }
}

/// All tokens of all rows, by who attends together.
fn groups(config: &LlamaConfig, rows: &[Row<'_>], in_place: bool) -> Vec<Vec<Piece>> {
    let mut single = Vec::new();
    let mut groups = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let piece = Piece { row: index, start: row.start, tokens: row.tokens.len() };
        match piece.tokens {
            1 => single.push(piece),
            _ => groups.extend(pieces(config, piece).into_iter().map(|piece| vec![piece])),
        }
    }
    if in_place {
        groups.extend(Some(single).filter(|single| !single.is_empty()));
        return groups;
    }
    single.sort_by_key(|piece| piece.looks_at(config));
    let about = |piece: &Piece| piece.looks_at(config).next_power_of_two().max(SHORT);
    for equals in single.chunk_by(|one, other| about(one) == about(other)) {
        let longest = equals.last().map_or(1, |piece| piece.looks_at(config));
        let each = longest * config.kv_heads * config.head_dim;
        let together = (MOST_GATHERED / each.max(1)).max(1);
        groups.extend(equals.chunks(together).map(<[Piece]>::to_vec));
    }
    groups
}

/// Pieces whose scores are few enough.
fn pieces(config: &LlamaConfig, mut whole: Piece) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while whole.tokens > 0 {
        let row_of_scores = config.heads * whole.looks_at(config);
        let tokens = (MOST_SCORES / row_of_scores.max(1)).clamp(1, whole.tokens);
        pieces.push(Piece { tokens, ..whole });
        whole.start += tokens;
        whole.tokens -= tokens;
    }
    pieces
}

/// What scores lose where a token may not look: ahead, beyond its window, or where nothing is.
fn unseen(
    config: &LlamaConfig,
    keys: Vec<u32>,
    queries: Vec<u32>,
    (sequences, tokens, looked_at): (usize, usize, usize),
    device: &Device,
) -> Result<Tensor> {
    let queries = Tensor::from_vec(queries, (sequences, tokens, 1), device)?;
    let gone: Option<Vec<u32>> = config.sliding_window.map(|window| {
        let window = u32::try_from(window).unwrap_or(u32::MAX);
        keys.iter().map(|key| key.saturating_add(window)).collect()
    });
    let keys = Tensor::from_vec(keys, (sequences, 1, looked_at), device)?;
    let mut unseen = keys.broadcast_gt(&queries)?;
    if let Some(gone) = gone {
        let gone = Tensor::from_vec(gone, (sequences, 1, looked_at), device)?;
        unseen = (unseen + gone.broadcast_le(&queries)?)?;
    }
    let unseen = (unseen.to_dtype(DType::F32)? * UNSEEN)?;
    unseen.reshape((sequences, 1, tokens, looked_at))
}

/// The places that a group looks at, each sequence's filled up.
fn places(
    config: &LlamaConfig,
    rows: &[Row<'_>],
    group: &[Piece],
    (looked_at, empty_place): (usize, usize),
) -> Vec<u32> {
    let mut places = Vec::with_capacity(group.len() * looked_at);
    for piece in group {
        let end = piece.start + piece.tokens;
        let first = end - piece.looks_at(config);
        let filled = places.len() + looked_at;
        if let Some(row) = rows.get(piece.row) {
            places.extend((first..end).map(|position| place(row, position)));
        }
        places.resize(filled, empty_place as u32);
    }
    places
}

/// The place of a position of a row.
fn place(row: &Row<'_>, position: usize) -> u32 {
    let block = row.blocks.get(position / BLOCK_TOKENS).copied().unwrap_or(u32::MAX / 32);
    block * BLOCK_TOKENS as u32 + (position % BLOCK_TOKENS) as u32
}
