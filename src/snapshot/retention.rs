//! Which generations are too many or too old. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Chooses what to delete from `generations` (name and time, oldest first): everything beyond the newest
/// `keep`, and everything older than `max_age`; never the newest of all, and never what is pinned.
pub fn choose<'a>(
    generations: &[(&'a str, Timestamp)],
    keep: usize,
    max_age: Option<Duration>,
    pinned: &[&str],
    now: Timestamp,
) -> Vec<&'a str> {
    let max_age = max_age.map(|age| SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX));
    let newest_first = generations.iter().rev().enumerate();
    let doomed = newest_first.filter(|(place, (id, created_at))| {
        let too_old = max_age.is_some_and(|most| now.duration_since(*created_at) > most);
        *place > 0 && !pinned.contains(id) && (*place >= keep || too_old)
    });
    doomed.map(|(_, (id, _))| *id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_count_and_by_age_but_never_what_is_needed() {
        let day = Duration::from_secs(86_400);
        let now = Timestamp::from_second(100 * 86_400).unwrap();
        let old = |days: i64| Timestamp::from_second((100 - days) * 86_400).unwrap();
        let all = [("a", old(40)), ("b", old(30)), ("c", old(20)), ("d", old(10)), ("e", old(1))];
        type Case<'a> = (usize, Option<Duration>, &'a [&'a str], &'a [&'a str]);
        let cases: [Case<'_>; 8] = [
            (5, None, &[], &[]),
            (3, None, &[], &["b", "a"]),
            (3, None, &["a"], &["b"]),
            (1, None, &["c"], &["d", "b", "a"]),
            (0, None, &[], &["d", "c", "b", "a"]),
            (5, Some(25 * day), &[], &["b", "a"]),
            (5, Some(25 * day), &["b"], &["a"]),
            (5, Some(Duration::ZERO), &[], &["d", "c", "b", "a"]),
        ];
        for (keep, max_age, pinned, expected) in cases {
            assert_eq!(choose(&all, keep, max_age, pinned, now), expected, "{keep} {max_age:?} {pinned:?}");
        }
        assert!(choose(&[], 0, None, &[], now).is_empty());
    }
}
