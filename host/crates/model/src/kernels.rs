//! The arithmetic of the forward pass on the CPU, on plain slices of f32.
//!
//! Every number that comes out is computed by the same operations in the same order, however many
//! tokens and sequences are computed beside it: a token's logits, and so its text, do not depend on
//! the batch, on the pieces a prompt is read in or on what was found in a prefix cache. Not a promise
//! across machines: a processor without fused multiply-add rounds once more.

pub(crate) mod attention;
pub(crate) mod block;
pub(crate) mod linear;
pub(crate) mod pack;
pub(crate) mod panel;
pub(crate) mod pointwise;
pub(crate) mod products;
pub(crate) mod quantised;
pub(crate) mod rounded;
pub(crate) mod simd;
