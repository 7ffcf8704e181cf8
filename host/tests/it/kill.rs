//! Killed on the way.
