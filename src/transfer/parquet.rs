//! Tables as [Parquet]: typed columns, compressed with Snappy, which every
//! reader knows.
//!
//! | kind | Parquet |
//! | --- | --- |
//! | text | `BYTE_ARRAY` (`STRING`), by dictionary as long as that pays |
//! | integer, number, flag | `INT64`, `DOUBLE`, `BOOLEAN` |
//! | time | `INT64` (`TIMESTAMP`, microseconds, adjusted to UTC) |
//! | record | a group |
//! | list of records | a `LIST` of groups |
//!
//! A column of a row group is written in one piece, so rows are gathered by
//! column until there are [`MAX_ROWS`] or their texts have [`MAX_BYTES`].
//!
//! [Parquet]: https://parquet.apache.org/docs/file-format/

use std::{
    io::{self, Write},
    sync::Arc,
};

use parquet::{
    basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical},
    data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::types::{Type, TypePtr},
};

use super::sheet::{Cell, Field, Kind};

/// The most rows of a row group: about what DuckDB gives a thread.
const MAX_ROWS: usize = 100_000;

/// The most bytes of text in a row group, but for its last row.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// Writes rows as Parquet.
pub struct ParquetWriter<W: Write + Send> {
    /// In the order of the schema.
    leaves: Vec<Leaf>,
    rows: usize,
    bytes: usize,
    out: SerializedFileWriter<W>,
}

impl<W: Write + Send> ParquetWriter<W> {
    /// Begins a file of these columns.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written to.
    pub fn new(fields: &[Field], out: W) -> io::Result<Self> {
        let schema = Type::group_type_builder("callstate").with_fields(types(fields)?);
        let schema = Arc::new(schema.build().map_err(cause)?);
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let out = SerializedFileWriter::new(out, schema, Arc::new(properties)).map_err(cause)?;
        let leaves = fields.iter().flat_map(leaves).collect();
        Ok(Self { leaves, rows: 0, bytes: 0, out })
    }

    /// Writes a row, or keeps it until there are enough.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written to.
    pub fn write(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        let mut leaves = self.leaves.iter_mut();
        for cell in cells {
            match cell {
                Cell::Record(members) => {
                    for (member, leaf) in members.iter().zip(&mut leaves) {
                        self.bytes += leaf.push(member, false);
                    }
                }
                Cell::List(records) => {
                    let width = leaves.as_slice().first().map_or(0, |leaf| leaf.siblings);
                    for (place, leaf) in (&mut leaves).take(width).enumerate() {
                        if records.is_empty() {
                            leaf.push_empty_list();
                        }
                        for (index, members) in records.iter().enumerate() {
                            self.bytes += leaf.push(&members[place], index > 0);
                        }
                    }
                }
                cell => {
                    if let Some(leaf) = leaves.next() {
                        self.bytes += leaf.push(cell, false);
                    }
                }
            }
        }
        self.rows += 1;
        if self.rows >= MAX_ROWS || self.bytes >= MAX_BYTES {
            self.write_row_group()?;
        }
        Ok(())
    }

    /// Writes what is left, and the footer; gives the file back.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_row_group()?;
        self.out.into_inner().map_err(cause)
    }

    fn write_row_group(&mut self) -> io::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.out.next_row_group().map_err(cause)?;
        for leaf in &mut self.leaves {
            let column = group.next_column().map_err(cause)?;
            let column = column.expect("the schema has a column for each leaf");
            leaf.write_to(column).map_err(cause)?;
        }
        group.close().map_err(cause)?;
        self.rows = 0;
        self.bytes = 0;
        Ok(())
    }
}

/// A column as the format has it: one of values, with levels that say where
/// there is none ([definition] and repetition).
///
/// [definition]: https://parquet.apache.org/docs/file-format/nestedencoding/
struct Leaf {
    values: Values,
    is_optional: bool,
    is_in_list: bool,
    /// How many fields the group has that it is in; 1 where it is in none.
    siblings: usize,
    definition_levels: Vec<i16>,
    repetition_levels: Vec<i16>,
}

