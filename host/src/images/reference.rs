//! How an image is named.

use crate::images::ImageError;
use nodata_runtime::Digest;
use std::fmt;
use std::str::FromStr;

/// An image in a registry: `REGISTRY/PATH`, `REGISTRY/PATH:TAG` or `REGISTRY/PATH@sha256:DIGEST`.
///
/// The registry is always named: whose default it would be is not for us to guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// `HOST` or `HOST:PORT`, in lower case.
    pub registry: String,
    pub path: String,
    pub tag: Option<String>,
    pub pinned: Pinned,
}

/// Whether it is said what an image must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// What its tag means at the moment.
    No,
    /// This manifest.
    Digest(Digest),
}

const PATH_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;
/// Without a tag, this one is meant.
const TAG: &str = "latest";

impl ImageRef {
    /// What a registry is asked for.
    pub(super) fn wanted(&self) -> String {
        match self.pinned {
            Pinned::Digest(digest) => format!("sha256:{digest}"),
            Pinned::No => self.tag.clone().unwrap_or_else(|| TAG.to_owned()),
        }
    }

    /// The last part of its path.
    pub fn last(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

impl FromStr for ImageRef {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let error = |why: &str| {
            let text = text.chars().filter(|c| !c.is_control()).take(300).collect();
            ImageError::Reference { text, why: why.to_owned() }
        };
        let (rest, pinned) = match text.split_once('@') {
            None => (text, Pinned::No),
            Some((rest, digest)) => {
                let digest = digest.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
                let digest = digest.ok_or_else(|| error("behind the @ stands sha256: and 64 hexadecimal digits"))?;
                (rest, Pinned::Digest(digest))
            }
        };
        let (registry, rest) = rest.split_once('/').ok_or_else(|| error("it does not name its registry"))?;
        let is_host = |host: &str| {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
        };
        if !(is_host(registry) && (registry.contains(['.', ':']) || registry == "localhost")) {
            return Err(error("it does not name its registry, such as docker.io or localhost:5000"));
        }
        let (path, tag) = match rest.split_once(':') {
            None => (rest, None),
            Some((path, tag)) => (path, Some(tag)),
        };
        let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let is_part = |part: &str| {
            let ends = [part.bytes().next(), part.bytes().next_back()];
            let is_end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            part.bytes().all(is_inner) && ends.into_iter().all(is_end) && !part.contains("..")
        };
        if path.len() > PATH_BYTES_MAX || !path.split('/').all(is_part) {
            return Err(error("its path is lower-case words with slashes between them"));
        }
        let is_tag = |tag: &str| {
            (1..=TAG_BYTES_MAX).contains(&tag.len())
                && !tag.starts_with(['.', '-'])
                && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(error("behind the colon stands a tag, such as 1.2.0"));
        }
        let registry = registry.to_ascii_lowercase();
        // Images without an owner have one there.
        let is_short = registry == "docker.io" && !path.contains('/');
        let path = if is_short { format!("library/{path}") } else { path.to_owned() };
        Ok(Self { registry, path, tag: tag.map(str::to_owned), pinned })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)?;
        match (&self.tag, self.pinned) {
            (Some(tag), Pinned::No) => write!(f, ":{tag}"),
            (None, Pinned::No) => write!(f, ":{TAG}"),
            (Some(tag), Pinned::Digest(digest)) => write!(f, ":{tag}@sha256:{digest}"),
            (None, Pinned::Digest(digest)) => write!(f, "@sha256:{digest}"),
        }
    }
}

/// Where a registry answers.
pub(super) fn host_of(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

/// Where a redirect leads.
pub(super) fn joined(from: &str, location: &str) -> Option<String> {
    if location.contains("://") {
        return Some(location.to_owned());
    }
    let (scheme, rest) = from.split_once("://")?;
    let host = rest.split('/').next()?;
    location.starts_with('/').then(|| format!("{scheme}://{host}{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match text.parse::<ImageRef>() {
            Ok(image) => format!("{} {} {}", image.registry, image.path, image.wanted()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_image_names_its_registry() {
        let digest = "0123456789abcdef".repeat(4);
        let pinned = format!("sha256:{digest}");
        for (text, expected) in [
            ("registry.example/acme/redact:1.2.0", "registry.example acme/redact 1.2.0"),
            ("Registry.example/acme/redact", "registry.example acme/redact latest"),
            ("localhost:5000/redact:v1", "localhost:5000 redact v1"),
            ("docker.io/redact", "docker.io library/redact latest"),
            (&format!("registry.example/acme/redact@{pinned}"), &format!("registry.example acme/redact {pinned}")),
            (&format!("registry.example/acme/redact:1.0@{pinned}"), &format!("registry.example acme/redact {pinned}")),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        let name = "it does not name its registry";
        let path = "its path is lower-case words with slashes between them";
        for (text, why) in [
            ("redact", name),
            ("acme/redact", name),
            ("/redact", name),
            ("user@registry.example/redact", "behind the @ stands sha256: and 64 hexadecimal digits"),
            ("user:word@registry.example/redact", "behind the @ stands sha256: and 64 hexadecimal digits"),
            ("registry.example/Acme/redact", path),
            ("registry.example/acme/../redact", path),
            ("registry.example/acme//redact", path),
            ("registry.example/", path),
            ("registry.example/acme/redact?x", path),
            ("registry.example/redact:", "behind the colon stands a tag"),
            ("registry.example/redact:1/2", "behind the colon stands a tag"),
            ("registry.example/redact@sha256:12", "behind the @ stands sha256: and 64 hexadecimal digits"),
        ] {
            assert!(read(text).contains(why), "{text}: {}", read(text));
        }
    }

    #[test]
    fn redirects_lead_somewhere_or_nowhere() {
        assert_eq!(joined("https://a/v2/x", "https://b/y?z").as_deref(), Some("https://b/y?z"));
        assert_eq!(joined("https://a:5/v2/x", "/y").as_deref(), Some("https://a:5/y"));
        assert_eq!(joined("https://a/v2/x", "y"), None);
    }
}
