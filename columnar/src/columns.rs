//! Which columns are wanted, by their names.
//!
//! Callers: who parses requests; the encoders. A field's column has its path as its name. Where that is the name of a fixed column, or
//! begins with `value.`, the name is `value.` and the path: so no two columns have one name, and `value.` may always be written.

use std::borrow::Cow;

use crate::schema::Schema;

/// The columns that each row has, in order.
pub const FIXED_NAMES: [&str; 7] = [
    "topic",
    "partition",
    "offset",
    "timestamp",
    "key",
    "headers",
    "value",
];
/// Columns that are chosen at most.
const COLUMNS_MAX: usize = 1_024;
const FIELD_PREFIX: &str = "value.";

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// The topic's name.
    Topic,
    /// The partition's number.
    Partition,
    /// The record's offset.
    Offset,
    /// Its time.
    Timestamp,
    /// Its key.
    Key,
    /// Its headers.
    Headers,
    /// Its value, as it is.
    Value,
    /// A field of its JSON value, by its path.
    Field(String),
}

const FIXED: [Column; 7] = [
    Column::Topic,
    Column::Partition,
    Column::Offset,
    Column::Timestamp,
    Column::Key,
    Column::Headers,
    Column::Value,
];

/// Columns that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// A name is empty.
    #[error("a column has no name")]
    Empty,
    /// A name stands twice.
    #[error("the column {0:?} is named twice")]
    Twice(String),
    /// The topic has no such field.
    #[error("the topic has no column {name:?}{}", similar.as_ref().map(|name| format!("; did you mean {name:?}?")).unwrap_or_default())]
    Unknown {
        /// What was asked for.
        name: String,
        /// A column that there is, and that differs in upper and lower case alone.
        similar: Option<String>,
    },
    /// Too many.
    #[error("{COLUMNS_MAX} columns can be chosen at most")]
    TooMany,
}

impl Column {
    /// The column with this name.
    pub fn parse(name: &str) -> Column {
        match FIXED_NAMES.iter().position(|fixed| *fixed == name) {
            Some(index) => FIXED[index].clone(),
            None => {
                let path = name.strip_prefix(FIELD_PREFIX).unwrap_or(name);
                Column::Field(path.to_owned())
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Column::Field(path)
                if FIXED_NAMES.contains(&path.as_str()) || path.starts_with(FIELD_PREFIX) =>
            {
                Cow::Owned(format!("{FIELD_PREFIX}{path}"))
            }
            Column::Field(path) => Cow::Borrowed(path),
            fixed => {
                let index = FIXED.iter().position(|column| column == fixed);
                Cow::Borrowed(FIXED_NAMES[index.expect("all but fields are fixed")])
            }
        }
    }
}

/// Columns, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(Vec<Column>);

impl FromIterator<Column> for Columns {
    fn from_iter<I: IntoIterator<Item = Column>>(columns: I) -> Columns {
        Columns(columns.into_iter().collect())
    }
}

impl Columns {
    /// Those that each row has.
    pub fn fixed() -> Columns {
        Columns(FIXED.to_vec())
    }

    /// Those that each row has, and all fields of the schema.
    pub fn all(schema: &Schema) -> Columns {
        let fields = schema.fields.iter();
        let fields = fields.map(|field| Column::Field(field.path.clone()));
        Columns(FIXED.into_iter().chain(fields).collect())
    }

    /// Names with commas between.
    pub fn parse(text: &str) -> Result<Columns, ColumnError> {
        let mut columns = Vec::new();
        for name in text.split(',').map(str::trim) {
            if name.is_empty() {
                return Err(ColumnError::Empty);
            }
            let column = Column::parse(name);
            if column == Column::Field(String::new()) {
                return Err(ColumnError::Empty);
            }
            if columns.contains(&column) {
                return Err(ColumnError::Twice(name.to_owned()));
            }
            if columns.len() == COLUMNS_MAX {
                return Err(ColumnError::TooMany);
            }
            columns.push(column);
        }
        Ok(Columns(columns))
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Column> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each field's place in the schema, in the columns' order. None for those that are no field.
    pub(crate) fn places(&self, schema: &Schema) -> Result<Vec<Option<usize>>, ColumnError> {
        let place = |column: &Column| {
            let Column::Field(path) = column else {
                return Ok(None);
            };
            let mut fields = schema.fields.iter();
            match fields.position(|field| field.path == *path) {
                Some(index) => Ok(Some(index)),
                None => Err(unknown(column, path, schema)),
            }
        };
        self.0.iter().map(place).collect()
    }
}

fn unknown(column: &Column, path: &str, schema: &Schema) -> ColumnError {
    let all = Columns::all(schema);
    let names = all.iter().map(|column| column.name().into_owned());
    let similar = names
        .into_iter()
        .find(|name| name.eq_ignore_ascii_case(path));
    ColumnError::Unknown {
        name: column.name().into_owned(),
        similar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fixed_columns_are_theirs() {
        for (name, column) in FIXED_NAMES.iter().zip(FIXED) {
            assert_eq!(Column::parse(name), column);
            assert_eq!(column.name(), *name);
        }
        let field = |path: &str| Column::Field(path.to_owned());
        for (path, name) in [
            ("temp", "temp"),
            ("offset", "value.offset"),
            ("value.x", "value.value.x"),
        ] {
            assert_eq!(field(path).name(), name);
            assert_eq!(Column::parse(name), field(path));
        }
        assert_eq!(Column::parse("value.temp"), field("temp"));
    }

    #[test]
    fn columns_are_chosen_by_name() {
        let columns = Columns::parse("offset, temp").expect("columns");
        assert_eq!(
            columns.0,
            [Column::Offset, Column::Field("temp".to_owned())]
        );
        assert_eq!(Columns::parse("a,,b"), Err(ColumnError::Empty));
        assert_eq!(
            Columns::parse("a,value.a"),
            Err(ColumnError::Twice("value.a".to_owned()))
        );
        let unknown = columns.places(&Schema::default());
        assert!(matches!(unknown, Err(ColumnError::Unknown { name, .. }) if name == "temp"));
    }
}
