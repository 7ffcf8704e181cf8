//! How a version of a component is named.

use crate::limits::{DIGEST_DIGITS_MIN, LABEL_BYTES_MAX};
use nodata_log::{Name, NameError};
use semver::Version;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// A component, and which version of it.
///
/// ```text
/// NAME                the latest upload
/// NAME@2              the highest label of these that fits: 2.0.0, 2.1.0, 2.1.1
/// NAME@2.1            the same, of 2.1.0 and 2.1.1
/// NAME@2.1.0          this label; 2.1.0-rc.1 is found in no other way than by its whole name
/// NAME@sha256:27b3cf  the version whose digest begins so
/// NAME@27b3cf         the same, where it is no label
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentRef {
    pub name: Name,
    pub version: VersionRef,
}

/// Which version of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionRef {
    Latest,
    Major(u64),
    Minor(u64, u64),
    Exact(Version),
    /// The first digits of its digest, in lower case.
    Digest(String),
}

/// Why a text names no version of a component.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReferenceError {
    #[error("component: {0}")]
    Name(#[from] NameError),
    #[error(
        "`{text}` names no version: give a label such as 2, 2.1 or 2.1.0, or at least {DIGEST_DIGITS_MIN} of the 64 digits of its digest, as sha256:27b3cf"
    )]
    Version { text: String },
    #[error("`{text}` is no label of a version: {why}")]
    Label { text: String, why: String },
}

impl ComponentRef {
    /// The latest upload of a name.
    pub fn latest(name: Name) -> Self {
        Self { name, version: VersionRef::Latest }
    }

    /// A name, and what may stand behind the `@`: nothing means the latest upload.
    pub fn new(name: &str, version: &str) -> Result<Self, ReferenceError> {
        let name = Name::new(name)?;
        let version = if version.is_empty() { VersionRef::Latest } else { version.parse()? };
        Ok(Self { name, version })
    }
}

impl FromStr for ComponentRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        match text.split_once('@') {
            None => Ok(Self::latest(Name::new(text)?)),
            Some((name, version)) => Ok(Self { name: Name::new(name)?, version: version.parse()? }),
        }
    }
}

impl fmt::Display for ComponentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            VersionRef::Latest => write!(f, "{}", self.name),
            version => write!(f, "{}@{version}", self.name),
        }
    }
}

impl VersionRef {
    /// Whether this label fits.
    pub(super) fn fits(&self, label: &Version) -> bool {
        match self {
            VersionRef::Major(major) => label.major == *major && label.pre.is_empty(),
            VersionRef::Minor(major, minor) => (label.major, label.minor) == (*major, *minor) && label.pre.is_empty(),
            VersionRef::Exact(version) => label == version,
            VersionRef::Latest | VersionRef::Digest(_) => false,
        }
    }
}

impl FromStr for VersionRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let error = || ReferenceError::Version { text: text.chars().take(80).collect() };
        let digits = |digits: &str| {
            let is_digest = (DIGEST_DIGITS_MIN..=64).contains(&digits.len())
                && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_digest.then(|| VersionRef::Digest(digits.to_ascii_lowercase()))
        };
        if let Some(after) = text.strip_prefix("sha256:") {
            return digits(after).ok_or_else(error);
        }
        let number = |text: &str| {
            let is_number = text.bytes().all(|digit| digit.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
            is_number.then(|| text.parse().ok())?
        };
        let parts: Option<Vec<u64>> = text.split('.').map(number).collect();
        match parts.as_deref() {
            Some(&[major]) => Ok(VersionRef::Major(major)),
            Some(&[major, minor]) => Ok(VersionRef::Minor(major, minor)),
            _ => label(text).map(VersionRef::Exact).ok().or_else(|| digits(text)).ok_or_else(error),
        }
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionRef::Latest => f.write_str("latest"),
            VersionRef::Major(major) => write!(f, "{major}"),
            VersionRef::Minor(major, minor) => write!(f, "{major}.{minor}"),
            VersionRef::Exact(version) => write!(f, "{version}"),
            VersionRef::Digest(digits) => write!(f, "sha256:{digits}"),
        }
    }
}

