//! Rows as Arrow's record batches, and as a stream of them.
//!
//! | column | Arrow type |
//! |---|---|
//! | topic | dictionary of int32 and utf8; in Parquet utf8 |
//! | partition | int32 |
//! | offset | int64 |
//! | timestamp | timestamp of milliseconds, UTC; null for none |
//! | key, value | utf8 while all that was seen of the topic is; binary otherwise |
//! | headers | utf8: JSON; null without any |
//! | fields | bool, int64, float64, utf8 |

use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder,
    StringBuilder, TimestampMillisecondBuilder,
};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};

use crate::cells::{Cell, Cells};
use crate::columns::{Column, ColumnError, Columns};
use crate::encode::{Counts, EncodeError, Encoded, NewError};
use crate::row::Row;
use crate::schema::{FieldType, Schema, Shape};
use crate::text::put_headers;

/// A batch has this many rows at most.
const BATCH_ROWS_MAX: usize = 64 * 1024;
/// A batch ends with the row by which its records reach this many bytes.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
const UTC: &str = "UTC";

/// How topics stand in a table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Topics {
    Dictionary,
    Plain,
}

/// Rows on their way to be a record batch.
pub struct Table {
    cells: Cells,
    schema: SchemaRef,
    builders: Vec<Builder>,
    scratch: Vec<u8>,
    rows: usize,
    bytes: usize,
}

enum Builder {
    Topics(TopicBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Time(TimestampMillisecondBuilder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Bool(BooleanBuilder),
    Float(Float64Builder),
}

/// Few topics, and one for all rows as a rule.
#[derive(Default)]
struct TopicBuilder {
    names: Vec<String>,
    values: Option<ArrayRef>,
    keys: Vec<i32>,
}

impl TopicBuilder {
    fn push(&mut self, topic: &str) {
        let known = self.names.iter().position(|name| name == topic);
        let index = known.unwrap_or_else(|| {
            self.values = None;
            self.names.push(topic.to_owned());
            self.names.len() - 1
        });
        self.keys.push(i32::try_from(index).expect("few topics"));
    }

    fn finish(&mut self) -> Result<ArrayRef, EncodeError> {
        let names = &self.names;
        let values = self
            .values
            .get_or_insert_with(|| Arc::new(StringArray::from_iter_values(names)) as ArrayRef);
        let keys = Int32Array::from(std::mem::take(&mut self.keys));
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(
            keys,
            values.clone(),
        )?))
    }
}

impl Builder {
    fn of(data_type: &DataType) -> Builder {
        match data_type {
            DataType::Dictionary(..) => Builder::Topics(TopicBuilder::default()),
            DataType::Int32 => Builder::Int32(Int32Builder::new()),
            DataType::Int64 => Builder::Int64(Int64Builder::new()),
            DataType::Timestamp(..) => {
                Builder::Time(TimestampMillisecondBuilder::new().with_timezone(UTC))
            }
            DataType::Binary => Builder::Bytes(BinaryBuilder::new()),
            DataType::Boolean => Builder::Bool(BooleanBuilder::new()),
            DataType::Float64 => Builder::Float(Float64Builder::new()),
            _ => Builder::Text(StringBuilder::new()),
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, EncodeError> {
        Ok(match self {
            Builder::Topics(topics) => topics.finish()?,
            Builder::Int32(builder) => Arc::new(builder.finish()),
            Builder::Int64(builder) => Arc::new(builder.finish()),
            Builder::Time(builder) => Arc::new(builder.finish()),
            // The next batch is about as large.
            Builder::Text(builder) => {
                let (rows, bytes) = (builder.len(), builder.values_slice().len());
                let fresh = StringBuilder::with_capacity(rows, bytes);
                Arc::new(std::mem::replace(builder, fresh).finish())
            }
            Builder::Bytes(builder) => Arc::new(builder.finish()),
            Builder::Bool(builder) => Arc::new(builder.finish()),
            Builder::Float(builder) => Arc::new(builder.finish()),
        })
    }

    fn push_bytes(&mut self, bytes: Option<&[u8]>) {
        match self {
            Builder::Bytes(builder) => builder.append_option(bytes),
            Builder::Text(builder) => {
                let text = |bytes| std::str::from_utf8(bytes).expect("checked: its column is text");
                builder.append_option(bytes.map(text));
            }
            _ => unreachable!("keys and values are bytes or texts"),
        }
    }

    fn push_cell(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Builder::Bool(builder), Cell::Bool(value)) => builder.append_value(value),
            (Builder::Int64(builder), Cell::Int(number)) => builder.append_value(number),
            (Builder::Float(builder), Cell::Float(number)) => builder.append_value(number),
            (Builder::Text(builder), Cell::Text(text)) => builder.append_value(text),
            (Builder::Bool(builder), _) => builder.append_null(),
            (Builder::Int64(builder), _) => builder.append_null(),
            (Builder::Float(builder), _) => builder.append_null(),
            (Builder::Text(builder), _) => builder.append_null(),
            _ => unreachable!("a field has one of these types"),
        }
    }
}

