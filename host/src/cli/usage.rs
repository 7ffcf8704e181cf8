//! What a deployment has used, for people and programs.

use crate::cli::out::{bytes, count};
use nodata_client::proto::Usage;
use serde_json::{Value, json};

pub(crate) fn to_json(usage: &Usage) -> Value {
    json!({
        "cpu_us": usage.cpu_us,
        "memory_bytes": usage.memory_bytes,
        "memory_bytes_peak": usage.memory_bytes_peak,
        "events_in": usage.events_in,
        "bytes_in": usage.bytes_in,
        "bytes_out": usage.bytes_out,
        "state_bytes": usage.state_bytes,
        "log_lines": usage.log_lines,
        "log_lines_dropped": usage.log_lines_dropped,
        "metrics_dropped": usage.metrics_dropped,
        "http_requests": usage.http_requests,
    })
}

/// Processor time for a person.
pub(crate) fn cpu(usage: &Usage) -> String {
    seconds(usage.cpu_us as f64 / 1e6)
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.3} s")
}

/// One line for each thing. What a million events take is said as soon as there were some.
pub(crate) fn lines(usage: &Usage) -> Vec<String> {
    let per_million = |of: u64| of as f64 * 1e6 / usage.events_in as f64;
    let of = |total: String, million: String| match usage.events_in {
        0 => total,
        _ => format!("{total}, {million} for a million events"),
    };
    let line = |name: &str, what: String| format!("{name:<17}{what}");
    vec![
        line("cpu", of(cpu(usage), seconds(per_million(usage.cpu_us) / 1e6))),
        line("bytes in", of(bytes(usage.bytes_in), bytes(per_million(usage.bytes_in) as u64))),
        line("bytes out", of(bytes(usage.bytes_out), bytes(per_million(usage.bytes_out) as u64))),
        line(
            "memory",
            format!("{}, at most {} of one instance", bytes(usage.memory_bytes), bytes(usage.memory_bytes_peak)),
        ),
        line("state", bytes(usage.state_bytes)),
        line("log", format!("{} lines, {} dropped", count(usage.log_lines), count(usage.log_lines_dropped))),
        line("metrics", format!("{} observations dropped", count(usage.metrics_dropped))),
        line("http", format!("{} requests", count(usage.http_requests))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_events_are_what_it_is_compared_by() {
        let usage = Usage { cpu_us: 1_500_000, events_in: 500_000, bytes_in: 50 << 20, ..Usage::default() };
        let said = lines(&usage);
        assert_eq!(said[0], "cpu              1.500 s, 3.000 s for a million events");
        assert_eq!(said[1], "bytes in         50.0 MiB, 100.0 MiB for a million events");
        assert_eq!(lines(&Usage::default())[0], "cpu              0.000 s");
    }
}
