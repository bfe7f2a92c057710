//! What can be said of the settings alone. Pure.

use secrecy::ExposeSecret;

use super::{Doctor, Finding};
use crate::settings::{self, Fault, name};
use crate::update::refusal::{Code, Refusal};

/// A shorter token can be guessed.
const SHORT_TOKEN: usize = 16;
/// What stands in examples, or is typed to get on.
const NO_SECRETS: [&str; 8] = ["changeme", "change-me", "secret", "token", "password", "example", "test", "admin"];
/// Variables that the commands read, or Compose files interpolate, and `serve` does not.
const OTHERS: [&str; 2] = ["PROCESSGIT_UPDATER_URL", settings::default::SELF_VERSION_KEY];
/// Names are taken for a slip of a known one up to so many changed letters.
const SLIP: usize = 3;
const NEW_TOKEN: &str = "openssl rand -hex 32";

pub fn check(doctor: &Doctor) -> Vec<Finding> {
    let faults = &doctor.faults;
    let mut findings = told(faults);
    let own_key = doctor.settings.own.version_key.as_str();
    findings.push(names(doctor.names.iter().filter(|name| *name != own_key)));
    let has_token = !faults.iter().any(|fault| matches!(fault.variable, name::TOKEN | name::TOKEN_FILE));
    findings.extend(has_token.then(|| token(doctor.settings.token.expose_secret())));
    findings.push(match doctor.settings.stub {
        false => Finding::ok("stub", "off: Docker operations are real"),
        true => Finding::warning(
            "stub",
            Refusal::new(
                Code::Stub,
                "PROCESSGIT_UPDATER_STUB is true, or not set: every Docker operation is only simulated; `processgit-updater doctor --here --stub=false` looks at the real deployment",
            )
            .setting("PROCESSGIT_UPDATER_STUB=false"),
        ),
    });
    findings
}

fn told(faults: &[Fault]) -> Vec<Finding> {
    if faults.is_empty() {
        return vec![Finding::ok("settings", "all are understood")];
    }
    let fault = |fault: &Fault| {
        let why = Refusal::new(Code::SettingInvalid, fault.to_string());
        Finding::bad(
            "settings",
            match fault.variable {
                name::TOKEN if fault.value.is_none() => why.setting(format!("{}=$({NEW_TOKEN})", name::TOKEN)),
                variable => why.text(format!("correct {variable}")),
            },
        )
    };
    faults.iter().map(fault).collect()
}

/// A name that nobody knows is a setting that has no effect.
fn names<'a>(given: impl Iterator<Item = &'a String>) -> Finding {
    let known = settings::names();
    let is_known = |name: &&String| known.contains(name) || OTHERS.contains(&name.as_str());
    let unknown: Vec<&String> = given.filter(|name| !is_known(name)).collect();
    if unknown.is_empty() {
        return Finding::ok("names", "every PROCESSGIT_UPDATER_… variable is known");
    }
    let list: Vec<&str> = unknown.iter().map(|name| name.as_str()).collect();
    let remedies: Vec<String> = unknown
        .iter()
        .map(|name| match nearest(name, &known) {
            Some(meant) => format!("{name}: is {meant} meant?"),
            None => format!("{name}: take it out"),
        })
        .collect();
    let seen = format!("nobody knows {}: it has no effect", list.join(", "));
    Finding::warning("names", Refusal::new(Code::SettingUnknown, seen).text(remedies.join("; ")))
}

fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    let distance = |other: &&String| strsim::damerau_levenshtein(name, other);
    known.iter().min_by_key(distance).filter(|other| distance(other) <= SLIP)
}

fn token(token: &str) -> Finding {
    let lower = token.to_ascii_lowercase();
    if NO_SECRETS.contains(&lower.as_str()) {
        let seen = "PROCESSGIT_UPDATER_TOKEN is a word from an example: whoever reaches the API may update";
        return Finding::bad("token", Refusal::new(Code::TokenWeak, seen).command(NEW_TOKEN));
    }
    match token.chars().count() {
        long if long >= SHORT_TOKEN => Finding::ok("token", format!("set, {long} characters")),
        short => {
            let seen = format!("PROCESSGIT_UPDATER_TOKEN has {short} characters: it can be guessed");
            Finding::warning("token", Refusal::new(Code::TokenWeak, seen).command(NEW_TOKEN))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict::{self, Bad, Ok, Warning};

    #[test]
    fn names_and_tokens() {
        let unknown = |name: &str| names([name.to_owned()].iter());
        let rows: [(Finding, Verdict, &str); 9] = [
            (unknown("PROCESSGIT_UPDATER_STUB"), Ok, ""),
            (unknown("PROCESSGIT_UPDATER_URL"), Ok, ""),
            (unknown("PROCESSGIT_UPDATER_VERSION"), Ok, ""),
            (unknown("PROCESSGIT_UPDATER_HEALTHURL"), Warning, "is PROCESSGIT_UPDATER_HEALTH_URL meant?"),
            (unknown("PROCESSGIT_UPDATER_SNAPSHOTS"), Warning, "is PROCESSGIT_UPDATER_SNAPSHOT meant?"),
            (unknown("PROCESSGIT_UPDATER_COLOUR_OF_THE_SKY"), Warning, "take it out"),
            (token("changeMe"), Bad, NEW_TOKEN),
            (token("abcdefgh"), Warning, NEW_TOKEN),
            (token("0123456789abcdef"), Ok, ""),
        ];
        for (finding, verdict, remedy) in rows {
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.remedy.as_ref().map_or("", |r| r.words()).contains(remedy), "{finding:?}");
        }
        let shown = format!("{:?}", token("abcdefgh"));
        assert!(!shown.contains("abcdefgh"), "{shown}");
    }
}