impl Table {
    pub fn new(columns: Columns, schema: &Schema, topics: Topics) -> Result<Table, ColumnError> {
        let cells = Cells::new(columns, schema)?;
        let columns = cells.columns().iter().enumerate();
        let fields: Vec<Field> = columns
            .map(|(slot, column)| {
                let (data_type, nullable) = type_of(&cells, slot, column, topics);
                Field::new(column.name(), data_type, nullable)
            })
            .collect();
        let builders = fields.iter().map(|field| Builder::of(field.data_type()));
        Ok(Table {
            builders: builders.collect(),
            schema: Arc::new(ArrowSchema::new(fields)),
            cells,
            scratch: Vec::new(),
            rows: 0,
            bytes: 0,
        })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn counts(&self) -> Counts {
        self.cells.counts
    }

    /// What was seen by now.
    pub fn seen(&self) -> &Schema {
        self.cells.schema()
    }

    pub fn into_schema(self) -> (Counts, Schema) {
        self.cells.into_schema()
    }

    /// Takes a row; true once the batch is full.
    pub fn push(&mut self, row: &Row<'_>) -> Result<bool, EncodeError> {
        let text = self.cells.set(row)?;
        let record = &row.record;
        for (slot, builder) in self.builders.iter_mut().enumerate() {
            let column = self.cells.columns().iter().nth(slot).expect("a column");
            match (column, builder) {
                (Column::Topic, Builder::Topics(topics)) => topics.push(row.topic),
                (Column::Topic, Builder::Text(topics)) => topics.append_value(row.topic),
                (Column::Partition, Builder::Int32(partitions)) => {
                    partitions.append_value(row.partition.to_wire());
                }
                (Column::Offset, Builder::Int64(offsets)) => {
                    offsets.append_value(record.offset.to_wire());
                }
                (Column::Timestamp, Builder::Time(times)) => {
                    let time = record.timestamp;
                    times.append_option((!time.is_none()).then_some(time.millis()));
                }
                (Column::Key, builder) => builder.push_bytes(record.key),
                (Column::Value, Builder::Text(values)) => values.append_option(text),
                (Column::Value, builder) => builder.push_bytes(record.value),
                (Column::Headers, builder) if record.headers().is_empty() => {
                    builder.push_bytes(None);
                }
                (Column::Headers, builder) => {
                    self.scratch.clear();
                    put_headers(&mut self.scratch, record.headers());
                    builder.push_bytes(Some(&self.scratch));
                }
                (Column::Field(_), builder) => builder.push_cell(self.cells.cell(slot, text)),
                _ => unreachable!("a builder is of its column's type"),
            }
        }
        self.rows += 1;
        self.bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        Ok(self.rows >= BATCH_ROWS_MAX || self.bytes >= BATCH_BYTES)
    }

    /// What was pushed, as a batch. None if nothing was.
    pub fn take(&mut self) -> Result<Option<RecordBatch>, EncodeError> {
        if self.rows == 0 {
            return Ok(None);
        }
        (self.rows, self.bytes) = (0, 0);
        let arrays = self.builders.iter_mut().map(Builder::finish);
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        Ok(Some(RecordBatch::try_new(self.schema.clone(), arrays)?))
    }
}

/// A column's type, and whether it has nulls.
fn type_of(cells: &Cells, slot: usize, column: &Column, topics: Topics) -> (DataType, bool) {
    let shaped = |shape| match shape {
        Shape::Text => DataType::Utf8,
        Shape::Bytes => DataType::Binary,
    };
    let dictionary = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    match column {
        Column::Topic if topics == Topics::Dictionary => (dictionary(), false),
        Column::Topic => (DataType::Utf8, false),
        Column::Partition => (DataType::Int32, false),
        Column::Offset => (DataType::Int64, false),
        Column::Timestamp => {
            let unit = TimeUnit::Millisecond;
            (DataType::Timestamp(unit, Some(UTC.into())), true)
        }
        Column::Key => (shaped(cells.keys()), true),
        Column::Value => (shaped(cells.values()), true),
        Column::Headers => (DataType::Utf8, true),
        Column::Field(_) => match cells.kind(slot) {
            FieldType::Bool => (DataType::Boolean, true),
            FieldType::Int => (DataType::Int64, true),
            FieldType::Float => (DataType::Float64, true),
            FieldType::Text | FieldType::Json => (DataType::Utf8, true),
        },
    }
}

/// A stream of Arrow's IPC format.
pub struct ArrowStream {
    table: Table,
    writer: StreamWriter<Vec<u8>>,
}

impl ArrowStream {
    pub fn new(columns: Columns, schema: &Schema) -> Result<ArrowStream, NewError> {
        let table = Table::new(columns, schema, Topics::Dictionary)?;
        let writer = StreamWriter::try_new(Vec::new(), table.schema());
        let writer = writer.map_err(EncodeError::from)?;
        Ok(ArrowStream { table, writer })
    }

    pub fn push(&mut self, row: &Row<'_>) -> Result<(), EncodeError> {
        if self.table.push(row)? {
            self.flush()?;
        }
        Ok(())
    }

    pub fn flush(&mut self) -> Result<(), EncodeError> {
        if let Some(batch) = self.table.take()? {
            self.writer.write(&batch)?;
        }
        Ok(())
    }

    pub fn out(&mut self) -> &mut Vec<u8> {
        self.writer.get_mut()
    }

    pub fn counts(&self) -> Counts {
        self.table.counts()
    }

    pub fn schema(&self) -> &Schema {
        self.table.seen()
    }

    pub fn into_schema(self) -> Schema {
        self.table.into_schema().1
    }

    pub fn finish(mut self) -> Result<Encoded, EncodeError> {
        self.flush()?;
        self.writer.finish()?;
        let bytes = std::mem::take(self.writer.get_mut()).into();
        let (counts, schema) = self.table.into_schema();
        Ok(Encoded {
            bytes,
            counts,
            schema,
        })
    }
}
