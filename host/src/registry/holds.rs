//! Which versions are being deployed, and which one is being deleted: never the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The version that somebody works with: name and digest.
type Version = (String, String);

/// Who works with which version. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Holds {
    held: Arc<Mutex<HashMap<Version, Held>>>,
}

enum Held {
    /// By so many who deploy it.
    Deploying(usize),
    Deleting,
}

/// The version stays as long as this is held. Whoever writes down that it needs a version holds it until that is durable.
#[must_use = "the version may be deleted when this is dropped"]
pub struct Hold {
    held: Arc<Mutex<HashMap<Version, Held>>>,
    version: Version,
}

impl Holds {
    /// Has a version stay. `None`: it is being deleted.
    pub(super) fn hold(&self, name: &str, digest: &str) -> Option<Hold> {
        let version = (name.to_owned(), digest.to_owned());
        let mut held = lock(&self.held);
        match held.entry(version.clone()).or_insert(Held::Deploying(0)) {
            Held::Deploying(count) => *count += 1,
            Held::Deleting => return None,
        }
        Some(Hold { held: self.held.clone(), version })
    }

    /// Has a version go: nobody can hold it any more. `None`: somebody does.
    pub(super) fn release(&self, name: &str, digest: &str) -> Option<Hold> {
        let version = (name.to_owned(), digest.to_owned());
        let mut held = lock(&self.held);
        if held.contains_key(&version) {
            return None;
        }
        held.insert(version.clone(), Held::Deleting);
        Some(Hold { held: self.held.clone(), version })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        match held.get_mut(&self.version) {
            Some(Held::Deploying(count)) if *count > 1 => *count -= 1,
            _ => drop(held.remove(&self.version)),
        }
    }
}

fn lock(held: &Mutex<HashMap<Version, Held>>) -> MutexGuard<'_, HashMap<Version, Held>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_deployed_or_deleted() {
        let holds = Holds::default();
        let (first, second) = (holds.hold("a", "1").unwrap(), holds.hold("a", "1").unwrap());
        assert!(holds.release("a", "1").is_none());
        drop(first);
        assert!(holds.release("a", "1").is_none());
        drop(second);
        let deleting = holds.release("a", "1").unwrap();
        assert!(holds.hold("a", "1").is_none());
        assert!(holds.release("a", "1").is_none());
        drop(holds.hold("b", "1").unwrap());
        drop(deleting);
        assert!(holds.hold("a", "1").is_some());
        assert!(lock(&holds.held).is_empty());
    }
}
