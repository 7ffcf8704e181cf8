//! The imports of all worlds and the export of each, generated from `wit/`.
//!
//! Records borrow what they hold, so that columns go to the host from where they were written. The types are those of the world
//! `transform` everywhere; the others only add their export.
#![allow(unsafe_code, unreachable_pub, missing_docs, reason = "generated")]

wit_bindgen::generate!({
    path: "wit",
    world: "transform",
    ownership: Borrowing { duplicate_if_necessary: true },
    pub_export_macro: true,
    export_macro_name: "export",
    default_bindings_module: "nodata_component::__private::bindings",
});

pub mod sink {
    wit_bindgen::generate!({
        path: "wit",
        world: "sink",
        ownership: Borrowing { duplicate_if_necessary: true },
        pub_export_macro: true,
        export_macro_name: "export_sink",
        default_bindings_module: "nodata_component::__private::bindings::sink",
        with: {
            "nodata:streaming/types@0.1.0": crate::bindings::nodata::streaming::types,
            "nodata:streaming/config@0.1.0": crate::bindings::nodata::streaming::config,
            "nodata:streaming/metrics@0.1.0": crate::bindings::nodata::streaming::metrics,
            "nodata:streaming/state@0.1.0": crate::bindings::nodata::streaming::state,
        },
    });
}

pub mod source {
    wit_bindgen::generate!({
        path: "wit",
        world: "source",
        ownership: Borrowing { duplicate_if_necessary: true },
        pub_export_macro: true,
        export_macro_name: "export_source",
        default_bindings_module: "nodata_component::__private::bindings::source",
        with: {
            "nodata:streaming/types@0.1.0": crate::bindings::nodata::streaming::types,
            "nodata:streaming/config@0.1.0": crate::bindings::nodata::streaming::config,
            "nodata:streaming/metrics@0.1.0": crate::bindings::nodata::streaming::metrics,
            "nodata:streaming/state@0.1.0": crate::bindings::nodata::streaming::state,
        },
    });
}

pub mod aggregate {
    wit_bindgen::generate!({
        path: "wit",
        world: "aggregate",
        ownership: Borrowing { duplicate_if_necessary: true },
        pub_export_macro: true,
        export_macro_name: "export_aggregate",
        default_bindings_module: "nodata_component::__private::bindings::aggregate",
        with: {
            "nodata:streaming/types@0.1.0": crate::bindings::nodata::streaming::types,
            "nodata:streaming/config@0.1.0": crate::bindings::nodata::streaming::config,
            "nodata:streaming/metrics@0.1.0": crate::bindings::nodata::streaming::metrics,
            "nodata:streaming/state@0.1.0": crate::bindings::nodata::streaming::state,
        },
    });
}

pub mod lifecycle {
    wit_bindgen::generate!({
        inline: "package nodata:sdk; world lifecycle { export nodata:streaming/lifecycle@0.1.0; }",
        path: "wit",
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
        default_bindings_module: "nodata_component::__private::bindings::lifecycle",
        with: { "nodata:streaming/types@0.1.0": crate::bindings::nodata::streaming::types },
    });
}

pub mod ports {
    wit_bindgen::generate!({
        inline: "package nodata:sdk; world ports { export nodata:streaming/ports@0.1.0; }",
        path: "wit",
        pub_export_macro: true,
        export_macro_name: "export_ports",
        default_bindings_module: "nodata_component::__private::bindings::ports",
        with: { "nodata:streaming/types@0.1.0": crate::bindings::nodata::streaming::types },
    });
}

pub mod ticker {
    wit_bindgen::generate!({
        inline: "package nodata:sdk; world ticker { export nodata:streaming/ticker@0.1.0; }",
        path: "wit",
        ownership: Borrowing { duplicate_if_necessary: true },
        pub_export_macro: true,
        export_macro_name: "export_ticker",
        default_bindings_module: "nodata_component::__private::bindings::ticker",
        with: { "nodata:streaming/types@0.1.0": crate::bindings::nodata::streaming::types },
    });
}

pub mod grouper {
    wit_bindgen::generate!({
        inline: "package nodata:sdk; world grouper { export nodata:streaming/grouper@0.1.0; }",
        path: "wit",
        ownership: Borrowing { duplicate_if_necessary: true },
        pub_export_macro: true,
        export_macro_name: "export_grouper",
        default_bindings_module: "nodata_component::__private::bindings::grouper",
        with: { "nodata:streaming/types@0.1.0": crate::bindings::nodata::streaming::types },
    });
}

pub mod snapshot {
    wit_bindgen::generate!({
        inline: "package nodata:sdk; world snapshot { export nodata:streaming/snapshot@0.1.0; }",
        path: "wit",
        pub_export_macro: true,
        export_macro_name: "export_snapshot",
        default_bindings_module: "nodata_component::__private::bindings::snapshot",
        with: { "nodata:streaming/types@0.1.0": crate::bindings::nodata::streaming::types },
    });
}
