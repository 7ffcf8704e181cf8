//! How much a deployment may use. What is not said is as usual.

use nodata_runtime::{InstanceLimits, limits};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thiserror::Error;

/// What a deployment may use, as it was asked for. Whatever is `None` is as usual, also when that is something else one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Linear memory of each instance.
    pub memory_bytes: Option<u64>,
    /// Processor time of a call.
    pub call_cpu_us: Option<u64>,
    /// A call by the clock.
    pub call_wall_us: Option<u64>,
    /// Of the time of the guest threads, compared with other deployments.
    pub cpu_weight: Option<u64>,
    /// What a call may emit.
    pub output_bytes: Option<u64>,
    /// Keys and values of the state of each task.
    pub state_bytes: Option<u64>,
    pub log_lines_per_second: Option<u64>,
    pub metric_series: Option<u64>,
}

/// One thing that can be asked for.
struct Bound {
    what: &'static str,
    unit: &'static str,
    min: u64,
    usual: u64,
    max: u64,
}

const MEMORY: Bound = Bound {
    what: "memory",
    unit: "bytes",
    min: limits::INSTANCE_MEMORY_BYTES_MIN,
    usual: limits::INSTANCE_MEMORY_BYTES,
    max: limits::HOST_MEMORY_BYTES,
};

const CALL_CPU: Bound = Bound {
    what: "processor time of a call",
    unit: "us",
    min: micros(limits::CALL_CPU_MIN),
    usual: micros(limits::CALL_CPU),
    max: micros(limits::CALL_CPU_MAX),
};

const CALL_WALL: Bound = Bound {
    what: "time of a call",
    unit: "us",
    min: micros(limits::CALL_WALL_MIN),
    usual: micros(limits::CALL_WALL),
    max: micros(limits::CALL_WALL_MAX),
};

const CPU_WEIGHT: Bound = Bound {
    what: "weight",
    unit: "hundredths of the usual",
    min: limits::CPU_WEIGHT_MIN as u64,
    usual: limits::CPU_WEIGHT as u64,
    max: limits::CPU_WEIGHT_MAX as u64,
};

const OUTPUT: Bound = Bound {
    what: "output of a call",
    unit: "bytes",
    min: limits::OUTPUT_BYTES_MIN,
    usual: limits::OUTPUT_BYTES_MAX,
    max: limits::OUTPUT_BYTES_MAX,
};

const STATE: Bound = Bound {
    what: "state of a task",
    unit: "bytes",
    min: limits::STATE_BYTES_MIN,
    usual: limits::STATE_BYTES,
    max: limits::STATE_BYTES_MAX,
};

const LOG_LINES: Bound = Bound {
    what: "log",
    unit: "lines a second",
    min: limits::LOG_LINES_PER_SECOND_MIN as u64,
    usual: limits::LOG_LINES_PER_SECOND as u64,
    max: limits::LOG_LINES_PER_SECOND_MAX as u64,
};

const METRIC_SERIES: Bound = Bound {
    what: "metrics",
    unit: "series",
    min: limits::METRIC_SERIES_MIN as u64,
    usual: limits::METRIC_SERIES as u64,
    max: limits::METRIC_SERIES_MAX as u64,
};

const fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

/// Something was asked for that a deployment cannot have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a budget of {value} {unit} for {what}; {min} to {max} are allowed")]
pub struct BudgetError {
    pub what: &'static str,
    pub value: u64,
    pub unit: &'static str,
    pub min: u64,
    pub max: u64,
}

impl Budget {
    fn each(&mut self) -> [(&mut Option<u64>, &'static Bound); 8] {
        [
            (&mut self.memory_bytes, &MEMORY),
            (&mut self.call_cpu_us, &CALL_CPU),
            (&mut self.call_wall_us, &CALL_WALL),
            (&mut self.cpu_weight, &CPU_WEIGHT),
            (&mut self.output_bytes, &OUTPUT),
            (&mut self.state_bytes, &STATE),
            (&mut self.log_lines_per_second, &LOG_LINES),
            (&mut self.metric_series, &METRIC_SERIES),
        ]
    }

    /// Refuses what is too little to work with, and too much for this host.
    pub(crate) fn check(mut self) -> Result<Self, BudgetError> {
        for (value, &Bound { what, unit, min, max, .. }) in self.each() {
            if let Some(value) = *value
                && !(min..=max).contains(&value)
            {
                return Err(BudgetError { what, value, unit, min, max });
            }
        }
        Ok(self)
    }

    /// The same, with what another one says where this one says nothing.
    pub(crate) fn or(mut self, mut other: Self) -> Self {
        for ((value, _), (other, _)) in self.each().into_iter().zip(other.each()) {
            *value = value.or(*other);
        }
        self
    }

    /// The same, with everything said.
    pub fn in_force(mut self) -> Self {
        for (value, bound) in self.each() {
            value.get_or_insert(bound.usual);
        }
        self
    }

    /// What one instance may use.
    pub(crate) fn of_instance(&self) -> InstanceLimits {
        InstanceLimits {
            memory_bytes: self.memory_bytes(),
            call_cpu: Duration::from_micros(self.call_cpu_us.unwrap_or(CALL_CPU.usual)),
            call_wall: Duration::from_micros(self.call_wall_us.unwrap_or(CALL_WALL.usual)),
            output_bytes: self.output_bytes.unwrap_or(OUTPUT.usual),
            state_bytes: self.state_bytes(),
            ..InstanceLimits::default()
        }
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes.unwrap_or(MEMORY.usual)
    }

    pub(crate) fn state_bytes(&self) -> u64 {
        self.state_bytes.unwrap_or(STATE.usual)
    }

    pub(crate) fn cpu_weight(&self) -> u32 {
        self.cpu_weight.unwrap_or(CPU_WEIGHT.usual) as u32
    }

    pub(crate) fn log_lines_per_second(&self) -> u32 {
        self.log_lines_per_second.unwrap_or(LOG_LINES.usual) as u32
    }

    pub(crate) fn metric_series(&self) -> usize {
        self.metric_series.unwrap_or(METRIC_SERIES.usual) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_usual() {
        let asked = Budget { memory_bytes: Some(64 << 20), ..Budget::default() };
        let in_force = asked.in_force();
        assert_eq!((in_force.memory_bytes, in_force.cpu_weight), (Some(64 << 20), Some(100)));
        assert_eq!(in_force.in_force(), in_force);
        assert_eq!(Budget::default().of_instance(), InstanceLimits::default());
        // What is usual can be asked for.
        assert_eq!(in_force.check(), Ok(in_force));
        let written = serde_json::to_string(&asked).unwrap();
        assert_eq!(serde_json::from_str::<Budget>(&written).unwrap(), asked);
        assert_eq!(serde_json::from_str::<Budget>("{}").unwrap(), Budget::default());
    }

    #[test]
    fn what_nobody_can_have_is_refused() {
        let refused = |change: fn(&mut Budget)| {
            let mut budget = Budget::default();
            change(&mut budget);
            budget.check().unwrap_err().to_string()
        };
        assert_eq!(
            refused(|budget| budget.memory_bytes = Some(1000)),
            "a budget of 1000 bytes for memory; 1048576 to 2147483648 are allowed"
        );
        assert_eq!(
            refused(|budget| budget.cpu_weight = Some(0)),
            "a budget of 0 hundredths of the usual for weight; 1 to 10000 are allowed"
        );
        assert_eq!(
            refused(|budget| budget.call_cpu_us = Some(u64::MAX)),
            "a budget of 18446744073709551615 us for processor time of a call; 10000 to 600000000 are allowed"
        );
    }
}
