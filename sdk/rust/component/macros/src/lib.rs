//! The attribute `#[component]` of `nodata-component`. Its documentation is there, with what it is used on.

mod component; // the attribute

use proc_macro::TokenStream;

/// Makes a component of a function, or of a type that implements `Transform` or another of the traits. A crate holds one.
///
/// ```ignore
/// #[component]
/// fn late_flights(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
///     events.iter().filter(is_late).try_for_each(|event| out.forward(&event))
/// }
/// ```
///
/// ```ignore
/// #[component]
/// impl Transform for LateFlights {
///     fn new() -> Result<Self> {
///         Ok(Self { minutes: config::get_or("minutes", 60)? })
///     }
///
///     fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
///         events.iter().filter(|event| self.is_late(event)).try_for_each(|event| out.forward(&event))
///     }
/// }
/// ```
///
/// Of an implementation, what the author wrote is what is exported: `tick`, `save` and `restore`, `ports`, `close`.
///
/// The function or the implementation itself stays as it is: it can be called, and a test on this machine runs it.
#[proc_macro_attribute]
pub fn component(arguments: TokenStream, item: TokenStream) -> TokenStream {
    component::expand(arguments.into(), item.into()).into()
}
