//! What is kept of a group.

use crate::compute::{Compute, Function, Keep, What};
use crate::sketch::Sketch;
use nodata_component::Result;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;
use std::fmt;

/// What is kept of a group, by what it is: `{"count":{"count":3},"sum(a.b)":{"count":2,"number":7}}`.
///
/// What is computed may change while a group is open. What was kept before goes on, what is new begins then, and what is not asked for
/// any more is dropped with the next event.
#[derive(Default)]
pub(crate) struct Accumulator {
    named: BTreeMap<String, Kept>,
    /// The first version wrote a list, by the place of each result in the configuration.
    listed: Vec<Kept>,
}

/// How many values there were, and a number or a sketch of them.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(default)]
    count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sketch: Option<Box<Sketch>>,
}

impl Accumulator {
    pub(crate) fn add(&mut self, compute: &Compute, value: &Value) -> Result<()> {
        self.give_names(compute);
        for keep in &compute.keep {
            let Some(found) = keep.field.as_ref().map_or(Some(value), |field| field.of(value)) else { continue };
            match self.named.get_mut(&keep.name) {
                Some(kept) => kept.add(keep.what, found)?,
                None => self.named.entry(keep.name.clone()).or_default().add(keep.what, found)?,
            }
        }
        self.drop_others(compute);
        Ok(())
    }

    pub(crate) fn merge(&mut self, compute: &Compute, mut other: Self) -> Result<()> {
        self.give_names(compute);
        other.give_names(compute);
        for keep in &compute.keep {
            let Some(other) = other.named.remove(&keep.name) else { continue };
            self.named.entry(keep.name.clone()).or_default().merge(keep.what, other)?;
        }
        self.drop_others(compute);
        Ok(())
    }

    pub(crate) fn show(&self, compute: &Compute, shown: &mut Map<String, Value>) {
        let nothing = Kept::default();
        for (at, result) in compute.results.iter().enumerate() {
            let Keep { name, .. } = &compute.keep[result.keep];
            let kept = self.named.get(name).or_else(|| self.listed.get(at)).unwrap_or(&nothing);
            shown.insert(result.name.clone(), kept.shown(result.function));
        }
    }

    fn give_names(&mut self, compute: &Compute) {
        for (result, kept) in compute.results.iter().zip(self.listed.drain(..)) {
            self.named.entry(compute.keep[result.keep].name.clone()).or_insert(kept);
        }
    }

    fn drop_others(&mut self, compute: &Compute) {
        if self.named.len() > compute.keep.len() {
            self.named.retain(|name, _| compute.keep.iter().any(|keep| keep.name == *name));
        }
    }
}

