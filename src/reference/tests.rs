use super::*;

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn with_digest(text: &str) -> String {
    text.replace("@sha256", &format!("@sha256:{HEX}"))
}

/// What is written, what it is in full, and what the engine lists it as. `@sha256` stands for a digest.
#[test]
fn the_normal_form() {
    let table = [
        // Docker Hub, with and without an owner, by all its names.
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"),
        ("library/nginx:1", "docker.io/library/nginx:1", "nginx:1"),
        ("docker.io/nginx:1", "docker.io/library/nginx:1", "nginx:1"),
        ("docker.io/library/nginx:1", "docker.io/library/nginx:1", "nginx:1"),
        ("index.docker.io/nginx:1", "docker.io/library/nginx:1", "nginx:1"),
        ("index.docker.io/acme/app:1", "docker.io/acme/app:1", "acme/app:1"),
        ("acme/app", "docker.io/acme/app:latest", "acme/app:latest"),
        ("docker.io/acme/app:1", "docker.io/acme/app:1", "acme/app:1"),
        ("library/team/app:1", "docker.io/library/team/app:1", "library/team/app:1"),
        ("a/b/c/d:1", "docker.io/a/b/c/d:1", "a/b/c/d:1"),
        // A first part with a dot or a port, `localhost`, or capitals is a registry.
        ("ghcr.io/acme/app:1", "ghcr.io/acme/app:1", "ghcr.io/acme/app:1"),
        ("registry-1.docker.io/acme/app:1", "registry-1.docker.io/acme/app:1", "registry-1.docker.io/acme/app:1"),
        ("registry:5000/app:1", "registry:5000/app:1", "registry:5000/app:1"),
        ("registry:5000/app", "registry:5000/app:latest", "registry:5000/app:latest"),
        ("registry/app:1", "docker.io/registry/app:1", "registry/app:1"),
        ("localhost/app:1", "localhost/app:1", "localhost/app:1"),
        ("localhost:5000/acme/app:1", "localhost:5000/acme/app:1", "localhost:5000/acme/app:1"),
        ("LOCALDOMAIN/app:1", "LOCALDOMAIN/app:1", "LOCALDOMAIN/app:1"),
        ("GHCR.io/acme/app:1", "GHCR.io/acme/app:1", "GHCR.io/acme/app:1"),
        ("10.0.0.7/app:1", "10.0.0.7/app:1", "10.0.0.7/app:1"),
        ("127.0.0.1:5000/app:1", "127.0.0.1:5000/app:1", "127.0.0.1:5000/app:1"),
        ("xn--n3h.com/app:xn--n3h.com", "xn--n3h.com/app:xn--n3h.com", "xn--n3h.com/app:xn--n3h.com"),
        // Addresses of IPv6, whose colons are no tag's.
        ("[::1]:5000/app:1", "[::1]:5000/app:1", "[::1]:5000/app:1"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("[2001:db8::1]/acme/app:1", "[2001:db8::1]/acme/app:1", "[2001:db8::1]/acme/app:1"),
        // One word with a colon has a tag, not a port; a lone host is a name on Docker Hub.
        ("app:5000", "docker.io/library/app:5000", "app:5000"),
        ("test.com:5000", "docker.io/library/test.com:5000", "test.com:5000"),
        ("192.168.0.1", "docker.io/library/192.168.0.1:latest", "192.168.0.1:latest"),
        ("localhost", "docker.io/library/localhost:latest", "localhost:latest"),
        ("foo_bar:8080", "docker.io/library/foo_bar:8080", "foo_bar:8080"),
        // Digests, also beside a tag.
        ("nginx@sha256", "docker.io/library/nginx@sha256", "nginx@sha256"),
        ("docker.io/acme/app:1@sha256", "docker.io/acme/app:1@sha256", "acme/app@sha256"),
        ("[::1]:5000/app:1@sha256", "[::1]:5000/app:1@sha256", "[::1]:5000/app@sha256"),
        // Every separator of the grammar.
        ("a.b/c_d/e__f/g--h/i.j:T_a.g-1", "a.b/c_d/e__f/g--h/i.j:T_a.g-1", "a.b/c_d/e__f/g--h/i.j:T_a.g-1"),
        ("dock---er/docker:1", "docker.io/dock---er/docker:1", "dock---er/docker:1"),
    ];
    for (written, full, familiar) in table {
        let (written, full, familiar) = (with_digest(written), with_digest(full), with_digest(familiar));
        let parsed = Reference::parse(&written).unwrap();
        let tag = parsed.effective_tag().map_or_else(String::new, |tag| format!(":{tag}"));
        let digest = parsed.digest().map_or_else(String::new, |digest| format!("@{digest}"));
        assert_eq!(format!("{}{tag}{digest}", parsed.name()), full, "{written}");
        assert_eq!(parsed.familiar(), familiar, "{written}");
        assert_eq!(parsed.to_string(), written);
        assert!(parsed.is_same(&Reference::parse(&familiar).unwrap()), "{written} is {familiar}");
        assert!(parsed.is_same(&Reference::parse(&full).unwrap()), "{written} is {full}");
    }
}

#[test]
fn what_is_no_reference() {
    let too_long = format!("a.b/{}", "a".repeat(256));
    let long_tag = format!("app:{}", "a".repeat(129));
    let id = format!("sha256:{HEX}");
    let short = format!("app@sha256:{}", &HEX[1..]);
    let shouted = format!("app@sha256:{}", HEX.to_uppercase());
    let other = format!("app@md5:{HEX}");
    let twice = format!("app@sha256:{HEX}@sha256:{HEX}");
    for (text, problem) in [
        ("", "lowercase words"),
        (":tag", "lowercase words"),
        ("app:", "tag"),
        ("app:a b", "tag"),
        ("app:a+b", "tag"),
        ("app:-a", "tag"),
        (&long_tag, "128 bytes"),
        (HEX, "image's id"),
        (&id, "image's id"),
        (&format!("@{id}"), "lowercase words"),
        (&short, "digest"),
        (&shouted, "digest"),
        (&other, "digest"),
        (&twice, "digest"),
        ("https://ghcr.io/acme/app", "before the first slash"),
        ("Upper:1", "must be lowercase"),
        ("acme/App:1", "must be lowercase"),
        ("ghcr.io/acme/App", "must be lowercase"),
        ("-acme/app", "lowercase words"),
        ("acme-/app", "lowercase words"),
        ("_a/_b", "lowercase words"),
        ("a..b/app", "before the first slash"),
        ("a/b..c", "lowercase words"),
        ("a/b_.c", "lowercase words"),
        ("a/b___c", "lowercase words"),
        ("acme///app", "lowercase words"),
        ("acme/", "lowercase words"),
        ("/app", "lowercase words"),
        (&too_long, "255 bytes"),
        ("a b", "lowercase words"),
        ("a$b/c", "lowercase words"),
        ("${IMAGE}:1", "lowercase words"),
        ("a.b:x/app", "before the first slash"),
        ("[::1]", "tag"),
        ("[::1]:5000", "lowercase words"),
        ("[::1]:tag", "lowercase words"),
        ("::1:5000/app", "before the first slash"),
        ("[fe80::1%eth0]:5000/app", "before the first slash"),
        ("[2001:db8::192.0.2.33]:5000/app", "before the first slash"),
        ("[::g]:5000/app", "before the first slash"),
        ("user@ghcr.io/app", "digest"),
    ] {
        let error = Reference::parse(text).map(|parsed| parsed.to_string()).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
        assert!(error.starts_with(&format!("{text:?} is not an image reference: ")), "{error}");
    }
    assert!(Reference::parse(&format!("a.b/{}:{}", "a".repeat(255), "b".repeat(128))).is_ok());
}

#[test]
fn one_image_by_two_names() {
    for (a, b, same) in [
        ("acme/app:1", "docker.io/acme/app:1", true),
        ("acme/app:1", "index.docker.io/acme/app:1", true),
        // The engine takes these for two; there is but one behind them.
        ("acme/app:1", "registry-1.docker.io/acme/app:1", true),
        ("nginx:1", "registry-1.docker.io/nginx:1", true),
        ("nginx:1", "registry-1.docker.io/library/nginx:1", true),
        ("Docker.IO/acme/app:1", "acme/app:1", true),
        ("GHCR.io/acme/app:1", "ghcr.io/acme/app:1", true),
        ("nginx", "nginx:latest", true),
        ("nginx", "docker.io/library/nginx:latest", true),
        ("nginx:1", "library/nginx:1", true),
        ("ghcr.io/app:1", "ghcr.io/library/app:1", false),
        ("acme/app:1", "acme/app:2", false),
        ("acme/app:1", "acme/app", false),
        ("acme/app:1", "ghcr.io/acme/app:1", false),
        ("acme/app:1", "localhost/acme/app:1", false),
        ("registry:5000/app:1", "registry/app:1", false),
        ("registry:5000/app:1", "registry:5001/app:1", false),
        ("app:1", "other:1", false),
        // A digest decides; a tag beside it does not.
        ("nginx@sha256", "docker.io/library/nginx:1@sha256", true),
        ("nginx:1@sha256", "nginx:2@sha256", true),
        ("nginx:1@sha256", "nginx:1", false),
        ("nginx@sha256", "nginx", false),
        // What is no reference is only itself.
        ("", "", true),
        ("a b", "a b", true),
        ("a b", "a c", false),
    ] {
        let (a, b) = (with_digest(a), with_digest(b));
        assert_eq!(is_same(&a, &b), same, "{a} {b}");
        assert_eq!(is_same(&b, &a), same, "{b} {a}");
    }
    let id = format!("sha256:{HEX}");
    assert!(is_same(&id, &id) && !is_same(&id, &format!("app@{id}")));
}

#[test]
fn a_registry_and_a_repository_make_a_name() {
    for (registry, repository, unified) in [
        ("ghcr.io", "acme/app", Some("ghcr.io/acme/app")),
        ("GHCR.io", "acme/app", Some("ghcr.io/acme/app")),
        ("docker.io", "acme/app", Some("docker.io/acme/app")),
        ("docker.io", "nginx", Some("docker.io/library/nginx")),
        ("index.docker.io", "nginx", Some("docker.io/library/nginx")),
        ("registry-1.docker.io", "nginx", Some("docker.io/library/nginx")),
        ("registry-1.docker.io", "acme/app", Some("docker.io/acme/app")),
        ("localhost", "app", Some("localhost/app")),
        ("[::1]:5000", "app", Some("[::1]:5000/app")),
        ("registry", "app", None),
        ("", "app", None),
        ("ghcr.io", "", None),
        ("ghcr.io", "app:1", None),
        ("ghcr.io", "App", None),
        ("ghcr.io/acme", "app", None),
        ("ghcr.io:0", "app", None),
        ("ghcr.io:70000", "app", None),
    ] {
        let made = Reference::of(registry, repository).ok();
        assert_eq!(made.as_ref().map(|name| name.unified().name()).as_deref(), unified, "{registry} {repository}");
        assert_eq!(made.map(|name| name.unified().to_string()).as_deref(), unified, "{registry} {repository}");
    }
}

#[test]
fn other_tags_and_digests_of_a_name() {
    let digest = format!("sha256:{HEX}");
    let both = Reference::parse(&format!("docker.io/acme/app:1@{digest}")).unwrap();
    assert_eq!(both.with_tag("2").to_string(), "docker.io/acme/app:2");
    assert_eq!(both.with_digest(&digest).to_string(), format!("docker.io/acme/app@{digest}"));
    assert_eq!(both.unified().to_string(), format!("docker.io/acme/app:1@{digest}"));
    assert_eq!(
        (both.registry(), both.repository(), both.written_name()),
        ("docker.io", "acme/app", "docker.io/acme/app")
    );
}

#[test]
fn the_version_is_the_tag() {
    let pinned = format!("ghcr.io/foo/bar@sha256:{HEX}");
    let both = format!("ghcr.io/foo/bar:0.1.2@sha256:{HEX}");
    let id = format!("sha256:{HEX}");
    let table: &[(&str, Option<&str>)] = &[
        ("ghcr.io/foo/bar:0.1.2", Some("0.1.2")),
        ("registry:5000/foo/bar:0.1", Some("0.1")),
        ("registry:5000/foo/bar", None),
        ("ghcr.io/foo/bar", None),
        ("repo@sha256:abc", None),
        (&pinned, None),
        (&both, Some("0.1.2")),
        (&id, None),
        ("0.1.2", Some("0.1.2")),
        ("v0.1.2", Some("v0.1.2")),
        ("latest", Some("latest")),
        ("redis:7", Some("7")),
        ("localhost:5000/a:b", Some("b")),
        ("[::1]:5000/a:b", Some("b")),
        ("[::1]:5000/a", None),
        ("0.1.2+build", None),
        ("foo:", None),
        ("foo:a b", None),
        ("", None),
        (":", None),
        ("@", None),
    ];
    for (reference, version) in table {
        assert_eq!(version_of(reference), *version, "{reference:?}");
    }
}

#[test]
fn registries() {
    for good in
        ["ghcr.io", "localhost", "localhost:5000", "registry:5000", "10.0.0.1:5000", "[::1]:5000", "docker.io", "LAN"]
    {
        assert!(is_registry(good), "{good}");
    }
    let bad = "|ghcr|https://ghcr.io|ghcr.io/|-a.b|a..b|a.b:|a.b:0|a.b:65536|a.b:+1|a_b.c|[::g]:1|a b.c|user@ghcr.io|ghcr.io:5000:1";
    for bad in bad.split('|') {
        assert!(!is_registry(bad), "{bad}");
    }
}

#[test]
fn repositories_tags_and_digests() {
    for good in ["a", "foo/bar", "a.b/c_d/e__f/g--h", "algomation-ai/processgit", "0/1"] {
        assert!(is_repository(good), "{good}");
    }
    for bad in ["", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "-a", "a-", "a:b", "a@b", "../a", "a b", "a.-b"] {
        assert!(!is_repository(bad), "{bad}");
    }
    assert!(is_repository(&"a".repeat(255)) && !is_repository(&"a".repeat(256)));
    assert!(is_tag("0.1.2") && is_tag("_x-Y.z") && is_tag(&"a".repeat(128)));
    assert!(!is_tag("") && !is_tag(".a") && !is_tag("-a") && !is_tag("a+b") && !is_tag(&"a".repeat(129)));
    let sha256 = format!("sha256:{HEX}");
    assert!(is_digest(&sha256) && is_sha256(&sha256));
    let sha512 = format!("sha512:{HEX}{HEX}");
    assert!(is_digest(&sha512) && !is_sha256(&sha512));
    for bad in [HEX.to_owned(), sha256.to_uppercase(), format!("sha512:{HEX}"), format!("{sha256}0"), "sha256:".into()]
    {
        assert!(!is_digest(&bad), "{bad}");
    }
}

proptest::proptest! {
    #[test]
    fn parsing_is_total_and_its_result_is_stable(text: String) {
        if let Ok(parsed) = Reference::parse(&text) {
            proptest::prop_assert_eq!(parsed.to_string(), text.clone());
            let again = Reference::parse(&parsed.familiar());
            proptest::prop_assert!(again.is_ok_and(|again| again.familiar() == parsed.familiar()));
        }
        let _ = (version_of(&text), is_registry(&text));
    }

    #[test]
    fn names_survive_their_normal_form(name in "([a-z]{1,4}[.:]?[0-9]{0,3}/)?[a-z0-9]{1,3}([._-][a-z0-9]{1,3})?(/[a-z]{1,3})?(:[a-zA-Z0-9_.-]{1,5})?") {
        if let Ok(parsed) = Reference::parse(&name) {
            for form in [parsed.familiar(), parsed.unified().to_string()] {
                proptest::prop_assert!(is_same(&name, &form), "{name} {form}");
            }
        }
    }
}
