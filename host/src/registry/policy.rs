//! Which components are taken: those that are signed, and images that a program of the operator agrees to.

use crate::images::ImageRef;
use crate::limits::{SIGNATURE_BYTES_MAX, VERIFY_IMAGE_LINES, VERIFY_IMAGE_SAID_BYTES, VERIFY_IMAGE_WALL};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use minisign_verify::{PublicKey, Signature};
use nodata_log::Name;
use nodata_runtime::Digest;
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::process::Command;

/// What an operator demands of components. Cheap to clone.
#[derive(Clone, Default)]
pub struct Policy {
    /// Without any, signatures are not asked for.
    keys: Arc<[Key]>,
    verify_image: Option<PathBuf>,
}

struct Key {
    /// As minisign shows it.
    id: String,
    key: PublicKey,
}

/// Why a policy cannot be used.
#[derive(Debug, Error)]
pub enum PolicyError {
    #[error("the key in {} cannot be read: {source}", place.display())]
    Read { place: PathBuf, source: io::Error },
    #[error("{} is no public key of minisign", place.display())]
    Key { place: PathBuf },
}

/// Why a component is not taken.
#[derive(Debug, Error)]
pub enum PolicyRefusal {
    #[error("component `{name}` is not signed, and this server takes what is signed with {trusted}")]
    NotSigned { name: Name, trusted: String },
    #[error("the signature of component `{name}` is no signature of minisign")]
    NoSignature { name: Name },
    #[error("the signature of component `{name}` is not one of these bytes with {trusted}")]
    OtherSignature { name: Name, trusted: String },
    #[error("image {image} is refused by {} ({status}): {said}", command.display())]
    Image { image: String, command: PathBuf, status: ExitStatus, said: String },
    #[error("{} took longer than {} s about image {image}", command.display(), VERIFY_IMAGE_WALL.as_secs())]
    TooSlow { image: String, command: PathBuf },
    #[error("{} cannot be asked about image {image}: {source}", command.display())]
    Command { image: String, command: PathBuf, source: io::Error },
}

impl PolicyRefusal {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            PolicyRefusal::NotSigned { .. } => {
                Some("sign the file with `minisign -Sm FILE`, and give --signature FILE.minisig".to_owned())
            }
            _ => None,
        }
    }
}

impl Policy {
    /// Reads the public keys that are trusted.
    pub fn read(keys: &[PathBuf], verify_image: Option<PathBuf>) -> Result<Self, PolicyError> {
        let keys = keys.iter().map(|place| Key::read(place)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { keys: keys.into(), verify_image })
    }

    fn trusted(&self) -> String {
        let ids: Vec<String> = self.keys.iter().map(|key| format!("key {}", key.id)).collect();
        ids.join(" or ")
    }

    /// The key that signed these bytes; `None` if nobody asks for one.
    pub(super) fn check(&self, name: &Name, bytes: &[u8], signature: &str) -> Result<Option<String>, PolicyRefusal> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        if signature.is_empty() {
            return Err(PolicyRefusal::NotSigned { name: name.clone(), trusted: self.trusted() });
        }
        let read = Some(signature).filter(|text| text.len() <= SIGNATURE_BYTES_MAX).map(Signature::decode);
        let Some(Ok(signature)) = read else { return Err(PolicyRefusal::NoSignature { name: name.clone() }) };
        // Old signatures are over the bytes themselves, which minisign has not done by itself for years.
        let signed = self.keys.iter().find(|key| key.key.verify(bytes, &signature, false).is_ok());
        match signed {
            Some(key) => Ok(Some(key.id.clone())),
            None => Err(PolicyRefusal::OtherSignature { name: name.clone(), trusted: self.trusted() }),
        }
    }

    /// The same, where that holds nobody up: it reads all of the bytes.
    pub(super) async fn check_aside(
        &self,
        name: &Name,
        bytes: &Bytes,
        signature: String,
    ) -> Result<Option<String>, PolicyRefusal> {
        if self.keys.is_empty() || signature.is_empty() {
            return self.check(name, bytes, &signature);
        }
        let (policy, of, bytes) = (self.clone(), name.clone(), bytes.clone());
        let checked = tokio::task::spawn_blocking(move || policy.check(&of, &bytes, &signature)).await;
        checked.unwrap_or_else(|_| Err(PolicyRefusal::NoSignature { name: name.clone() }))
    }

    /// Asks the program of the operator about an image, if there is one.
    pub(super) async fn check_image(&self, image: &ImageRef, manifest: Digest) -> Result<(), PolicyRefusal> {
        let Some(program) = &self.verify_image else { return Ok(()) };
        let (image, command) = (image.to_string(), program.clone());
        match tokio::time::timeout(VERIFY_IMAGE_WALL, ask(program, &image, manifest)).await {
            // Its group is killed by now.
            Err(_) => Err(PolicyRefusal::TooSlow { image, command }),
            Ok(Err(source)) => Err(PolicyRefusal::Command { image, command, source }),
            Ok(Ok((status, _))) if status.success() => Ok(()),
            Ok(Ok((status, said))) => Err(PolicyRefusal::Image { image, command, status, said }),
        }
    }
}

