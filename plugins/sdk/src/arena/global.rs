//! The allocator of a component, and the function through which the host asks it for room.

use super::{
    Phase,
    cursor::{ALIGN, Cursor},
};
use std::{
    alloc::{GlobalAlloc, Layout, System, handle_alloc_error},
    cell::{Cell, UnsafeCell},
    mem::MaybeUninit,
    ptr::{null_mut, without_provenance_mut},
};

/// Enough for the arguments and the answer of more than a hundred spans; a larger batch spills into the C library's memory.
const BYTES: usize = 128 << 10;

/// The memory of calls.
#[repr(align(16))]
struct Room(UnsafeCell<[MaybeUninit<u8>; BYTES]>);

const _: () = assert!(align_of::<Room>() == ALIGN);

/// By itself, so that a component's file has no zeros in it to say that there is nothing in it yet.
static ROOM: Room = Room(UnsafeCell::new([const { MaybeUninit::uninit() }; BYTES]));

/// Memory for calls, and the C library's for the rest.
pub(super) struct Allocator {
    phase: Cell<Phase>,
    cursor: UnsafeCell<Cursor>,
}

#[global_allocator]
pub(super) static ALLOCATOR: Allocator =
    Allocator { phase: Cell::new(Phase::Starting), cursor: UnsafeCell::new(Cursor::new(BYTES)) };

// SAFETY: a component of this contract has one thread.
unsafe impl Sync for Allocator {}
// SAFETY: as for the allocator.
unsafe impl Sync for Room {}

impl Allocator {
    #[inline]
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
    }

    /// Where an address is in the room, if it is there.
    #[inline]
    fn offset(pointer: *mut u8) -> Option<usize> {
        let offset = pointer.addr().wrapping_sub(ROOM.0.get().addr());
        (offset < BYTES).then_some(offset)
    }

    #[inline]
    fn take(&self, layout: Layout) -> *mut u8 {
        // SAFETY: there is one thread, and nothing that runs while this reference lives comes back here.
        match unsafe { &mut *self.cursor.get() }.take(layout) {
            // SAFETY: the cursor hands out offsets within the room.
            Some(offset) => unsafe { ROOM.0.get().cast::<u8>().add(offset) },
            None => null_mut(),
        }
    }
}

// SAFETY: what is handed out is in use by nobody else, which `Cursor` sees to, or comes from `System` and goes back to it.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.phase.get() != Phase::Starting {
            let pointer = self.take(layout);
            if !pointer.is_null() {
                return pointer;
            }
        }
        // SAFETY: what holds for the caller holds here.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if Self::offset(pointer).is_some() {
            // SAFETY: as in `take`.
            unsafe { &mut *self.cursor.get() }.give();
        } else {
            // SAFETY: it did not come from the room, so it came from there.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = Self::offset(pointer) else {
            // SAFETY: it did not come from the room, so it came from there.
            return unsafe { System.realloc(pointer, layout, size) };
        };
        // SAFETY: as in `take`.
        if unsafe { &mut *self.cursor.get() }.resize(offset, layout.size(), size) {
            return pointer;
        }
        // SAFETY: the caller vouches for the size, and the two do not overlap, since both are in use.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(pointer, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
            moved
        }
    }
}

/// Through this the host asks for room: for each string and list of the arguments, and of what an import answers. It takes the
/// place of the C library's, which is weak.
///
/// # Safety
/// The host calls it as the canonical ABI says.
#[unsafe(no_mangle)]
unsafe extern "C" fn cabi_realloc(
    old: *mut u8,
    old_size: usize,
    align: usize,
    size: usize,
) -> *mut u8 {
    if size == 0 {
        return without_provenance_mut(align);
    }
    // SAFETY: alignments of the canonical ABI are powers of two, and the host asks for less than all memory.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    let waiting = ALLOCATOR.phase.get() == Phase::Waiting;
    let pointer = match old_size {
        0 if waiting => {
            // SAFETY: the size is not zero.
            unsafe { ALLOCATOR.alloc(layout) }
        }
        // What an import answers may be freed by C code, which knows nothing of the arena.
        // SAFETY: as above.
        0 => unsafe { System.alloc(layout) },
        _ => {
            // SAFETY: as above; what is to grow was handed out by one of the two arms before, with this alignment.
            unsafe {
                ALLOCATOR.realloc(old, Layout::from_size_align_unchecked(old_size, align), size)
            }
        }
    };
    if pointer.is_null() {
        handle_alloc_error(layout);
    }
    pointer
}
