//! Reads JSON objects field by field, so that every refusal names the field, what it holds and what is
//! accepted. Duplicate keys are refused: two readers of the same bytes must not see two manifests.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::ManifestError;

/// The most characters of a found value that are repeated in an error.
const SHOWN: usize = 80;

/// Any JSON in which no object has a key twice.
pub(super) struct Strict(pub Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (mut values, mut seen) = (Map::new(), HashSet::new());
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("the key {key:?} stands twice in one object")));
            }
            values.insert(key, map.next_value::<Strict>()?.0);
        }
        Ok(Value::Object(values))
    }
}

/// The fields of one object that have not been read yet.
pub(super) struct Fields {
    /// What precedes a field's name in errors: empty, or `image.`.
    prefix: String,
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    pub fn new(prefix: &str, value: Value) -> Result<Self, ManifestError> {
        match value {
            Value::Object(left) => Ok(Self { prefix: prefix.to_owned(), left, known: Vec::new() }),
            other => Err(wrong(prefix.trim_end_matches('.'), &other, "an object")),
        }
    }

    /// Call it last: whatever was not asked for is refused.
    pub fn finish(self) -> Result<(), ManifestError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(key) => Err(ManifestError::Unknown {
                field: format!("{}{}", self.prefix, key.chars().take(SHOWN).collect::<String>()),
                known: self.known.join(", "),
            }),
        }
    }

    /// A field that must be there; `read` answers `None` for what it does not accept.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        accepted: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, ManifestError> {
        let value = self.take(name).ok_or_else(|| ManifestError::Missing { field: self.name(name) })?;
        read(&value).ok_or_else(|| wrong(&self.name(name), &value, accepted))
    }

    /// A field that may be absent or null.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        accepted: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ManifestError> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(&value).map(Some).ok_or_else(|| wrong(&self.name(name), &value, accepted)),
        }
    }

    /// An object in this one.
    pub fn object(&mut self, name: &'static str) -> Result<Fields, ManifestError> {
        let value = self.take(name).ok_or_else(|| ManifestError::Missing { field: self.name(name) })?;
        Fields::new(&format!("{}.", self.name(name)), value)
    }

    /// A text of at most `max` bytes for which `good` holds.
    pub fn text(
        &mut self,
        name: &'static str,
        max: usize,
        accepted: &str,
        good: impl Fn(&str) -> bool,
    ) -> Result<String, ManifestError> {
        let value = self.required(name, accepted, |value| value.as_str().filter(|t| good(t)).map(str::to_owned))?;
        bounded(&self.name(name), value, max)
    }

    /// Texts of at most `max` bytes each; null is an empty list, as some encoders write it.
    pub fn texts(&mut self, name: &'static str, most: usize, max: usize) -> Result<Vec<String>, ManifestError> {
        let texts = self.required(name, "a list of texts", |value| match value {
            Value::Null => Some(Vec::new()),
            value => texts_in(value),
        })?;
        let field = self.name(name);
        if texts.len() > most {
            return Err(ManifestError::TooLong { field, found: texts.len(), unit: "entries", most });
        }
        texts.into_iter().map(|text| bounded(&field, text, max)).collect()
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.left.remove(name)
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

pub(super) fn texts_in(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|entry| entry.as_str().map(str::to_owned)).collect()
}

fn bounded(field: &str, text: String, most: usize) -> Result<String, ManifestError> {
    match text.len() {
        found if found > most => Err(ManifestError::TooLong { field: field.to_owned(), found, unit: "bytes", most }),
        _ => Ok(text),
    }
}

pub(super) fn wrong(field: &str, value: &Value, accepted: &str) -> ManifestError {
    let text = value.to_string();
    let mut found: String = text.chars().take(SHOWN).collect();
    if found.len() < text.len() {
        found.push('…');
    }
    let field = if field.is_empty() { "the document" } else { field }.to_owned();
    ManifestError::Wrong { field, found, accepted: accepted.to_owned() }
}