impl Key {
    fn read(place: &Path) -> Result<Self, PolicyError> {
        let text = fs::read_to_string(place).map_err(|source| PolicyError::Read { place: place.to_owned(), source })?;
        Self::parse(&text).ok_or_else(|| PolicyError::Key { place: place.to_owned() })
    }

    /// The line of a key, with or without the comment before it.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        let key = PublicKey::from_base64(line).ok()?;
        // Two bytes say how it signs, eight which key it is, the lowest first.
        let bytes = BASE64_STANDARD.decode(line).ok()?;
        let id = bytes.get(2..10)?.iter().rev().map(|byte| format!("{byte:02X}")).collect();
        Some(Self { id, key })
    }
}

/// A program and what it started: killed when nobody waits for it any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Where nobody is left, there is nobody to kill.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// How a program ended, and what it said at the end.
async fn ask(program: &Path, image: &str, manifest: Digest) -> io::Result<(ExitStatus, String)> {
    let mut child = Command::new(program)
        .arg(image)
        .arg(format!("sha256:{manifest}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut stderr = BufReader::new(stderr);
        let mut part = [0; 1024];
        loop {
            match stderr.read(&mut part).await? {
                0 => break,
                read => said.extend_from_slice(&part[..read]),
            }
            // Only its end is kept.
            if said.len() > 2 * VERIFY_IMAGE_SAID_BYTES {
                said.drain(..said.len() - VERIFY_IMAGE_SAID_BYTES);
            }
        }
    }
    let status = child.wait().await?;
    drop(group);
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(VERIFY_IMAGE_LINES)..).unwrap_or_default().join("; ");
    let last: String = last.chars().filter(|c| !c.is_control()).collect();
    Ok((status, if last.is_empty() { "it did not say why".to_owned() } else { last }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_called_as_minisign_calls_it() {
        // The one that minisign itself is signed with.
        let line = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        for text in [line.to_owned(), format!("untrusted comment: minisign public key E7620F1842B4E81F\n{line}\n\n")] {
            assert_eq!(Key::parse(&text).unwrap().id, "E7620F1842B4E81F");
        }
        for text in ["", "no key", &line[1..]] {
            assert!(Key::parse(text).is_none(), "{text}");
        }
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_program_that_nobody_waits_for() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (program, written) = (dir.path().join("verify"), dir.path().join("id"));
        // What it starts does not end by itself.
        let script = format!("#!/bin/sh\nsleep 1000000 &\necho $! > {}\nwait\n", written.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let started = async {
            loop {
                match fs::read_to_string(&written).ok().and_then(|text| text.trim().parse::<u32>().ok()) {
                    Some(id) => return id,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        let id = tokio::select! {
            id = started => id,
            ended = ask(&program, "a.b/c:1", Digest::of(b"x")) => panic!("{ended:?}"),
        };
        let is_alive = || {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim().starts_with('Z'))
        };
        while is_alive() {
            tokio::task::yield_now().await;
        }
    }
}
