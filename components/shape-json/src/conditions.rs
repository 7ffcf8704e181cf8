//! Which events are kept, as config `where` says it.

use json_fields::Field;
use nodata_component::{Error, Result};
use serde_json::Value;
use std::cmp::Ordering;

/// All of them hold, or the event is left out.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Conditions(Vec<Condition>);

#[derive(Debug, PartialEq)]
struct Condition {
    field: Field,
    test: Test,
}

#[derive(Debug, PartialEq)]
enum Test {
    Exists,
    Missing,
    Equal(Value),
    NotEqual(Value),
    In(Vec<Value>),
    Ordered(&'static [Ordering], Value),
}

impl Conditions {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (mut conditions, mut rest) = (Vec::new(), text);
        loop {
            let (condition, after) = condition(rest).ok_or_else(|| {
                Error::permanent(format_args!(
                    "config `where`: `{}` does not begin with a condition, which is FIELD OP VALUE, where OP is =, !=, <, <=, > or >= \
                     and VALUE is JSON, or FIELD in [VALUE, ...], FIELD exists or FIELD missing",
                    rest.trim()
                ))
            })?;
            conditions.push(condition);
            if after.trim().is_empty() {
                return Ok(Self(conditions));
            }
            rest = after.trim_start().strip_prefix("and ").ok_or_else(|| {
                Error::permanent(format_args!("config `where`: there is no ` and ` before `{}`", after.trim()))
            })?;
        }
    }

    pub(crate) fn hold(&self, value: &Value) -> bool {
        self.0.iter().all(|condition| condition.holds(value))
    }
}

impl Condition {
    fn holds(&self, value: &Value) -> bool {
        let found = self.field.of(value).unwrap_or(&Value::Null);
        match &self.test {
            Test::Exists => !found.is_null(),
            Test::Missing => found.is_null(),
            Test::Equal(wanted) => order(found, wanted) == Some(Ordering::Equal),
            Test::NotEqual(wanted) => order(found, wanted) != Some(Ordering::Equal),
            Test::In(wanted) => wanted.iter().any(|wanted| order(found, wanted) == Some(Ordering::Equal)),
            Test::Ordered(wanted, bound) => order(found, bound).is_some_and(|order| wanted.contains(&order)),
        }
    }
}

/// `None`: they are not equal, and neither is less.
fn order(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => match a.as_i64().zip(b.as_i64()) {
            Some((a, b)) => Some(a.cmp(&b)),
            None => a.as_f64().partial_cmp(&b.as_f64()),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Ordering::Equal),
    }
}

/// A condition, and what stands behind it.
fn condition(text: &str) -> Option<(Condition, &str)> {
    let (field, rest) = word(text)?;
    let field = Field::parse(field)?;
    let (operator, rest) = word(rest)?;
    let of_value = match operator {
        "exists" => return Some((Condition { field, test: Test::Exists }, rest)),
        "missing" => return Some((Condition { field, test: Test::Missing }, rest)),
        operator => operator,
    };
    let (value, rest) = json(rest)?;
    let test = match (of_value, value) {
        ("=" | "==", value) => Test::Equal(value),
        ("!=", value) => Test::NotEqual(value),
        ("<", value) => Test::Ordered(&[Ordering::Less], value),
        ("<=", value) => Test::Ordered(&[Ordering::Less, Ordering::Equal], value),
        (">", value) => Test::Ordered(&[Ordering::Greater], value),
        (">=", value) => Test::Ordered(&[Ordering::Greater, Ordering::Equal], value),
        ("in", Value::Array(values)) => Test::In(values),
        _ => return None,
    };
    Some((Condition { field, test }, rest))
}

fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A JSON value, and what stands behind it.
pub(crate) fn json(text: &str) -> Option<(Value, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept<'v>(conditions: &str, values: &[&'v str]) -> Vec<&'v str> {
        let conditions = Conditions::parse(conditions).unwrap();
        values.iter().filter(|value| conditions.hold(&serde_json::from_str(value).unwrap())).copied().collect()
    }

    #[test]
    fn events_are_kept_by_their_fields() {
        let values = [r#"{"a":1}"#, r#"{"a":2.5}"#, r#"{"a":"x"}"#, r#"{"a":null}"#, "{}", r#"{"a":{"b":7}}"#];
        assert_eq!(kept("a = 1", &values), values[..1]);
        assert_eq!(kept("a == 1.0", &values), values[..1]);
        assert_eq!(kept("a >= 1", &values), values[..2]);
        assert_eq!(kept("a <= 1", &values), values[..1]);
        assert_eq!(kept("a < 2", &values), values[..1]);
        assert_eq!(kept("a > 2", &values), values[1..2]);
        assert_eq!(kept("a >= \"a\"", &values), values[2..3]);
        assert_eq!(kept("a == null", &values), values[3..5]);
        assert_eq!(kept("a missing", &values), values[3..5]);
        assert_eq!(kept(" a exists  and a.b = 7 ", &values), values[5..]);
        assert_eq!(kept("a != 1", &values).len(), 5);
        assert_eq!(kept(r#"a in [1, "x", {"b":7}]"#, &values), [values[0], values[2], values[5]]);
        assert_eq!(kept("a in []", &values), [""; 0]);
    }

    #[test]
    fn a_text_may_have_anything_in_it() {
        let values = [r#"{"a":"x and y","b":1}"#, r#"{"a":"x","b":1}"#];
        assert_eq!(kept(r#"a = "x and y" and b = 1"#, &values), values[..1]);
    }

    #[test]
    fn a_condition_that_is_none_is_named() {
        let said = |text: &str| Conditions::parse(text).unwrap_err().message().to_owned();
        let is_none = |text: &str| {
            format!(
                "config `where`: `{text}` does not begin with a condition, which is FIELD OP VALUE, where OP is =, !=, <, <=, > or >= \
                 and VALUE is JSON, or FIELD in [VALUE, ...], FIELD exists or FIELD missing"
            )
        };
        for wrong in ["", "a", "a ==", "a ~ 1", "a == x", "a in 1", "a in [x]", "a. = 1", "a=1"] {
            assert_eq!(said(wrong), is_none(wrong));
        }
        assert_eq!(said("a exists and b"), is_none("b"));
        assert_eq!(said("a = 1 or b = 2"), "config `where`: there is no ` and ` before `or b = 2`");
    }
}
