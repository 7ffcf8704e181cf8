//! What a deployment may use, on the command line.

use crate::cli::out::{bytes, count};
use crate::cli::topic::parse_length;
use clap::Args;
use nodata_client::proto::{Budget, Deployment};
use serde_json::{Value, json};

/// What it may use. Whatever is not given is as usual, and in an update as before.
#[derive(Debug, Args)]
pub(crate) struct BudgetArgs {
    /// Memory of each of its instances: `64MiB` [default: 256MiB; of an update: as before].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// Processor time of a call: `500ms` [default: 5s; of an update: as before].
    #[arg(long, value_name = "TIME", value_parser = length)]
    call_cpu: Option<u64>,
    /// A call by the clock: `5m` [default: 60s; of an update: as before].
    #[arg(long, value_name = "TIME", value_parser = length)]
    call_time: Option<u64>,
    /// Weight where processor time is scarce: twice as much is twice the time [default: 100; of an update: as before].
    #[arg(long, value_name = "WEIGHT")]
    cpu_weight: Option<u64>,
    /// What a call may emit: `8MiB` [default: 32MiB; of an update: as before].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    output_bytes: Option<u64>,
    /// State of each of its tasks: `1GiB` [default: 4GiB; of an update: as before].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    state_bytes: Option<u64>,
    /// Lines that it may write to its log in a second [default: 200; of an update: as before].
    #[arg(long, value_name = "LINES")]
    log_rate: Option<u64>,
    /// Metrics that it may keep, by name and attributes [default: 100; of an update: as before].
    #[arg(long, value_name = "SERIES")]
    metric_series: Option<u64>,
}

impl BudgetArgs {
    pub(crate) fn budget(&self) -> Budget {
        Budget {
            memory_bytes: self.memory,
            call_cpu_us: self.call_cpu,
            call_wall_us: self.call_time,
            cpu_weight: self.cpu_weight,
            output_bytes: self.output_bytes,
            state_bytes: self.state_bytes,
            log_lines_per_second: self.log_rate,
            metric_series: self.metric_series,
        }
    }
}

fn size(text: &str) -> Result<u64, String> {
    let size: bytesize::ByteSize = text.parse().map_err(|_| "not a size; write it as `500kB` or `64MiB`".to_owned())?;
    Ok(size.as_u64())
}

fn length(text: &str) -> Result<u64, String> {
    parse_length(text, "write it as `500ms`, `2s`, or `5m`")
}

pub(crate) fn to_json(budget: &Budget) -> Value {
    json!({
        "memory_bytes": budget.memory_bytes,
        "call_cpu_us": budget.call_cpu_us,
        "call_wall_us": budget.call_wall_us,
        "cpu_weight": budget.cpu_weight,
        "output_bytes": budget.output_bytes,
        "state_bytes": budget.state_bytes,
        "log_lines_per_second": budget.log_lines_per_second,
        "metric_series": budget.metric_series,
    })
}

/// The budget of a deployment for a person, one line for each thing.
pub(crate) fn lines(deployment: &Deployment) -> Vec<String> {
    let (in_force, asked) = (deployment.budget.unwrap_or_default(), deployment.budget_asked.unwrap_or_default());
    let each = |budget: &Budget| {
        [
            budget.memory_bytes.map(bytes),
            budget.call_cpu_us.map(time),
            budget.call_wall_us.map(time),
            budget.cpu_weight.map(count),
            budget.output_bytes.map(bytes),
            budget.state_bytes.map(bytes),
            budget.log_lines_per_second.map(|lines| format!("{} lines a second", count(lines))),
            budget.metric_series.map(|series| format!("{} series", count(series))),
        ]
    };
    let names = [
        "memory",
        "cpu of a call",
        "time of a call",
        "cpu weight",
        "output of a call",
        "state of a task",
        "log",
        "metrics",
    ];
    let said = names.iter().zip(each(&in_force)).zip(each(&asked));
    said.filter_map(|((name, value), asked)| {
        let usual = if asked.is_none() { " (default)" } else { "" };
        Some(format!("{name:<17}{}{usual}", value?))
    })
    .collect()
}

fn time(us: u64) -> String {
    format!("{:#}", jiff::SignedDuration::from_micros(i64::try_from(us).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_marked() {
        let in_force = Budget { memory_bytes: Some(64 << 20), call_cpu_us: Some(2_500_000), ..Budget::default() };
        let asked = Budget { memory_bytes: Some(64 << 20), ..Budget::default() };
        let deployment = Deployment { budget: Some(in_force), budget_asked: Some(asked), ..Deployment::default() };
        assert_eq!(lines(&deployment), ["memory           64.0 MiB", "cpu of a call    2s 500ms (default)"]);
    }

    #[test]
    fn sizes_and_times_are_read() {
        assert_eq!((size("64MiB"), size("500kB"), size("17")), (Ok(64 << 20), Ok(500_000), Ok(17)));
        assert!(size("much").is_err() && length("2 parsecs").is_err());
        assert_eq!((length("500ms"), length("2s")), (Ok(500_000), Ok(2_000_000)));
    }
}
