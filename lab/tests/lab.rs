//! The laboratory itself works, on the real engine.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::deployment::AppSpec;
use lab::engine::must_run;
use lab::image::ImageSpec;
use lab::publish::{Carrier, ReleaseSpec};
use lab::releases::{Offer, Trouble};
use lab::signer::Layout;
use lab::world::World;
use lab::{Lab, eventually, http};
use serde_json::{Value, json};

#[test]
fn a_deployment_answers_survives_a_change_of_version_and_leaves_nothing_behind() {
    let lab = Lab::new();
    let app = lab.deploy(AppSpec::new("1.0.0"));
    let before = World::of(&app);
    assert_eq!(before.others.len(), 2, "two siblings: {before:#?}");
    before.assert_untouched(&World::of(&app));

    let next = lab.registry.push("demo/app", "1.1.0", &ImageSpec::new("1.1.0"));
    app.edit(&app.env_file(), |text| text.replace("APP_VERSION=1.0.0", "APP_VERSION=1.1.0"));
    app.compose(&["up", "-d", "--no-deps", "--pull", "always", "app"]);
    app.await_version("1.1.0");
    let image = lab.engine.image(&next.reference()).expect("the new image")["Id"].as_str().unwrap().to_owned();
    let env = before.env.replace("1.0.0", "1.1.0");
    before.assert_updated(&World::of(&app), &image, &env, &[format!("{}:1.1.0", next.name()), next.reference()]);

    let (engine, labels, folder) =
        (lab.engine.clone(), [lab.run.label(), lab.run.project_label()], app.folder().to_owned());
    drop((app, lab));
    for label in labels {
        let left = [engine.containers(&label), engine.images(&label), engine.networks(&label)].concat();
        assert!(left.is_empty(), "left behind: {left:#?}");
    }
    assert!(!folder.exists(), "{} is left behind", folder.display());
}

#[test]
fn what_a_killed_run_left_is_swept_and_what_a_living_one_has_is_not() {
    let dead = "updater-lab-1-1-deadbeef";
    let folder = std::env::temp_dir().join(dead);
    fs::create_dir_all(&folder).unwrap();
    let mut orphan = Command::new("sleep").arg("600").current_dir(&folder).spawn().unwrap();

    let living = Lab::new();
    let (folder_of_living, registry) = (living.run.folder().to_owned(), living.registry.host.clone());
    assert!(!folder.exists(), "the dead run's folder is left");
    eventually("the end of the orphan", Duration::from_secs(5), || orphan.try_wait().unwrap());
    lab::run::sweep(&living.engine);
    assert!(folder_of_living.exists() && http::get(&format!("http://{registry}/v2/")).is_ok());
}

#[test]
fn a_release_is_signed_as_the_real_cosign_accepts_it() {
    for (carrier, layout) in [(Carrier::Detached, Layout::Tag), (Carrier::Bundle, Layout::Referrer)] {
        let lab = Lab::new();
        let spec = ReleaseSpec::new("1.1.0").carrier(carrier).image_signature(Some(layout)).image(|i| i.index = true);
        let release = lab.publish(spec);
        let folder = lab.run.subfolder("check");
        for (name, bytes) in &release.assets {
            fs::write(folder.join(name), bytes).unwrap();
        }
        let verify = |options: &[&str], what: &str| {
            let mut cosign = Command::new("cosign");
            cosign.args(options).arg("--key").arg(lab.signer.public_key()).arg(what).current_dir(&folder);
            must_run(&mut cosign)
        };
        let no_log = "--insecure-ignore-tlog=true";
        match carrier {
            Carrier::Detached => verify(&["verify-blob", no_log, "--signature", "release.json.sig"], "release.json"),
            _ => verify(&["verify-blob", no_log, "--bundle", "release.json.sigstore.json"], "release.json"),
        };
        verify(&["verify", no_log, "--allow-http-registry"], &release.image.reference());
        let manifest: Value = serde_json::from_slice(&release.assets[0].1).unwrap();
        assert_eq!(manifest["image"]["digest"], json!(release.image.digest));
    }
}

#[test]
fn the_registry_forgets_on_request() {
    let lab = Lab::new();
    let pull = |tag: &str, forget: bool| {
        let image = lab.registry.push("demo/app", tag, &ImageSpec::new("1.0.0"));
        if forget {
            lab.registry.forget(&image);
        }
        Command::new("docker").args(["pull", "-q", &image.reference()]).output().unwrap().status.success()
    };
    assert!(pull("1", false));
    assert!(!pull("2", true));
    assert_eq!(lab.registry.tags("demo/app"), ["1"]);
}

#[test]
fn releases_are_listed_in_pages_found_by_tag_and_downloaded_from_another_host() {
    let lab = Lab::new();
    for number in 0..5 {
        let assets = vec![("release.json".to_owned(), format!("content {number}").into())];
        lab.releases.offer(Offer { tag: format!("v1.{number}.0"), assets, draft: number == 3, ..Offer::default() });
    }
    let api = format!("{}/repos/demo/app/releases", lab.releases.url());
    let mut seen = Vec::new();
    let mut next = Some(format!("{api}?per_page=3"));
    while let Some(url) = next {
        let page = http::get(&url).unwrap();
        seen.extend(
            page.json().as_array().unwrap().iter().map(|release| release["tag_name"].as_str().unwrap().to_owned()),
        );
        next = page
            .header("link")
            .and_then(|link| Some(link.split_once('<')?.1.split_once(">; rel=\"next\"")?.0.to_owned()));
    }
    assert_eq!(seen, ["v1.4.0", "v1.2.0", "v1.1.0", "v1.0.0"], "newest first, without the draft");

    assert_eq!(http::get(&format!("{api}/tags/v9.9.9")).unwrap().status, 404);
    let release = http::get(&format!("{api}/tags/v1.4.0")).unwrap().json();
    let asset = release["assets"][0]["url"].as_str().unwrap();
    let answer = http::send(http::client().get(asset).header("Accept", "application/octet-stream")).unwrap();
    assert_eq!(answer.status, 302);
    assert_eq!(http::get(answer.header("location").unwrap()).unwrap().text(), "content 4");
    assert_eq!(lab.releases.storage_calls().len(), 1);
}

