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
        let fresh = Vec::with_capacity(self.keys.len());
        let keys = Int32Array::from(std::mem::replace(&mut self.keys, fresh));
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

    /// What was pushed. The next batch is about as large: the builder has room for it, and a little more.
    fn finish(&mut self) -> Result<ArrayRef, EncodeError> {
        let more = |count: usize| count + count / 8;
        Ok(match self {
            Builder::Topics(topics) => topics.finish()?,
            Builder::Int32(full) => {
                let rows = more(full.len());
                finish_and_replace(full, Int32Builder::with_capacity(rows))
            }
            Builder::Int64(full) => {
                let rows = more(full.len());
                finish_and_replace(full, Int64Builder::with_capacity(rows))
            }
            Builder::Time(full) => {
                let fresh = TimestampMillisecondBuilder::with_capacity(more(full.len()));
                finish_and_replace(full, fresh.with_timezone(UTC))
            }
            Builder::Text(full) => {
                let (rows, bytes) = (more(full.len()), more(full.values_slice().len()));
                finish_and_replace(full, StringBuilder::with_capacity(rows, bytes))
            }
            Builder::Bytes(full) => {
                let (rows, bytes) = (more(full.len()), more(full.values_slice().len()));
                finish_and_replace(full, BinaryBuilder::with_capacity(rows, bytes))
            }
            Builder::Bool(full) => {
                let rows = more(full.len());
                finish_and_replace(full, BooleanBuilder::with_capacity(rows))
            }
            Builder::Float(full) => {
                let rows = more(full.len());
                finish_and_replace(full, Float64Builder::with_capacity(rows))
            }
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

fn finish_and_replace<B: ArrayBuilder>(full: &mut B, fresh: B) -> ArrayRef {
    let mut full = std::mem::replace(full, fresh);
    ArrayBuilder::finish(&mut full)
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

/// Tables that are filled beside one another, for an output that is made of batches.
pub struct Parts {
    columns: Columns,
    /// What the columns were fixed by.
    schema: Schema,
    topics: Topics,
    /// To be filled again.
    spare: Vec<Table>,
    counts: Counts,
    seen: Schema,
}

/// One of them, and what of it is whole.
pub struct TablePart {
    table: Table,
    batches: Vec<RecordBatch>,
}

impl Parts {
    /// Of the same columns as a table that has no rows.
    pub fn of(table: &Table, topics: Topics) -> Parts {
        assert!(
            table.counts().rows == 0,
            "all rows go through parts, or none"
        );
        let schema = table.seen().clone();
        Parts {
            columns: table.cells.columns().clone(),
            seen: schema.clone(),
            schema,
            topics,
            spare: Vec::new(),
            counts: Counts::default(),
        }
    }

    pub fn part(&mut self) -> TablePart {
        let fresh = || Table::new(self.columns.clone(), &self.schema, self.topics);
        let table = self.spare.pop();
        TablePart {
            table: table.unwrap_or_else(|| fresh().expect("these columns were taken before")),
            batches: Vec::new(),
        }
    }

    /// Takes in the part with the next rows, and hands out its batches.
    pub fn put(
        &mut self,
        part: TablePart,
        mut each: impl FnMut(&RecordBatch) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let TablePart { mut table, batches } = part;
        batches.iter().try_for_each(&mut each)?;
        if let Some(batch) = table.take()? {
            each(&batch)?;
        }
        let counts = std::mem::take(&mut table.cells.counts);
        self.counts.rows += counts.rows;
        self.counts.undecodable += counts.undecodable;
        self.counts.unfit += counts.unfit;
        // Each part sees for itself what is new.
        let before = self.seen.fields.len();
        if table.seen() != &self.schema {
            self.seen.merge(table.seen());
        }
        self.counts.new_fields += (self.seen.fields.len() - before) as u64;
        self.spare.push(table);
        Ok(())
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn seen(&self) -> &Schema {
        &self.seen
    }
}

impl TablePart {
    pub fn push(&mut self, row: &Row<'_>) -> Result<(), EncodeError> {
        if self.table.push(row)? {
            self.batches.extend(self.table.take()?);
        }
        Ok(())
    }

    pub fn into_schema(self) -> Schema {
        self.table.into_schema().1
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
    /// What takes the rows in place of the table.
    parts: Option<Parts>,
    writer: StreamWriter<Vec<u8>>,
}

impl ArrowStream {
    pub fn new(columns: Columns, schema: &Schema) -> Result<ArrowStream, NewError> {
        let table = Table::new(columns, schema, Topics::Dictionary)?;
        let writer = StreamWriter::try_new(Vec::new(), table.schema());
        let writer = writer.map_err(EncodeError::from)?;
        Ok(ArrowStream {
            table,
            parts: None,
            writer,
        })
    }

    pub fn part(&mut self) -> TablePart {
        let parts = || Parts::of(&self.table, Topics::Dictionary);
        self.parts.get_or_insert_with(parts).part()
    }

    pub fn put(&mut self, part: TablePart) -> Result<(), EncodeError> {
        let parts = self.parts.as_mut().expect("a part was taken from it");
        parts.put(part, |batch| Ok(self.writer.write(batch)?))
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
        let parts = self.parts.as_ref();
        parts.map_or_else(|| self.table.counts(), Parts::counts)
    }

    pub fn schema(&self) -> &Schema {
        let parts = self.parts.as_ref();
        parts.map_or_else(|| self.table.seen(), Parts::seen)
    }

    pub fn into_schema(self) -> Schema {
        self.schema().clone()
    }

    pub fn finish(mut self) -> Result<Encoded, EncodeError> {
        self.flush()?;
        self.writer.finish()?;
        let bytes = std::mem::take(self.writer.get_mut()).into();
        let (counts, schema) = (self.counts(), self.schema().clone());
        Ok(Encoded {
            bytes,
            counts,
            schema,
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::Int64Type;
    use arrow_ipc::reader::StreamReader;
    use model::PartitionId;
    use model::batch::{Batch, BatchBuilder, Codec};
    use model::codec::DecompressLimit;

    use super::*;
    use crate::observer::Observer;
    use crate::{Encoder, Format};

    const ROWS: usize = 3_000;

    fn value(n: usize) -> String {
        match n % 3 {
            0 => format!("{{\"n\":{n}}}"),
            1 => format!("{{\"n\":{n},\"new\":true}}"),
            _ => "no object".to_owned(),
        }
    }

    fn batch() -> Batch {
        let mut builder = BatchBuilder::new(Codec::None);
        for n in 0..ROWS {
            let value = value(n);
            let time = model::Timestamp::from_millis(n as i64);
            let pushed = builder.push(time, Some(b"key"), Some(value.as_bytes()), &[]);
            pushed.expect("a record");
        }
        Batch::parse(builder.build().expect("a batch")).expect("a batch")
    }

    /// Shows each row.
    fn rows(mut each: impl FnMut(usize, &Row<'_>)) {
        let batch = batch();
        let mut records = batch.records(DecompressLimit::default()).expect("records");
        let mut number = 0;
        while let Some(record) = records.next_ref() {
            let row = Row {
                topic: "readings",
                partition: PartitionId::new(0),
                record: record.expect("a record"),
            };
            each(number, &row);
            number += 1;
        }
    }

    fn offsets(stream: &[u8]) -> Vec<i64> {
        let batches = StreamReader::try_new(stream, None).expect("a stream");
        let of = |batch: RecordBatch| {
            let offsets = batch.column_by_name("offset").expect("offsets");
            offsets.as_primitive::<Int64Type>().values().to_vec()
        };
        batches.flat_map(|it| of(it.expect("a batch"))).collect()
    }

    #[test]
    fn rows_in_parts_are_those_that_were_pushed_whichever_was_filled_first() {
        let mut observer = Observer::new(Schema::default());
        observer.observe(Some(b"key"), Some(b"{\"n\":1}"));
        let schema = observer.into_schema();
        for format in [Format::Arrow, Format::Parquet] {
            let encoder = || Encoder::new(format, None, &schema).expect("an encoder");
            let mut one = encoder();
            rows(|_, row| one.push(row).expect("a row"));
            let one = one.finish().expect("an end");

            let mut other = encoder();
            for first in [0, ROWS / 2] {
                let mut parts: Vec<_> = (0..3).map(|_| other.part().expect("a part")).collect();
                for at in [2, 0, 1] {
                    let range = first + at * ROWS / 6..first + (at + 1) * ROWS / 6;
                    rows(|number, row| {
                        if range.contains(&number) {
                            parts[at].push(row).expect("a row");
                        }
                    });
                }
                for part in parts {
                    other.put(part).expect("a part");
                }
            }
            let other = other.finish().expect("an end");
            assert_eq!(other.counts, one.counts);
            assert_eq!((one.counts.new_fields, one.counts.rows), (1, ROWS as u64));
            let fields = |schema: &Schema| {
                let fields = schema.fields.iter();
                fields
                    .map(|it| (it.path.clone(), it.kind))
                    .collect::<Vec<_>>()
            };
            assert_eq!(fields(&other.schema), fields(&one.schema));
            if format == Format::Arrow {
                let all: Vec<_> = (0..ROWS as i64).collect();
                assert_eq!(offsets(&one.bytes), all);
                assert_eq!(offsets(&other.bytes), all);
            }
        }
    }
}