impl Kept {
    fn add(&mut self, what: What, value: &Value) -> Result<()> {
        self.count += 1;
        match (what, value) {
            (What::Distinct, _) => self.sketch.get_or_insert(Box::new(Sketch::distinct()?)).add(value),
            (What::Quantiles, _) => self.sketch.get_or_insert_with(|| Box::new(Sketch::quantiles())).add(value),
            (What::Sum | What::Min | What::Max, Value::Number(number)) => {
                self.number = Some(match self.number.take() {
                    Some(own) => together(what, own, number),
                    None => number.clone(),
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn merge(&mut self, what: What, other: Self) -> Result<()> {
        self.count += other.count;
        self.number = match (self.number.take(), other.number) {
            (Some(own), Some(other)) => Some(together(what, own, &other)),
            (own, other) => own.or(other),
        };
        match (&mut self.sketch, other.sketch) {
            (Some(own), Some(other)) => own.merge(&other)?,
            (own, other) => *own = own.take().or(other),
        }
        Ok(())
    }

    fn shown(&self, function: Function) -> Value {
        let sketch = self.sketch.as_deref();
        match function {
            Function::Count => self.count.into(),
            Function::Sum => self.number.clone().unwrap_or_else(|| 0.into()).into(),
            Function::Min | Function::Max => self.number.clone().map_or(Value::Null, Value::Number),
            Function::Mean => {
                let sum = self.number.as_ref().and_then(Number::as_f64);
                sum.filter(|_| self.count > 0).map_or(Value::Null, |sum| (sum / self.count as f64).into())
            }
            Function::Distinct => sketch.and_then(Sketch::count).unwrap_or(0).into(),
            Function::Quantile(rank) => {
                sketch.and_then(|sketch| sketch.quantile(rank)).map_or(Value::Null, Value::from)
            }
        }
    }
}

fn together(what: What, one: Number, other: &Number) -> Number {
    let takes_other = match what {
        What::Min => is_less(other, &one),
        What::Max => is_less(&one, other),
        _ => return sum(&one, other),
    };
    if takes_other { other.clone() } else { one }
}

fn whole(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn sum(a: &Number, b: &Number) -> Number {
    let exact = whole(a).zip(whole(b)).and_then(|(a, b)| Number::from_i128(a + b));
    let about = || {
        let sum = a.as_f64().unwrap_or(0.0) + b.as_f64().unwrap_or(0.0);
        // JSON has no infinity, and an event has no fault in what came before it.
        Number::from_f64(sum.clamp(f64::MIN, f64::MAX))
    };
    exact.or_else(about).unwrap_or_else(|| a.clone())
}

fn is_less(a: &Number, b: &Number) -> bool {
    match whole(a).zip(whole(b)) {
        Some((a, b)) => a < b,
        None => a.as_f64() < b.as_f64(),
    }
}

impl Serialize for Accumulator {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if self.named.is_empty() { self.listed.serialize(serializer) } else { self.named.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Accumulator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Accumulator;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("what is kept of a group, by name, or as a list")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Accumulator, A::Error> {
                let mut accumulator = Accumulator::default();
                while let Some((name, kept)) = map.next_entry()? {
                    accumulator.named.insert(name, kept);
                }
                Ok(accumulator)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Accumulator, A::Error> {
                let mut accumulator = Accumulator::default();
                while let Some(kept) = list.next_element()? {
                    accumulator.listed.push(kept);
                }
                Ok(accumulator)
            }
        }

        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compute(text: &str) -> Compute {
        Compute::parse(text, Vec::new()).unwrap()
    }

    fn added(accumulator: &str, compute: &Compute, values: &[Value]) -> (Value, Value) {
        let mut accumulator: Accumulator = serde_json::from_str(accumulator).unwrap();
        values.iter().for_each(|value| accumulator.add(compute, value).unwrap());
        let mut shown = Map::new();
        accumulator.show(compute, &mut shown);
        (serde_json::to_value(&accumulator).unwrap(), shown.into())
    }

    #[test]
    fn what_the_first_version_wrote_goes_on() {
        let first = r#"[{"count":3},{"count":2,"number":7},{"count":2,"number":7},{"count":2,"number":5}]"#;
        let compute = compute("n=count,s=sum(a),m=mean(a),x=max(a)");
        assert_eq!(
            added(first, &compute, &[]),
            (serde_json::from_str(first).unwrap(), json!({ "n": 3, "s": 7, "m": 3.5, "x": 5 }))
        );
        let (written, shown) = added(first, &compute, &[json!({ "a": 2 })]);
        assert_eq!(shown, json!({ "n": 4, "s": 9, "m": 3.0, "x": 5 }));
        assert_eq!(
            written,
            json!({ "count": { "count": 4 }, "sum(a)": { "count": 3, "number": 9 }, "max(a)": { "count": 3, "number": 5 } })
        );
        let mut merged: Accumulator = serde_json::from_str(first).unwrap();
        merged.merge(&compute, serde_json::from_value(written).unwrap()).unwrap();
        let mut shown = Map::new();
        merged.show(&compute, &mut shown);
        assert_eq!(Value::from(shown), json!({ "n": 7, "s": 16, "m": 3.2, "x": 5 }));
    }

    #[test]
    fn what_is_computed_may_change() {
        let (written, _) = added("{}", &compute("n=count,s=sum(a)"), &[json!({ "a": 2 })]);
        let other = compute("most=max(a),many=count");
        let (written, shown) = added(&written.to_string(), &other, &[json!({ "a": 1 })]);
        assert_eq!(shown, json!({ "most": 1, "many": 2 }));
        assert_eq!(written, json!({ "count": { "count": 2 }, "max(a)": { "count": 1, "number": 1 } }));
    }

    #[test]
    fn what_another_version_wrote_is_refused() {
        let refused = |text: &str| serde_json::from_str::<Accumulator>(text).err().unwrap().to_string();
        let unknown = refused(r#"{"distinct(a)":{"count":1,"sketch":"hll9:AA"}}"#);
        assert!(unknown.starts_with("a sketch in the form `hll9`"), "{unknown}");
        assert!(refused("7").contains("what is kept of a group"));
    }

    #[test]
    fn sums_are_exact_or_as_near_as_numbers_are() {
        let number = |text: &str| serde_json::from_str::<Number>(text).unwrap();
        let check = |one: &str, other: &str, expected: &str| {
            assert_eq!(sum(&number(one), &number(other)), number(expected), "{one} + {other}");
        };
        check("9007199254740993", "2", "9007199254740995");
        check("18446744073709551614", "1", "18446744073709551615");
        check("18446744073709551615", "-9223372036854775808", "9223372036854775807");
        check("18446744073709551615", "1", "18446744073709551616.0");
        check("0.5", "1", "1.5");
        check("1e308", "1e308", "1.7976931348623157e308");
        check("-1e308", "-1e308", "-1.7976931348623157e308");
        assert!(is_less(&number("9223372036854775807"), &number("9223372036854775808")));
        assert!(is_less(&number("-1"), &number("18446744073709551615")));
        assert!(is_less(&number("0.5"), &number("1")) && !is_less(&number("1"), &number("1.0")));
    }
}
