//! Where files are: `data/topic=T/partition=P/date=D/<base offset>.parquet`.
//!
//! Names of topics need no escaping. The date is the one, in UTC, on which the first event of the file was appended; as that
//! time never goes back, the order of files is the order of offsets and the order of dates.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nodata_log::{Offset, TimestampUs};

/// The folder that others read.
pub const DATA_DIR: &str = "data";
/// Files in the making. Not inside of [`DATA_DIR`]: some readers list hidden folders too.
pub const STAGE_DIR: &str = "stage";

/// The day, in UTC, as `2026-11-22`.
pub fn date(append_us: TimestampUs) -> String {
    let time = Timestamp::from_microsecond(append_us).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(TimeZone::UTC).date().to_string()
}

/// The folder of a topic.
pub fn topic_dir(topic: &str) -> String {
    format!("{DATA_DIR}/topic={topic}")
}

/// The folders of a file, from the outermost on.
pub fn dirs(topic: &str, partition: u32, append_us: TimestampUs) -> [String; 3] {
    let topic = topic_dir(topic);
    let partition = format!("{topic}/partition={partition}");
    let date = format!("{partition}/date={}", date(append_us));
    [topic, partition, date]
}

/// The path of a file.
pub fn path(topic: &str, partition: u32, append_us: TimestampUs, base: Offset) -> String {
    let [_, _, dir] = dirs(topic, partition, append_us);
    format!("{dir}/{base:020}.parquet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_the_file_holds() {
        let at = 1_700_000_000_000_000;
        assert_eq!(
            path("orders.eu", 3, at, 123_456),
            "data/topic=orders.eu/partition=3/date=2023-11-14/00000000000000123456.parquet"
        );
        assert_eq!(date(at - at % 86_400_000_000), "2023-11-14");
        assert_eq!(date(at - at % 86_400_000_000 - 1), "2023-11-13");
    }
}