/// A label, as somebody gives it to a version.
pub fn label(text: &str) -> Result<Version, ReferenceError> {
    let error = |why: String| ReferenceError::Label { text: text.chars().take(80).collect(), why };
    if text.len() > LABEL_BYTES_MAX {
        return Err(error(format!("it has {} bytes; at most {LABEL_BYTES_MAX} are allowed", text.len())));
    }
    let version = Version::parse(text).map_err(|_| error("give a semantic version such as 1.2.0".to_owned()))?;
    // Two labels that differ in nothing else would be equally high.
    if !version.build.is_empty() {
        return Err(error(format!("leave out the build metadata, +{}", version.build)));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match text.parse::<ComponentRef>() {
            Ok(reference) => {
                let kind = match &reference.version {
                    VersionRef::Latest => "latest",
                    VersionRef::Major(_) => "major",
                    VersionRef::Minor(..) => "minor",
                    VersionRef::Exact(_) => "exact",
                    VersionRef::Digest(_) => "digest",
                };
                format!("{kind} {reference}")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_version_is_named_by_a_label_or_by_its_digest() {
        let whole = "27b3CF".repeat(10) + "0000";
        for (text, expected) in [
            ("redact", "latest redact"),
            ("redact@2", "major redact@2"),
            ("redact@0", "major redact@0"),
            ("redact@2.1", "minor redact@2.1"),
            ("redact@2.1.0", "exact redact@2.1.0"),
            ("redact@2.1.0-rc.1", "exact redact@2.1.0-rc.1"),
            ("redact@sha256:27b3cf", "digest redact@sha256:27b3cf"),
            ("redact@sha256:123456", "digest redact@sha256:123456"),
            ("redact@27B3cf", "digest redact@sha256:27b3cf"),
            // These digits are a number, and a label may be one.
            ("redact@123456", "major redact@123456"),
            // A label has no leading zero and is not that large.
            ("redact@012345", "digest redact@sha256:012345"),
            ("redact@999999999999999999999999", "digest redact@sha256:999999999999999999999999"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        assert_eq!(read(&format!("redact@{whole}")), format!("digest redact@sha256:{}", whole.to_lowercase()));
        for text in
            ["", "27b3c", "sha256:", "sha256:27b3c", "sha256:27b3cg", "v2.1.0", "2.1.0+5", "2.", "2.1.0.0", "latest"]
        {
            let expected = format!(
                "`{text}` names no version: give a label such as 2, 2.1 or 2.1.0, or at least 6 of the 64 digits of its \
                 digest, as sha256:27b3cf"
            );
            assert_eq!(read(&format!("redact@{text}")), expected);
        }
        assert!(read(&format!("redact@sha256:{}", "0".repeat(65))).contains("names no version"));
        assert!(read("a/b@2").starts_with("component: name `a/b` contains '/'"), "{}", read("a/b@2"));
        assert!(read("@2").starts_with("component: "), "{}", read("@2"));
        assert_eq!(ComponentRef::new("redact", "").unwrap().to_string(), "redact");
        assert_eq!(ComponentRef::new("redact", "2.1").unwrap().to_string(), "redact@2.1");
    }

    #[test]
    fn a_label_fits_what_it_is_a_part_of_and_a_prerelease_only_its_own_name() {
        let fitting = |reference: &str| {
            let reference: VersionRef = reference.parse().unwrap();
            let labels = ["1.9.0", "2.0.0", "2.1.0-rc.1", "2.1.0", "2.10.3", "20.0.0"];
            labels
                .into_iter()
                .filter(|label| reference.fits(&Version::parse(label).unwrap()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(fitting("2"), "2.0.0 2.1.0 2.10.3");
        assert_eq!(fitting("2.1"), "2.1.0");
        assert_eq!(fitting("2.1.0"), "2.1.0");
        assert_eq!(fitting("2.1.0-rc.1"), "2.1.0-rc.1");
        assert_eq!(fitting("3"), "");
        assert_eq!(fitting("27b3cf"), "");
    }

    #[test]
    fn a_label_is_a_whole_version() {
        assert_eq!(label("1.2.0-rc.1").unwrap().to_string(), "1.2.0-rc.1");
        let refused = |text: &str| label(text).unwrap_err().to_string();
        assert_eq!(refused("1.2"), "`1.2` is no label of a version: give a semantic version such as 1.2.0");
        assert_eq!(refused("v1.2.0"), "`v1.2.0` is no label of a version: give a semantic version such as 1.2.0");
        assert_eq!(refused("1.2.0+7"), "`1.2.0+7` is no label of a version: leave out the build metadata, +7");
        let long = format!("1.2.0-{}", "a".repeat(LABEL_BYTES_MAX));
        assert!(refused(&long).ends_with("it has 70 bytes; at most 64 are allowed"));
    }
}
