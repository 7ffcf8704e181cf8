//! Every bound of the archive, with its reason.

/// Bytes of events of one partition, in the log, after which they become part of a file at once.
pub const FLUSH_BYTES: u64 = 64 << 20;

/// Seconds after which events become part of a file, however few they are.
pub const FLUSH_AGE_SECS: u64 = 60;

/// Bytes of events, in the log, for which it is worth to let a file grow: growing leaves a footer behind, of some 0.5 KiB for
/// each row group.
pub const GROWTH_BYTES: u64 = 256 << 10;

/// Fewer events wait until a file would grow by this part of the time that it covers ...
pub const GROWTH_PART: i64 = 3;

/// ... and at the latest until their age is so many times [`FLUSH_AGE_SECS`], or what the operator said instead.
pub const GROWTH_AGES_MAX: i64 = 10;

/// A file of this size does not grow any more: growing copies it.
pub const SEAL_BYTES: u64 = 8 << 20;

/// A file with so many row groups does not grow any more. Every growth leaves a footer behind, and footers grow with the
/// number of row groups; this bounds what that costs at some 20 times the footer of a small file.
pub const SEAL_ROW_GROUPS: u32 = 32;

/// Bytes of a row group when it is unpacked. One is written from at most [`FLUSH_BYTES`] and a batch, and what is declared repeats
/// what is in the values.
pub const UNPACKED_BYTES_MAX: u64 = 1 << 30;

/// Files that are held open for readers.
pub const OPEN_FILES_MAX: usize = 64;

/// Readers in the middle of a row group that can go on without decoding what they have seen. Each holds a row group as it is
/// in the file.
pub const CURSORS_MAX: usize = 8;

/// Bytes of decoded events that are kept for readers that come after the first.
pub const SLICES_BYTES_MAX: usize = 32 << 20;

/// Slices that are decoded at the same time.
pub const DECODERS_MAX: usize = 2;
