//! What versions are called.

use crate::registry::{LABELS, Labelled, Registry, RegistryError, read_entry};
use semver::Version;
use std::collections::HashMap;

/// The labels of versions, also of those that are gone.
#[derive(Debug, Default)]
pub struct Labels(HashMap<(String, String), Vec<Version>>);

impl Labels {
    /// Those of a version, the highest first.
    pub fn of(&self, component: &str, digest: &str) -> &[Version] {
        self.0.get(&(component.to_owned(), digest.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// The highest of a version; empty if it has none.
    pub fn highest(&self, component: &str, digest: &str) -> String {
        self.of(component, digest).first().map(Version::to_string).unwrap_or_default()
    }
}

impl Registry {
    /// All labels.
    pub async fn labels(&self) -> Result<Labels, RegistryError> {
        self.labels_below("").await
    }

    /// The labels of components whose keys begin so.
    pub(super) async fn labels_below(&self, prefix: &str) -> Result<Labels, RegistryError> {
        let mut labels = Labels::default();
        for (key, entry) in self.meta.meta_list(&format!("{LABELS}{prefix}")).await? {
            let Labelled { digest } = read_entry(&key, &entry.value)?;
            let named = key.strip_prefix(LABELS).and_then(|named| named.split_once('/'));
            if let Some((name, Ok(label))) = named.map(|(name, label)| (name, Version::parse(label))) {
                labels.0.entry((name.to_owned(), digest)).or_default().push(label);
            }
        }
        for of_one in labels.0.values_mut() {
            of_one.sort_by(|a, b| b.cmp(a));
        }
        Ok(labels)
    }
}
