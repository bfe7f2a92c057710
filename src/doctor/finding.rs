//! What a check says. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::text;
use crate::update::refusal::{Code, Refusal, Remedy};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    /// An update would work, but not as it should.
    Warning,
    /// An update would fail, or go wrong.
    Bad,
    /// Nothing was looked at; [`Finding::seen`] says why.
    Skipped,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Bad => "bad",
            Self::Skipped => "skipped",
        }
    }
}

/// One line of the report. A check may have several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check's name: `engine`, `.env`.
    pub check: String,
    pub verdict: Verdict,
    /// What was seen; names the thing and its value, never a secret.
    pub seen: String,
    /// Of what is not well, or of what could not be looked at although it matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What to do: a command where there is one.
    #[serde(flatten)]
    pub remedy: Option<Remedy>,
}

impl Finding {
    pub fn ok(check: &str, seen: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            verdict: Verdict::Ok,
            seen: text::clean_lines(&seen.into()).into_owned(),
            code: None,
            remedy: None,
        }
    }

    pub fn warning(check: &str, why: impl Into<Refusal>) -> Self {
        Self::of(check, Verdict::Warning, why.into())
    }

    pub fn bad(check: &str, why: impl Into<Refusal>) -> Self {
        Self::of(check, Verdict::Bad, why.into())
    }

    pub fn skipped(check: &str, because: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, ..Self::ok(check, because) }
    }

    /// Skipped although an update depends on it: nobody knows whether it is well.
    pub fn unseen(check: &str, because: &str) -> Self {
        Self { code: Some(Code::Busy), ..Self::skipped(check, because) }
    }

    /// Nothing is wrong with it, and it was looked at, unless there was nothing to look at.
    fn is_success(&self) -> bool {
        match self.verdict {
            Verdict::Ok | Verdict::Warning => true,
            Verdict::Bad => false,
            Verdict::Skipped => self.code.is_none(),
        }
    }

    fn of(check: &str, verdict: Verdict, why: Refusal) -> Self {
        Self { check: check.to_owned(), verdict, seen: why.what, code: Some(why.code), remedy: why.remedy }
    }
}

/// All of them, in an order that does not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Nothing is bad, and nothing that matters was left out.
    pub ok: bool,
    /// Of the program that looked.
    pub version: String,
    pub at: Timestamp,
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn new(at: Timestamp, findings: Vec<Finding>) -> Self {
        let ok = findings.iter().all(Finding::is_success);
        Self { ok, version: env!("CARGO_PKG_VERSION").to_owned(), at, findings }
    }

    /// With one more in front.
    #[must_use]
    pub fn after(self, first: Finding) -> Self {
        let findings = std::iter::once(first).chain(self.findings).collect();
        Self { version: self.version, ..Self::new(self.at, findings) }
    }

    /// Checks that matter and were not made.
    pub fn unseen(&self) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == Verdict::Skipped && finding.code.is_some()).count()
    }

    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }
}
