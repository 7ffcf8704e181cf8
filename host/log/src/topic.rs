//! Topics, partitions, and which partition a key belongs to.

use crate::codec::{Put as _, Take};
use crate::column::{Column, ColumnError};
use crate::event::{TimestampUs, ValueType};
use crate::limits::{
    DEDUPLICATE_SECS, DEDUPLICATE_SECS_MAX, EVENT_BYTES_MAX, NAME_BYTES_MAX, PARTITIONS_MAX, RETENTION_BYTES_MIN,
};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// The place of an event in its partition. Offsets strictly increase and may have gaps: never compute one.
pub type Offset = u64;

/// Names a topic for as long as the store lives; never used again after the topic is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u32);

/// One partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tp {
    pub topic: TopicId,
    pub partition: u32,
}

impl fmt::Display for Tp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic.0, self.partition)
    }
}

/// A name that can be a folder, an object key and a subject without being escaped: `[a-zA-Z0-9_.-]{1,200}`, not
/// beginning with `.` or `_`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks a name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { name: name.chars().take(32).collect(), bytes: name.len() });
        }
        if name.starts_with(['.', '_']) {
            return Err(NameError::Start { name: name.to_owned() });
        }
        match name.chars().find(|c| !c.is_ascii_alphanumeric() && !"_.-".contains(*c)) {
            Some(c) => Err(NameError::Character { name: name.to_owned(), c }),
            None => Ok(Self(name.into())),
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    #[error("a name cannot be empty")]
    Empty,
    #[error("name `{name}…` has {bytes} characters, at most {NAME_BYTES_MAX} are allowed")]
    TooLong { name: String, bytes: usize },
    #[error("name `{name}` begins with `{}`; names begin with a letter, a digit or `-`", &name[..1])]
    Start { name: String },
    #[error("name `{name}` contains {c:?}; allowed are letters, digits, `_`, `.` and `-`")]
    Character { name: String, c: char },
}

/// What an operator decides about a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// How many partitions. They can be added, never removed.
    pub partitions: u32,
    /// The largest event the topic takes.
    pub event_bytes_max: u32,
    /// What its values are. It cannot be changed: the files of a topic have one schema.
    pub values: ValueType,
    /// Parts of its values, which are JSON, that its files have as columns. They cannot be changed either.
    pub columns: Arc<[Column]>,
    /// Events that were appended longer ago than this are removed, file by file; `None` keeps them for ever.
    pub retention_us: Option<u64>,
    /// The oldest files are removed while the files of a partition have more bytes; `None` keeps them.
    pub retention_bytes: Option<u64>,
    /// An event that is published with the id of another is not appended again for so long, whichever partition it is for;
    /// `None` appends it.
    pub deduplicate_us: Option<u64>,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            partitions: 1,
            event_bytes_max: EVENT_BYTES_MAX,
            values: ValueType::default(),
            columns: Arc::new([]),
            retention_us: None,
            retention_bytes: None,
            deduplicate_us: Some(DEDUPLICATE_SECS * 1_000_000),
        }
    }
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TopicConfigError {
    #[error("{partitions} partitions; a topic has 1 to {PARTITIONS_MAX}")]
    Partitions { partitions: u32 },
    #[error("topic `{topic}` has {current} partitions; they can be added but not removed ({asked} asked for)")]
    FewerPartitions { topic: Name, current: u32, asked: u32 },
    #[error("a largest event of {bytes} bytes; allowed are 1 to {EVENT_BYTES_MAX}")]
    EventBytesMax { bytes: u32 },
    #[error("a retention of {us} microseconds; at least a second is kept")]
    Retention { us: u64 },
    #[error("a retention of {bytes} bytes; at least {RETENTION_BYTES_MIN} are kept")]
    RetentionBytes { bytes: u64 },
    #[error("ids remembered for {} seconds; allowed are 1 to {DEDUPLICATE_SECS_MAX}", *us as f64 / 1e6)]
    Deduplicate { us: u64 },
    #[error(transparent)]
    Column(#[from] ColumnError),
}

impl TopicConfig {
    /// Checks every field against its bounds.
    pub fn check(&self) -> Result<(), TopicConfigError> {
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return Err(TopicConfigError::Partitions { partitions: self.partitions });
        }
        if !(1..=EVENT_BYTES_MAX).contains(&self.event_bytes_max) {
            return Err(TopicConfigError::EventBytesMax { bytes: self.event_bytes_max });
        }
        if let Some(us) = self.retention_us.filter(|us| *us < 1_000_000) {
            return Err(TopicConfigError::Retention { us });
        }
        if let Some(bytes) = self.retention_bytes.filter(|bytes| *bytes < RETENTION_BYTES_MIN) {
            return Err(TopicConfigError::RetentionBytes { bytes });
        }
        let remembered = 1_000_000..=DEDUPLICATE_SECS_MAX * 1_000_000;
        if let Some(us) = self.deduplicate_us.filter(|us| !remembered.contains(us)) {
            return Err(TopicConfigError::Deduplicate { us });
        }
        Column::check_all(&self.columns)?;
        Ok(())
    }
}

/// What to change of a topic; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicChange {
    pub partitions: Option<u32>,
    pub event_bytes_max: Option<u32>,
    /// `Some(None)` keeps events for ever.
    pub retention_us: Option<Option<u64>>,
    pub retention_bytes: Option<Option<u64>>,
    /// `Some(None)` remembers no ids.
    pub deduplicate_us: Option<Option<u64>>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub id: TopicId,
    pub name: Name,
    pub config: TopicConfig,
    pub created_us: TimestampUs,
}

