//! What is computed, as config `compute` says it.

use json_fields::Field;
use nodata_component::{Error, Result};
use serde_json::Value;

/// Results, and what has to be kept for them.
#[derive(Debug, PartialEq)]
pub(crate) struct Compute {
    pub(crate) results: Vec<Computed>,
    pub(crate) keep: Vec<Keep>,
}

/// One result.
#[derive(Debug, PartialEq)]
pub(crate) struct Computed {
    pub(crate) name: String,
    pub(crate) function: Function,
    /// Which of what is kept it is of. Several may be of one: a mean and a sum, quantiles of one field.
    pub(crate) keep: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Function {
    Count,
    Sum,
    Min,
    Max,
    Mean,
    Distinct,
    Quantile(f64),
}

/// What is kept of the values of a field.
#[derive(Debug, PartialEq)]
pub(crate) struct Keep {
    /// What it is called in an accumulator. It says what it is, so that it is found again whatever else is computed.
    pub(crate) name: String,
    pub(crate) what: What,
    /// `None`: of events, whatever is in them.
    pub(crate) field: Option<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Count,
    Sum,
    Min,
    Max,
    Distinct,
    Quantiles,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Count => "count",
            What::Sum => "sum",
            What::Min => "min",
            What::Max => "max",
            What::Distinct => "distinct",
            What::Quantiles => "quantiles",
        }
    }

    fn is_of_numbers(self) -> bool {
        !matches!(self, What::Count | What::Distinct)
    }
}

impl Function {
    /// With what has to be kept for it.
    fn parse(name: &str, argument: Option<&str>) -> Option<(Self, What)> {
        Some(match (name, argument) {
            ("count", None) => (Self::Count, What::Count),
            ("sum", None) => (Self::Sum, What::Sum),
            ("min", None) => (Self::Min, What::Min),
            ("max", None) => (Self::Max, What::Max),
            ("mean", None) => (Self::Mean, What::Sum),
            ("distinct", None) => (Self::Distinct, What::Distinct),
            ("median", None) => (Self::Quantile(0.5), What::Quantiles),
            ("quantile", Some(rank)) => {
                let rank = rank.trim().parse().ok().filter(|rank| (0.0..=1.0).contains(rank))?;
                (Self::Quantile(rank), What::Quantiles)
            }
            _ => return None,
        })
    }
}

impl Compute {
    /// `taken` are names that no result may have.
    pub(crate) fn parse(text: &str, mut taken: Vec<String>) -> Result<Self> {
        let mut compute = Self { results: Vec::new(), keep: Vec::new() };
        for text in pieces(text) {
            let (name, function, what, field) = computation(text.trim())?;
            if taken.contains(&name) {
                return Err(Error::permanent(format_args!(
                    "config `compute`: there is something else that is called `{name}`"
                )));
            }
            taken.push(name.clone());
            let called = match &field {
                None => what.name().to_owned(),
                Some(field) => format!("{}({})", what.name(), field.name()),
            };
            let keep = compute.keep.iter().position(|keep| keep.name == called).unwrap_or(compute.keep.len());
            if keep == compute.keep.len() {
                compute.keep.push(Keep { name: called, what, field });
            }
            compute.results.push(Computed { name, function, keep });
        }
        Ok(compute)
    }

    /// Why nothing can be computed of a value.
    pub(crate) fn accepts(&self, value: &Value) -> std::result::Result<(), String> {
        for field in self.keep.iter().filter(|keep| keep.what.is_of_numbers()).filter_map(|keep| keep.field.as_ref()) {
            if field.of(value).is_some_and(|value| !value.is_number()) {
                return Err(format!("field `{}` is no number", field.name()));
            }
        }
        Ok(())
    }
}

/// What is between commas that are not in parentheses.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        c == ',' && depth == 0
    })
}

fn computation(text: &str) -> Result<(String, Function, What, Option<Field>)> {
    let refused = || {
        Error::permanent(format_args!(
            "config `compute`: `{text}` is not NAME=count or NAME=FUNCTION(FIELD), where FUNCTION is count, sum, min, max, mean, \
             distinct or median, or NAME=quantile(FIELD,RANK) with a RANK from 0 to 1"
        ))
    };
    let (name, how) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(refused)?;
    if how == "count" {
        return Ok((name.to_owned(), Function::Count, What::Count, None));
    }
    let (function, inside) = how.strip_suffix(')').and_then(|how| how.split_once('(')).ok_or_else(refused)?;
    let (field, argument) = inside.split_once(',').map_or((inside, None), |(field, argument)| (field, Some(argument)));
    let (function, what) = Function::parse(function, argument).ok_or_else(refused)?;
    let field = Field::parse(field.trim()).ok_or_else(refused)?;
    Ok((name.to_owned(), function, what, Some(field)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_kept_once() {
        let compute = Compute::parse(
            "n=count,a=sum(x.y), b=mean(x.y),m=median(x.y),p=quantile( x.y , 0.99 ),d=distinct(x)",
            Vec::new(),
        )
        .unwrap();
        let kept: Vec<&str> = compute.keep.iter().map(|keep| keep.name.as_str()).collect();
        assert_eq!(kept, ["count", "sum(x.y)", "quantiles(x.y)", "distinct(x)"]);
        let results: Vec<_> =
            compute.results.iter().map(|result| (result.name.as_str(), result.function, result.keep)).collect();
        assert_eq!(
            results,
            [
                ("n", Function::Count, 0),
                ("a", Function::Sum, 1),
                ("b", Function::Mean, 1),
                ("m", Function::Quantile(0.5), 2),
                ("p", Function::Quantile(0.99), 2),
                ("d", Function::Distinct, 3)
            ]
        );
    }

    #[test]
    fn a_configuration_that_is_wrong_is_named() {
        let said = |text: &str| Compute::parse(text, vec!["carrier".to_owned()]).unwrap_err().message().to_owned();
        let wrong = [
            "n",
            "n=",
            "n=average(a)",
            "n=sum",
            "n=sum(a",
            "=count",
            "n=count()",
            "n=sum(a.)",
            "n=sum(a,b)",
            "n=quantile(a)",
            "n=quantile(a,1.1)",
            "n=quantile(a,-0.1)",
            "n=quantile(a,NaN)",
            "n=quantile(a,p99)",
            "n=median(a,0.5)",
            "",
        ];
        for wrong in wrong {
            let expected = format!(
                "config `compute`: `{wrong}` is not NAME=count or NAME=FUNCTION(FIELD), where FUNCTION is count, sum, min, max, mean, \
                 distinct or median, or NAME=quantile(FIELD,RANK) with a RANK from 0 to 1"
            );
            assert_eq!(said(wrong), expected);
            assert_eq!(said(&format!("ok=count,{wrong}")), expected);
        }
        for twice in ["carrier=count", "n=count,n=sum(a)"] {
            let name = if twice.starts_with('n') { "n" } else { "carrier" };
            assert_eq!(said(twice), format!("config `compute`: there is something else that is called `{name}`"));
        }
    }
}
