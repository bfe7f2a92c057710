use serde_json::json;

use super::*;

fn good() -> Value {
    json!({
        "schema_version": 1,
        "name": "processgit",
        "version": "0.1.2",
        "tag": "v0.1.2",
        "released_at": "2026-01-31T12:00:00Z",
        "prerelease": false,
        "min_upgrade_from": "0.1.0",
        "image": {
            "registry": "ghcr.io",
            "repository": "algomation-ai/processgit",
            "tag": "0.1.2",
            "digest": format!("sha256:{}", "ab".repeat(32)),
            "platforms": ["linux/amd64", "linux/arm64/v8"],
            "additional_tags": ["0.1", "latest"],
        },
        "binaries": [{"os": "linux"}],
        "source": {"commit": "abc"},
        "build": {"any": ["thing", 1, null]},
        "signing": {
            "method": "cosign-keyless",
            "issuer": "https://token.actions.githubusercontent.com",
            "identity_regex": "^https://github\\.com/.*$",
            "rekor_log_index": 123,
        },
        "release_notes_url": "https://github.com/x/y/releases/tag/v0.1.2",
        "release_notes_markdown": "# Notes",
        "migration": {"required": true, "command": "app migrate --to 'v 2'", "estimated_downtime_seconds": 30},
        "breaking_changes": ["one"],
        "deprecations": [],
    })
}

fn parse(value: &Value) -> Result<Manifest, ManifestError> {
    Manifest::parse(value.to_string().as_bytes())
}

/// The good manifest with the value at a JSON pointer replaced, or added.
fn with(pointer: &str, value: Value) -> Value {
    let mut manifest = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    manifest.pointer_mut(parent).unwrap()[key] = value;
    manifest
}

fn without(pointer: &str) -> Value {
    let mut manifest = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    manifest.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).unwrap();
    manifest
}

fn refusal(bytes: &[u8]) -> String {
    Manifest::parse(bytes).unwrap_err().to_string()
}

#[test]
fn a_good_manifest_is_read_whole() {
    let manifest = parse(&good()).unwrap();
    assert_eq!(manifest.name, "processgit");
    assert_eq!((manifest.version.to_string().as_str(), manifest.tag.as_str()), ("0.1.2", "v0.1.2"));
    assert_eq!(manifest.released_at.to_string(), "2026-01-31T12:00:00Z");
    assert_eq!(manifest.min_upgrade_from, Some(Version::new(0, 1, 0)));
    assert_eq!(manifest.image_reference(), "ghcr.io/algomation-ai/processgit:0.1.2");
    assert_eq!(manifest.digest_reference(), format!("ghcr.io/algomation-ai/processgit@sha256:{}", "ab".repeat(32)));
    assert_eq!(manifest.image.platforms, ["linux/amd64", "linux/arm64/v8"]);
    assert_eq!(manifest.signing.rekor_log_index, Some(123));
    assert_eq!(manifest.migration.command.unwrap(), ["app", "migrate", "--to", "v 2"]);
    assert_eq!(manifest.migration.estimated_downtime_seconds, Some(30));
    assert_eq!((manifest.breaking_changes.len(), manifest.deprecations.len()), (1, 0));
}

#[test]
fn what_is_optional_may_be_absent_or_null() {
    let optional = [
        "/binaries",
        "/source",
        "/build",
        "/release_notes_markdown",
        "/image/additional_tags",
        "/signing/rekor_log_index",
        "/migration/estimated_downtime_seconds",
    ];
    for pointer in optional {
        assert!(parse(&without(pointer)).is_ok(), "{pointer} absent");
        assert!(parse(&with(pointer, Value::Null)).is_ok(), "{pointer} null");
    }
}

#[test]
fn every_other_field_is_missed() {
    let required = [
        "/schema_version",
        "/name",
        "/version",
        "/tag",
        "/released_at",
        "/prerelease",
        "/min_upgrade_from",
        "/image",
        "/image/registry",
        "/image/repository",
        "/image/tag",
        "/image/digest",
        "/image/platforms",
        "/signing",
        "/signing/method",
        "/signing/issuer",
        "/signing/identity_regex",
        "/release_notes_url",
        "/migration",
        "/migration/required",
        "/breaking_changes",
        "/deprecations",
    ];
    for pointer in required {
        let field = pointer[1..].replace('/', ".");
        let message = parse(&without(pointer)).unwrap_err().to_string();
        assert_eq!(message, format!("release.json: {field} is missing"));
    }
}

