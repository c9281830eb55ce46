//! Spans on record: the request of OTLP that they come to, packed by zstd, as text in base64. Spans repeat their
//! keys and much of their values, so what is hashed, written and kept is a fraction of them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::LocalKey;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

use super::{Malformed, Most, read, request};
use crate::received::{Group, Origin};
use crate::span::Span;
use crate::value::{base64, from_base64};

/// The least work: most of what can be saved is saved.
const LEVEL: i32 = 1;

/// Of few bytes, of which no statistics are made: these would be most of the work.
const LEVEL_OF_FEW: i32 = -1;

/// So few bytes are packed by what their thread keeps for it, which is then of some hundred KiB.
const FEW: usize = 16 << 10;

/// Most bytes of a request. More than one that comes may have, since each span's origin may stand once for each.
const MOST: usize = 256 << 20;

thread_local! {
    /// What packs and what unpacks: to make one anew is more work than a span is.
    static PACKER: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Does that with what the thread keeps, made the first time.
fn kept<T, U>(
    cell: &'static LocalKey<RefCell<Option<T>>>,
    make: impl FnOnce() -> io::Result<T>,
    work: impl FnOnce(&mut T) -> io::Result<U>,
) -> io::Result<U> {
    cell.with_borrow_mut(|kept| match kept {
        Some(kept) => work(kept),
        None => work(kept.insert(make()?)),
    })
}

/// What is on record is no request of spans that was packed.
#[derive(Debug)]
pub struct NotPacked(pub(crate) Cow<'static, str>);

impl fmt::Display for NotPacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotPacked {}

impl From<Malformed> for NotPacked {
    fn from(problem: Malformed) -> Self {
        Self(problem.to_string().into())
    }
}

/// Packs spans; and how many bytes they are.
///
/// # Errors
/// No memory.
pub fn pack(groups: &[Group]) -> io::Result<(String, usize)> {
    packed(&request::write_groups(groups))
}

/// Packs one span.
pub(crate) fn pack_one(origin: &Origin, span: &Span) -> io::Result<String> {
    packed(&request::write_one(origin, span)).map(|(text, _)| text)
}

fn packed(request: &[u8]) -> io::Result<(String, usize)> {
    let packed = match request.len() {
        ..=FEW => {
            kept(&PACKER, || Compressor::new(LEVEL_OF_FEW), |packer| packer.compress(request))
        }
        _ => zstd::bulk::compress(request, LEVEL),
    };
    Ok((base64(&packed?), request.len()))
}

/// The spans that were packed; and how many bytes they are.
///
/// # Errors
/// It is none of that.
pub fn unpack(text: &str) -> Result<(Vec<Group>, usize), NotPacked> {
    let packed = from_base64(text).ok_or(NotPacked("it is not base64".into()))?;
    // Room is made before it is unpacked: for as much as it says, not for as much as may be.
    let says = zstd_safe::get_frame_content_size(&packed);
    let says = says.map_err(|_| NotPacked("it is no frame of zstd".into()))?;
    let room =
        says.and_then(|bytes| usize::try_from(bytes).ok()).map_or(MOST, |says| says.min(MOST));
    let request = kept(&UNPACKER, Decompressor::new, |unpacker| unpacker.decompress(&packed, room));
    let request = request.map_err(|error| NotPacked(error.to_string().into()))?;
    let found = read(&request, &Most::ANY)?;
    match found.problem {
        Some(problem) => Err(NotPacked(problem.into())),
        None => Ok((found.groups, request.len())),
    }
}

/// The one span that was packed, and who recorded it.
pub(crate) fn unpack_one(text: &str) -> Result<(Arc<Origin>, Span), NotPacked> {
    let (mut groups, _) = unpack(text)?;
    let (one, none) = (groups.pop().unwrap_or_default(), groups);
    match <[Span; 1]>::try_from(one.spans) {
        Ok([span]) if none.is_empty() => Ok((one.origin, span)),
        _ => Err(NotPacked("it is not one span".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_packed_is_not_unpacked() {
        let frame = |request: &[u8]| packed(request).unwrap().0;
        let (nothing, bytes) = pack(&[]).unwrap();
        assert_eq!((unpack(&nothing).unwrap(), bytes), ((Vec::new(), 0), 0));
        for (text, problem) in [
            ("?".to_owned(), "it is not base64"),
            (base64(b"no frame"), "it is no frame of zstd"),
            (frame(b"\x0a\x05ab"), "it breaks off"),
            // A span without ids.
            (frame(b"\x0a\x04\x12\x02\x12\x00"), "traceId is not 16 bytes"),
        ] {
            assert_eq!(unpack(&text).unwrap_err().to_string(), problem);
        }
        assert_eq!(unpack_one(&nothing).unwrap_err().to_string(), "it is not one span");
    }
}
