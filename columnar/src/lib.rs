//! Records as columns: NDJSON, CSV, Arrow and Parquet, the schema that is inferred from JSON values, and conditions on them.
//!
//! Callers: the HTTP front and the tools. Knows `model` only; no I/O but through what it is given, no clock.
//! Invariants: what is encoded is bounded by a batch, however many rows come; a record's bytes are in its row as they are,
//! whatever else is inferred of them; nothing panics on any value or body.

mod cells;
mod columns;
pub mod condition;
mod csv;
mod encode;
mod fields;
mod file;
mod ndjson;
mod observer;
mod outline;
mod reader;
mod row;
mod scan;
mod schema;
mod table;
mod text;

pub use columns::{Column, ColumnError, Columns, FIXED_NAMES};
pub use encode::{Counts, EncodeError, Encoded, Encoder, Format, NewError, Part};
pub use observer::{Observer, Seen};
pub use reader::{
    ArrowReader, BodyColumns, BodyError, BodyRow, BodyRows, Exact, ParquetReader, PlacedRow,
    RowReader, TimeUnit,
};
pub use row::Row;
pub use schema::{Field, FieldType, Schema, Shape};