#[test]
fn other_spellings_that_are_good() {
    let digits = "0".repeat(64);
    let table = [
        ("/min_upgrade_from", Value::Null),
        ("/released_at", json!("2026-01-31t12:00:00.123456+05:30")),
        ("/prerelease", json!(true)),
        ("/image/registry", json!("localhost:5000")),
        ("/image/digest", json!(format!("sha256:{digits}"))),
        ("/release_notes_url", json!("")),
        ("/migration/command", json!(["app", "migrate", ""])),
        ("/breaking_changes", Value::Null),
    ];
    for (pointer, value) in table {
        assert!(parse(&with(pointer, value.clone())).is_ok(), "{pointer} {value}");
    }
    let mut pre = with("/version", json!("0.2.0-rc.1+b5"));
    pre["tag"] = json!("v0.2.0-rc.1+b5");
    assert_eq!(parse(&pre).unwrap().tag, "v0.2.0-rc.1+b5");
    let idle = with("/migration", json!({"required": false}));
    assert_eq!(parse(&idle).unwrap().migration.command, None);
}

#[test]
fn each_rule_broken_once() {
    let semver = "a SemVer version without v, such as 0.1.2";
    let time = "an RFC 3339 time, such as 2026-01-31T12:00:00Z";
    let registry = "host[:port] with a dot or a port in it, such as ghcr.io";
    let platform = "at least one os/arch[/variant], such as linux/amd64";
    let digest = "sha256: and 64 lowercase hexadecimal digits";
    let command = "a command of at most 4096 bytes, as one text or as a list of arguments";
    let required = "a command, because migration.required is true";
    let address = "an http or https address, or \"\"";
    let upper = format!("sha256:{}", "AB".repeat(32));
    let table: &[(&str, Value, &str)] = &[
        ("/schema_version", json!(2), "1"),
        ("/schema_version", json!("1"), "1"),
        ("/schema_version", json!(1.0), "1"),
        ("/name", json!(""), "the application's name"),
        ("/name", json!(7), "the application's name"),
        ("/version", json!("v0.1.2"), semver),
        ("/version", json!("0.1"), semver),
        ("/version", json!(0.1), semver),
        ("/version", json!("01.1.2"), semver),
        ("/tag", json!("0.1.2"), "\"v0.1.2\", which is v and the version"),
        ("/tag", json!("v0.1.3"), "\"v0.1.2\", which is v and the version"),
        ("/released_at", json!("yesterday"), time),
        ("/released_at", json!("2026-01-31"), time),
        ("/released_at", json!("2026-01-31 12:00:00Z"), time),
        ("/released_at", json!("2026-01-31T12:00:00"), time),
        ("/released_at", json!("2026-02-30T12:00:00Z"), time),
        ("/released_at", json!("2026-01-31T12:00:00Z[UTC]"), time),
        ("/released_at", json!("2026-01-31T12:00:00+0530"), time),
        ("/released_at", json!(1769860800), time),
        ("/prerelease", json!("false"), "true or false"),
        ("/prerelease", Value::Null, "true or false"),
        ("/min_upgrade_from", json!("v0.1.0"), "a SemVer version without v, or null"),
        ("/min_upgrade_from", json!(""), "a SemVer version without v, or null"),
        ("/image", json!("ghcr.io/x"), "an object"),
        ("/image", Value::Null, "an object"),
        ("/image/registry", json!("ghcr"), registry),
        ("/image/registry", json!("https://ghcr.io"), registry),
        ("/image/repository", json!("Algomation-AI/ProcessGit"), "lowercase path components, such as owner/name"),
        ("/image/repository", json!("a/../b"), "lowercase path components, such as owner/name"),
        ("/image/tag", json!("0.1.2 "), "letters, digits and _ . -, at most 128"),
        ("/image/tag", json!("$(reboot)"), "letters, digits and _ . -, at most 128"),
        ("/image/digest", json!("sha256:abc"), digest),
        ("/image/digest", json!(upper), digest),
        ("/image/platforms", json!([]), platform),
        ("/image/platforms", json!("linux/amd64"), platform),
        ("/image/platforms", json!(["amd64"]), platform),
        ("/image/platforms", json!(["linux/amd64", 1]), platform),
        ("/image/additional_tags", json!(["a b"]), "a list of at most 100 tags"),
        ("/signing/method", json!("gpg"), "\"cosign-keyless\""),
        ("/signing/issuer", json!(""), "the OIDC issuer"),
        ("/signing/identity_regex", json!([]), "a regular expression"),
        ("/signing/rekor_log_index", json!(-1), "a whole number"),
        ("/release_notes_url", json!("javascript:alert(1)"), address),
        ("/release_notes_url", Value::Null, address),
        ("/release_notes_markdown", json!(1), "a text of at most 262144 bytes"),
        ("/migration/required", json!(1), "true or false"),
        ("/migration/command", Value::Null, required),
        ("/migration/command", json!("open 'quote"), command),
        ("/migration/command", json!(["a", 1]), command),
        ("/migration/command", json!(["", "a"]), command),
        ("/migration/command", json!("a\0b"), command),
        ("/migration/estimated_downtime_seconds", json!(-1), "whole seconds, at most 604800"),
        ("/migration/estimated_downtime_seconds", json!(604801), "whole seconds, at most 604800"),
        ("/breaking_changes", json!("none"), "a list of texts"),
        ("/deprecations", json!([1]), "a list of texts"),
    ];
    for (pointer, value, accepted) in table {
        let field = pointer[1..].replace('/', ".");
        let message = parse(&with(pointer, value.clone())).unwrap_err().to_string();
        assert_eq!(message, format!("release.json: {field} is {value}; accepted is {accepted}"));
    }
    let empty = with("/migration/command", json!(" "));
    assert_eq!(
        parse(&empty).unwrap_err().to_string(),
        format!("release.json: migration.command is null; accepted is {required}")
    );
}

