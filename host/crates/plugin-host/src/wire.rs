//! Records on their way into a plugin, written whole.
//!
//! What wasmtime derives for a record writes one field after another, and before each it looks up where the plugin's memory
//! is: for a price some thirty times, for a span sixteen, for each of its attributes three. [`Whole`] and [`All`] look
//! once, and write every field. Invariants: what a component's types are compared with is still the derived type, and so
//! are size and alignment; the bytes are those that the derived code writes, which the tests below compare.
#![expect(unsafe_code, reason = "wasmtime's traits for what crosses are unsafe to implement")]

mod records;
#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;

use wasmtime::component::__internal::{
    CanonicalAbiInfo, InstanceType, InterfaceType, LowerContext,
};
use wasmtime::component::{ComponentType, Lower};

/// A record of scalars.
pub(crate) trait Record: Lower {
    /// Puts its fields one after another, in the contract's order.
    fn put(&self, fields: &mut Fields<'_>);

    /// Whether it holds nothing now but scalars.
    #[inline]
    fn is_flat(&self) -> bool {
        true
    }
}

/// One record.
pub(crate) struct Whole<T>(pub T);

/// A list of records.
pub(crate) struct All<'a, T>(pub &'a [T]);

/// The bytes of one record.
pub(crate) struct Fields<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Fields<'_> {
    /// Goes on to the next multiple of `alignment`, as before a record or a variant in this one, and after it.
    #[inline(always)]
    pub fn align(&mut self, alignment: u32) {
        self.at = self.at.next_multiple_of(alignment as usize);
    }

    /// Leaves out the bytes of a case that is not there.
    #[inline(always)]
    pub fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    #[inline(always)]
    pub fn u8(&mut self, value: u8) {
        self.put([value]);
    }

    #[inline(always)]
    pub fn u32(&mut self, value: u32) {
        self.put(value.to_le_bytes());
    }

    #[inline(always)]
    pub fn u64(&mut self, value: u64) {
        self.put(value.to_le_bytes());
    }

    /// A scalar is aligned to its size.
    #[inline(always)]
    fn put<const SIZE: usize>(&mut self, scalar: [u8; SIZE]) {
        let from = self.at.next_multiple_of(SIZE);
        if let Some(to) = self.bytes.get_mut(from..).and_then(|bytes| bytes.first_chunk_mut()) {
            *to = scalar;
        }
        self.at = from + SIZE;
    }
}

/// So many bytes of a plugin's memory, of which wasmtime has said before that they are there.
#[inline]
fn room<'a, T>(
    cx: &'a mut LowerContext<'_, T>,
    offset: usize,
    bytes: usize,
) -> wasmtime::Result<&'a mut [u8]> {
    let memory = cx.as_slice_mut().get_mut(offset..);
    memory
        .and_then(|memory| memory.get_mut(..bytes))
        .ok_or_else(|| wasmtime::Error::msg("no room for a record in memory"))
}

// SAFETY: everything is the record's own.
unsafe impl<T: Record> ComponentType for Whole<T> {
    type Lower = T::Lower;

    const ABI: CanonicalAbiInfo = T::ABI;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
        T::typecheck(ty, types)
    }
}

// SAFETY: of the two forms one is the record's own, and the other writes to memory alone, within bounds.
unsafe impl<T: Record> Lower for Whole<T> {
    fn linear_lower_to_flat<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        ty: InterfaceType,
        dst: &mut MaybeUninit<Self::Lower>,
    ) -> wasmtime::Result<()> {
        self.0.linear_lower_to_flat(cx, ty, dst)
    }

    #[inline]
    fn linear_lower_to_memory<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        ty: InterfaceType,
        offset: usize,
    ) -> wasmtime::Result<()> {
        if !self.0.is_flat() {
            return self.0.linear_lower_to_memory(cx, ty, offset);
        }
        let bytes = room(cx, offset, T::SIZE32)?;
        self.0.put(&mut Fields { bytes, at: 0 });
        Ok(())
    }
}

// SAFETY: everything is the slice's own.
unsafe impl<T: Record> ComponentType for All<'_, T> {
    type Lower = <[T] as ComponentType>::Lower;

    const ABI: CanonicalAbiInfo = <[T] as ComponentType>::ABI;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
        <[T] as ComponentType>::typecheck(ty, types)
    }
}

// SAFETY: as for one record. The plugin gives the room for them, and wasmtime checks that it has it.
unsafe impl<T: Record> Lower for All<'_, T> {
    fn linear_lower_to_flat<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        ty: InterfaceType,
        dst: &mut MaybeUninit<Self::Lower>,
    ) -> wasmtime::Result<()> {
        self.0.linear_lower_to_flat(cx, ty, dst)
    }

    #[inline]
    fn linear_lower_to_memory<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        ty: InterfaceType,
        offset: usize,
    ) -> wasmtime::Result<()> {
        if !self.0.iter().all(Record::is_flat) {
            return self.0.linear_lower_to_memory(cx, ty, offset);
        }
        let too_large = || wasmtime::Error::msg("too many records for a plugin's memory");
        let bytes = self.0.len().checked_mul(T::SIZE32).ok_or_else(too_large)?;
        let at = cx.realloc(0, 0, T::ALIGN32, bytes)?;
        let places = room(cx, at, bytes)?.chunks_exact_mut(T::SIZE32);
        for (bytes, record) in places.zip(self.0) {
            record.put(&mut Fields { bytes, at: 0 });
        }
        let bytes = room(cx, offset, Self::SIZE32)?;
        let mut pair = Fields { bytes, at: 0 };
        pair.u32(u32::try_from(at)?);
        pair.u32(u32::try_from(self.0.len())?);
        Ok(())
    }
}
