//! Columns that a topic declares: parts of its JSON values that its files have as columns of their own.
//!
//! The log keeps the declaration and checks it. Who writes the files reads it.

use crate::codec::{Put as _, Take};
use crate::limits::{COLUMN_NAME_BYTES_MAX, COLUMN_PATH_BYTES_MAX, COLUMNS_MAX};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use thiserror::Error;

/// A column of the files of a topic, with a part of its values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// `[a-zA-Z][a-zA-Z0-9_]{0,63}`, so that no query has to quote it.
    pub name: String,
    /// Where in a value it lies: names of members from the outermost object on, as in a JSON pointer (RFC 6901) that goes
    /// through objects only.
    pub path: String,
    pub column_type: ColumnType,
}

/// What a column holds, and what it is in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// `true` or `false`.
    Boolean,
    /// A number without a fraction and exponent that fits 64 bits.
    Int64,
    /// A number; the nearest double to it.
    Float64,
    /// A string.
    String,
    /// A string as in RFC 3339 with an offset, `2013-01-01T10:00:00Z`. Finer parts than a microsecond are cut off.
    Timestamp,
    /// A string `2013-01-01`.
    Date,
}

impl ColumnType {
    pub const ALL: [Self; 6] = [Self::Boolean, Self::Int64, Self::Float64, Self::String, Self::Timestamp, Self::Date];

    /// As it is written in a declaration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::String => "string",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ColumnType {
    type Err = ColumnError;

    fn from_str(text: &str) -> Result<Self, ColumnError> {
        let known = Self::ALL.into_iter().find(|known| known.name() == text);
        known.ok_or_else(|| ColumnError::Type { found: text.chars().take(64).collect() })
    }
}

/// Names that the files of every topic have already, and those of the folders around them.
const TAKEN: [&str; 4] = ["topic", "partition", "date", "value"];

/// What is wrong with a declaration of columns.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ColumnError {
    #[error(
        "column `{found}`: write it as NAME:TYPE or NAME=/PATH:TYPE, as in `carrier:string` or `city=/address/city:string`"
    )]
    Form { found: String },
    #[error("there is no column type `{found}`; there are boolean, int64, float64, string, timestamp and date")]
    Type { found: String },
    #[error(
        "column name `{name}`: it begins with a letter, has letters, digits and `_`, and at most \
         {COLUMN_NAME_BYTES_MAX} of them"
    )]
    Name { name: String },
    #[error("column name `{name}` is taken by nodata; choose another one, as in `my_{name}=/{name}:TYPE`")]
    Taken { name: String },
    #[error("column name `{name}` is given twice; queries do not tell upper from lower case")]
    Twice { name: String },
    #[error(
        "column `{name}`: path `{path}` is not a JSON pointer: it begins with `/`, has no control characters and no `~` \
         other than `~0` and `~1`, and at most {COLUMN_PATH_BYTES_MAX} bytes"
    )]
    Path { name: String, path: String },
    #[error("columns `{first}` and `{second}` have the same path `{path}`")]
    SamePath { first: String, second: String, path: String },
    #[error("{count} columns; a topic has at most {COLUMNS_MAX}")]
    TooMany { count: usize },
}

impl Column {
    /// A member of the outermost object.
    pub fn new(name: &str, column_type: ColumnType) -> Self {
        Self { name: name.to_owned(), path: format!("/{name}"), column_type }
    }

