//! Text of a Compose file with its variables, as it is written: `$X`, `${X:-default}`, `${X:?message}`. Pure.
//!
//! The grammar is that of compose-go's `template` package.

use std::collections::BTreeMap;

use regex::Regex;

/// A text and the variables in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

/// A variable in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub otherwise: Otherwise,
}

/// What stands there when nothing gives the variable a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Otherwise {
    Nothing,
    /// `${X:-default}`
    Default(Template),
    /// `${X:?message}`: Compose refuses the files.
    Refused,
    /// `${X:+text}`: the value itself never stands there.
    Replaced(Template),
}

impl Template {
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            plain.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let (variable, length) = match () {
                () if after.starts_with('$') => (None, 1),
                () => match variable(after) {
                    Some((variable, length)) => (Some(variable), length),
                    None => (None, 0),
                },
            };
            match variable {
                Some(variable) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Variable(variable));
                }
                None => plain.push('$'),
            }
            rest = &after[length..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Self { parts }
    }

    /// All that stand in it, also those in the default of another one.
    pub fn variables(&self) -> Vec<&Variable> {
        let mut all = Vec::new();
        for part in &self.parts {
            let Part::Variable(variable) = part else { continue };
            all.push(variable);
            if let Otherwise::Default(inner) | Otherwise::Replaced(inner) = &variable.otherwise {
                all.extend(inner.variables());
            }
        }
        all
    }

    /// The whole text is this one variable.
    pub fn is_only(&self) -> Option<&Variable> {
        match &self.parts[..] {
            [Part::Variable(variable)] => Some(variable),
            _ => None,
        }
    }

    /// The text without any variable.
    fn plain(&self) -> Option<String> {
        let text = |part: &Part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Variable(_) => None,
        };
        self.parts.iter().map(text).collect()
    }

    /// The values with which the text becomes `result`; a variable whose default stands there is left out. `None`:
    /// no values do that, or several.
    pub fn solve(&self, result: &str) -> Option<BTreeMap<&str, String>> {
        let (mut pattern, mut of_variable) = ("^".to_owned(), false);
        let mut variables = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => {
                    pattern.push_str(&regex::escape(text));
                    of_variable = false;
                }
                // Where one ends and the next begins nobody knows.
                Part::Variable(_) if of_variable => return None,
                Part::Variable(Variable { otherwise: Otherwise::Replaced(_), .. }) => return None,
                Part::Variable(variable) => {
                    pattern.push_str("((?s).*?)");
                    variables.push(variable);
                    of_variable = true;
                }
            }
        }
        let found = Regex::new(&format!("{pattern}$")).ok()?.captures(result)?;
        let mut values: BTreeMap<&str, String> = BTreeMap::new();
        for (variable, value) in variables.iter().zip(found.iter().skip(1).flatten()) {
            let value = value.as_str();
            let is_default = match &variable.otherwise {
                Otherwise::Default(default) => default.plain().as_deref() == Some(value),
                _ => value.is_empty(),
            };
            if is_default {
                continue;
            }
            if values.insert(&variable.name, value.to_owned()).is_some_and(|other| other != value) {
                return None;
            }
        }
        Some(values)
    }
}

/// The variable that begins after a dollar, and its length.
fn variable(text: &str) -> Option<(Variable, usize)> {
    let name_of = |text: &str| {
        let is_of_name =
            |(at, c): &(usize, char)| *c == '_' || c.is_ascii_alphabetic() || (*at > 0 && c.is_ascii_digit());
        text.char_indices().take_while(is_of_name).count()
    };
    let Some(braced) = text.strip_prefix('{') else {
        let length = name_of(text);
        let variable = Variable { name: text[..length].to_owned(), otherwise: Otherwise::Nothing };
        return (length > 0).then_some((variable, length));
    };
    let end = closing(braced)?;
    let (name, how) = braced[..end].split_at(name_of(&braced[..end]));
    let otherwise = match how.strip_prefix(':').unwrap_or(how).split_at_checked(1) {
        None if how.is_empty() => Otherwise::Nothing,
        Some(("-", default)) => Otherwise::Default(Template::parse(default)),
        Some(("?", _)) => Otherwise::Refused,
        Some(("+", text)) => Otherwise::Replaced(Template::parse(text)),
        _ => return None,
    };
    (!name.is_empty()).then(|| (Variable { name: name.to_owned(), otherwise }, end + 2))
}

/// Where the brace ends that is open; others may be nested.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text, its variables with what stands there otherwise, and nothing else is one.
    #[test]
    fn variables_as_compose_reads_them() {
        for (text, expected) in [
            ("plain", ""),
            ("$X", "X"),
            ("${X}/a", "X"),
            ("$X-$Y.z", "X Y"),
            ("$$X $${X}", ""),
            ("${X:-8080}:80", "X-"),
            ("${X-8080}", "X-"),
            ("${X:-${Y:-z}}/${Z}", "X- Y- Z"),
            ("${X:?set X: it is needed}", "X?"),
            ("${X?}", "X?"),
            ("${X:+text}", "X+"),
            ("${X:-a}b}", "X-"),
            // No variables.
            ("${", ""),
            ("${}", ""),
            ("$1 ${1X} ${X!y}", ""),
            ("${X", ""),
        ] {
            let template = Template::parse(text);
            let shown = template.variables().into_iter().map(|variable| {
                let otherwise = match variable.otherwise {
                    Otherwise::Nothing => "",
                    Otherwise::Default(_) => "-",
                    Otherwise::Refused => "?",
                    Otherwise::Replaced(_) => "+",
                };
                format!("{}{otherwise}", variable.name)
            });
            assert_eq!(shown.collect::<Vec<_>>().join(" "), expected, "{text}");
        }
    }

    /// What is written, what stands there, and the values that lead from one to the other.
    #[test]
    fn values_are_found_out() {
        for (text, result, expected) in [
            ("${UID}:${GID}", "1000:1001", Some("GID=1001 UID=1000")),
            ("${X:-8080}:80", "9090:80", Some("X=9090")),
            ("${X:-8080}:80", "8080:80", Some("")),
            ("${X:-8080}:80", "9090:81", None),
            ("${X}/data", "/srv/a b/data", Some("X=/srv/a b")),
            ("a$X.b$X", "a1.b1", Some("X=1")),
            ("a$X.b$X", "a1.b2", None),
            ("$X$Y", "12", None),
            ("${X:+text}", "text", None),
            ("$$X", "$X", Some("")),
            ("${X:?}", "1", Some("X=1")),
            ("$X", "", Some("")),
        ] {
            let values = Template::parse(text);
            let values = values.solve(result).map(|values| {
                values.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(values.as_deref(), expected, "{text} {result}");
        }
    }
}
