//! Rows of a table: where one ends, and its cells by the names of their columns.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::RowError;
use super::mapping::{Format, Mapping};

/// Columns of a row, at most.
pub(super) const COLUMNS_MAX: usize = 4_096;

/// Reads rows one by one; the cells are those of the last one.
#[derive(Debug)]
pub(super) struct Rows {
    format: Format,
    delimiter: u8,
    /// The columns' names, in their order; none before the row that says them.
    names: Option<Vec<String>>,
    cells: Vec<String>,
}

impl Rows {
    pub(super) fn new(mapping: &Mapping) -> Self {
        Self {
            format: mapping.format,
            delimiter: u8::try_from(mapping.delimiter).unwrap_or(b','),
            names: match mapping.format {
                Format::Csv => mapping.columns.clone(),
                Format::Jsonl => Some(Vec::new()),
            },
            cells: Vec::new(),
        }
    }

    /// Are the columns' names known?
    pub(super) fn is_named(&self) -> bool {
        self.names.is_some()
    }

    /// Bytes of the first row, its line feed included. A line feed within quotes is part of a cell.
    pub(super) fn length(&self, bytes: &[u8]) -> Option<usize> {
        if self.format == Format::Jsonl {
            return memchr::memchr(b'\n', bytes).map(|at| at + 1);
        }
        let mut quoted = false;
        for at in memchr::memchr2_iter(b'"', b'\n', bytes) {
            match bytes[at] {
                b'"' => quoted = !quoted,
                _ if !quoted => return Some(at + 1),
                _ => {}
            }
        }
        None
    }

    /// Reads a row. Returns whether it is one: not an empty line, nor the names of the columns.
    pub(super) fn read(&mut self, row: &[u8]) -> Result<bool, RowError> {
        let text = std::str::from_utf8(row).map_err(|error| RowError::Form(error.to_string()))?;
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            return Ok(false);
        }
        if self.format == Format::Jsonl {
            self.object(text)?;
            return Ok(true);
        }
        self.cells.clear();
        // A byte order mark before the first name, as spreadsheets write it.
        split(text.trim_start_matches('\u{feff}'), self.delimiter, &mut self.cells)?;
        match &self.names {
            Some(names) if names.len() != self.cells.len() => {
                Err(RowError::Form(format!("{} cells, {} columns", self.cells.len(), names.len())))
            }
            Some(_) => Ok(true),
            None => {
                self.names = Some(std::mem::take(&mut self.cells));
                Ok(false)
            }
        }
    }

    /// A cell of the last row. Of two columns with one name the first is meant.
    pub(super) fn cell(&self, column: &str) -> Result<&str, RowError> {
        let names = self.names.as_deref().unwrap_or_default();
        let at = names.iter().position(|name| name == column);
        at.and_then(|at| self.cells.get(at)).map(String::as_str).ok_or_else(|| RowError::Missing(column.to_owned()))
    }

    fn object(&mut self, text: &str) -> Result<(), RowError> {
        let Fields(fields) = serde_json::from_str(text).map_err(|error| RowError::Form(error.to_string()))?;
        let (names, cells) = fields.into_iter().unzip();
        self.names = Some(names);
        self.cells = cells;
        Ok(())
    }
}

/// The cells of a CSV row: RFC 4180, section 2.
fn split(text: &str, delimiter: u8, cells: &mut Vec<String>) -> Result<(), RowError> {
    let mut rest = text;
    loop {
        if cells.len() >= COLUMNS_MAX {
            return Err(RowError::Form(format!("more than {COLUMNS_MAX} cells")));
        }
        let after = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut cell = String::new();
                let mut inside = quoted;
                // Two quotes are one that is meant; one alone ends the cell.
                let after = loop {
                    let end = inside.find('"').ok_or_else(|| RowError::Form("a quote that does not end".to_owned()))?;
                    cell.push_str(&inside[..end]);
                    inside = &inside[end + 1..];
                    match inside.strip_prefix('"') {
                        Some(more) => {
                            cell.push('"');
                            inside = more;
                        }
                        None => break inside,
                    }
                };
                cells.push(cell);
                after
            }
            None => {
                let end = memchr::memchr(delimiter, rest.as_bytes()).unwrap_or(rest.len());
                cells.push(rest[..end].to_owned());
                &rest[end..]
            }
        };
        match after.as_bytes().first() {
            None => return Ok(()),
            Some(&byte) if byte == delimiter => rest = &after[1..],
            Some(_) => return Err(RowError::Form("text after a quoted cell".to_owned())),
        }
    }
}

/// The fields of a JSON object as text: strings without their quotes, numbers with their own digits, null as nothing.
struct Fields(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, raw)) = map.next_entry::<String, &RawValue>()? {
                    if fields.len() >= COLUMNS_MAX {
                        return Err(serde::de::Error::custom(format_args!("more than {COLUMNS_MAX} fields")));
                    }
                    let raw = raw.get();
                    let text = match raw.as_bytes().first() {
                        Some(b'"') => serde_json::from_str(raw).map_err(serde::de::Error::custom)?,
                        _ if raw == "null" => String::new(),
                        _ => raw.to_owned(),
                    };
                    fields.push((name, text));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
