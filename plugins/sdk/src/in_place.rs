//! Arguments and answers where they lie. Not for authors.
//!
//! What wit-bindgen makes of a list of records is a new list, record by record, on the way in and on the way out, although
//! the contract's records lie in memory just as `repr(C)` has them. Here what the gateway wrote becomes the plugin's own
//! without a copy, and an answer stays where it is until the gateway has read it. The functions have the names that
//! wit-bindgen gives to its own, since the export macros that it generates call them.
//!
//! The gateway is trusted to write what the canonical ABI says, as generated code trusts it.
#![expect(unsafe_code, reason = "memory becomes values")]

mod layout;

use crate::bindings::{
    cost_model::exports::tollgate::plugin::cost_model as cost,
    enricher::exports::tollgate::plugin::attribute_enricher as enriching,
    filter::exports::tollgate::plugin::export_filter as filtering,
    lifecycle::tollgate::plugin::{
        edits::EditList,
        types::{BatchContext, PluginError, SpanBatch},
    },
};
use layout::{PriceArguments, SpanArguments};
use std::{
    alloc::{Layout, dealloc},
    cell::UnsafeCell,
};

/// What the last call answered: as the gateway reads it, and the memory that this points into.
struct Answer {
    /// A result, its tag first; the longest is a filter's, of four lists.
    words: UnsafeCell<[usize; 9]>,
    kept: UnsafeCell<Kept>,
}

#[expect(dead_code, reason = "it is what the words point at, and is dropped later")]
enum Kept {
    Nothing,
    Message(String),
    Lines(Vec<cost::CostLine>),
    Edits(EditList),
    Filtered(filtering::Filtered),
}

// SAFETY: a component of this contract has one thread.
unsafe impl Sync for Answer {}

static ANSWER: Answer =
    Answer { words: UnsafeCell::new([0; 9]), kept: UnsafeCell::new(Kept::Nothing) };

impl Answer {
    /// Hands an answer over: its words after the tag of a result that is ok, and what they point at.
    fn give(&self, words: &[usize], kept: Kept) -> *mut u8 {
        self.put(0, words, kept)
    }

    fn fail(&self, error: PluginError) -> *mut u8 {
        let (case, message) = match error {
            PluginError::Unsupported(message) => (0, message),
            PluginError::InvalidInput(message) => (1, message),
            PluginError::Unavailable(message) => (2, message),
            PluginError::Internal(message) => (3, message),
        };
        let [pointer, length] = list(message.as_bytes());
        self.put(1, &[case, pointer, length], Kept::Message(message))
    }

    #[inline]
    fn put(&self, tag: usize, words: &[usize], kept: Kept) -> *mut u8 {
        // SAFETY: there is one thread, and neither reference outlives this; nothing was kept before, so that no drop
        // comes in between.
        let (place, held) = unsafe { (&mut *self.words.get(), &mut *self.kept.get()) };
        for (to, from) in place.iter_mut().zip([tag].iter().chain(words)) {
            *to = *from;
        }
        *held = kept;
        self.words.get().cast()
    }

    /// The gateway has read it.
    fn done(&self) {
        // SAFETY: as above.
        let kept = unsafe { std::mem::replace(&mut *self.kept.get(), Kept::Nothing) };
        drop(kept);
    }
}

fn list<T>(items: &[T]) -> [usize; 2] {
    [items.as_ptr().expose_provenance(), items.len()]
}

/// Arguments that take more than sixteen numbers come as one block, which is given back here.
///
/// # Safety
/// The gateway wrote a `T` there, into room that it asked this component for.
#[inline]
unsafe fn take<T>(block: *mut u8) -> T {
    // SAFETY: as the caller says.
    unsafe {
        let arguments = block.cast::<T>().read();
        dealloc(block, Layout::new::<T>());
        arguments
    }
}

/// # Safety
/// As for [`take`].
#[inline]
unsafe fn take_spans(block: *mut u8) -> (BatchContext, SpanBatch) {
    wit_bindgen::rt::run_ctors_once();
    // SAFETY: as the caller says.
    unsafe { take::<SpanArguments>(block).lift() }
}