enum Values {
    /// One behind the other, and where each ends.
    Text {
        bytes: Vec<u8>,
        ends: Vec<usize>,
    },
    Integer(Vec<i64>),
    Number(Vec<f64>),
    Flag(Vec<bool>),
}

impl Leaf {
    /// Adds what a row has here; `is_further` where it is a further one of a
    /// list. Tells how many bytes of text that took.
    fn push(&mut self, cell: &Cell<'_>, is_further: bool) -> usize {
        let present = i16::from(self.is_in_list) + i16::from(self.is_optional);
        let is_null = matches!(cell, Cell::Null);
        debug_assert!(!is_null || self.is_optional, "what holds nothing may");
        self.definition_levels.push(present - i16::from(is_null));
        self.repetition_levels.push(i16::from(is_further));
        match (&mut self.values, cell) {
            (Values::Text { bytes, ends }, Cell::Text(text)) => {
                bytes.extend_from_slice(text.as_bytes());
                ends.push(bytes.len());
                return text.len();
            }
            (Values::Integer(values), Cell::Integer(number)) => values.push(*number),
            (Values::Integer(values), Cell::Time(at)) => values.push(at.timestamp_micros()),
            (Values::Number(values), Cell::Number(number)) => values.push(*number),
            (Values::Flag(values), Cell::Flag(flag)) => values.push(*flag),
            (_, cell) => assert!(is_null, "{cell:?} is not of the kind of its column"),
        }
        0
    }

    fn push_empty_list(&mut self) {
        self.definition_levels.push(0);
        self.repetition_levels.push(0);
    }

    /// Writes what was gathered, and forgets it.
    fn write_to(&mut self, mut column: SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let has_definitions = self.is_in_list || self.is_optional;
        let definitions = has_definitions.then_some(&self.definition_levels[..]);
        let repetitions = self.is_in_list.then_some(&self.repetition_levels[..]);
        match &mut self.values {
            Values::Text { bytes, ends } => {
                let text = ByteArray::from(std::mem::take(bytes));
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let values: Vec<ByteArray> =
                    starts.zip(&*ends).map(|(start, end)| text.slice(start, end - start)).collect();
                column.typed::<ByteArrayType>().write_batch(&values, definitions, repetitions)?;
                ends.clear();
            }
            Values::Integer(values) => {
                column.typed::<Int64Type>().write_batch(values, definitions, repetitions)?;
                values.clear();
            }
            Values::Number(values) => {
                column.typed::<DoubleType>().write_batch(values, definitions, repetitions)?;
                values.clear();
            }
            Values::Flag(values) => {
                column.typed::<BoolType>().write_batch(values, definitions, repetitions)?;
                values.clear();
            }
        }
        self.definition_levels.clear();
        self.repetition_levels.clear();
        column.close()
    }
}

/// The columns of a field.
fn leaves(field: &Field) -> Vec<Leaf> {
    let leaf = |field: &Field, is_in_list, siblings| Leaf {
        values: match field.kind {
            Kind::Text => Values::Text { bytes: Vec::new(), ends: Vec::new() },
            Kind::Integer | Kind::Time => Values::Integer(Vec::new()),
            Kind::Number => Values::Number(Vec::new()),
            Kind::Flag => Values::Flag(Vec::new()),
            Kind::Record(_) | Kind::List(_) => unreachable!("a group is in no group"),
        },
        is_optional: field.is_optional,
        is_in_list,
        siblings,
        definition_levels: Vec::new(),
        repetition_levels: Vec::new(),
    };
    match &field.kind {
        Kind::Record(fields) => fields.iter().map(|it| leaf(it, false, fields.len())).collect(),
        Kind::List(fields) => fields.iter().map(|it| leaf(it, true, fields.len())).collect(),
        Kind::Text | Kind::Integer | Kind::Number | Kind::Flag | Kind::Time => {
            vec![leaf(field, false, 1)]
        }
    }
}

fn types(fields: &[Field]) -> io::Result<Vec<TypePtr>> {
    fields.iter().map(|field| Ok(Arc::new(type_of(field)?))).collect()
}

