//! The report as people read it: what is well first, what is bad last, just above the prompt. Pure.

use super::{Finding, Report, Verdict};

/// The narrowest column of text that is still wrapped.
const NARROWEST: usize = 24;
/// Before a remedy, which is never broken: it is there to be copied.
const REMEDY: &str = "    -> ";

/// `width` is the terminal's; `None`: one line each, to be searched.
pub fn report(report: &Report, width: Option<usize>) -> String {
    let column = |of: fn(&Finding) -> usize| report.findings.iter().map(of).max().unwrap_or_default();
    let verdicts = column(|finding| finding.verdict.name().len());
    let checks = column(|finding| finding.check.chars().count());
    let indent = verdicts + checks + 4;
    let room = width.map(|width| width.saturating_sub(indent).max(NARROWEST));
    let mut shown = String::new();
    for verdict in [Verdict::Ok, Verdict::Skipped, Verdict::Warning, Verdict::Bad] {
        for finding in together(report.findings.iter().filter(|finding| finding.verdict == verdict)) {
            let mut left = format!("{:verdicts$}  {:checks$}  ", verdict.name(), finding.check);
            for line in wrapped(&finding.seen, room) {
                shown.push_str(&format!("{left}{line}\n"));
                left = " ".repeat(indent);
            }
            for line in finding.remedy.iter().flat_map(|remedy| wrapped(remedy.words(), None)) {
                shown.push_str(&format!("{REMEDY}{line}\n"));
            }
        }
    }
    shown.push('\n');
    shown.push_str(&summary(report));
    shown.push('\n');
    shown
}

/// What was skipped for the same reason is one line.
fn together<'a>(findings: impl Iterator<Item = &'a Finding>) -> Vec<Finding> {
    let mut told: Vec<(Finding, Vec<String>)> = Vec::new();
    for finding in findings {
        match told.iter_mut().find(|(known, _)| known.verdict == Verdict::Skipped && known.seen == finding.seen) {
            Some((_, names)) => names.push(finding.check.clone()),
            None => told.push((finding.clone(), vec![finding.check.clone()])),
        }
    }
    let one = |(finding, names): (Finding, Vec<String>)| match names.len() {
        1 => finding,
        n => {
            Finding { check: format!("{n} checks"), seen: format!("{}: {}", finding.seen, names.join(", ")), ..finding }
        }
    };
    told.into_iter().map(one).collect()
}

/// `2 problems, 1 warning`
fn summary(report: &Report) -> String {
    let counted = |count, one: &str, many: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {many}")),
    };
    let told: Vec<String> = [
        counted(report.count(Verdict::Bad), "problem", "problems"),
        counted(report.count(Verdict::Warning), "warning", "warnings"),
        counted(report.unseen(), "check that matters was not made", "checks that matter were not made"),
    ]
    .into_iter()
    .flatten()
    .collect();
    match told.is_empty() {
        true => "nothing is wrong".to_owned(),
        false => told.join(", "),
    }
}

/// Broken between words; a word that is longer stays whole, to be copied. A text of several lines is one.
fn wrapped(text: &str, room: Option<usize>) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace().map(printable) {
        let line = lines.last().map_or(0, |line| line.chars().count());
        let fits = room.is_none_or(|room| line + 1 + word.chars().count() <= room);
        match lines.last_mut() {
            Some(last) if last.is_empty() => last.push_str(&word),
            Some(last) if fits => {
                last.push(' ');
                last.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

/// Nothing that is seen may command the terminal.
fn printable(word: &str) -> String {
    word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::refusal::{Code, Refusal};

    fn findings() -> Vec<Finding> {
        vec![
            Finding::bad(
                "application",
                Refusal::new(Code::NotRunning, "container processgit is exited (exit code 1)")
                    .command("docker compose up -d processgit"),
            ),
            Finding::ok("engine", "28.5.2, API 1.51"),
            Finding::warning(
                "trusted root",
                Refusal::new(
                    Code::RootOld,
                    "the built-in public Sigstore root of 2026-01-02 is 327 days old, \u{1b}[31mand keys change",
                )
                .setting("PROCESSGIT_UPDATER_TRUSTED_ROOT_REFRESH=true"),
            ),
            Finding::skipped("health", "the application does not run"),
            Finding::skipped("hooks", "none is set"),
            Finding::skipped("data", "the application does not run"),
        ]
    }

    #[test]
    fn in_a_terminal() {
        let at = jiff::Timestamp::UNIX_EPOCH;
        insta::assert_snapshot!(report(&Report::new(at, findings()), Some(60)), @r"
        ok       engine        28.5.2, API 1.51
        skipped  2 checks      the application does not run: health,
                               data
        skipped  hooks         none is set
        warning  trusted root  the built-in public Sigstore root of
                               2026-01-02 is 327 days old, �[31mand
                               keys change
            -> PROCESSGIT_UPDATER_TRUSTED_ROOT_REFRESH=true
        bad      application   container processgit is exited (exit
                               code 1)
            -> docker compose up -d processgit

        1 problem, 1 warning
        ");
    }

    #[test]
    fn one_line_each_where_nobody_looks() {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let shown = report(&Report::new(at, findings()), None);
        assert_eq!(shown.lines().count(), 5 + 2 + 2, "{shown}");
        assert!(shown.ends_with("\n\n1 problem, 1 warning\n"), "{shown}");
        assert!(report(&Report::new(at, vec![]), None).ends_with("nothing is wrong\n"));
    }
}
