use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{CommandFactory, Parser};
use secrecy::ExposeSecret;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
}

/// The files that hold secrets in these tests.
fn files(path: &Path) -> io::Result<Vec<u8>> {
    match path.to_str() {
        Some("/run/secrets/token") => Ok(b"from-file\n".to_vec()),
        Some("/run/secrets/crlf") => Ok(b"from-file\r\n".to_vec()),
        Some("/run/secrets/empty") => Ok(b"\n".to_vec()),
        Some("/run/secrets/two-lines") => Ok(b"one\ntwo\n".to_vec()),
        Some("/run/secrets/binary") => Ok(b"\xff\xfe".to_vec()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    }
}

fn judge<S: Into<OsString>>(flags: impl IntoIterator<Item = S>) -> Result<Settings, Vec<Fault>> {
    let args = std::iter::once(OsString::from("serve")).chain(flags.into_iter().map(Into::into));
    Settings::from(Cli::try_parse_from(args).unwrap_or_else(|e| panic!("{e}")).serve, files)
}

/// With a good token and one more setting.
fn with(flag: &str, value: &str) -> Result<Settings, Vec<Fault>> {
    judge(["--token=t".to_owned(), format!("{flag}={value}")])
}

fn faults(result: Result<Settings, Vec<Fault>>) -> Vec<String> {
    result.err().unwrap_or_default().iter().map(Fault::to_string).collect()
}

#[test]
fn nothing_but_a_token_gives_the_documented_defaults() {
    let s = judge(["--token", "t"]).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(s.listen, Listen::Tcp("[::]:9000".parse().unwrap()));
    assert_eq!(s.state_dir, PathBuf::from("/var/lib/processgit-updater"));
    assert_eq!(s.repo, Repo { owner: "Algomation-AI".into(), name: "ProcessGit".into() });
    assert_eq!(s.github_api.as_str(), "https://api.github.com/");
    assert!(s.github_token.is_none());
    assert_eq!((s.app_name.as_str(), s.app_container.as_str()), ("processgit", "processgit"));
    assert_eq!((s.app_service, s.version_key.as_str()), (None, "PROCESSGIT_VERSION"));
    assert_eq!(s.compose_file, PathBuf::from("/deploy/docker-compose.yml"));
    assert_eq!(s.env_file, PathBuf::from("/deploy/.env"));
    assert_eq!(s.health.target.to_string(), "http://processgit:3000/api/v1/version");
    assert_eq!((s.health.timeout, s.health.interval, s.health.stable), (seconds(120), seconds(3), seconds(3)));
    assert!(s.health.version.is_none());
    assert_eq!((s.signing.key, s.signing.trusted_root, s.signing.verify_image), (None, None, true));
    assert_eq!(s.signing.issuer, "https://token.actions.githubusercontent.com");
    assert_eq!(
        s.signing.identity_regex,
        r"^https://github\.com/Algomation\-AI/ProcessGit/\.github/workflows/release\.yml@refs/tags/v.*$"
    );
    assert_eq!((s.snapshot.on, s.snapshot.keep), (true, 5));
    assert_eq!(s.snapshot.dir, PathBuf::from("/var/lib/processgit-updater/snapshots"));
    assert_eq!((s.snapshot.max_age, s.snapshot.exclude.len(), s.stop_services.len()), (None, 0, 0));
    assert_eq!((s.move_services, s.hooks), (Vec::<String>::new(), Hooks::default()));
    assert_eq!(s.migration_timeout, seconds(1800));
    assert_eq!((s.signing.refreshed_root, s.ca_file), (None, None));
    let own = s.own;
    assert_eq!((own.name.as_str(), own.version_key.as_str()), ("processgit-updater", "PROCESSGIT_UPDATER_VERSION"));
    assert_eq!(own.repo.to_string(), "Algomation-AI/processgit-updater");
    assert!(own.identity_regex.contains("processgit\\-updater/\\.github/workflows/release"), "{}", own.identity_regex);
    assert_eq!((s.stub, s.debug), (true, false));
}

#[test]
fn every_variable_of_the_contract_is_a_flag_of_its_name() {
    let mut found = Vec::new();
    for arg in Cli::command().get_arguments().filter(|arg| arg.get_long().is_some_and(|long| long != "help")) {
        let flag = arg.get_long().unwrap();
        let variable = arg.get_env().unwrap_or_else(|| panic!("--{flag} has no variable")).to_str().unwrap();
        assert_eq!(variable, format!("PROCESSGIT_UPDATER_{}", flag.to_uppercase().replace('-', "_")));
        assert_eq!(arg.is_hide_env_values_set(), flag.ends_with("token"), "--{flag}");
        found.push(variable.trim_start_matches("PROCESSGIT_UPDATER_").to_owned());
    }
    let contract = "TOKEN TOKEN_FILE LISTEN STATE_DIR REPO GITHUB_API GITHUB_TOKEN GITHUB_TOKEN_FILE GITHUB_TOKEN_HOSTS APP_NAME \
         APP_CONTAINER APP_SERVICE VERSION_KEY COMPOSE_FILE ENV_FILE HEALTH_URL HEALTH_TIMEOUT HEALTH_INTERVAL \
         HEALTH_STABLE HEALTH_VERSION SIGNING_KEY SIGNING_ISSUER SIGNING_IDENTITY_REGEX TRUSTED_ROOT TRUSTED_ROOT_REFRESH VERIFY_IMAGE \
         SNAPSHOT SNAPSHOT_DIR SNAPSHOT_KEEP SNAPSHOT_MAX_AGE SNAPSHOT_MAX_DEPTH SNAPSHOT_MAX_ENTRIES SNAPSHOT_EXCLUDE MOVE_SERVICES STOP_SERVICES DATA_SERVICES DATA_ELSEWHERE \
         HOOK_BEFORE_COPY HOOK_AFTER_RESTORE MIGRATION_TIMEOUT CA_FILE SELF_NAME SELF_REPO SELF_VERSION_KEY SELF_IDENTITY_REGEX \
         STUB DEBUG";
    assert_eq!(found, contract.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn an_empty_text_is_as_good_as_nothing() {
    let flags = Cli::command();
    let flags = flags.get_arguments().filter_map(|arg| arg.get_long()).filter(|long| !["help", "token"].contains(long));
    let empty: Vec<String> = flags.map(|long| format!("--{long}=")).collect();
    let settings = judge(empty.into_iter().chain(["--token=t".to_owned()])).unwrap();
    assert_eq!(format!("{settings:?}"), format!("{:?}", judge(["--token=t"]).unwrap()));
}

#[test]
fn listen_addresses() {
    let tcp = |text: &str| Listen::Tcp(text.parse().unwrap());
    let table = [
        (":9000", tcp("[::]:9000")),
        ("127.0.0.1:9000", tcp("127.0.0.1:9000")),
        ("0.0.0.0:80", tcp("0.0.0.0:80")),
        ("[::1]:9000", tcp("[::1]:9000")),
        ("localhost:9000", tcp("127.0.0.1:9000")),
        ("127.0.0.1:0", tcp("127.0.0.1:0")),
        ("unix:/run/updater.sock", Listen::Unix(PathBuf::from("/run/updater.sock"))),
    ];
    for (text, expected) in table {
        assert_eq!(with("--listen", text).unwrap().listen, expected, "{text}");
    }
    for text in ["9000", ":", ":x", ":+9000", ":65536", "::1:9000", "example.com:9000", "http://127.0.0.1:9000"] {
        assert_eq!(
            faults(with("--listen", text)),
            [format!(
                "PROCESSGIT_UPDATER_LISTEN={text:?}: :9000, 127.0.0.1:9000, [::1]:9000, localhost:9000 or unix:/path are accepted"
            )]
        );
    }
    for text in ["unix:", "unix:run/x", "unix:/run/", &format!("unix:/{}", "x".repeat(107))] {
        assert_eq!(
            faults(with("--listen", text)),
            [format!(
                "PROCESSGIT_UPDATER_LISTEN={text:?}: unix: and an absolute path of at most 107 bytes is accepted"
            )]
        );
    }
}

#[test]
fn booleans_in_every_spelling() {
    for (text, expected) in [
        ("1", true),
        ("t", true),
        ("TRUE", true),
        ("Yes", true),
        ("on", true),
        ("0", false),
        ("F", false),
        ("false", false),
        ("no", false),
        ("OFF", false),
    ] {
        assert_eq!(with("--stub", text).unwrap().stub, expected, "{text}");
        assert_eq!(with("--debug", text).unwrap().debug, expected, "{text}");
        assert_eq!(with("--snapshot", text).unwrap().snapshot.on, expected, "{text}");
        assert_eq!(with("--verify-image", text).unwrap().signing.verify_image, expected, "{text}");
    }
    assert!(judge(["--debug", "--token", "t"]).unwrap().debug, "a flag alone is true");
}

#[test]
fn what_is_accepted() {
    let health = |flag: &str, value: &str| with(flag, value).unwrap().health;
    assert_eq!(health("--health-timeout", "1h30m").timeout, Duration::from_secs(5400));
    assert_eq!(health("--health-interval", "500ms").interval, Duration::from_millis(500));
    assert_eq!(health("--health-stable", "0s").stable, Duration::ZERO);
    for version in ["/a~1b/0", "/", "text", "re:v(.+)"] {
        assert_eq!(health("--health-version", version).version.unwrap().to_string(), version);
    }
    for target in ["https://app/x?y=1", "tcp://db:5432", "tcp://[::1]:6379", "tcp://10.0.0.1:1", "none"] {
        assert_eq!(health("--health-url", target).target.to_string(), target);
    }
    let signing = |flag: &str, value: &str| with(flag, value).unwrap().signing;
    assert_eq!(signing("--signing-key", "/keys/cosign.pub").key, Some(PathBuf::from("/keys/cosign.pub")));
    assert_eq!(signing("--signing-issuer", "https://dex:5556").issuer, "https://dex:5556", "as it is written");
    assert_eq!(signing("--signing-identity-regex", "a|b").identity_regex, "a|b");
    assert_eq!(signing("--trusted-root", "/root.json").trusted_root, Some(PathBuf::from("/root.json")));
    assert_eq!(
        signing("--repo", "a.b/c+d".replace('+', "-").as_str()).identity_regex,
        r"^https://github\.com/a\.b/c\-d/\.github/workflows/release\.yml@refs/tags/v.*$"
    );
    assert_eq!(with("--github-api", "https://ghe.example/api/v3").unwrap().github_api.path(), "/api/v3");
    assert_eq!(with("--app-service", "web").unwrap().app_service.as_deref(), Some("web"));
    assert_eq!(with("--version-key", "_V2").unwrap().version_key, "_V2");
    assert_eq!(with("--snapshot-keep", "1").unwrap().snapshot.keep, 1);
    assert_eq!(with("--snapshot-dir", "/backup").unwrap().snapshot.dir, PathBuf::from("/backup"));
    assert_eq!(with("--state-dir", "/state").unwrap().snapshot.dir, PathBuf::from("/state/snapshots"));
    assert_eq!(with("--migration-timeout", "2h").unwrap().migration_timeout, Duration::from_secs(7200));
    let max_age = |text: &str| with("--snapshot-max-age", text).unwrap().snapshot.max_age;
    assert_eq!(max_age("30d"), Some(Duration::from_secs(30 * 24 * 3600)));
    assert_eq!((max_age("1h"), max_age("0"), max_age("0s")), (Some(Duration::from_secs(3600)), None, None));
    let exclude = with("--snapshot-exclude", "/data/media, /cache/").unwrap().snapshot.exclude;
    assert_eq!(exclude, ["/data/media", "/cache/"]);
    assert_eq!(with("--stop-services", "worker,app-cron_1").unwrap().stop_services, ["worker", "app-cron_1"]);
    assert_eq!(with("--data-services", "db, search").unwrap().data_services, ["db", "search"]);
    let elsewhere = with("--data-elsewhere", "db, db.example.org,10.0.0.7,[fd00::1]").unwrap().data_elsewhere;
    assert_eq!(elsewhere, ["db", "db.example.org", "10.0.0.7", "fd00::1"]);
    let hosts = with("--github-token-hosts", "git.Example, [::1]:3000,b:443").unwrap().github_token_hosts;
    assert_eq!(hosts, ["git.example", "[::1]:3000", "b"]);
    assert_eq!(with("--move-services", "init, worker").unwrap().move_services, ["init", "worker"]);
    let here = std::env::current_dir().unwrap();
    assert_eq!(with("--env-file", "./x/.env").unwrap().env_file, here.join("x/.env"), "made absolute");
    assert_eq!(with("--github-token", "ghp_x").unwrap().github_token.unwrap().expose_secret(), "ghp_x");
}

#[test]
fn hooks_are_split_as_a_shell_would() {
    for (text, service, command) in [
        ("db: dump", "db", &["dump"] as &[&str]),
        ("db:dump", "db", &["dump"]),
        (" db : pg_dump -f '/data/my dump' app", "db", &["pg_dump", "-f", "/data/my dump", "app"]),
        ("db: sh -c \"a; b: $C\"", "db", &["sh", "-c", "a; b: $C"]),
    ] {
        let hook = Hook { service: service.into(), command: command.iter().map(ToString::to_string).collect() };
        let hooks = with("--hook-before-copy", text).unwrap().hooks;
        assert_eq!(hooks, Hooks { before_copy: Some(hook.clone()), after_restore: None }, "{text}");
        let hooks = with("--hook-after-restore", text).unwrap().hooks;
        assert_eq!(hooks, Hooks { before_copy: None, after_restore: Some(hook) }, "{text}");
    }
}

#[test]
fn each_fault_names_variable_value_and_remedy() {
    let accepted_duration = "a duration such as 90s, 2m or 1h30m is accepted";
    let accepted_boolean = "1, t, true, yes, on or 0, f, false, no, off are accepted";
    let accepted_url = "an address that begins with http:// or https:// is accepted";
    let accepted_name = "letters, digits and _ . - are accepted, a letter or digit first";
    let accepted_age = "a duration of at least 1h is accepted, such as 12h or 30d, or 0 if age does not matter";
    let accepted_path = "a list separated by commas, of which each: an absolute path in the application's container is accepted, such as /data/media";
    let accepted_hosts = "a list separated by commas, of which each: a host, with :PORT if it is not 443, is accepted, such as git.example.org:3000";
    let accepted_names =
        "a list separated by commas, of which each: letters, digits and _ . - are accepted, a letter or digit first";
    let accepted_places = "a list separated by commas, of which each: letters, digits and _ . - are accepted, a letter or digit first; or an address";
    let accepted_hook = "SERVICE: COMMAND is accepted, such as db: pg_dump -f /data/dump app";
    let accepted_target = "an address that begins with http:// or https://, tcp://HOST:PORT, or none (the container's HEALTHCHECK decides) is accepted";
    let accepted_version = "a JSON pointer such as /version, / for a JSON string as the whole answer, text for plain text, or re: and a regular expression is accepted";
    let accepted_variable = "the name of a variable is accepted: letters, digits and _, no digit first";
    let table: &[(&str, &str, &str)] = &[
        ("STUB", "maybe", accepted_boolean),
        ("DEBUG", "2", accepted_boolean),
        ("SNAPSHOT", "never", accepted_boolean),
        ("VERIFY_IMAGE", "ja", accepted_boolean),
        ("REPO", "ProcessGit", "OWNER/NAME is accepted, such as Algomation-AI/ProcessGit"),
        ("REPO", "a/b/c", "OWNER/NAME is accepted, such as Algomation-AI/ProcessGit"),
        ("REPO", "../x", "OWNER/NAME is accepted, such as Algomation-AI/ProcessGit"),
        ("GITHUB_API", "api.github.com", accepted_url),
        ("GITHUB_API", "ftp://x", accepted_url),
        ("GITHUB_API", "https://", accepted_url),
        ("GITHUB_API", "https://x/?a", "an address without ? and # is accepted"),
        ("APP_NAME", "a\nb", "a name of at most 128 bytes on one line is accepted"),
        ("APP_CONTAINER", "-x", accepted_name),
        ("APP_CONTAINER", "a b", accepted_name),
        ("APP_SERVICE", "a/b", accepted_name),
        ("VERSION_KEY", "1V", accepted_variable),
        ("VERSION_KEY", "A-B", accepted_variable),
        ("HEALTH_URL", "processgit:3000", accepted_target),
        ("HEALTH_URL", "tcp://db", accepted_target),
        ("HEALTH_URL", "tcp://db:5432/x", accepted_target),
        ("HEALTH_URL", "None", accepted_target),
        ("HEALTH_TIMEOUT", "90", accepted_duration),
        ("HEALTH_TIMEOUT", "0s", "a duration from 1s to 24h is accepted"),
        ("HEALTH_TIMEOUT", "25h", "a duration from 1s to 24h is accepted"),
        ("HEALTH_INTERVAL", "0s", "a duration from 1ms to 1h is accepted"),
        ("HEALTH_INTERVAL", "soon", accepted_duration),
        ("HEALTH_STABLE", "2m", "a duration shorter than PROCESSGIT_UPDATER_HEALTH_TIMEOUT is accepted, which is 2m"),
        ("HEALTH_VERSION", "version", accepted_version),
        ("HEALTH_VERSION", "/a~2", accepted_version),
        ("HEALTH_VERSION", "re:(", "a regular expression is accepted after re: (unclosed group)"),
        ("SIGNING_ISSUER", "github", accepted_url),
        ("SIGNING_IDENTITY_REGEX", "a(b", "a regular expression is accepted (unclosed group)"),
        ("SIGNING_IDENTITY_REGEX", "a)(b", "a regular expression is accepted (unopened group)"),
        ("SIGNING_IDENTITY_REGEX", "(?x)a #", "a regular expression is accepted (unclosed group)"),
        ("SNAPSHOT_KEEP", "0", "a whole number from 1 to 1000 is accepted"),
        ("SNAPSHOT_KEEP", "five", "a whole number from 1 to 1000 is accepted"),
        ("SNAPSHOT_MAX_DEPTH", "15", "a whole number from 16 to 100000 is accepted"),
        ("SNAPSHOT_MAX_ENTRIES", "many", "a whole number from 1000 to 1000000000 is accepted"),
        ("SNAPSHOT_MAX_AGE", "30", accepted_age),
        ("SNAPSHOT_MAX_AGE", "59m", accepted_age),
        ("SNAPSHOT_EXCLUDE", "data", accepted_path),
        ("SNAPSHOT_EXCLUDE", "/data,", accepted_path),
        ("SNAPSHOT_EXCLUDE", "/data,/", accepted_path),
        ("SNAPSHOT_EXCLUDE", "/data/../etc", accepted_path),
        ("STOP_SERVICES", "worker,,cron", accepted_names),
        ("STOP_SERVICES", "-x", accepted_names),
        ("MOVE_SERVICES", "init worker", accepted_names),
        ("DATA_SERVICES", "db,", accepted_names),
        ("DATA_ELSEWHERE", "db,", accepted_places),
        ("DATA_ELSEWHERE", "db:5432", accepted_places),
        ("DATA_ELSEWHERE", "postgres://db", accepted_places),
        ("GITHUB_TOKEN_HOSTS", "https://git.example", accepted_hosts),
        ("GITHUB_TOKEN_HOSTS", "git.example,", accepted_hosts),
        ("GITHUB_TOKEN_HOSTS", "user@git.example", accepted_hosts),
        ("GITHUB_TOKEN_HOSTS", "git.example:port", accepted_hosts),
        ("HOOK_BEFORE_COPY", "pg_dump", accepted_hook),
        ("HOOK_BEFORE_COPY", "db:", accepted_hook),
        ("HOOK_BEFORE_COPY", "db: ''", accepted_hook),
        ("HOOK_AFTER_RESTORE", ": psql", accepted_hook),
        (
            "HOOK_AFTER_RESTORE",
            "db: psql 'a",
            "SERVICE: COMMAND is accepted, such as db: pg_dump -f /data/dump app (missing closing quote)",
        ),
        ("MIGRATION_TIMEOUT", "1000h", "a duration from 1s to 168h is accepted"),
    ];
    for (variable, value, accepted) in table {
        let flag = format!("--{}", variable.to_lowercase().replace('_', "-"));
        let expected = format!("PROCESSGIT_UPDATER_{variable}={value:?}: {accepted}");
        assert_eq!(faults(with(&flag, value)), [expected]);
    }
    assert_eq!(
        faults(with("--github-api", "https://user:secret@x/")),
        ["PROCESSGIT_UPDATER_GITHUB_API=\"(not shown)\": an address without user and password is accepted"]
    );
    let long = "x".repeat(500);
    assert_eq!(
        faults(with("--debug", &long)),
        [format!("PROCESSGIT_UPDATER_DEBUG=\"{}\"…: {accepted_boolean}", "x".repeat(120))]
    );
}

#[test]
fn text_that_is_no_utf8_is_a_fault_and_no_crash() {
    let value = OsString::from_vec(b"--app-name=\xff".to_vec());
    assert_eq!(
        faults(judge([OsString::from("--token=t"), value])),
        ["PROCESSGIT_UPDATER_APP_NAME=\"\u{fffd}\": UTF-8 is accepted"]
    );
    let value = OsString::from_vec(b"--env-file=/\xff/.env".to_vec());
    let settings = judge([OsString::from("--token=t"), value]).unwrap();
    assert_eq!(settings.env_file.as_os_str().len(), 7, "a path may be any bytes");
}

#[test]
fn secrets_come_from_the_variable_or_a_file() {
    for (flags, token) in [
        (["--token", "direct"], "direct"),
        (["--token-file", "/run/secrets/token"], "from-file"),
        (["--token-file", "/run/secrets/crlf"], "from-file"),
    ] {
        assert_eq!(judge(flags).unwrap().token.expose_secret(), token);
    }
    let both_empty = judge(["--token", "", "--token-file", "/run/secrets/token"]).unwrap();
    assert_eq!(both_empty.token.expose_secret(), "from-file");
    let settings = judge(["--token", "t", "--github-token-file", "/run/secrets/token"]).unwrap();
    assert_eq!(settings.github_token.unwrap().expose_secret(), "from-file");
}

#[test]
fn a_faulty_secret_is_told_but_never_shown() {
    const HEADER: &str =
        "printable ASCII on one line is accepted, without white space at either end: an HTTP header carries it";
    let file = |path: &str, accepted: &str| {
        let expected = format!("PROCESSGIT_UPDATER_TOKEN_FILE={path:?}: {accepted}");
        assert_eq!(faults(judge(["--token-file", path])), [expected]);
    };
    file("/run/secrets/empty", "a file that holds the secret is accepted, this one is empty");
    file("/run/secrets/none", "a readable file that holds the secret is accepted (entity not found)");
    file("/run/secrets/binary", "a file of UTF-8 text is accepted");
    file("/run/secrets/two-lines", &format!("(content not shown) {HEADER}"));
    let table: &[(&[&str], &str)] = &[
        (
            &["--token", ""],
            "PROCESSGIT_UPDATER_TOKEN: not set: the bearer token of the API is required, here or as a file in \
             PROCESSGIT_UPDATER_TOKEN_FILE",
        ),
        (
            &["--token", "a", "--token-file", "/run/secrets/token"],
            "PROCESSGIT_UPDATER_TOKEN_FILE=\"/run/secrets/token\": PROCESSGIT_UPDATER_TOKEN is set too: one of both \
             is accepted",
        ),
        (&["--token", "hush\n"], &format!("PROCESSGIT_UPDATER_TOKEN: (value not shown) {HEADER}")),
        (
            &["--token", "t", "--github-token", " hush"],
            &format!("PROCESSGIT_UPDATER_GITHUB_TOKEN: (value not shown) {HEADER}"),
        ),
    ];
    for (flags, message) in table {
        assert_eq!(faults(judge(flags.iter().copied())), [*message]);
    }
    let args = Cli::try_parse_from(["serve", "--token", "hush"]).unwrap().serve;
    assert!(!format!("{args:?}").contains("hush"));
    assert!(!format!("{:?}", judge(["--token", "hush"]).unwrap()).contains("hush"));
}

#[test]
fn all_faults_are_told_at_once_in_the_contracts_order() {
    let told = faults(judge(["--debug=x", "--listen=x", "--health-interval=x", "--repo=x"]));
    let variables: Vec<&str> = told.iter().filter_map(|line| line.split(['=', ':']).next()).collect();
    assert_eq!(
        variables,
        [name::TOKEN, name::LISTEN, name::REPO, name::HEALTH_INTERVAL, name::DEBUG],
        "one line each: {told:#?}"
    );
    assert!(told.iter().all(|line| !line.contains('\n')));
}

#[test]
fn a_secret_file_is_read_from_disk_up_to_its_cap() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let judge = || Cli::try_parse_from(["serve", "--token-file", path.to_str().unwrap()]).unwrap().serve.settings();
    std::fs::write(&path, "secret\n").unwrap();
    assert_eq!(judge().unwrap().token.expose_secret(), "secret");
    std::fs::write(&path, "x".repeat(65 * 1024)).unwrap();
    assert!(faults(judge())[0].ends_with("(it is larger than 65536 bytes)"));
}

#[test]
fn only_the_public_root_is_refreshed() {
    let kept = with("--trusted-root-refresh", "yes").unwrap().signing.refreshed_root;
    assert_eq!(kept, Some(PathBuf::from("/var/lib/processgit-updater/trusted-root")));
    assert_eq!(with("--trusted-root-refresh", "no").unwrap().signing.refreshed_root, None);
    assert_eq!(
        faults(judge(["--token=t", "--trusted-root=/r.json", "--trusted-root-refresh"])),
        ["PROCESSGIT_UPDATER_TRUSTED_ROOT_REFRESH=\"true\": false is accepted together with \
          PROCESSGIT_UPDATER_TRUSTED_ROOT=\"/r.json\", which is used as it is"]
    );
}