#[inline]
fn edit_list(list_of: &EditList) -> [usize; 6] {
    let [[a, b], [c, d], [e, f]] =
        [list(&list_of.edits), list(&list_of.keys), list(&list_of.arena)];
    [a, b, c, d, e, f]
}

/// # Safety
/// The gateway calls it, as the canonical ABI says.
#[inline]
pub unsafe fn _export_price_cabi<T: cost::Guest>(block: *mut u8) -> *mut u8 {
    wit_bindgen::rt::run_ctors_once();
    // SAFETY: as the caller says.
    let (context, usage, arena) = unsafe { take::<PriceArguments>(block).lift() };
    match T::price(context, usage, arena) {
        Ok(cost::Priced::Cost(lines)) => {
            let [pointer, length] = list(&lines);
            ANSWER.give(&[0, pointer, length], Kept::Lines(lines))
        }
        Ok(cost::Priced::Unpriced(reason)) => {
            ANSWER.give(&[1, usize::from(reason as u8)], Kept::Nothing)
        }
        Ok(cost::Priced::Failed(message)) => {
            let [pointer, length] = list(message.as_bytes());
            ANSWER.give(&[2, pointer, length], Kept::Message(message))
        }
        Err(error) => ANSWER.fail(error),
    }
}

/// # Safety
/// The gateway calls it, as the canonical ABI says.
#[inline]
pub unsafe fn _export_enrich_cabi<T: enriching::Guest>(block: *mut u8) -> *mut u8 {
    // SAFETY: as the caller says.
    let (context, batch) = unsafe { take_spans(block) };
    match T::enrich(context, batch) {
        Ok(edits) => ANSWER.give(&edit_list(&edits), Kept::Edits(edits)),
        Err(error) => ANSWER.fail(error),
    }
}

/// # Safety
/// The gateway calls it, as the canonical ABI says.
#[inline]
pub unsafe fn _export_filter_cabi<T: filtering::Guest>(block: *mut u8) -> *mut u8 {
    // SAFETY: as the caller says.
    let (context, batch) = unsafe { take_spans(block) };
    match T::filter(context, batch) {
        Ok(answer) => {
            let [verdicts, count] = list(&answer.verdicts);
            let [a, b, c, d, e, f] = edit_list(&answer.edits);
            ANSWER.give(&[verdicts, count, a, b, c, d, e, f], Kept::Filtered(answer))
        }
        Err(error) => ANSWER.fail(error),
    }
}

/// After each call of either.
///
/// # Safety
/// The gateway calls it when it has read the answer.
pub unsafe fn post_return<T>(_: *mut u8) {
    ANSWER.done();
}

/// Where wit-bindgen's macros look for the functions of an interface: by the path that it has in a package.
macro_rules! path {
    ($role:ident / $interface:ident: $($function:item)*) => {
        pub mod $role {
            //! A role.
            pub mod exports {
                //! By package.
                pub mod tollgate {
                    //! This one.
                    pub mod plugin {
                        //! Its interfaces.
                        pub mod $interface {
                            //! This one.
                            $($function)*
                        }
                    }
                }
            }
        }
    };
}

path!(cost_model / cost_model:
    pub use crate::bindings::cost_model::exports::tollgate::plugin::cost_model::{
        __export_tollgate_plugin_cost_model_0_1_0_cabi, __post_return_currency, _export_currency_cabi,
    };
    pub use crate::in_place::{_export_price_cabi, post_return as __post_return_price};
);

path!(enricher / attribute_enricher:
    pub use crate::bindings::enricher::exports::tollgate::plugin::attribute_enricher
        ::__export_tollgate_plugin_attribute_enricher_0_1_0_cabi;
    pub use crate::in_place::{_export_enrich_cabi, post_return as __post_return_enrich};
);

path!(filter / export_filter:
    pub use crate::bindings::filter::exports::tollgate::plugin::export_filter
        ::__export_tollgate_plugin_export_filter_0_1_0_cabi;
    pub use crate::in_place::{_export_filter_cabi, post_return as __post_return_filter};
);
