//! The attribute `#[component]` of `nodata-component`. Its documentation is there, with what it is used on.

mod component; // the attribute

use proc_macro::TokenStream;

/// Makes a component of a function, or of a type that implements `Transform`. A crate holds one.
///
/// ```ignore
/// #[component]
/// fn late_flights(events: Events<'_>, out: &mut Output<'_>) -> Result<()> { … }
/// ```
///
/// ```ignore
/// #[component]
/// impl Transform for LateFlights {
///     fn new() -> Result<Self> { … }
///     fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> { … }
/// }
/// ```
///
/// The function or the implementation itself is not changed: it can be called, and a native test runs it.
#[proc_macro_attribute]
pub fn component(arguments: TokenStream, item: TokenStream) -> TokenStream {
    component::expand(arguments.into(), item.into()).into()
}
