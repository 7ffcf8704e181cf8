//! Summaries of values that say about how many different ones there are, and where among them a value stands.
//!
//! Both are the same whatever order values come in and however they are put together, so results do not depend on batches, on
//! partitions or on when the server was stopped. Their formats are those of Apache DataSketches and of DataDog's sketches.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD as BASE64;
use datasketches::hash::value::raw_bytes;
use datasketches::hll::{HllSketch, HllType, HllUnion};
use nodata_component::{Error, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use sketches_ddsketch::DDSketch;

/// Registers of a distinct count, as a power of two: the standard error is 1.04 / √4096, which is 1.6 %.
const REGISTERS_LOG2: u8 = 12;

/// A form that a sketch is written in. A form never changes: what is written otherwise has another name.
const DISTINCT: &str = "hll1";
const QUANTILES: &str = "dds1";

#[derive(Clone)]
pub(crate) enum Sketch {
    Distinct(HllSketch),
    /// With the defaults of its crate: 1 % of the value, 2048 bins for each sign, and nothing is told apart from 0 below 1e-9.
    Quantiles(DDSketch),
}

impl Sketch {
    pub(crate) fn distinct() -> Result<Self> {
        HllSketch::new(REGISTERS_LOG2, HllType::Hll4).map(Self::Distinct).map_err(Error::permanent)
    }

    pub(crate) fn quantiles() -> Self {
        Self::Quantiles(DDSketch::default())
    }

    pub(crate) fn add(&mut self, value: &Value) {
        match self {
            Self::Distinct(sketch) => sketch.update(raw_bytes::from_string(name(value))),
            Self::Quantiles(sketch) => {
                if let Some(number) = value.as_f64() {
                    sketch.add(number);
                }
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) -> Result<()> {
        match (self, other) {
            (Self::Distinct(own), Self::Distinct(other)) => {
                let mut union = HllUnion::new(REGISTERS_LOG2).map_err(Error::permanent)?;
                union.update(own);
                union.update(other);
                *own = union.to_sketch(HllType::Hll4);
                Ok(())
            }
            (Self::Quantiles(own), Self::Quantiles(other)) => own.merge(other).map_err(Error::permanent),
            _ => Err(Error::permanent("a distinct count and quantiles cannot be put together")),
        }
    }

    /// About how many different values there were.
    pub(crate) fn count(&self) -> Option<u64> {
        match self {
            // The other estimate of the crate depends on the order of the values.
            Self::Distinct(sketch) => Some(sketch.composite_estimate().round() as u64),
            Self::Quantiles(_) => None,
        }
    }

    /// About the value of this rank.
    pub(crate) fn quantile(&self, rank: f64) -> Option<f64> {
        let Self::Quantiles(sketch) = self else { return None };
        let about = sketch.quantile(rank).ok()??;
        // The smallest and the greatest are known exactly.
        Some(about.clamp(sketch.min()?, sketch.max()?))
    }
}

/// What makes two values the same. A whole number is one however it is written.
fn name(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if value.is_f64() && number.fract() == 0.0 && number.abs() < 2f64.powi(63) => {
            (number as i64).to_string()
        }
        _ => value.to_string(),
    }
}

impl Serialize for Sketch {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let (form, bytes) = match self {
            Self::Distinct(sketch) => (DISTINCT, sketch.serialize()),
            Self::Quantiles(sketch) => (QUANTILES, sketch.to_java_bytes()),
        };
        serializer.collect_str(&format_args!("{form}:{}", BASE64.encode(bytes)))
    }
}

impl<'de> Deserialize<'de> for Sketch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (form, bytes) = text.split_once(':').unwrap_or((&text, ""));
        let bytes = BASE64.decode(bytes).map_err(D::Error::custom)?;
        match form {
            DISTINCT => HllSketch::deserialize(&bytes).map(Self::Distinct).map_err(D::Error::custom),
            QUANTILES => DDSketch::from_java_bytes(&bytes).map(Self::Quantiles).map_err(D::Error::custom),
            form => Err(D::Error::custom(format_args!(
                "a sketch in the form `{form}`; this version knows {DISTINCT} and {QUANTILES}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn sketch(new: Sketch, values: impl IntoIterator<Item = Value>) -> Sketch {
        values.into_iter().fold(new, |mut sketch, value| {
            sketch.add(&value);
            sketch
        })
    }

    fn distinct(values: impl IntoIterator<Item = Value>) -> Sketch {
        sketch(Sketch::distinct().unwrap(), values)
    }

    fn quantiles(values: impl IntoIterator<Item = f64>) -> Sketch {
        sketch(Sketch::quantiles(), values.into_iter().map(Value::from))
    }

    fn written(sketch: &Sketch) -> String {
        serde_json::to_string(sketch).unwrap()
    }

    fn read(text: &str) -> serde_json::Result<Sketch> {
        serde_json::from_str(text)
    }

    #[test]
    fn distinct_counts_are_off_by_as_much_as_the_crate_says() {
        for count in [1, 2, 8, 9, 100, 300] {
            assert_eq!(distinct((0..count).map(Value::from)).count(), Some(count));
        }
        // The standard error is 1.6 %, and three times as much is rare.
        let mut squares = Vec::new();
        for (round, count) in
            [1000u64, 10_000, 50_000].into_iter().flat_map(|count| (0..20).map(move |round| (round, count)))
        {
            let found = distinct((0..count).map(|n| json!(format!("{round}-{n}")))).count().unwrap();
            let off = (found as f64 - count as f64) / count as f64;
            assert!(off.abs() < 3.0 * 0.01625, "{found} of {count}");
            squares.push(off * off);
        }
        let error = (squares.iter().sum::<f64>() / squares.len() as f64).sqrt();
        println!("standard error of distinct counts: {error:.4}");
        assert!(error < 1.25 * 0.01625, "{error}");
    }

    #[test]
    fn values_are_the_same_when_they_are_the_same_json() {
        let texts = [
            r#"1"#,
            r#"1.0"#,
            r#""1""#,
            r#"1.5"#,
            r#"true"#,
            r#"{"a":1,"b":2}"#,
            r#"{"b":2,"a":1}"#,
            r#"[1,2]"#,
            r#"[2,1]"#,
            r#""""#,
            r#"1e300"#,
        ];
        let values = texts.map(|text| serde_json::from_str(text).unwrap());
        assert_eq!(distinct(values).count(), Some(9));
    }

    /// The value of a rank: of those in order, the one at `rank` times the last place, rounded down.
    fn exact(values: &[f64], rank: f64) -> f64 {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values[(rank * (values.len() - 1) as f64) as usize]
    }

    const RANKS: [f64; 9] = [0.0, 0.001, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0];

    /// How far the worst of the ranks is off, relative to its value.
    fn worst(values: &[f64]) -> f64 {
        let sketch = quantiles(values.iter().copied());
        let off = RANKS.map(|rank| {
            let (exact, about) = (exact(values, rank), sketch.quantile(rank).unwrap());
            if exact.abs() < 1e-9 { about.abs() } else { (about - exact).abs() / exact.abs() }
        });
        off.into_iter().fold(0.0, f64::max)
    }

    #[test]
    fn quantiles_are_off_by_as_much_as_the_crate_says() {
        let unit = |n: u32| f64::from(n.wrapping_mul(2_654_435_761)) / f64::from(u32::MAX);
        let spread: Vec<f64> = (0..100_000).map(unit).collect();
        let shapes: [(&str, Vec<f64>); 4] = [
            ("uniform", spread.iter().map(|x| x * 1000.0).collect()),
            ("exponential", spread.iter().map(|x| -(1.0 - x * 0.999_999).ln()).collect()),
            ("heavy tail", spread.iter().map(|x| (1.0 - x * 0.999_999).powf(-2.0)).collect()),
            ("around zero", spread.iter().map(|x| (x - 0.5).powi(3)).collect()),
        ];
        for (shape, values) in shapes {
            let worst = worst(&values);
            println!("quantiles of {shape}: off by {worst:.5} at most");
            assert!(worst <= 0.01 + 1e-9, "{shape}: {worst}");
        }
        assert_eq!(quantiles([17.0]).quantile(0.5), Some(17.0), "one value is known exactly");
        assert_eq!(quantiles([]).quantile(0.5), None);
    }

    #[test]
    fn a_range_that_has_too_many_bins_is_right_at_its_end() {
        let values: Vec<f64> = (-300..300).map(|exponent| 10f64.powi(exponent)).collect();
        let sketch = quantiles(values.iter().copied());
        assert!(written(&sketch).len() < 10_000);
        let sketch = read(&written(&sketch)).ok().unwrap();
        for rank in [0.98, 0.99, 1.0] {
            let (exact, about) = (exact(&values, rank), sketch.quantile(rank).unwrap());
            assert!((about - exact).abs() <= exact * 0.01, "{about} {exact}");
        }
        assert_eq!(sketch.quantile(0.0), values.first().copied());
        let both = quantiles([f64::MAX, f64::MIN, 0.0]);
        assert_eq!(
            (both.quantile(0.0), both.quantile(0.5), both.quantile(1.0)),
            (Some(f64::MIN), Some(0.0), Some(f64::MAX))
        );
    }

    #[test]
    fn a_sketch_is_as_large_as_what_it_has_seen() {
        let size = |sketch: &Sketch| written(sketch).len();
        assert_eq!((size(&distinct([json!("a")])), size(&quantiles([17.5]))), (23, 75));
        assert!(size(&distinct((0..100).map(Value::from))) < 700);
        assert!(size(&distinct((0..200_000).map(Value::from))) < 3000);
        assert!(size(&quantiles((1..200_000).map(f64::from))) < 4000);
        // Every bin there can be, of both signs, with more in each than one ever has.
        let mut full = DDSketch::default();
        let bins = (0..3000).map(|bin| 1e10 / 1.02f64.powi(bin));
        bins.flat_map(|at| [at, -at]).for_each(|at| full.add_with_count(at, 123_456_789_123));
        let full = size(&Sketch::Quantiles(full));
        assert!((30_000..50_000).contains(&full), "{full}");
    }

    /// What this version wrote must be read by those that come, and say the same.
    #[test]
    fn what_was_written_is_read() {
        let count = r#""hll1:AgEHDAMIAgD0XFUJHQTdCQ""#;
        let middle = r#""dds1:oIRAiAAAAAAAAAjAjAAAAAAAAABAAv1KgVq/UvA/AAAAAAAAAAAEAgUCAAJEAgcBbAI""#;
        assert_eq!(written(&quantiles([1.0, 2.0, -3.0, 0.0])), middle);
        assert_eq!(read(middle).ok().unwrap().quantile(0.0), Some(-3.0));
        assert_eq!(written(&distinct([json!("a"), json!("b")])), count);
        assert_eq!(read(count).ok().unwrap().count(), Some(2));
        let unknown = read("\"hll2:AA\"").err().unwrap().to_string();
        assert!(unknown.starts_with("a sketch in the form `hll2`; this version knows hll1 and dds1"), "{unknown}");
        for damaged in ["\"hll1:AA\"", "\"dds1:AA\"", "\"hll1:!\"", "7", "\"\""] {
            assert!(read(damaged).is_err(), "{damaged}");
        }
    }

    fn parts<T>(values: &[T], cuts: &[usize]) -> Vec<Vec<T>>
    where
        T: Clone,
    {
        let mut parts = vec![Vec::new(); cuts.len()];
        for (at, value) in values.iter().enumerate() {
            parts[cuts[at % cuts.len()] % cuts.len()].push(value.clone());
        }
        parts
    }

    proptest! {
        /// However values are divided, whichever part comes first, and written and read on the way: what is shown is the same.
        #[test]
        fn sketches_are_put_together_in_any_order(
            values in prop::collection::vec((-1e6f64..1e6, 0u32..700), 1..1500),
            cuts in prop::collection::vec(0usize..5, 1..5),
        ) {
            let numbers: Vec<f64> = values.iter().map(|(number, _)| *number).collect();
            let texts: Vec<Value> = values.iter().map(|(_, n)| json!(format!("v{n}"))).collect();
            let again = |sketch: Sketch| read(&written(&sketch)).ok().unwrap();
            let together = |parts: Vec<Sketch>| {
                parts.into_iter().map(again).reduce(|mut one, other| {
                    one.merge(&other).unwrap();
                    again(one)
                })
            };
            let (whole, quantiles_of) = (quantiles(numbers.clone()), |part: Vec<f64>| quantiles(part));
            let mut pieces: Vec<Sketch> = parts(&numbers, &cuts).into_iter().map(quantiles_of).collect();
            let forward = together(pieces.clone()).unwrap();
            pieces.reverse();
            let backward = together(pieces).unwrap();
            for rank in RANKS {
                prop_assert_eq!(forward.quantile(rank), whole.quantile(rank));
                prop_assert_eq!(backward.quantile(rank), whole.quantile(rank));
            }
            prop_assert!(worst(&numbers) <= 0.01 + 1e-9);

            let mut pieces: Vec<Sketch> = parts(&texts, &cuts).into_iter().map(distinct).collect();
            let forward = together(pieces.clone()).unwrap();
            pieces.reverse();
            let backward = together(pieces).unwrap();
            let whole = distinct(texts);
            prop_assert_eq!(forward.count(), whole.count());
            prop_assert_eq!(backward.count(), whole.count());
        }
    }
}
