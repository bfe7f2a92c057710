use std::ffi::OsStr;

use super::*;

pub(super) fn project() -> Project {
    Project {
        name: "shop".into(),
        service: "app".into(),
        crew: vec![],
        working_dir: "/srv/shop".into(),
        config_files: vec!["/srv/shop/a.yml".into(), "/srv/shop/b.yml".into()],
        env_files: vec![],
        version_key: "VERSION".into(),
        underscores: None,
    }
}

fn command<'a>(args: &'a [&'a str]) -> Command<'a> {
    Command {
        name: "config",
        profiles: Profiles::Selected,
        global: &["--dry-run"],
        args,
        deadline: LOOK,
        most_output: MOST_TALK,
        stdout_is_data: true,
        env: None,
        file: None,
        lines: None,
        held: None,
    }
}

#[test]
fn everything_is_named_explicitly() {
    let said = |project| {
        let args = arguments(&project, "unix:///x".into(), &command(&["config"]));
        args.join(OsStr::new(" ")).into_string().unwrap()
    };
    let plain =
        "--host unix:///x --dry-run -p shop --project-directory /srv/shop -f /srv/shop/a.yml -f /srv/shop/b.yml config";
    assert_eq!(said(project()), plain);
    let with_env = Project { env_files: vec!["/srv/e".into()], ..project() };
    assert_eq!(said(with_env), plain.replace(" config", " --env-file /srv/e config"));
}

#[test]
fn places_to_look() {
    let some = |text: &str| Some(OsString::from(text));
    let files = candidates(some("/usr/bin:relative:/usr/bin"), None, some("/home/me"));
    let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
    assert_eq!(files[..2], ["/usr/bin/docker-compose", "/home/me/.docker/cli-plugins/docker-compose"]);
    assert_eq!(files.len(), 2 + PLUGIN_FOLDERS.len());
    let files = candidates(None, some("/cfg"), some("/home/me"));
    assert_eq!(files[0], Path::new("/cfg/cli-plugins/docker-compose"));
}

#[test]
fn versions() {
    for (version, expected) in [("2.40.3-3", true), ("5.0.1", true), ("1.29.2", false), ("dev", false)] {
        assert_eq!(is_v2(version), expected, "{version}");
    }
}

#[test]
fn dry_runs_of_compose_2_and_5() {
    let cases: &[(&str, bool, &[&str])] = &[
        (r#"{"dry-run":true,"id":"Container shop-app-1","status":"Running"}"#, true, &[]),
        (r#"{"id":"Container shop-app-1","status":"Done","text":"Running"}"#, true, &[]),
        (
            concat!(
                r#"{"dry-run":true,"id":"Container shop-init-1","status":"Starting"}"#,
                "\n",
                r#"{"dry-run":true,"id":"Container shop-init-1","status":"Started"}"#
            ),
            true,
            &[],
        ),
        (
            concat!(
                r#"{"dry-run":true,"id":"Container shop-app-1","status":"Recreate"}"#,
                "\n",
                r#"{"dry-run":true,"id":"Container shop-app-1","status":"Recreated"}"#
            ),
            false,
            &["Recreate", "Recreated"],
        ),
        (r#"{"id":"Container shop-app-1","status":"Working","text":"Recreate"}"#, false, &["Recreate"]),
        (
            concat!(
                r#"{"id":"Network shop_default","status":"Creating"}"#,
                "\n",
                r#"{"id":"Container shop-app-1","status":"Running"}"#
            ),
            false,
            &["Network shop_default Creating"],
        ),
        (
            concat!("Volume exists. Recreate?\n", r#"{"id":"Container shop-app-1","status":"Running"}"#),
            false,
            &["Volume exists. Recreate?"],
        ),
        ("time=\"now\" level=warning msg=\"something\"", false, &[]),
        ("", false, &[]),
    ];
    for (output, unchanged, actions) in cases {
        let read = read_dry_run(output);
        assert_eq!(
            (read.unchanged, read.actions),
            (*unchanged, actions.iter().map(|a| (*a).to_owned()).collect()),
            "{output}"
        );
    }
}

/// An edited network, as Compose 2.40 says it, and a volume that Compose asks about.
#[test]
fn what_a_dry_run_would_touch() {
    let touched = |output: &str| read_dry_run(output).touches;
    let of = |id: &str, action: &str| Touch::of(id, action).unwrap();
    let said = [
        ("Container shop-db-1", "Stopping"),
        ("Network shop_default", "Removed"),
        ("Container shop-app-1", "Running"),
        ("Image x", "Pulling"),
    ];
    let lines = said.map(|(id, status)| format!(r#"{{"dry-run":true,"id":"{id}","status":"{status}"}}"#));
    let expected = [of("Container shop-db-1", "Stopping"), of("Network shop_default", "Removed")];
    assert_eq!(touched(&lines.join("\n")), expected);
    let question =
        "Volume \"shop_data\" exists but doesn't match configuration in compose file. Recreate (data will be lost)?";
    assert_eq!(touched(question), [of("Volume shop_data", question)]);
    assert_eq!(touched(r#"{"id":"Network n","status":"Working","text":"Creating"}"#), [of("Network n", "Creating")]);
}

#[test]
fn an_error_ends_with_the_last_words() {
    let tail = |lines: &[&str]| last_words(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
    assert_eq!(tail(&[]), "it said nothing");
    let twice = [" Container a  Recreate", " Container a  Error response: no image", "Error response: no image"];
    assert_eq!(tail(&twice), "Container a  Recreate; Error response: no image");
    assert_eq!(tail(&[r#"{"error":true,"message":"no such service: x"}"#]), "no such service: x");
    assert_eq!(tail(&["1", "2", "3", "4", "5", "6"]), "2; 3; 4; 5; 6");
}

#[tokio::test]
async fn what_a_project_does_not_have_any_more_is_named() {
    let gone = check_paths(&project()).await.unwrap_err();
    assert_eq!(gone, EngineError::ProjectGone { path: "/srv/shop".into() });
    let renamed = Project { working_dir: "/".into(), config_files: vec!["/nothing.yml".into()], ..project() };
    assert_eq!(check_paths(&renamed).await.unwrap_err(), EngineError::ProjectGone { path: "/nothing.yml".into() });
    let from_stdin = Project { working_dir: "/".into(), config_files: vec!["-".into()], ..project() };
    let error = check_paths(&from_stdin).await.unwrap_err().to_string();
    assert!(error.contains("\"-\""), "{error}");
}

#[tokio::test]
async fn an_absent_compose_is_told_with_where_it_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let cli = ComposeCli::new(vec![folder.path().join("docker-compose"), "/bin/true".into()]);
    let error = cli.version().await.unwrap_err().to_string();
    assert!(error.contains("docker-compose is not there; /bin/true told no version"), "{error}");
}
