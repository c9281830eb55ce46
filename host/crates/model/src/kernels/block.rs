//! GGUF's packings, block by block: what lies where in a file.

#![expect(
    clippy::indexing_slicing,
    reason = "a block's bytes are as many as its packing has, checked by the caller"
)]

/// Weights that share GGUF's largest unit, in all types that have one.
const SUPER: usize = 256;

/// How weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Q4_0,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// A block of one row, taken apart.
pub(crate) struct Block {
    pub(crate) codes: [i8; SUPER],
    pub(crate) scale: u16,
    pub(crate) offset: u16,
    pub(crate) group_scales: [i8; 16],
    pub(crate) group_offsets: [i8; 16],
}

impl Packing {
    /// Weights in a block of GGUF.
    pub(crate) fn block(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => SUPER,
        }
    }

    /// Bytes of a block.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Weights that share a scale.
    pub(crate) fn group(self) -> usize {
        if self == Self::Q6K { 16 } else { 32 }
    }

    pub(crate) fn has_nibbles(self) -> bool {
        matches!(self, Self::Q4_0 | Self::Q4K)
    }

    pub(crate) fn has_group_scales(self) -> bool {
        matches!(self, Self::Q4K | Self::Q5K | Self::Q6K)
    }

    /// Whether the numbers are counted from their middle instead.
    pub(crate) fn has_middle(self) -> bool {
        self == Self::Q4_0
    }

    pub(crate) fn has_offsets(self) -> bool {
        matches!(self, Self::Q4K | Self::Q5K)
    }
}

impl Block {
    /// As ggml lays it out (`ggml-common.h`); `bytes` are a whole block.
    pub(crate) fn take_apart(packing: Packing, bytes: &[u8]) -> Self {
        let mut block = Self {
            codes: [0; SUPER],
            scale: 0,
            offset: 0,
            group_scales: [0; 16],
            group_offsets: [0; 16],
        };
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        match packing {
            Packing::Q8_0 => {
                block.scale = half(0);
                for (code, byte) in block.codes.iter_mut().zip(&bytes[2..]) {
                    *code = byte.cast_signed();
                }
            }
            Packing::Q4_0 => {
                block.scale = half(0);
                for (at, byte) in bytes[2..].iter().enumerate() {
                    block.codes[at] = (byte & 15).cast_signed();
                    block.codes[at + 16] = (byte >> 4).cast_signed();
                }
            }
            Packing::Q4K | Packing::Q5K => {
                (block.scale, block.offset) = (half(0), half(2));
                block.six_bits(&bytes[4..16]);
                let low = &bytes[packing.bytes() - 128..];
                for (at, code) in block.codes.iter_mut().enumerate() {
                    let byte = low[at / 64 * 32 + at % 32];
                    let nibble = if at % 64 < 32 { byte & 15 } else { byte >> 4 };
                    let fifth = match packing {
                        Packing::Q5K => bytes[16 + at % 32] >> (at / 32) & 1,
                        _ => 0,
                    };
                    *code = (nibble | fifth << 4).cast_signed();
                }
            }
            Packing::Q6K => {
                block.scale = half(208);
                for (scale, byte) in block.group_scales.iter_mut().zip(&bytes[192..208]) {
                    *scale = byte.cast_signed();
                }
                for (at, code) in block.codes.iter_mut().enumerate() {
                    let (half, at) = (at / 128, at % 128);
                    let low = bytes[half * 64 + at % 64] >> (at / 64 * 4) & 15;
                    let high = bytes[128 + half * 32 + at % 32] >> (at / 32 * 2) & 3;
                    *code = (low | high << 4).cast_signed() - 32;
                }
            }
        }
        block
    }

    /// Eight scales and eight offsets of six bits in twelve bytes.
    fn six_bits(&mut self, bytes: &[u8]) {
        for group in 0..8 {
            let (scale, offset) = if group < 4 {
                (bytes[group] & 63, bytes[group + 4] & 63)
            } else {
                let byte = bytes[group + 4];
                let (upper_scale, upper_offset) = (bytes[group - 4] >> 6, bytes[group] >> 6);
                (byte & 15 | upper_scale << 4, byte >> 4 | upper_offset << 4)
            };
            self.group_scales[group] = scale.cast_signed();
            self.group_offsets[group] = offset.cast_signed();
        }
    }
}
