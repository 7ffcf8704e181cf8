//! Requests of components to the outside: only to where a deployment may send some, and only from here.
//!
//! A name is resolved once for each connection, every address is checked, and the connection goes to an address that was checked;
//! so a name that answers differently the second time gains nothing. Redirects are answers like any other: following one is another
//! request. Connections are kept for later requests of the same deployment and for nobody else.

mod addresses; // which addresses are the internet
mod client; // a request on its way
mod connect; // from a name to a connection
mod get; // requests of the host itself
mod grants; // who may be asked

pub use client::HttpClient;
pub(crate) use client::HttpMachine;
pub use get::{HttpAnswer, HttpGetError};
pub use grants::{HttpGrant, HttpGrantError};