#[test]
fn the_release_server_misbehaves_on_request() {
    let lab = Lab::new();
    lab.releases.offer(Offer { tag: "v1.0.0".into(), ..Offer::default() });
    let url = format!("{}/repos/demo/app/releases", lab.releases.url());
    let ask = |trouble| {
        lab.releases.api_trouble(trouble);
        http::send(http::client().get(&url).timeout(Duration::from_secs(1)))
    };
    assert_eq!(ask(Trouble::Status(500)).unwrap().status, 500);
    assert_eq!(ask(Trouble::RateLimited).unwrap().header("x-ratelimit-remaining"), Some("0"));
    assert!(ask(Trouble::Stalls).unwrap_err().is_timeout());
    assert!(!ask(Trouble::CutOff).unwrap_err().is_timeout());
    assert!(ask(Trouble::Late(Duration::from_secs(60))).unwrap_err().is_timeout());
    assert_eq!(ask(Trouble::None).unwrap().json()[0]["tag_name"], "v1.0.0");
    assert_eq!(lab.releases.api_calls().len(), 6);
}

/// What an image of each behaviour does under the engine, in the order of the application's table.
#[test]
fn images_behave_as_they_say() {
    let lab = Lab::new();
    let probe = |behaviour: &str, args: &[&str], env: &[&str]| {
        let mut spec = ImageSpec::new("3.2.1");
        spec.behaviour = behaviour.to_owned();
        let image = lab.registry.push("demo/app", "probe", &spec);
        let mut docker = Command::new("docker");
        docker.args(["run", "-d", "-P"]).args(env.iter().flat_map(|pair| ["-e", pair]));
        must_run(docker.arg(image.reference()).args(args)).trim().to_owned()
    };
    let inspect = |id: &str| lab.engine.container(id).unwrap();
    let ask = |id: &str, path: &str| {
        let address = inspect(id)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().unwrap().to_owned();
        http::send(http::client().get(format!("http://{address}:3000{path}")).timeout(Duration::from_millis(500)))
            .ok()
            .map(|answer| (answer.status, answer.text()))
    };
    let first = |id: &str| eventually("an answer", Duration::from_secs(10), || ask(id, "/api/v1/version"));
    let exit = |id: &str| {
        eventually("its end", Duration::from_secs(10), || {
            let state = inspect(id)["State"].clone();
            (state["Running"] == false).then(|| state["ExitCode"].as_i64().unwrap())
        })
    };
    let good = (200, r#"{"version":"3.2.1"}"#.to_owned());
    assert_eq!(first(&probe("good", &[], &[])), good);
    assert_eq!(exit(&probe("crash", &[], &[])), 1);
    let late = probe("crash-late:0.5", &[], &[]);
    assert_eq!((first(&late), exit(&late)), (good.clone(), 1));
    assert_eq!(first(&probe("error500", &[], &[])).0, 500);
    let flaky = probe("flaky:2", &[], &[]);
    let statuses: BTreeSet<u16> = [first(&flaky).0, first(&flaky).0].into();
    assert_eq!(statuses, [200, 500].into());
    let start = Instant::now();
    assert_eq!(first(&probe("slow:1", &[], &[])), good);
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(ask(&probe("never", &[], &[]), "/"), None);
    assert_eq!(ask(&probe("silent", &[], &[]), "/"), None);
    assert_eq!(first(&probe("wrong-version", &[], &[])).1, r#"{"version":"0.0.0-wrong"}"#);

    let with_data = probe("good", &[], &["DATA_DIR=/data"]);
    first(&with_data);
    assert_eq!(ask(&with_data, "/data"), Some((200, r#"{"counter":1,"schema":1}"#.to_owned())));
    assert_eq!(exit(&probe("good", &["migrate"], &["DATA_DIR=/data", "SCHEMA=2"])), 0);
    assert_eq!(exit(&probe("good", &["migrate", "--fail"], &[])), 1);

    let start = Instant::now();
    lab.engine.stop(&with_data);
    assert!(start.elapsed() < Duration::from_secs(9), "SIGTERM ends it, not the SIGKILL ten seconds later");
}

/// Without its data, a rollback from a newer schema shows.
#[test]
fn the_application_refuses_data_of_a_newer_schema() {
    let folder = std::env::temp_dir().join(format!("demo-app-data-{}", lab::random_hex()));
    let run = |version: &str, arguments: &[&str]| {
        Command::new(lab::demo_app())
            .args(arguments)
            .env("DATA_DIR", &folder)
            .env("SCHEMA", version)
            .env("PORT", lab::free_port().to_string())
            .env("BEHAVIOUR", "good")
            .output()
    };
    assert!(run("2", &["migrate"]).unwrap().status.success());
    let refused = run("1", &[]).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("schema 2"), "{refused:?}");
    fs::remove_dir_all(folder).unwrap();
}
