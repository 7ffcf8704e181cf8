//! What is being done about a component, while a person waits.

use crate::cli::Common;
use crate::cli::out::{bytes, has_terminal, one_line};
use indicatif::ProgressBar;
use nodata_client::proto::{ComponentProgress, ComponentStage};
use std::cell::Cell;
use std::time::Duration;

/// A line that changes on a terminal; elsewhere a line for each stage. For a program that reads JSON, nothing.
pub(crate) struct ComponentWait {
    name: String,
    shown: Shown,
    is_downloading: Cell<bool>,
}

enum Shown {
    Nothing,
    Lines,
    Spinner(ProgressBar),
}

impl ComponentWait {
    pub(crate) fn new(name: &str, first: &str, common: &Common) -> Self {
        let shown = match (common.json, has_terminal()) {
            (true, _) => Shown::Nothing,
            (false, false) => Shown::Lines,
            (false, true) => {
                let spinner = ProgressBar::new_spinner();
                spinner.enable_steady_tick(Duration::from_millis(100));
                Shown::Spinner(spinner)
            }
        };
        let wait = Self { name: name.to_owned(), shown, is_downloading: Cell::new(false) };
        wait.say(common, first);
        wait
    }

    pub(crate) fn tell(&self, common: &Common, progress: ComponentProgress) {
        let doing = match progress.stage() {
            // A newer server does what this program does not know.
            ComponentStage::Unspecified => return,
            ComponentStage::Asking => "asking the registry",
            ComponentStage::Downloading => return self.download(common, &progress),
            ComponentStage::Received => "received",
            ComponentStage::Checking => "checking it",
            ComponentStage::Waiting => "waiting for the compiler",
            ComponentStage::Compiling => "compiling it",
            ComponentStage::Trying => "trying it out",
            ComponentStage::Keeping => "keeping it",
        };
        self.say(common, doing);
    }

    /// Each part moves the line on a terminal; elsewhere the first is told.
    fn download(&self, common: &Common, progress: &ComponentProgress) {
        let ComponentProgress { bytes: here, bytes_total, .. } = *progress;
        match &self.shown {
            Shown::Lines if self.is_downloading.replace(true) => {}
            Shown::Lines => self.say(common, &format!("downloading {}", bytes(bytes_total))),
            _ => self.say(common, &format!("downloading {} of {}", bytes(here), bytes(bytes_total))),
        }
    }

    fn say(&self, common: &Common, doing: &str) {
        match &self.shown {
            Shown::Nothing => {}
            Shown::Lines => common.out().say(&format!("component {}: {doing}", self.name)),
            Shown::Spinner(spinner) => spinner.set_message(one_line(&format!("{}: {doing}", self.name)).into_owned()),
        }
    }
}

impl Drop for ComponentWait {
    fn drop(&mut self) {
        if let Shown::Spinner(spinner) = &self.shown {
            spinner.finish_and_clear();
        }
    }
}
