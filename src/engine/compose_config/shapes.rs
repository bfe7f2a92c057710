//! The several ways in which Compose prints one thing: numbers as text, null for nothing, one text in the
//! place of a list, a list in the place of a map. Each function here reads all of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Null is the default.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// A map whose values may be null (`networks: {default: null}`); a list of names is a map of nulls.
pub fn map_or_default<'de, D, T>(d: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Shape<T> {
        Nothing(()),
        Map(BTreeMap<String, Option<T>>),
        Names(Vec<String>),
    }
    Ok(match Shape::deserialize(d)? {
        Shape::Nothing(()) => BTreeMap::new(),
        Shape::Map(map) => map.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect(),
        Shape::Names(names) => names.into_iter().map(|name| (name, T::default())).collect(),
    })
}

/// A scalar as text. Null is nothing.
fn text_of(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

/// One scalar; null and the empty text are none.
pub fn text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(text_of(Value::deserialize(d)?).filter(|text| !text.is_empty()))
}

/// `true`, `"true"`.
pub fn flag<'de, D: Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
    Ok(maybe_flag(d)?.unwrap_or_default())
}

/// As [`flag`], where it matters whether it was said at all.
pub fn maybe_flag<'de, D: Deserializer<'de>>(d: D) -> Result<Option<bool>, D::Error> {
    Ok(text_of(Value::deserialize(d)?).filter(|text| !text.is_empty()).map(|text| text == "true"))
}

/// `64`, `"64"`, and a size that nobody has resolved: `64m`, `1.5gb` (units of 1024, as Docker counts).
pub fn number<'de, D: Deserializer<'de>>(d: D) -> Result<Option<i64>, D::Error> {
    let Some(text) = text_of(Value::deserialize(d)?).filter(|text| !text.is_empty()) else { return Ok(None) };
    size_of(&text).map(Some).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no number")))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
fn size_of(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-' | '+')).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    match digits.parse::<i64>() {
        Ok(whole) => whole.checked_mul(1 << shift),
        Err(_) => digits.parse::<f64>().ok().map(|parts| (parts * (1_i64 << shift) as f64) as i64),
    }
}

/// `0.5`, `"0.5"`.
pub fn fraction<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    let Some(text) = text_of(Value::deserialize(d)?).filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| serde::de::Error::custom(format!("{text:?} is no number")))
}

/// A list of scalars; one scalar is a list of one.
pub fn list<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(maybe_list(d)?.unwrap_or_default())
}

/// As [`list`], where an empty list means another thing than none: `entrypoint: []`.
pub fn maybe_list<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<String>>, D::Error> {
    Ok(match Value::deserialize(d)? {
        Value::Null => None,
        Value::Array(items) => Some(items.into_iter().filter_map(text_of).collect()),
        one => Some(text_of(one).into_iter().collect()),
    })
}

/// `{A: "1", B: null}`, `["A=1", "B"]`; null is a variable that nobody has set.
pub fn pairs<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<String, Option<String>>, D::Error> {
    Ok(match Value::deserialize(d)? {
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, text_of(value))).collect(),
        Value::Array(items) => items.into_iter().filter_map(text_of).map(|item| pair(&item)).collect(),
        _ => BTreeMap::new(),
    })
}

fn pair(item: &str) -> (String, Option<String>) {
    match item.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (item.to_owned(), None),
    }
}

/// As [`pairs`], where nothing is the empty text: labels, options.
pub fn texts<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(pairs(d)?.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

/// `["db=10.0.0.1"]`, `["db:10.0.0.1"]`, `{db: 10.0.0.1}`, `{db: [10.0.0.1]}`: as the engine wants it,
/// `db:10.0.0.1`.
pub fn hosts<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(match Value::deserialize(d)? {
        Value::Array(items) => items.into_iter().filter_map(text_of).map(|item| item.replacen('=', ":", 1)).collect(),
        Value::Object(map) => {
            let addresses = |value: Value| match value {
                Value::Array(items) => items,
                one => vec![one],
            };
            let all = map.into_iter().flat_map(|(host, value)| {
                addresses(value).into_iter().filter_map(text_of).map(move |address| format!("{host}:{address}"))
            });
            all.collect()
        }
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes() {
        for (printed, expected) in [
            (json!(64), Some(64)),
            (json!("67108864"), Some(67_108_864)),
            (json!("64m"), Some(64 << 20)),
            (json!("1.5gb"), Some(1_610_612_736)),
            (json!("2KiB"), Some(2048)),
            (json!(-1), Some(-1)),
            (json!("-1"), Some(-1)),
            (json!(null), None),
            (json!(""), None),
        ] {
            assert_eq!(number(printed.clone()).unwrap(), expected, "{printed}");
        }
        assert!(number(json!("many")).is_err());
        assert!(number(json!("9223372036854775807t")).is_err(), "too much");
    }

    #[test]
    fn hosts_in_every_shape() {
        for printed in [
            json!(["db=10.0.0.1", "six=::1"]),
            json!(["db:10.0.0.1", "six:::1"]),
            json!({"db": "10.0.0.1", "six": ["::1"]}),
        ] {
            assert_eq!(hosts(printed.clone()).unwrap(), ["db:10.0.0.1", "six:::1"], "{printed}");
        }
    }
}
