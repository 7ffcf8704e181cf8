//! Compiled components on the disk, so that nothing is compiled twice.
//!
//! ```text
//! <digest of the component>-<fingerprint of the engine>-<digest of the code>.cwasm
//! ```
//!
//! The name says what the file must be, so a file that was cut short by a crash or changed by the disk is noticed and made
//! anew; nothing has to be synced. Compiled code is machine code that is run as it is, which is why nobody else may write
//! to the directory.

use crate::digest::Digest;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use wasmtime::Engine;
use wasmtime::component::Component;

/// The directory of compiled components.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    fingerprint: u64,
    /// Counts the files being written, so that two never have the same name.
    writes: AtomicU64,
}

const SUFFIX: &str = ".cwasm";
const UNFINISHED: &str = "unfinished-";

impl Cache {
    /// Opens the directory, which is made if it is not there, and removes what no engine of this fingerprint can use.
    pub(crate) fn open(dir: &Path, fingerprint: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        let cache = Self { dir: dir.to_owned(), fingerprint, writes: AtomicU64::new(0) };
        let usable = format!("-{fingerprint:016x}-");
        for (name, path) in cache.files()? {
            if name.starts_with(UNFINISHED) || (name.ends_with(SUFFIX) && !name.contains(&usable)) {
                fs::remove_file(path)?;
            }
        }
        Ok(cache)
    }

    /// The component of this digest, if there is a sound one.
    pub(crate) fn load(&self, engine: &Engine, digest: Digest) -> io::Result<Option<Component>> {
        for (name, path) in self.of(digest)? {
            let code = fs::read(&path)?;
            if name != self.name(digest, &code) {
                tracing::warn!(file = %path.display(), "a compiled component is damaged; it is compiled again");
            } else {
                #[expect(
                    unsafe_code,
                    reason = "the code is what our compiler made: its digest is in the name of a file \
                                                that only we can write"
                )]
                let component = unsafe { Component::deserialize_file(engine, &path) };
                match component {
                    Ok(component) => return Ok(Some(component)),
                    Err(error) => tracing::warn!(file = %path.display(), %error, "a compiled component cannot be used"),
                }
            }
            fs::remove_file(&path)?;
        }
        Ok(None)
    }

    /// Keeps the code of a component. Whoever looks sees all of it or nothing.
    pub(crate) fn store(&self, digest: Digest, code: &[u8]) -> io::Result<()> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.dir.join(format!("{UNFINISHED}{}-{number}", std::process::id()));
        fs::write(&unfinished, code)?;
        fs::rename(&unfinished, self.dir.join(self.name(digest, code)))
    }

    /// Removes the code of a component.
    pub(crate) fn forget(&self, digest: Digest) -> io::Result<()> {
        self.of(digest)?.into_iter().try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn name(&self, digest: Digest, code: &[u8]) -> String {
        format!("{digest}-{:016x}-{}{SUFFIX}", self.fingerprint, Digest::of(code))
    }

    fn of(&self, digest: Digest) -> io::Result<Vec<(String, PathBuf)>> {
        let prefix = format!("{digest}-");
        Ok(self.files()?.into_iter().filter(|(name, _)| name.starts_with(&prefix)).collect())
    }

    fn files(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let files = fs::read_dir(&self.dir)?.map(|entry| {
            let entry = entry?;
            Ok((entry.file_name().to_string_lossy().into_owned(), entry.path()))
        });
        files.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{StreamEngine, compiling};

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn only_file(dir: &Path) -> PathBuf {
        let files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    #[test]
    fn code_is_found_again_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let StreamEngine { engine, fingerprint, .. } = &StreamEngine::start().unwrap();
        let cache = Cache::open(&path, *fingerprint).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);

        let digest = Digest::of(EMPTY);
        let code = compiling().unwrap().precompile_component(EMPTY).unwrap();
        assert!(cache.load(engine, digest).unwrap().is_none());
        cache.store(digest, &code).unwrap();
        assert!(cache.load(engine, digest).unwrap().is_some());
        assert!(cache.load(engine, Digest::of(b"another")).unwrap().is_none());

        // One bit, and a file cut short: both are removed, so that it is compiled again.
        let mut damaged = code.clone();
        damaged[code.len() / 2] ^= 1;
        for damage in [damaged.as_slice(), &code[..code.len() / 2], &[]] {
            fs::write(only_file(&path), damage).unwrap();
            assert!(cache.load(engine, digest).unwrap().is_none());
            assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
            cache.store(digest, &code).unwrap();
        }

        cache.forget(digest).unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn what_another_engine_made_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(EMPTY);
        Cache::open(dir.path(), 1).unwrap().store(digest, b"code").unwrap();
        fs::write(dir.path().join("unfinished-1-1"), b"half").unwrap();
        fs::write(dir.path().join("README"), b"not ours").unwrap();
        Cache::open(dir.path(), 1).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        Cache::open(dir.path(), 2).unwrap();
        assert_eq!(only_file(dir.path()).file_name().unwrap(), "README");
    }

    #[test]
    fn code_that_is_not_ours_is_refused_by_the_engine() {
        let dir = tempfile::tempdir().unwrap();
        let stream = StreamEngine::start().unwrap();
        let cache = Cache::open(dir.path(), stream.fingerprint).unwrap();
        cache.store(Digest::of(EMPTY), b"not code").unwrap();
        assert!(cache.load(&stream.engine, Digest::of(EMPTY)).unwrap().is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
