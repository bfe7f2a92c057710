//! Codes, and what people and programs see of a refusal.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::update::refusal::{Code, Does, Refusal, Refused};

/// `docs/codes.md` is the codes' table. `UPDATE_DOCS=1` writes it.
#[test]
fn the_page_of_codes_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/codes.md");
    let mut page = String::from(
        "# Codes\n\nEvery refusal, every finding of `doctor` that is not well, and the `reason` of every job that did \
         not do what it was asked for carries one of these codes. They stay; programs can decide by them. The sentence \
         beside a code is for people and may change.\n\nWhere the remedy is a command (`remedy_kind` is `command`), it \
         either removes the reason or only shows more of it; tests type the former on a real engine. What has no \
         command here may still come with one that shows more, such as `docker ps -a`.\n\n\
         | code | what it says | its command |\n|---|---|---|\n",
    );
    for (code, meaning) in Code::ALL {
        let does = match code.command() {
            Some(Does::Repairs) => "removes the reason",
            Some(Does::Shows) => "shows more",
            None => "",
        };
        let _ = writeln!(page, "| `{code}` | {meaning} | {does} |");
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page).unwrap();
    } else {
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            page,
            "docs/codes.md is stale: run this test with UPDATE_DOCS=1"
        );
    }
}

#[test]
fn codes_are_different_and_read_as_they_are_written() {
    let names: BTreeSet<_> = Code::ALL.iter().map(|(code, _)| code.name()).collect();
    assert_eq!(names.len(), Code::ALL.len());
    for (code, _) in Code::ALL {
        let name = code.name();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert_eq!(serde_json::to_value(code).unwrap(), name);
        assert_eq!(serde_json::from_value::<Code>(json!(name)).unwrap(), *code);
    }
    assert_eq!(serde_json::from_value::<Code>(json!("of_tomorrow")).unwrap(), Code::Other);
}

#[test]
fn a_refusal_as_people_and_programs_see_it() {
    let plain = || Refusal::new(Code::Drift, "there is no data");
    for (refusal, text, json) in [
        (plain(), "there is no data", json!({"code": "drift", "what": "there is no data"})),
        (
            plain().command("docker ps"),
            "there is no data. Run `docker ps`",
            json!({"code": "drift", "what": "there is no data", "remedy": "docker ps", "remedy_kind": "command"}),
        ),
        (
            plain().setting("A=b"),
            "there is no data. Set A=b",
            json!({"code": "drift", "what": "there is no data", "remedy": "A=b", "remedy_kind": "setting"}),
        ),
        (
            plain().text("look at it"),
            "there is no data. Look at it",
            json!({"code": "drift", "what": "there is no data", "remedy": "look at it", "remedy_kind": "text"}),
        ),
    ] {
        assert_eq!(refusal.to_string(), text);
        assert_eq!(serde_json::to_value(&refusal).unwrap(), json);
        assert_eq!(serde_json::from_value::<Refusal>(json).unwrap(), refusal);
    }
    let both = Refused(vec![plain().command("a"), plain()]);
    assert_eq!(both.to_string(), "there is no data. Run `a`; there is no data");
    assert_eq!(both.code(), Code::Drift);
}
