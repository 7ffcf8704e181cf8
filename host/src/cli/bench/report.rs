//! Medians, and how they are shown.

use crate::cli::out::table;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

/// How long something took, again and again.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        // Three digits are always allowed.
        #[expect(clippy::expect_used, reason = "the number of digits is a constant")]
        let mut histogram = Histogram::new(3).expect("three digits are allowed");
        histogram.auto(true);
        Self(histogram)
    }

    pub(crate) fn record(&mut self, took: Duration) {
        // It grows as it needs.
        let _ = self.0.record(took.as_nanos() as u64);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        // It grows as it needs.
        let _ = self.0.add(&other.0);
    }

    /// Microseconds below which this part of all lies.
    pub(crate) fn us(&self, part: f64) -> f64 {
        self.0.value_at_quantile(part) as f64 / 1000.0
    }
}

/// What one measurement found. What was not measured is not there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) events_per_s: f64,
    pub(crate) event_bytes: usize,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
    /// Seconds of processor time of the server for a million events.
    pub(crate) server_cpu: Option<f64>,
    /// The same for the load.
    pub(crate) client_cpu: Option<f64>,
    pub(crate) peak_memory_mb: Option<f64>,
    /// Bytes that the server gave to the disk for each byte of payload.
    pub(crate) written: Option<f64>,
    /// Megabytes of the file with the tables of components, in the end.
    pub(crate) state_mb: Option<f64>,
}

/// The middle one of all, and the least and the most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// The same in another unit.
    pub(crate) fn scaled(self, by: f64) -> Self {
        Self { median: self.median * by, least: self.least * by, most: self.most * by }
    }
}

pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (least, most) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    Some(Spread { median, least, most })
}

/// The middle one, and between which they are; nothing, if there is none.
pub(crate) fn cell(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or("-".to_owned(), |Spread { median, least, most }| {
        format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
    })
}

pub(crate) fn spread_json(spread: Option<Spread>) -> Option<Value> {
    spread.map(|spread| json!({ "median": spread.median, "least": spread.least, "most": spread.most }))
}

/// The rounds of one case.
pub(crate) struct Rows {
    pub(crate) name: String,
    pub(crate) rounds: Vec<Figures>,
}

/// Adds what a round gave to the case at this place, which is new in the first round.
pub(crate) fn add(rows: &mut Vec<Rows>, at: usize, name: String, figures: Figures) {
    match rows.get_mut(at) {
        Some(rows) => rows.rounds.push(figures),
        None => rows.push(Rows { name, rounds: vec![figures] }),
    }
}

impl Rows {
    fn of(&self, field: impl Fn(&Figures) -> Option<f64>) -> Option<Spread> {
        spread(self.rounds.iter().filter_map(field))
    }

    fn cells(&self) -> Vec<String> {
        let rate = self.of(|figures| Some(figures.events_per_s));
        let bytes = self.rounds.first().map_or(0, |figures| figures.event_bytes);
        let us = |spread: Option<Spread>| spread.map_or("-".to_owned(), |spread| duration(spread.median));
        let plain = |spread: Option<Spread>, digits: usize| {
            spread.map_or("-".to_owned(), |spread| format!("{:.digits$}", spread.median))
        };
        vec![
            self.name.clone(),
            rate.map_or("-".to_owned(), |rate| {
                format!("{} ({} to {})", short(rate.median), short(rate.least), short(rate.most))
            }),
            rate.map_or("-".to_owned(), |rate| format!("{:.1}", rate.median * bytes as f64 / 1e6)),
            us(self.of(|figures| figures.p50_us)),
            us(self.of(|figures| figures.p99_us)),
            us(self.of(|figures| figures.p999_us)),
            plain(self.of(|figures| figures.server_cpu), 2),
            plain(self.of(|figures| figures.client_cpu), 2),
            plain(self.of(|figures| figures.peak_memory_mb), 0),
            plain(self.of(|figures| figures.written), 2),
            plain(self.of(|figures| figures.state_mb), 1),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "case": self.name,
            "events_per_s": spread_json(self.of(|figures| Some(figures.events_per_s))),
            "p50_us": spread_json(self.of(|figures| figures.p50_us)),
            "p99_us": spread_json(self.of(|figures| figures.p99_us)),
            "p999_us": spread_json(self.of(|figures| figures.p999_us)),
            "server_cpu_s_per_million": spread_json(self.of(|figures| figures.server_cpu)),
            "client_cpu_s_per_million": spread_json(self.of(|figures| figures.client_cpu)),
            "server_peak_memory_mb": spread_json(self.of(|figures| figures.peak_memory_mb)),
            "bytes_written_per_payload_byte": spread_json(self.of(|figures| figures.written)),
            "state_mb": spread_json(self.of(|figures| figures.state_mb)),
        })
    }
}

/// A table of all cases.
pub(crate) fn lines(rows: &[Rows]) -> Vec<String> {
    let head = [
        "CASE",
        "EVENTS/S",
        "MB/S",
        "P50",
        "P99",
        "P99.9",
        "SERVER CPU",
        "LOAD CPU",
        "MEMORY MB",
        "WRITTEN",
        "STATE MB",
    ];
    table(&head, &rows.iter().map(Rows::cells).collect::<Vec<_>>())
}

pub(crate) fn to_json(rows: &[Rows]) -> Value {
    rows.iter().map(Rows::json).collect()
}

fn duration(us: f64) -> String {
    if us < 1000.0 {
        format!("{us:.0} us")
    } else if us < 1_000_000.0 {
        format!("{:.2} ms", us / 1e3)
    } else {
        format!("{:.2} s", us / 1e6)
    }
}

/// Three digits and a unit.
pub(crate) fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.2} M", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.0} k", value / 1e3)
    } else if value >= 1e3 {
        format!("{:.1} k", value / 1e3)
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_few_is_not_moved_by_one_that_is_far_off() {
        let of =
            |values: &[f64]| spread(values.iter().copied()).map(|spread| (spread.median, spread.least, spread.most));
        assert_eq!(of(&[3.0, 1.0, 1000.0]), Some((3.0, 1.0, 1000.0)));
        assert_eq!(of(&[4.0, 2.0]), Some((3.0, 2.0, 4.0)));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn figures_are_short() {
        assert_eq!([12.0, 1234.0, 45_678.0, 1_234_567.0].map(short), ["12", "1.2 k", "46 k", "1.23 M"]);
        assert_eq!([12.0, 1234.0, 1_234_567.0].map(duration), ["12 us", "1.23 ms", "1.23 s"]);
    }
}