fn type_of(field: &Field) -> io::Result<Type> {
    let (physical, logical) = match &field.kind {
        Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Kind::Integer => (Physical::INT64, None),
        Kind::Number => (Physical::DOUBLE, None),
        Kind::Flag => (Physical::BOOLEAN, None),
        Kind::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
        Kind::Record(fields) => {
            return group(field.name, Repetition::REQUIRED, None, types(fields)?);
        }
        Kind::List(fields) => {
            // As the format wants its lists: <https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#lists>
            let element = group("element", Repetition::REQUIRED, None, types(fields)?)?;
            let list = group("list", Repetition::REPEATED, None, vec![Arc::new(element)])?;
            let logical = Some(LogicalType::List);
            return group(field.name, Repetition::REQUIRED, logical, vec![Arc::new(list)]);
        }
    };
    let repetition = if field.is_optional { Repetition::OPTIONAL } else { Repetition::REQUIRED };
    let primitive = Type::primitive_type_builder(field.name, physical);
    primitive.with_repetition(repetition).with_logical_type(logical).build().map_err(cause)
}

fn group(
    name: &str,
    repetition: Repetition,
    logical: Option<LogicalType>,
    fields: Vec<TypePtr>,
) -> io::Result<Type> {
    let group = Type::group_type_builder(name).with_repetition(repetition);
    group.with_logical_type(logical).with_fields(fields).build().map_err(cause)
}

/// What befell the file, where it was that.
fn cause(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(cause) => io::Error::other(cause),
        },
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use parquet::{
        file::{
            metadata::RowGroupMetaData,
            reader::{FileReader, SerializedFileReader},
        },
        record::{ListAccessor as _, RowAccessor as _},
    };

    use super::*;

    fn fields() -> Vec<Field> {
        vec![
            Field::optional("number", Kind::Integer),
            Field::new("list", Kind::List(vec![Field::optional("text", Kind::Text)])),
        ]
    }

    fn read(file: Vec<u8>) -> SerializedFileReader<axum::body::Bytes> {
        SerializedFileReader::new(file.into()).unwrap()
    }

    fn sizes_of_groups(reader: &impl FileReader) -> Vec<i64> {
        reader.metadata().row_groups().iter().map(RowGroupMetaData::num_rows).collect()
    }

    #[test]
    fn rows_go_into_groups_of_a_bounded_number() {
        let rows = u32::try_from(MAX_ROWS).unwrap() * 2 + 3;
        let mut file = ParquetWriter::new(&fields(), Vec::new()).unwrap();
        for number in 0..rows {
            // Every third row has no number, every fourth an empty list.
            let texts = (0..number % 4).map(|_| vec![Cell::Null]).collect();
            file.write(&[Some(number).filter(|it| it % 3 > 0).into(), Cell::List(texts)]).unwrap();
            assert!(file.leaves.iter().all(|leaf| leaf.definition_levels.len() <= 4 * MAX_ROWS));
        }
        let reader = read(file.finish().unwrap());
        assert_eq!(sizes_of_groups(&reader), [100_000, 100_000, 3]);
        for (number, row) in (0..rows).zip(reader.get_row_iter(None).unwrap()) {
            let row = row.unwrap();
            let expected = Some(i64::from(number)).filter(|it| it % 3 > 0);
            assert_eq!(row.get_long(0).ok(), expected);
            assert_eq!(row.get_list(1).unwrap().len(), (number % 4) as usize);
        }
    }

    #[test]
    fn rows_go_into_groups_of_a_bounded_size() {
        let text = "x".repeat(MAX_BYTES / 4);
        let mut file = ParquetWriter::new(&fields(), Vec::new()).unwrap();
        for _ in 0..6 {
            let list = Cell::List(vec![vec![text.as_str().into()]]);
            file.write(&[Cell::Null, list]).unwrap();
            assert!(file.bytes < MAX_BYTES);
        }
        let reader = read(file.finish().unwrap());
        assert_eq!(sizes_of_groups(&reader), [4, 2]);
        for row in reader.get_row_iter(None).unwrap() {
            let row = row.unwrap();
            let list = row.get_list(1).unwrap();
            assert_eq!(list.len(), 1);
            assert_eq!(list.get_group(0).unwrap().get_string(0).unwrap(), &text);
        }
    }
}
