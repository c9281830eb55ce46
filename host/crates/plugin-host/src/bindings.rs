//! Host side of the contract, generated from `wit/`.
//!
//! One world with every role in it: the host binds each interface that a component exports on its own (see
//! `engine.rs`), so the world itself is never instantiated and a plugin may play several roles.
//! Arguments borrow, so that a price call copies no string on its way in.

wasmtime::component::bindgen!({
    path: "../../../wit/since-v0.1.0",
    inline: "
        package tollgate:host;
        world every-role {
            include tollgate:plugin/cost-model-plugin@0.1.0;
            include tollgate:plugin/enricher-plugin@0.1.0;
            include tollgate:plugin/filter-plugin@0.1.0;
        }
    ",
    world: "tollgate:host/every-role",
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub use self::exports::tollgate::plugin::{cost_model, export_filter, lifecycle};
pub use self::tollgate::plugin::{edits, log, types};
