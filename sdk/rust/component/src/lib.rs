#![doc = include_str!("../README.md")]

// What an author writes against.
#[cfg(feature = "json")]
mod aggregate; // a component that folds
mod component; // a component that keeps something
pub mod config; // what the deployment says
mod error; // what can go wrong
mod events; // what a call is given
#[cfg(feature = "http")]
pub mod http; // requests to the outside
pub mod metrics; // numbers about the work
mod output; // what a call produces
mod port_info; // what a component says of its ports
mod sink; // a component that delivers
mod source; // a component that brings in
pub mod state; // what is remembered
mod tick; // when it is called at intervals

// Trying it on this machine.
#[cfg(not(target_family = "wasm"))]
pub mod testing;

// How events cross.
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod bindings; // generated from the contract
mod column_builder; // a column that is written
#[doc(hidden)]
pub mod columns; // what crosses
mod host; // the other side
mod kept; // the one value of a component
mod outbox; // what waits to cross

#[cfg(feature = "json")]
pub use aggregate::{Aggregate, Group};
pub use component::Transform;
pub use error::{Error, Result};
pub use events::{Event, Events, Headers, Iter};
pub use nodata_component_macros::component;
pub use output::{Draft, Output, Port, ValueWriter};
pub use port_info::PortInfo;
pub use sink::{Rejects, Sink};
pub use source::{Next, Source};
pub use tick::Tick;

/// What `#[component]` writes into the crate of a component. It changes without notice.
#[doc(hidden)]
pub mod __private {
    #[cfg(feature = "json")]
    pub use crate::aggregate::Groups;
    pub use crate::component::Process;
    pub use crate::kept::Kept;

    #[cfg(target_family = "wasm")]
    pub use crate::{
        bindings::{
            self, export,
            exports::nodata::streaming::transformer::{Batch, Collector, Error, Guest},
            lifecycle::{export_lifecycle, exports::nodata::streaming::lifecycle::Guest as LifecycleGuest},
            ports::{
                export_ports,
                exports::nodata::streaming::ports::{Guest as PortsGuest, Port as WirePort},
            },
            sink::{export_sink, exports::nodata::streaming::sink_writer::Guest as SinkGuest},
            snapshot::{export_snapshot, exports::nodata::streaming::snapshot::Guest as SnapshotGuest},
            source::{
                export_source,
                exports::nodata::streaming::source_reader::{Guest as SourceGuest, Status},
            },
            ticker::{export_ticker, exports::nodata::streaming::ticker::Guest as TickerGuest},
        },
        host::{
            export_close, export_committed, export_described, export_flush, export_function, export_make, export_open,
            export_poll, export_restore, export_save, export_tick, export_transform, export_write,
        },
    };

    #[cfg(all(target_family = "wasm", feature = "json"))]
    pub use crate::{
        bindings::{
            aggregate::{
                export_aggregate,
                exports::nodata::streaming::aggregator::{Groups as WireGroups, Guest as AggregateGuest, Membership},
            },
            grouper::{export_grouper, exports::nodata::streaming::grouper::Guest as GrouperGuest},
            nodata::streaming::types::BytesColumnResult as WireColumn,
        },
        host::{export_accumulate, export_closed, export_keys, export_merge, export_render},
    };
}
