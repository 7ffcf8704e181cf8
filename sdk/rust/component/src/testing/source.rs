//! The host of a source.

use super::harness::{Call, Produced};
#[cfg(feature = "http")]
use crate::error::Result;
use crate::host::native::{Collector, Installed, World};
use crate::kept::Kept;
use crate::source::Source;
use std::cell::RefCell;
use std::fmt::{self, Display};

/// Asks a [`Source`] for events, call by call, and keeps its place, as the host does.
pub struct SourceHarness<T: Source> {
    instance: Kept<T>,
    is_open: bool,
    position: Option<Vec<u8>>,
    world: World,
}

impl<T: Source> SourceHarness<T> {
    /// For this source, at the beginning.
    pub fn new() -> Self {
        Self { instance: Kept::new(), is_open: false, position: None, world: World::default() }
    }

    /// Sets one entry of the configuration, and has the source opened anew.
    #[must_use]
    pub fn config(mut self, key: &str, value: impl Display) -> Self {
        self.world.config.insert(key.to_owned(), value.to_string());
        self.is_open = false;
        self
    }

    /// Grants a secret.
    #[must_use]
    pub fn secret(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.world.secrets.insert(name.to_owned(), value.as_ref().to_vec());
        self
    }

    /// Answers the requests that the component sends; without it, all are denied. An error is one of the connection.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn http(
        mut self,
        answer: impl FnMut(&crate::http::Request) -> Result<crate::http::Response> + 'static,
    ) -> Self {
        self.world.http = Some(crate::host::native::http::Receiver(Box::new(answer)));
        self
    }

    /// Has the source opened at this checkpoint.
    #[must_use]
    pub fn at(mut self, position: impl AsRef<[u8]>) -> Self {
        self.position = Some(position.as_ref().to_vec());
        self.is_open = false;
        self
    }

    /// The checkpoint that was committed last.
    pub fn position(&self) -> Option<&[u8]> {
        self.position.as_deref()
    }

    /// Asks for at most so many events, and commits what comes.
    #[must_use = "a call may have failed: look at it, or end with `.ok()`"]
    pub fn poll(&mut self, events_max: u32) -> Call {
        let produced = Produced::of_source();
        let state_before = (self.world.tables.clone(), self.world.state_bytes);
        let polled = {
            let _installed = Installed::new(&mut self.world);
            let opened = if self.is_open { Ok(()) } else { self.instance.open(self.position.as_deref()) };
            opened.and_then(|()| self.instance.poll(events_max, &Collector(&produced)))
        };
        let committed = polled.and_then(|next| {
            let checkpoint = produced.checkpoint.as_ref().and_then(RefCell::take);
            if let Some(position) = checkpoint {
                self.position = Some(position.clone());
                let _installed = Installed::new(&mut self.world);
                self.instance.committed(&position)?;
            }
            Ok(next)
        });
        self.is_open = committed.is_ok();
        match committed {
            Ok(next) => Call {
                error: None,
                events: produced.events.take(),
                rejected: Vec::new(),
                deferred: None,
                next: Some(next),
            },
            Err(error) => {
                (self.world.tables, self.world.state_bytes) = state_before;
                Call::failed(error)
            }
        }
    }
}

impl<T: Source> Default for SourceHarness<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Source> fmt::Debug for SourceHarness<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceHarness").field("position", &self.position).finish_non_exhaustive()
    }
}
