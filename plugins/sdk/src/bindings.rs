//! What wit-bindgen makes of the contract.
//!
//! One module per interface that a plugin exports, so that a plugin's component type is put together from the parts it
//! really has: `lifecycle` and its role. The linker merges the parts into one world. Types that the parts share are
//! generated once, in [`lifecycle`], and the others point at them.
//!
//! Nothing here is for authors: `crate::glue` translates, and what is worth seeing is re-exported from the crate's root.

pub mod lifecycle {
    //! What every plugin exports, and the types of the whole contract.
    wit_bindgen::generate!({
        path: "../../wit/since-v0.1.0",
        inline: "
            package tollgate:sdk-lifecycle;
            world lifecycle {
                include tollgate:plugin/base@0.1.0;
                import tollgate:plugin/types@0.1.0;
                import tollgate:plugin/edits@0.1.0;
            }
        ",
        world: "lifecycle",
        generate_all,
        generate_unused_types: true,
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
        default_bindings_module: "tollgate_plugin::bindings::lifecycle",
        runtime_path: "tollgate_plugin::wit_bindgen::rt",
        bitflags_path: "tollgate_plugin::wit_bindgen::rt::bitflags",
        additional_derives: [PartialEq, Clone],
    });
}

pub mod cost_model {
    //! The role of a cost model.
    wit_bindgen::generate!({
        path: "../../wit/since-v0.1.0",
        inline: "
            package tollgate:sdk-cost-model;
            world cost-model { export tollgate:plugin/cost-model@0.1.0; }
        ",
        world: "cost-model",
        with: { "tollgate:plugin/types@0.1.0": super::lifecycle::tollgate::plugin::types },
        generate_all,
        generate_unused_types: true,
        pub_export_macro: true,
        export_macro_name: "export_cost_model_role",
        default_bindings_module: "tollgate_plugin::bindings::cost_model",
        runtime_path: "tollgate_plugin::wit_bindgen::rt",
        bitflags_path: "tollgate_plugin::wit_bindgen::rt::bitflags",
        additional_derives: [PartialEq, Clone],
    });
}

pub mod enricher {
    //! The role of an attribute enricher.
    wit_bindgen::generate!({
        path: "../../wit/since-v0.1.0",
        inline: "
            package tollgate:sdk-enricher;
            world enricher { export tollgate:plugin/attribute-enricher@0.1.0; }
        ",
        world: "enricher",
        with: {
            "tollgate:plugin/types@0.1.0": super::lifecycle::tollgate::plugin::types,
            "tollgate:plugin/edits@0.1.0": super::lifecycle::tollgate::plugin::edits,
        },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_enricher_role",
        default_bindings_module: "tollgate_plugin::bindings::enricher",
        runtime_path: "tollgate_plugin::wit_bindgen::rt",
        bitflags_path: "tollgate_plugin::wit_bindgen::rt::bitflags",
        additional_derives: [PartialEq, Clone],
    });
}

pub mod filter {
    //! The role of an export filter.
    wit_bindgen::generate!({
        path: "../../wit/since-v0.1.0",
        inline: "
            package tollgate:sdk-filter;
            world filter { export tollgate:plugin/export-filter@0.1.0; }
        ",
        world: "filter",
        with: {
            "tollgate:plugin/types@0.1.0": super::lifecycle::tollgate::plugin::types,
            "tollgate:plugin/edits@0.1.0": super::lifecycle::tollgate::plugin::edits,
        },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_filter_role",
        default_bindings_module: "tollgate_plugin::bindings::filter",
        runtime_path: "tollgate_plugin::wit_bindgen::rt",
        bitflags_path: "tollgate_plugin::wit_bindgen::rt::bitflags",
        additional_derives: [PartialEq, Clone],
    });
}