impl Topic {
    /// The same topic after a change, which is checked.
    pub fn changed(&self, change: &TopicChange) -> Result<Self, TopicConfigError> {
        let mut topic = self.clone();
        if let Some(partitions) = change.partitions {
            if partitions < self.config.partitions {
                return Err(TopicConfigError::FewerPartitions {
                    topic: self.name.clone(),
                    current: self.config.partitions,
                    asked: partitions,
                });
            }
            topic.config.partitions = partitions;
        }
        if let Some(bytes) = change.event_bytes_max {
            topic.config.event_bytes_max = bytes;
        }
        if let Some(us) = change.retention_us {
            topic.config.retention_us = us;
        }
        if let Some(bytes) = change.retention_bytes {
            topic.config.retention_bytes = bytes;
        }
        if let Some(us) = change.deduplicate_us {
            topic.config.deduplicate_us = us;
        }
        topic.config.check()?;
        Ok(topic)
    }

    /// The record of a topic, without its id.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_bytes(self.name.as_str().as_bytes());
        out.put_u64(self.created_us as u64);
        out.put_u32(self.config.partitions);
        out.put_u32(self.config.event_bytes_max);
        // 0 stands for `None`, as it does in a record that ends before these.
        out.put_u64(self.config.retention_us.unwrap_or(0));
        out.put_u64(self.config.retention_bytes.unwrap_or(0));
        out.put_u32(match self.config.values {
            ValueType::Bytes => 0,
            ValueType::Text => 1,
            ValueType::Json => 2,
        });
        Column::encode_all(&self.config.columns, &mut out);
        out.put_u64(self.config.deduplicate_us.unwrap_or(0));
        out
    }

    pub(crate) fn decode(id: TopicId, take: &mut Take) -> Option<Self> {
        Some(Self {
            id,
            name: Name::new(&take.text()?).ok()?,
            created_us: take.u64()? as TimestampUs,
            config: TopicConfig {
                // Memory is made for each.
                partitions: take.u32().filter(|partitions| (1..=PARTITIONS_MAX).contains(partitions))?,
                event_bytes_max: take.u32()?,
                retention_us: take.u64().filter(|us| *us > 0),
                retention_bytes: take.u64().filter(|bytes| *bytes > 0),
                values: match take.u32().unwrap_or(0) {
                    0 => ValueType::Bytes,
                    1 => ValueType::Text,
                    2 => ValueType::Json,
                    _ => return None,
                },
                columns: Column::decode_all(take)?,
                deduplicate_us: take.u64().filter(|us| *us > 0),
            },
        })
    }

    /// Every partition of the topic.
    pub fn partitions(&self) -> impl Iterator<Item = Tp> + use<> {
        let topic = self.id;
        (0..self.config.partitions).map(move |partition| Tp { topic, partition })
    }
}

/// The partition of a key: XXH3 (64 bit, seed 0) of the key, modulo the number of partitions. Adding partitions
/// therefore moves keys.
pub fn partition_of_key(key: &[u8], partitions: u32) -> u32 {
    (xxhash_rust::xxh3::xxh3_64(key) % u64::from(partitions.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Result<(), String> {
        Name::new(name).map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn names_need_no_escaping_anywhere() {
        assert_eq!(name("late-flights.2013_v2"), Ok(()));
        assert_eq!(name("-"), Ok(()));
        assert_eq!(name(&"n".repeat(200)), Ok(()));
        assert_eq!(name(""), Err("a name cannot be empty".into()));
        assert_eq!(name("..").unwrap_err(), "name `..` begins with `.`; names begin with a letter, a digit or `-`");
        assert_eq!(name("_x").unwrap_err(), "name `_x` begins with `_`; names begin with a letter, a digit or `-`");
        assert_eq!(name("a/b").unwrap_err(), "name `a/b` contains '/'; allowed are letters, digits, `_`, `.` and `-`");
        assert_eq!(
            name("naïve").unwrap_err(),
            "name `naïve` contains 'ï'; allowed are letters, digits, `_`, `.` and `-`"
        );
        assert!(name(&"n".repeat(201)).unwrap_err().ends_with("has 201 characters, at most 200 are allowed"));
    }

    /// Other systems may place keys by this rule, so its answers can never change.
    #[test]
    fn keys_keep_their_partition_for_ever() {
        let placed: Vec<u32> =
            ["", "9E", "AA", "UA", "flights"].iter().map(|key| partition_of_key(key.as_bytes(), 4)).collect();
        // XXH3_64bits("") is 0x2d06800538d394c2.
        assert_eq!(placed[0], (0x2d06_8005_38d3_94c2_u64 % 4) as u32);
        assert_eq!(placed, [2, 3, 0, 0, 1]);
    }

    #[test]
    fn partitions_are_only_added() {
        let topic = Topic {
            id: TopicId(1),
            name: Name::new("orders").unwrap(),
            config: TopicConfig { partitions: 4, ..TopicConfig::default() },
            created_us: 0,
        };
        let partitions = |partitions| {
            topic
                .changed(&TopicChange { partitions: Some(partitions), ..TopicChange::default() })
                .map(|topic| topic.config.partitions)
                .map_err(|error| error.to_string())
        };
        assert_eq!(partitions(8), Ok(8));
        assert_eq!(
            partitions(3).unwrap_err(),
            "topic `orders` has 4 partitions; they can be added but not removed (3 asked for)"
        );
        assert_eq!(partitions(1025).unwrap_err(), "1025 partitions; a topic has 1 to 1024");
    }
}