    /// The names on its path, from the outermost on.
    pub fn members(&self) -> impl Iterator<Item = String> + '_ {
        self.path.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"))
    }

    fn check(&self) -> Result<(), ColumnError> {
        let Self { name, path, .. } = self;
        let is_word = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_word || name.len() > COLUMN_NAME_BYTES_MAX {
            return Err(ColumnError::Name { name: name.chars().take(COLUMN_NAME_BYTES_MAX).collect() });
        }
        if TAKEN.iter().any(|taken| taken.eq_ignore_ascii_case(name)) {
            return Err(ColumnError::Taken { name: name.clone() });
        }
        let is_escaped = path.split('~').skip(1).all(|behind| behind.starts_with(['0', '1']));
        if !path.starts_with('/')
            || !is_escaped
            || path.len() > COLUMN_PATH_BYTES_MAX
            || path.contains(char::is_control)
        {
            let path = path.chars().take(64).collect();
            return Err(ColumnError::Path { name: name.clone(), path });
        }
        Ok(())
    }

    /// Checks the columns of a topic.
    pub fn check_all(columns: &[Self]) -> Result<(), ColumnError> {
        if columns.len() > COLUMNS_MAX {
            return Err(ColumnError::TooMany { count: columns.len() });
        }
        for (at, column) in columns.iter().enumerate() {
            column.check()?;
            if columns[..at].iter().any(|earlier| earlier.name.eq_ignore_ascii_case(&column.name)) {
                return Err(ColumnError::Twice { name: column.name.clone() });
            }
            // Then what all columns of an event hold is never more than the event.
            if let Some(first) = columns[..at].iter().find(|earlier| earlier.path == column.path) {
                let (first, second) = (first.name.clone(), column.name.clone());
                return Err(ColumnError::SamePath { first, second, path: column.path.clone() });
            }
        }
        Ok(())
    }

    pub(crate) fn encode_all(columns: &[Self], out: &mut Vec<u8>) {
        out.put_u32(columns.len() as u32);
        for column in columns {
            out.put_bytes(column.to_string().as_bytes());
        }
    }

    /// A record that ends before them has none.
    pub(crate) fn decode_all(take: &mut Take) -> Option<Arc<[Self]>> {
        let count = take.u32().unwrap_or(0);
        (0..count).map(|_| take.text()?.parse().ok()).collect()
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, path, column_type } = self;
        match path.strip_prefix('/') {
            Some(member) if member == name => write!(f, "{name}:{column_type}"),
            _ => write!(f, "{name}={path}:{column_type}"),
        }
    }
}

impl FromStr for Column {
    type Err = ColumnError;

    /// `NAME:TYPE`, or `NAME=/PATH:TYPE`.
    fn from_str(text: &str) -> Result<Self, ColumnError> {
        let (place, column_type) =
            text.rsplit_once(':').ok_or_else(|| ColumnError::Form { found: text.chars().take(64).collect() })?;
        let column_type = column_type.parse()?;
        let column = match place.split_once('=') {
            None => Self::new(place, column_type),
            Some((name, path)) => Self { name: name.to_owned(), path: path.to_owned(), column_type },
        };
        column.check()?;
        Ok(column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn parse(text: &str) -> Result<String, String> {
        text.parse::<Column>().map(|column| format!("{column:?}")).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_are_written_as_they_are_read() {
        for text in ["carrier:string", "city=/address/city:string", "a=/x~1y:z~0=/:int64", "X_1=/:date"] {
            assert_eq!(text.parse::<Column>().unwrap().to_string(), text);
        }
        let column: Column = "a=/x~1y/~01:boolean".parse().unwrap();
        assert_eq!(column.members().collect::<Vec<_>>(), ["x/y", "~1"]);
        let all: Vec<Column> = ["carrier:string", "at=/time/hour:timestamp"].map(|text| text.parse().unwrap()).into();
        let mut out = Vec::new();
        Column::encode_all(&all, &mut out);
        assert_eq!(Column::decode_all(&mut Take::new(Bytes::from(out))).as_deref(), Some(all.as_slice()));
        assert_eq!(Column::decode_all(&mut Take::new(Bytes::new())).as_deref(), Some([].as_slice()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |text: &str| parse(text).unwrap_err();
        assert!(wrong("carrier").starts_with("column `carrier`: write it as NAME:TYPE"));
        assert!(wrong("a:int").starts_with("there is no column type `int`; there are boolean, int64"));
        assert_eq!(
            wrong("Date:string"),
            "column name `Date` is taken by nodata; choose another one, as in `my_Date=/Date:TYPE`"
        );
        for name in ["", "_a", "a-b", "1a", "a b", "ä"] {
            assert!(
                wrong(&format!("{name}:string")).starts_with(&format!("column name `{name}`: it begins with a letter"))
            );
        }
        assert!(wrong(&format!("{}:string", "n".repeat(65))).contains("at most 64"));
        for path in ["", "x", "/~", "/~2", "/a\nb"] {
            assert!(wrong(&format!("a={path}:string")).contains("is not a JSON pointer"), "{path}");
        }
        let twice = ["a:string", "A:int64"].map(|text| text.parse().unwrap());
        assert!(Column::check_all(&twice).unwrap_err().to_string().starts_with("column name `A` is given twice"));
        let same = ["a:string", "b=/a:int64"].map(|text| text.parse().unwrap());
        assert_eq!(Column::check_all(&same).unwrap_err().to_string(), "columns `a` and `b` have the same path `/a`");
        let many: Vec<Column> = (0..257).map(|at| Column::new(&format!("c{at}"), ColumnType::Int64)).collect();
        assert_eq!(Column::check_all(&many).unwrap_err().to_string(), "257 columns; a topic has at most 256");
    }
}
