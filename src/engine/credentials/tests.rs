use super::*;

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn shown(lookup: &Lookup) -> String {
    match (&lookup.credential, &lookup.fault) {
        (Some(Credential::Login { username, password }), _) => format!("{username} {}", password.expose_secret()),
        (Some(Credential::IdentityToken(token)), _) => format!("token {}", token.expose_secret()),
        (None, Some(fault)) => fault.to_string(),
        (None, None) => "none".into(),
    }
}

/// alice:s3cret, bob:hub
const CONFIG: &str = r#"{"auths":{
    "ghcr.io":{"auth":"YWxpY2U6czNjcmV0"},
    "ghcr.io/acme":{"auth":"Ym9iOmh1Yg=="},
    "registry:5000":{"auth":"YWxpY2U6czNjcmV0"},
    "https://old.example/v2/":{"auth":"YWxpY2U6czNjcmV0"},
    "Upper.example":{"auth":"YWxpY2U6czNjcmV0"},
    "https://index.docker.io/v1/":{"auth":"Ym9iOmh1Yg=="},
    "docker.io/special":{"auth":"YWxpY2U6czNjcmV0"},
    "[::1]:5000":{"username":"alice","password":"s3cret"},
    "tokens.example":{"identitytoken":"refresh","auth":"YWxpY2U6"},
    "empty.example":{},
    "null.example":null,
    "broken.example":{"auth":"%%%"},
    "nocolon.example":{"auth":"YWxpY2U="}}}"#;

#[tokio::test]
async fn what_docker_login_stored_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, CONFIG).unwrap();
    for (repository, expected) in [
        ("ghcr.io/other/app", "alice s3cret"),
        ("ghcr.io/acme/app", "bob hub"),
        ("ghcr.io/acme/deep/app", "bob hub"),
        ("ghcr.io/acmeish/app", "alice s3cret"),
        ("GHCR.io/acme/app", "bob hub"),
        ("registry:5000/app", "alice s3cret"),
        ("old.example/app", "alice s3cret"),
        ("upper.example/app", "alice s3cret"),
        ("[::1]:5000/app", "alice s3cret"),
        ("acme/app", "bob hub"),
        ("nginx", "bob hub"),
        ("index.docker.io/acme/app", "bob hub"),
        ("registry-1.docker.io/acme/app", "bob hub"),
        ("special/app", "alice s3cret"),
        ("tokens.example/app", "token refresh"),
        ("empty.example/app", "none"),
        ("null.example/app", "none"),
        ("unknown.example/app", "none"),
    ] {
        assert_eq!(shown(&in_file(&file, &name(repository)).await), expected, "{repository}");
    }
    for broken in ["broken.example/app", "nocolon.example/app"] {
        let lookup = in_file(&file, &name(broken)).await;
        assert!(matches!(lookup.fault, Some(CredentialFault::BrokenEntry { .. })), "{lookup:?}");
    }
}

#[tokio::test]
async fn a_file_that_says_nothing_is_no_fault_and_a_broken_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    assert_eq!(shown(&in_file(&file, &name("ghcr.io/a/b")).await), "none");
    for (text, expected) in [
        ("", "none"),
        ("{}", "none"),
        (r#"{"auths":null,"credHelpers":null,"credsStore":""}"#, "none"),
        ("no json", "is not JSON as Docker writes it (line 1, column 2)"),
        (r#"{"auths": []}"#, "is not JSON as Docker writes it (line 1"),
        (r#"{"credsStore":"../evil"}"#, "names the credential helper \"../evil\", which is no name of a program"),
        (r#"{"credsStore":"h-registry-absent"}"#, "wants the credential helper docker-credential-h-registry-absent"),
        (r#"{"credHelpers":{"ghcr.io":"h-registry-absent"}}"#, "which is not installed here"),
        (r#"{"credHelpers":{"other.io":"h-registry-absent"}}"#, "none"),
    ] {
        std::fs::write(&file, text).unwrap();
        let lookup = in_file(&file, &name("ghcr.io/a/b")).await;
        assert!(shown(&lookup).contains(expected), "{text}: {lookup:?}");
        assert!(lookup.fault.is_none_or(|fault| !fault.remedy().is_empty()));
    }
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(matches!(in_file(&file, &name("a/b")).await.fault, Some(CredentialFault::Unreadable { .. })));
}

#[test]
fn secrets_are_not_printed() {
    let login = Credential::Login { username: "alice".into(), password: "s3cret".into() };
    assert!(!format!("{login:?}").contains("s3cret"));
}

/// Helpers are asked by their protocol, and none can hold an update up.
#[tokio::test]
async fn helpers() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let path = std::env::join_paths([folder.path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
    let login = r#"read server; printf '{"ServerURL":"%s","Username":"alice","Secret":"for %s"}' "$server" "$server""#;
    for (says, repository, expected) in [
        (login, "ghcr.io/a/b", "alice for ghcr.io"),
        (login, "acme/app", "alice for https://index.docker.io/v1/"),
        (r#"echo '{"Username":"<token>","Secret":"refresh"}'"#, "ghcr.io/a/b", "token refresh"),
        ("echo 'credentials not found in native keychain'; exit 1", "ghcr.io/a/b", "none"),
        ("echo 'credentials not found in native keychain'; exit 1", "kept.example/a", "alice s3cret"),
        (
            "printf 'gpg: \\033[1mdecryption failed:\\nno secret key'; exit 2",
            "ghcr.io/a/b",
            "the credential helper docker-credential-test failed: gpg: \u{fffd}[1mdecryption failed: no secret key",
        ),
        (
            "echo nonsense",
            "ghcr.io/a/b",
            "the credential helper docker-credential-test answers with something else than a login",
        ),
        ("yes", "ghcr.io/a/b", "the credential helper docker-credential-test answers with something else than a login"),
    ] {
        let helper = folder.path().join("docker-credential-test");
        std::fs::write(&helper, format!("#!/bin/sh\n{says}\n")).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = r#"{"credsStore":"test","auths":{"ghcr.io":{},"kept.example":{"auth":"YWxpY2U6czNjcmV0"}}}"#;
        std::fs::write(&file, config).unwrap();
        let lookup = found("", lookup(&file, Some(&path), &keys(&name(repository))).await);
        assert_eq!(shown(&lookup), expected, "{says}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_helper_that_hangs_is_ended() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let (file, helper) = (folder.path().join("config.json"), folder.path().join("docker-credential-test"));
    std::fs::write(&file, r#"{"credHelpers":{"ghcr.io":"test"}}"#).unwrap();
    std::fs::write(&helper, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::join_paths([folder.path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
    let lookup = found("", lookup(&file, Some(&path), &keys(&name("ghcr.io/a/b"))).await);
    assert_eq!(shown(&lookup), "the credential helper docker-credential-test did not answer within 10 s");
}