#[test]
fn fields_that_are_not_known_are_refused() {
    let table = [
        (
            "/extra",
            "release.json: extra is not known; schema version 1 has schema_version, name, version, tag, released_at, \
             prerelease, min_upgrade_from, image, signing, release_notes_url, release_notes_markdown, migration, \
             breaking_changes, deprecations, binaries, source, build there",
        ),
        (
            "/image/mirror",
            "release.json: image.mirror is not known; schema version 1 has registry, repository, tag, digest, \
             platforms, additional_tags there",
        ),
        (
            "/signing/key",
            "release.json: signing.key is not known; schema version 1 has method, issuer, identity_regex, \
             rekor_log_index there",
        ),
        (
            "/migration/shell",
            "release.json: migration.shell is not known; schema version 1 has required, command, \
             estimated_downtime_seconds there",
        ),
    ];
    for (pointer, message) in table {
        assert_eq!(parse(&with(pointer, json!(1))).unwrap_err().to_string(), message);
    }
}

#[test]
fn text_is_bounded() {
    let long = |n: usize| json!("x".repeat(n));
    let table = [
        ("/name", long(129), "name has 129 bytes; at most 128 are accepted"),
        ("/signing/issuer", long(2049), "signing.issuer has 2049 bytes; at most 2048 are accepted"),
        ("/breaking_changes", json!([long(4097)]), "breaking_changes has 4097 bytes; at most 4096 are accepted"),
        ("/deprecations", json!(vec!["x"; 101]), "deprecations has 101 entries; at most 100 are accepted"),
    ];
    for (pointer, value, message) in table {
        assert_eq!(parse(&with(pointer, value)).unwrap_err().to_string(), format!("release.json: {message}"));
    }
    let message = parse(&with("/migration/command", long(4097))).unwrap_err().to_string();
    assert!(message.contains("…") && message.len() < 300, "{message}");
}

#[test]
fn hostile_bytes() {
    let nested = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let twice = good().to_string().replacen("\"name\"", "\"name\":\"evil\",\"name\"", 1);
    let twice_inside = good().to_string().replacen("{\"any\"", "{\"any\":1,\"any\"", 1);
    let table: &[(&[u8], &str)] = &[
        (b"", "release.json is not the JSON that is accepted: EOF while parsing a value at line 1 column 0"),
        (b"{", "release.json is not the JSON that is accepted: EOF while parsing an object at line 1 column 1"),
        (b"{} {}", "release.json is not the JSON that is accepted: trailing characters at line 1 column 4"),
        (b"[]", "release.json: the document is []; accepted is an object"),
        (b"null", "release.json: the document is null; accepted is an object"),
        (b"{}", "release.json: schema_version is missing"),
        (b"{\"a\": 1e999}", "release.json is not the JSON that is accepted: number out of range at line 1 column 11"),
        (b"\xef\xbb\xbf{}", "release.json begins with a byte order mark; publish it without"),
        (b"{\"a\": \"\xff\"}", "release.json is not UTF-8: byte 7 is none; publish it as UTF-8"),
        (&vec![b' '; 16 << 20], "release.json has 16777216 bytes; at most 1048576 are accepted"),
    ];
    for (bytes, message) in table {
        assert_eq!(refusal(bytes), *message);
    }
    for text in [nested("[", "]"), nested("{\"a\":", "}")] {
        assert!(refusal(text.as_bytes()).contains("recursion limit exceeded"));
    }
    assert!(refusal(twice.as_bytes()).contains("the key \"name\" stands twice in one object"));
    assert!(refusal(twice_inside.as_bytes()).contains("the key \"any\" stands twice in one object"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256)) {
        let _ = Manifest::parse(&bytes);
    }

    #[test]
    fn no_flipped_byte_panics(at in 0..1000_usize, byte in proptest::num::u8::ANY) {
        let mut bytes = good().to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Manifest::parse(&bytes);
    }
}
