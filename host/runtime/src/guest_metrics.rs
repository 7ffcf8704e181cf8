//! The numbers that the components of a deployment keep about their work.

use crate::limits::{METRIC_ATTRIBUTE_BYTES_MAX, METRIC_ATTRIBUTES_MAX, METRIC_NAME_BYTES_MAX, METRIC_SERIES};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The metrics of a deployment. They count at once and live as long as this does.
#[derive(Debug, Default)]
pub struct GuestMetrics {
    registry: Mutex<Registry>,
}

#[derive(Debug)]
struct Registry {
    series: BTreeMap<SeriesKey, MetricValue>,
    series_max: usize,
    dropped: u64,
}

impl Default for Registry {
    fn default() -> Self {
        Self { series: BTreeMap::new(), series_max: METRIC_SERIES, dropped: 0 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SeriesKey {
    name: String,
    /// One name may be a counter here and a gauge there: they are two series.
    kind: u8,
    attributes: Vec<(String, String)>,
}

/// A name with one set of attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSeries {
    pub name: String,
    /// By name.
    pub attributes: Vec<(String, String)>,
    pub value: MetricValue,
}

/// What was recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricValue {
    Counter(u64),
    Gauge(f64),
    Summary { count: u64, sum: f64, min: f64, max: f64 },
}

/// All series at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsSnapshot {
    /// By name.
    pub series: Vec<MetricSeries>,
    /// Observations that were not taken because of a limit.
    pub dropped: u64,
}

/// What a guest tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Observation {
    Add(u64),
    Set(f64),
    Observe(f64),
}

impl Observation {
    fn kind(self) -> u8 {
        match self {
            Observation::Add(_) => 0,
            Observation::Set(_) => 1,
            Observation::Observe(_) => 2,
        }
    }

    fn first(self) -> MetricValue {
        match self {
            Observation::Add(delta) => MetricValue::Counter(delta),
            Observation::Set(value) => MetricValue::Gauge(value),
            Observation::Observe(value) => MetricValue::Summary { count: 1, sum: value, min: value, max: value },
        }
    }

    fn apply(self, to: &mut MetricValue) {
        match (to, self) {
            (MetricValue::Counter(count), Observation::Add(delta)) => *count = count.saturating_add(delta),
            (MetricValue::Summary { count, sum, min, max }, Observation::Observe(value)) => {
                *count += 1;
                *sum += value;
                *min = min.min(value);
                *max = max.max(value);
            }
            (to, this) => *to = this.first(),
        }
    }
}

impl GuestMetrics {
    /// How many series there may be, from now on. Those that there are stay.
    pub fn set_series_max(&self, series_max: usize) {
        self.registry().series_max = series_max;
    }

    /// Everything recorded so far.
    pub fn snapshot(&self) -> MetricsSnapshot {
        let registry = self.registry();
        let series = registry.series.iter().map(|(key, &value)| MetricSeries {
            name: key.name.clone(),
            attributes: key.attributes.clone(),
            value,
        });
        MetricsSnapshot { series: series.collect(), dropped: registry.dropped }
    }

    /// Observations that were not taken because of a limit.
    pub fn dropped(&self) -> u64 {
        self.registry().dropped
    }

    pub(crate) fn record(&self, name: String, mut attributes: Vec<(String, String)>, observation: Observation) {
        attributes.sort_unstable();
        let known = name.len() <= METRIC_NAME_BYTES_MAX
            && attributes.len() <= METRIC_ATTRIBUTES_MAX
            && attributes.iter().all(|(name, value)| name.len().max(value.len()) <= METRIC_ATTRIBUTE_BYTES_MAX);
        let mut registry = self.registry();
        if !known {
            registry.dropped += 1;
            return;
        }
        let key = SeriesKey { name, kind: observation.kind(), attributes };
        let (series_count, series_max) = (registry.series.len(), registry.series_max);
        match registry.series.get_mut(&key) {
            Some(value) => observation.apply(value),
            None if series_count < series_max => {
                registry.series.insert(key, observation.first());
            }
            None => registry.dropped += 1,
        }
    }

    /// Counts an observation whose name or attributes are too large to look at.
    pub(crate) fn drop_one(&self) {
        self.registry().dropped += 1;
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_name_with_its_attributes_is_a_series() {
        let metrics = GuestMetrics::default();
        let record = |name: &str, of: &[(&str, &str)], observation| {
            metrics.record(name.to_owned(), attributes(of), observation);
        };
        record("seen", &[("b", "2"), ("a", "1")], Observation::Add(2));
        record("seen", &[("a", "1"), ("b", "2")], Observation::Add(3));
        record("seen", &[], Observation::Add(u64::MAX));
        record("seen", &[], Observation::Add(1));
        record("seen", &[], Observation::Set(0.5));
        record("seen", &[], Observation::Set(1.5));
        record("size", &[], Observation::Observe(3.0));
        record("size", &[], Observation::Observe(-1.0));

        let snapshot = metrics.snapshot();
        let shown: Vec<_> = snapshot.series.iter().map(|s| (s.name.as_str(), s.attributes.len(), s.value)).collect();
        assert_eq!(
            shown,
            [
                ("seen", 0, MetricValue::Counter(u64::MAX)),
                ("seen", 2, MetricValue::Counter(5)),
                ("seen", 0, MetricValue::Gauge(1.5)),
                ("size", 0, MetricValue::Summary { count: 2, sum: 2.0, min: -1.0, max: 3.0 }),
            ]
        );
        assert_eq!(snapshot.dropped, 0);
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let metrics = GuestMetrics::default();
        for n in 0..METRIC_SERIES + 3 {
            metrics.record(format!("series-{n}"), Vec::new(), Observation::Add(1));
        }
        metrics.record("series-1".to_owned(), Vec::new(), Observation::Add(1));
        let long = "n".repeat(METRIC_NAME_BYTES_MAX + 1);
        metrics.record(long.clone(), Vec::new(), Observation::Add(1));
        metrics.record("series-1".to_owned(), attributes(&[("a", &long)]), Observation::Add(1));
        metrics.record("series-1".to_owned(), attributes(&[("a", "b"); 9]), Observation::Add(1));
        let snapshot = metrics.snapshot();
        assert_eq!(snapshot.series.len(), METRIC_SERIES);
        assert_eq!(snapshot.dropped, 6);

        // Fewer than there are: they stay. More: there is room again.
        metrics.set_series_max(1);
        metrics.record("series-2".to_owned(), Vec::new(), Observation::Add(1));
        metrics.record("another".to_owned(), Vec::new(), Observation::Add(1));
        assert_eq!((metrics.snapshot().series.len(), metrics.snapshot().dropped), (METRIC_SERIES, 7));
        metrics.set_series_max(METRIC_SERIES + 1);
        metrics.record("another".to_owned(), Vec::new(), Observation::Add(1));
        assert_eq!((metrics.snapshot().series.len(), metrics.snapshot().dropped), (METRIC_SERIES + 1, 7));
    }
}
