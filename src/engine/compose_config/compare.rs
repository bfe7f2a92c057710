//! Two configurations, place by place.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::ComposeConfig;

/// The longest value that is shown, in characters.
const LONGEST: usize = 120;
/// Under these keys stands free text in which people keep passwords: shown is where something differs, not
/// what stands there.
const SECRET: [&str; 8] = ["environment", "labels", "annotations", "content", "driver_opts", "options", "args", "test"];

/// One place at which two configurations differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The way to it: `services`, `app`, `volumes`, `0`, `source`.
    pub place: Vec<String>,
    /// `None`: there is nothing.
    pub old: Option<Value>,
    pub new: Option<Value>,
}

impl Difference {
    /// It is at this place or below it.
    pub fn is_in(&self, place: &[&str]) -> bool {
        self.place.len() >= place.len() && self.place.iter().zip(place).all(|(a, b)| a == b)
    }

    /// As people write a place: `services.app.volumes[0].source`.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.place {
            match step.parse::<usize>() {
                Ok(_) if !path.is_empty() => path.push_str(&format!("[{step}]")),
                _ if path.is_empty() => path.push_str(step),
                _ => path.push_str(&format!(".{step}")),
            }
        }
        path
    }

    fn is_secret(&self) -> bool {
        self.place.iter().any(|step| SECRET.contains(&step.as_str()))
    }
}

/// `volumes.data.name: data-1.0.0 -> data-1.1.0`
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path();
        match (&self.old, &self.new) {
            (None, Some(_)) if self.is_secret() => write!(f, "{path} appears"),
            (Some(_), None) if self.is_secret() => write!(f, "{path} disappears"),
            _ if self.is_secret() => write!(f, "{path} changes"),
            (old, new) => write!(f, "{path}: {} -> {}", shown(old.as_ref()), shown(new.as_ref())),
        }
    }
}

fn shown(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => return "nothing".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let cut = text.char_indices().nth(LONGEST).map(|(at, _)| at);
    cut.map_or(text.clone(), |at| format!("{}…", &text[..at]))
}

/// Every place at which the two differ, in order.
pub fn differences(old: &ComposeConfig, new: &ComposeConfig) -> Vec<Difference> {
    let value = |config: &ComposeConfig| serde_json::to_value(config).unwrap_or_default();
    let mut found = Vec::new();
    compare(&mut Vec::new(), Some(&value(old)), Some(&value(new)), &mut found);
    found
}

fn compare(place: &mut Vec<String>, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Difference>) {
    match (old, new) {
        _ if old == new => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                step(place, key, a.get(key), b.get(key), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for i in 0..a.len().max(b.len()) {
                step(place, &i.to_string(), a.get(i), b.get(i), found);
            }
        }
        _ => found.push(Difference { place: place.clone(), old: old.cloned(), new: new.cloned() }),
    }
}

fn step(place: &mut Vec<String>, to: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Difference>) {
    place.push(to.to_owned());
    compare(place, old, new, found);
    place.pop();
}
