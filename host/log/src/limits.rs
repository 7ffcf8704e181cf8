//! Every bound of the log, with its reason and with what happens at it.

/// Largest event: id, key, value and headers together. Larger ones are refused with
/// [`EventError::TooLarge`](crate::EventError::TooLarge). A topic may set a smaller bound.
pub const EVENT_BYTES_MAX: u32 = 16 << 20;

/// Longest event id in bytes. Ids are names (a UUID has 36 bytes), and every id is kept in memory while its
/// deduplication window lasts.
pub const EVENT_ID_BYTES_MAX: usize = 256;

/// Longest header name in bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 256;

/// Most headers of one event. They are compared with each other to find a repeated name.
pub const HEADERS_MAX: usize = 256;

/// Most events in one batch. Row numbers and counts are 32 bits wide everywhere; this keeps the columns that
/// are allocated for one batch under 32 MiB however small its events are.
pub const BATCH_EVENTS_MAX: usize = 1 << 20;

/// Largest transaction in bytes, as it lies on disk. One transaction is one write and one checksum, and it is
/// held in memory whole; four of the largest events fit.
pub const FRAME_BYTES_MAX: u64 = 64 << 20;

/// Bytes of transactions that may wait for the disk. Publishing waits for room before anything is promised.
/// Two of the largest transactions fit, so that one can be built while another is written.
pub const ROOM_BYTES: u64 = 2 * FRAME_BYTES_MAX;

/// Bytes written under one sync. More than the disk moves in ten milliseconds only adds to the latency of
/// those who wait; see the figures in `README.md`.
pub const GROUP_BYTES_MAX: u64 = 8 << 20;

/// Transactions written under one sync.
pub const GROUP_UNITS_MAX: usize = 8192;

/// Bytes of one segment file. A transaction that does not fit gets a segment of its own size.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Bytes of log that are kept although every event in them is in a file and in the checkpoint: reading from the log is
/// cheaper than from a file.
pub const HOT_BYTES: u64 = 256 << 20;

/// Least retention by size. A partition keeps at least one file.
pub const RETENTION_BYTES_MIN: u64 = 1 << 20;

/// Bytes of the first segment after a start: small, so that an empty store is ready at once.
pub const FIRST_SEGMENT_BYTES: u64 = 4 << 20;

/// Segments that are kept ready, so that one is there while the other is prepared.
pub const SPARE_SEGMENTS: usize = 2;

/// Groups up to this size, on average, are worth a segment that was filled with zeros before: see "What the disk is asked
/// for" in `README.md`.
pub const FILL_GROUP_BYTES_MAX: u64 = 64 << 10;

/// Bytes of zeros that are written at once, and how many times as long the disk is left alone afterwards.
pub const FILL_BYTES: u64 = 128 << 10;
pub const FILL_REST: u32 = 10;

/// Bytes of the log that events cannot take. When the disk is full, positions, topic deletions and other
/// changes that hold no events still fit here.
pub const RESERVED_BYTES: u64 = 1 << 20;

/// Bytes of recent batches that are kept in memory for readers that follow live. A reader that falls further
/// behind reads from the write-ahead log.
pub const RING_BYTES: u64 = 64 << 20;

/// Bytes of log after which a checkpoint is written, so that a restart has little to replay.
pub const CHECKPOINT_LOG_BYTES: u64 = 64 << 20;

/// Bytes of component state that is newer than the checkpoint and therefore held in memory. A checkpoint is
/// written early when there is more.
pub const CHECKPOINT_STATE_BYTES: u64 = 32 << 20;

/// Seconds after which a checkpoint is written if anything changed.
pub const CHECKPOINT_INTERVAL_SECS: u64 = 30;

/// Memory that the checkpoint database may use for pages.
pub const CHECKPOINT_CACHE_BYTES: usize = 16 << 20;

/// Bytes between two batches in one segment below which a reader takes both with one read.
pub const READ_GAP_BYTES: u64 = 16 << 10;

/// Longest name of a topic; also of a deployment, a component, a state table.
pub const NAME_BYTES_MAX: usize = 200;

/// Seconds for which a topic remembers the ids of its events, unless it is told otherwise.
pub const DEDUPLICATE_SECS: u64 = 120;

/// Longest time for which a topic can be told to remember ids, in seconds.
pub const DEDUPLICATE_SECS_MAX: u64 = 7 * 24 * 3600;

/// Ids of events that are remembered by all topics together. Each takes some 60 bytes of memory, and 24 in the checkpoint.
pub const IDS_MAX: usize = 1 << 20;

/// Most columns that a topic declares.
pub const COLUMNS_MAX: usize = 256;

/// Longest name of a column that a topic declares.
pub const COLUMN_NAME_BYTES_MAX: usize = 64;

/// Longest path to what a declared column holds.
pub const COLUMN_PATH_BYTES_MAX: usize = 1024;

/// Most partitions of a topic.
pub const PARTITIONS_MAX: u32 = 1024;

/// Most topics in a store.
pub const TOPICS_MAX: usize = 100_000;

/// Producers whose sequence numbers are remembered. The one that was quiet for longest is forgotten first; it
/// is told so when it comes back, and starts anew.
pub const PRODUCERS_MAX: usize = 100_000;

/// Longest key of a state table in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 4096;

/// Largest value in a state table in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 4 << 20;

/// Longest key of a metadata entry in bytes.
pub const META_KEY_BYTES_MAX: usize = 512;

/// Largest metadata entry in bytes.
pub const META_VALUE_BYTES_MAX: usize = 1 << 20;

/// Changes of topic ends that a slow watcher may fall behind. It is then sent every end anew.
pub const WATCH_CHANGES_MAX: usize = 1024;
