//! The imports and the export of the world `transform`, generated from `wit/`.
//!
//! Records borrow what they hold, so that columns go to the host from where they were written.
#![allow(unsafe_code, unreachable_pub, missing_docs, reason = "generated")]

wit_bindgen::generate!({
    path: "wit",
    world: "transform",
    ownership: Borrowing { duplicate_if_necessary: true },
    pub_export_macro: true,
    export_macro_name: "export",
    default_bindings_module: "nodata_component::__private::bindings",
});
