//! Numbers about the work, shown with the deployment.
//!
//! A name with one set of attributes is a series, and a deployment has a bounded number of series: what is unbounded
//! (a user, an id) does not belong into an attribute. Numbers count at once, also when the call fails later.
//!
//! ```
//! use nodata_component::metrics;
//!
//! metrics::add("late_flights", 1, &[("carrier", "UA")]);
//! metrics::set("queue_length", 17.0, &[]);
//! metrics::observe("delay_minutes", 61.0, &[]);
//! ```

use crate::host;

/// Adds to a counter.
pub fn add(name: &str, delta: u64, attributes: &[(&str, &str)]) {
    host::metrics::add(name, delta, attributes);
}

/// Sets a gauge.
pub fn set(name: &str, value: f64, attributes: &[(&str, &str)]) {
    host::metrics::set(name, value, attributes);
}

/// Records one observation. Their count, sum, minimum and maximum are kept.
pub fn observe(name: &str, value: f64, attributes: &[(&str, &str)]) {
    host::metrics::observe(name, value, attributes);
}
