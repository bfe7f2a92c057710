//! Durations as people write them: `90s`, `2m`, `1h30m`. Go's syntax, which existing deployments use, and
//! days (`30d`).

use std::time::Duration;

/// Reads `90s`, `1h30m`, `1.5h`, `500ms`, `30d`, and `0`. The error says what would be accepted.
pub fn parse(text: &str) -> Result<Duration, String> {
    parse_or_none(text).ok_or_else(|| "a duration such as 90s, 2m or 1h30m is accepted".to_owned())
}

fn parse_or_none(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        sum = sum.checked_add(term(number, unit)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}

fn term(number: &str, unit: &str) -> Option<Duration> {
    let unit: Duration = match unit {
        "d" => Duration::from_secs(24 * 3600),
        "h" => Duration::from_secs(3600),
        "m" => Duration::from_secs(60),
        "s" => Duration::from_secs(1),
        "ms" => Duration::from_millis(1),
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = unit.checked_mul(whole.parse().ok()?)?;
    // Millionths are fine enough, and keep the power of ten within u32.
    let digits = u32::try_from(fraction.len()).ok().filter(|n| (1..=6).contains(n))?;
    let fraction: u32 = fraction.parse().ok()?;
    let part = unit.checked_mul(fraction)? / 10_u32.pow(digits);
    whole.checked_add(part)
}

/// As it is written in a message: `1h30m`, `90s` as `1m30s`, `0s`.
pub fn show(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s"), (millis.into(), "ms")];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        let table: &[(&str, Option<u64>)] = &[
            ("90s", Some(90_000)),
            ("2m", Some(120_000)),
            ("1h30m", Some(5_400_000)),
            ("1h1m1s1ms", Some(3_661_001)),
            ("30m1h", Some(5_400_000)),
            ("1.5h", Some(5_400_000)),
            ("0.25s", Some(250)),
            ("500ms", Some(500)),
            ("0s", Some(0)),
            ("0", Some(0)),
            ("", None),
            ("90", None),
            ("s", None),
            ("30d", Some(2_592_000_000)),
            ("1d12h", Some(129_600_000)),
            ("1w", None),
            ("1 m", None),
            ("-1s", None),
            ("+1s", None),
            ("1m30", None),
            ("1.s", None),
            (".s", None),
            ("1..5s", None),
            ("1s ", None),
            ("99999999999999999d", None),
            ("99999999999999999999s", None),
            ("1.0000001s", None),
        ];
        for (text, millis) in table {
            assert_eq!(parse(text).ok().map(|d| d.as_millis()), millis.map(u128::from), "{text:?}");
        }
    }

    #[test]
    fn shown_as_written() {
        for text in ["1h30m", "2m", "1m30s", "3s", "500ms", "0s", "168h"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
    }
}
