//! Which generations are too many or too old. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The generation that holds what a failed attempt left; the job's id follows.
pub const LEFT_BY: &str = "failed-";

/// So many generations of attempts that were rolled back are kept: the data before, and what it left, of the last
/// two. More than one, because the second failure is where a person begins to compare.
const OF_ATTEMPTS: usize = 4;

/// What is kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keep<'a> {
    /// So many, the newest; those of attempts not counted.
    pub newest: usize,
    /// Nothing older; `None`: age does not matter.
    pub max_age: Option<Duration>,
    /// These, in any case.
    pub pinned: &'a [String],
    /// Of attempts that were rolled back. Those that are named so are among them anyway.
    pub attempts: &'a [String],
}

impl<'a> Keep<'a> {
    /// All but what is needed is too much.
    pub fn new(pinned: &'a [String], attempts: &'a [String]) -> Self {
        Self { pinned, attempts, ..Self::default() }
    }

    /// Chooses what to delete from `generations` (name and time, oldest first): of those of attempts what is
    /// beyond the newest four, of the others what is beyond the newest `newest`, of both what is too old;
    /// never the newest of the others, and never what is pinned.
    pub fn too_much<'g>(&self, generations: &[(&'g str, Timestamp)], now: Timestamp) -> Vec<&'g str> {
        let max_age = self.max_age.map(|age| SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX));
        let (mut of_attempts, mut others) = (0, 0);
        let newest_first = generations.iter().rev();
        let doomed = newest_first.filter(|(id, created_at)| {
            let has = |list: &[String]| list.iter().any(|known| known == id);
            let is_of_attempt = id.starts_with(LEFT_BY) || has(self.attempts);
            let (place, most) =
                if is_of_attempt { (&mut of_attempts, OF_ATTEMPTS) } else { (&mut others, self.newest.max(1)) };
            *place += 1;
            let is_newest = !is_of_attempt && *place == 1;
            let too_old = max_age.is_some_and(|most| now.duration_since(*created_at) > most);
            !is_newest && !has(self.pinned) && (*place > most || too_old)
        });
        doomed.map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_count_and_by_age_but_never_what_is_needed() {
        let day = Duration::from_secs(86_400);
        let now = Timestamp::from_second(100 * 86_400).unwrap();
        // `a` is the oldest, 26 days old; each next one is a day younger.
        type Case<'a> = (&'a str, usize, Option<u32>, &'a str, &'a str, &'a str);
        let cases: [Case<'_>; 16] = [
            ("a b c d e", 5, None, "", "", ""),
            ("a b c d e", 3, None, "", "", "b a"),
            ("a b c d e", 3, None, "a", "", "b"),
            ("a b c d e", 1, None, "c", "", "d b a"),
            ("a b c d e", 0, None, "", "", "d c b a"),
            ("a b c d e", 5, Some(24), "", "", "b a"),
            ("a b c d e", 5, Some(24), "b", "", "a"),
            ("a b c d e", 5, Some(0), "", "", "d c b a"),
            ("", 0, None, "", "", ""),
            // Two failures after the first update, and the operator keeps one snapshot.
            ("a b failed-b c failed-c", 1, None, "", "b c", ""),
            ("a failed-b failed-c", 1, None, "", "", ""),
            // The third.
            ("a b failed-b c failed-c d failed-d", 1, None, "", "b c d", "failed-b b"),
            ("a b failed-b c failed-c d failed-d", 1, None, "b", "b c d", "failed-b"),
            // Attempts that ended before they left anything.
            ("a b c d e f", 1, None, "", "b c d e f", "b"),
            ("failed-a failed-b", 1, Some(0), "", "", "failed-b failed-a"),
            // What came after them counts as ever.
            ("a failed-b failed-c d e", 2, None, "", "", "a"),
        ];
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (names, newest, max_age, pinned, attempts, doomed) in cases {
            let (pinned, attempts) = (words(pinned), words(attempts));
            let keep = Keep { newest, max_age: max_age.map(|days| day * days), pinned: &pinned, attempts: &attempts };
            let at = |n: usize| now - SignedDuration::from_hours(24 * (26 - n as i64));
            let all: Vec<(&str, Timestamp)> = names.split_whitespace().enumerate().map(|(n, id)| (id, at(n))).collect();
            let found = keep.too_much(&all, now).join(" ");
            assert_eq!(found, doomed, "{names}, keep {newest}, {max_age:?}, pinned {pinned:?}, attempts {attempts:?}");
        }
    }
}
