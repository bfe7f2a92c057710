//! A real Compose behind the trait.

use processgit_updater::engine::compose::ComposeCli;
use processgit_updater::engine::compose_config::differences;
use processgit_updater::engine::{Compose, ComposeConfig, Container, DryRun, Engine, Project};
use tokio::sync::mpsc;

use crate::lab::{HELPER, Lab, again, docker, write};

/// A project with one service that sleeps, in a folder with a space in its name.
pub struct Shop {
    pub lab: Lab,
    pub cli: ComposeCli,
    pub project: Project,
}

impl Shop {
    pub fn new() -> Self {
        let lab = Lab::new();
        let folder = lab.folder.path().join("the shop");
        std::fs::create_dir(&folder).unwrap();
        let project = Project {
            name: lab.name.clone(),
            service: "app".into(),
            crew: vec![],
            working_dir: folder.to_str().unwrap().into(),
            config_files: vec![folder.join("compose.yml").to_str().unwrap().into()],
            env_files: vec![],
            version_key: "SHOP_VERSION".into(),
            underscores: None,
        };
        let shop = Self { lab, cli: ComposeCli::from_environment(), project };
        shop.write("compose.yml", &shop.compose_file(""));
        shop.write(".env", "SHOP_VERSION=1\n");
        shop
    }

    pub fn compose_file(&self, more: &str) -> String {
        let image = &self.lab.name;
        format!(
            "services:\n  app:\n    image: {image}:${{SHOP_VERSION:-none}}\n    environment: {{V: \"${{SHOP_VERSION}}\"}}\n    network_mode: none\n{more}"
        )
    }

    pub fn write(&self, file: &str, text: &str) {
        write(std::path::Path::new(&self.project.working_dir).join(file), text);
    }

    pub async fn up(&self) -> Result<Vec<String>, String> {
        let (sender, mut receiver) = mpsc::channel(100);
        self.cli.up(&self.project, sender).await.map_err(|error| error.to_string())?;
        let mut lines = Vec::new();
        while let Some(line) = receiver.recv().await {
            lines.push(line);
        }
        Ok(lines)
    }

    pub async fn app(&self) -> Container {
        self.lab.engine.container(&self.lab.named("app-1")).await.unwrap().unwrap()
    }

    async fn image_of(&self, env: Option<&str>) -> String {
        let config = self.cli.config(&self.project, env.map(str::as_bytes)).await.unwrap();
        config.services["app"].image.clone().unwrap()
    }
}

#[tokio::test]
async fn a_version_is_tried_without_touching_the_env_file() {
    let shop = Shop::new();
    let name = &shop.lab.name;
    assert_eq!(shop.image_of(None).await, format!("{name}:1"));
    assert_eq!(shop.image_of(Some("SHOP_VERSION=2\n")).await, format!("{name}:2"));
    let version = shop.cli.version().await.unwrap();
    assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{version}");

    let other = write(shop.lab.folder.path().join("other.env"), "SHOP_VERSION=3\n");
    let with_env_file = Project { env_files: vec![other.to_str().unwrap().into()], ..shop.project.clone() };
    let config = shop.cli.config(&with_env_file, None).await.unwrap();
    let app = &config.services["app"];
    assert_eq!(app.image, Some(format!("{name}:3")));
    assert_eq!(app.environment["V"].as_deref(), Some("3"));
}

/// What services read from `.env` themselves is what it will be, whichever way they name the file, and
/// whatever else they read.
#[tokio::test]
async fn a_trial_reaches_services_that_read_the_env_file_themselves() {
    let shop = Shop::new();
    let service = |name: &str, lines: &str| format!("  {name}:\n    image: {}:1\n{lines}", shop.lab.name);
    let services = [
        service("reader", "    env_file: .env\n"),
        service(
            "long",
            "    env_file: [{path: ./.env, required: false}]\n    environment: {OWN: \"${SHOP_VERSION}\"}\n",
        ),
        service("linked", "    env_file: [link.env]\n"),
        service("overruled", "    env_file: [.env, other.env]\n    environment: [SHOP_VERSION=mine]\n"),
        service("late", "    env_file: [.env, late.env]\n"),
        service("extended", "    extends: {service: reader}\n"),
        service("stranger", "    env_file: [other.env]\n"),
    ];
    shop.write("compose.yml", &(shop.compose_file("") + &services.concat()));
    shop.write(".env", "SHOP_VERSION=1\nDERIVED=v${SHOP_VERSION}\nDOLLAR='pa$word'\n");
    shop.write("other.env", "OTHER=of-${SHOP_VERSION}\n");
    shop.write("late.env", "SHOP_VERSION=late\n");
    std::os::unix::fs::symlink(".env", std::path::Path::new(&shop.project.working_dir).join("link.env")).unwrap();
    let shown = |config: &ComposeConfig| -> Vec<String> {
        let of = |name: &str| {
            let pairs = config.services[name].variables().into_iter().filter(|(key, _)| key != "V");
            format!("{name} {}", pairs.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "))
        };
        ["reader", "long", "linked", "overruled", "late", "extended", "stranger"].map(of).to_vec()
    };
    let expected = |version: &str| {
        let file = format!("DERIVED=v{version} DOLLAR=pa$word");
        [
            format!("reader {file} SHOP_VERSION={version}"),
            format!("long {file} OWN={version} SHOP_VERSION={version}"),
            format!("linked {file} SHOP_VERSION={version}"),
            format!("overruled {file} OTHER=of-{version} SHOP_VERSION=mine"),
            format!("late {file} SHOP_VERSION=late"),
            format!("extended {file} SHOP_VERSION={version}"),
            format!("stranger OTHER=of-{version}"),
        ]
    };
    let now = shop.cli.config(&shop.project, None).await.unwrap();
    assert_eq!(shown(&now), expected("1"));
    let trial = b"SHOP_VERSION=2\nDERIVED=v${SHOP_VERSION}\nDOLLAR='pa$word'\n";
    let then = shop.cli.config(&shop.project, Some(trial)).await.unwrap();
    assert_eq!(shown(&then), expected("2"));
    // And that is what it is once the file is written.
    shop.write(".env", std::str::from_utf8(trial).unwrap());
    assert_eq!(differences(&shop.cli.config(&shop.project, None).await.unwrap(), &then), []);

    // The key appears, and goes.
    let without = b"DERIVED=v\n";
    let then = shop.cli.config(&shop.project, Some(without)).await.unwrap();
    assert!(!then.services["reader"].environment.contains_key("SHOP_VERSION"));
    shop.write(".env", "DERIVED=v\n");
    assert_eq!(differences(&shop.cli.config(&shop.project, None).await.unwrap(), &then), []);
    let then = shop.cli.config(&shop.project, Some(trial)).await.unwrap();
    assert_eq!(shown(&then), expected("2"));
}

/// Several environment files: the last one selects the version, and the others are read before it.
#[tokio::test]
async fn a_trial_takes_the_place_of_the_last_environment_file() {
    let shop = Shop::new();
    let base = write(shop.lab.folder.path().join("base.env"), "SHOP_VERSION=base\nBASE=b\n");
    let last = write(shop.lab.folder.path().join("last.env"), "SHOP_VERSION=1\n");
    let env_files = [base, last].map(|path| path.to_str().unwrap().to_owned()).to_vec();
    let project = Project { env_files, ..shop.project.clone() };
    shop.write("compose.yml", &shop.compose_file("    labels: {base: \"${BASE}\"}\n"));
    let config = shop.cli.config(&project, Some(b"SHOP_VERSION=2\n")).await.unwrap();
    assert_eq!(config.services["app"].image, Some(format!("{}:2", shop.lab.name)));
    assert_eq!(config.services["app"].labels["base"], "b");
}

/// A project that Compose cannot print without its variables replaced.
#[tokio::test]
async fn a_trial_without_the_list_of_environment_files() {
    let shop = Shop::new();
    let file =
        "    env_file: .env\n    ulimits: {nproc: \"${N}\"}\n  other:\n    image: x\n    environment: {N: \"7\"}\n";
    shop.write("compose.yml", &shop.compose_file(file));
    for (now, then) in [
        ("SHOP_VERSION=1\nN=100\nD=v${SHOP_VERSION}\n", "SHOP_VERSION=2\nN=100\nD=v${SHOP_VERSION}\n"),
        ("N=100\n", "N=100\nSHOP_VERSION=2\n"),
        ("N=100\nSHOP_VERSION=2\n", "N=100\n"),
    ] {
        shop.write(".env", now);
        let config = shop.cli.config(&shop.project, Some(then.as_bytes())).await.unwrap();
        shop.write(".env", then);
        assert_eq!(differences(&shop.cli.config(&shop.project, None).await.unwrap(), &config), [], "{now}");
    }
}

#[tokio::test]
async fn a_service_in_a_profile_is_resolved_too() {
    let shop = Shop::new();
    shop.write("compose.yml", &shop.compose_file("    profiles: [full]\n"));
    assert_eq!(shop.image_of(None).await, format!("{}:1", shop.lab.name));
}

/// Chosen in the shell of whoever brought the project up, and recorded nowhere.
#[tokio::test]
async fn what_a_service_depends_on_may_be_in_a_profile_that_nothing_selects() {
    let shop = Shop::new();
    shop.lab.image("1", 0);
    let database = format!("  database: {{image: \"{}:1\", profiles: [full], network_mode: none}}\n", shop.lab.name);
    shop.write("compose.yml", &shop.compose_file(&format!("    depends_on: [database]\n{database}")));
    assert_eq!(shop.image_of(None).await, format!("{}:1", shop.lab.name));
    shop.up().await.unwrap();
    assert!(shop.cli.dry_run(&shop.project, "app").await.unwrap().unchanged);
    // As in a later life, which has not looked yet.
    let fresh = ComposeCli::from_environment();
    assert!(fresh.dry_run(&shop.project, "app").await.unwrap().unchanged);
    assert_eq!(shop.lab.engine.container(&shop.lab.named("database-1")).await.unwrap(), None, "it is not ours to make");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_resolved_says_why() {
    let shop = Shop::new();
    shop.write("compose.yml", "services: [\n");
    let error = shop.cli.config(&shop.project, None).await.unwrap_err().to_string();
    assert!(
        error.starts_with("compose config for app ended with exit status: ") && error.contains("compose.yml"),
        "{error}"
    );
}

#[tokio::test]
async fn a_swap_runs_what_the_env_file_says() {
    let shop = Shop::new();
    let (one, two) = (shop.lab.image("1", 0), shop.lab.image("2", 1));
    let first = shop.up().await.unwrap();
    assert!(first.iter().any(|line| line.contains("Started")), "{first:?}");
    let before = shop.app().await;
    assert_eq!((before.image_ref.as_str(), before.is_running()), (one.as_str(), true));

    let unchanged = shop.cli.dry_run(&shop.project, "app").await.unwrap();
    assert_eq!(unchanged, DryRun { unchanged: true, actions: vec![], touches: vec![] });
    shop.write(".env", "SHOP_VERSION=2\n");
    let changed = shop.cli.dry_run(&shop.project, "app").await.unwrap();
    assert!(!changed.unchanged && changed.actions.contains(&"Recreate".to_owned()), "{changed:?}");
    assert_eq!(shop.app().await.id, before.id, "a dry run changes nothing");

    // Two at once: one after the other, and neither fails.
    let (left, right) = tokio::join!(shop.up(), shop.up());
    let lines = [left.unwrap(), right.unwrap()].concat();
    assert!(lines.iter().any(|line| line.contains("Recreated")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("Running")), "{lines:?}");
    let after = shop.app().await;
    assert_eq!(after.image_id, shop.lab.engine.image(&two).await.unwrap().unwrap().id);
    assert!(after.is_running() && after.id != before.id);
}

#[tokio::test]
async fn an_edited_file_is_noticed_as_drift() {
    let shop = Shop::new();
    shop.lab.image("1", 0);
    shop.up().await.unwrap();
    shop.write("compose.yml", &shop.compose_file("    hostname: edited\n"));
    let drifted = shop.cli.dry_run(&shop.project, "app").await.unwrap();
    assert!(!drifted.unchanged && drifted.actions.contains(&"Recreate".to_owned()), "{drifted:?}");
}

#[tokio::test]
async fn an_absent_image_is_neither_pulled_nor_built() {
    let shop = Shop::new();
    shop.write("compose.yml", &shop.compose_file("    build: .\n"));
    shop.write("Dockerfile", "FROM scratch\nCOPY compose.yml /\n");
    let error = shop.up().await.unwrap_err();
    assert!(error.contains(&format!("{}:1", shop.lab.name)), "{error}");
    assert_eq!(docker(&["images", "-q", &shop.lab.name]), "");
}

#[tokio::test]
async fn a_volume_that_no_longer_fits_is_told_and_kept() {
    let shop = Shop::new();
    shop.lab.image("1", 0);
    let file =
        |volume: &str| shop.compose_file(&format!("    volumes: [\"data:/data\"]\nvolumes:\n  data: {volume}\n"));
    shop.write("compose.yml", &file("{}"));
    shop.up().await.unwrap();
    let made = || docker(&["volume", "inspect", "--format", "{{.CreatedAt}}", &format!("{}_data", shop.lab.name)]);
    let before = made();
    shop.write("compose.yml", &file("{labels: {edited: \"yes\"}}"));
    let asked = shop.cli.dry_run(&shop.project, "app").await.unwrap();
    assert!(!asked.unchanged && asked.actions[0].contains("data will be lost"), "{asked:?}");
    shop.up().await.unwrap();
    assert_eq!(made(), before, "the question was answered with no");
}

/// What an interrupted `up` leaves under a temporary name, when the old container is gone already, holds the
/// only reference to the volume: given its name again, it hands it on.
#[tokio::test]
async fn an_anonymous_volume_is_handed_on_by_the_container_there_was() {
    let shop = Shop::new();
    shop.lab.image("1", 0);
    shop.lab.image("2", 1);
    shop.write("compose.yml", &shop.compose_file("    volumes: [/data]\n"));
    shop.up().await.unwrap();
    let first = shop.app().await;
    assert!(first.mounts[0].is_anonymous(), "{:?}", first.mounts);
    let temporary = format!("{}_{}", &first.id[..12], first.name);
    shop.lab.engine.rename(&first.id, &temporary).await.unwrap();
    shop.lab.engine.rename(&first.id, &first.name).await.unwrap();
    shop.write(".env", "SHOP_VERSION=2\n");
    shop.up().await.unwrap();
    let second = shop.app().await;
    assert_ne!(second.id, first.id);
    assert_eq!(second.mounts[0].name, first.mounts[0].name);
    // Without a container to take it from, Compose begins with an empty one.
    shop.lab.engine.remove(&second.id).await.unwrap();
    shop.up().await.unwrap();
    assert_ne!(shop.app().await.mounts[0].name, first.mounts[0].name);
    docker(&["volume", "rm", &first.mounts[0].name]);
}

/// Which of `depends_on` counts with `--no-deps`? What concerns those that are named.
#[tokio::test]
async fn several_services_are_made_in_their_order_and_nobody_else() {
    let shop = Shop::new();
    shop.lab.image("1", 0);
    let image = &shop.lab.name;
    let service = |name: &str, more: &str| format!("  {name}:\n    image: {image}:${{SHOP_VERSION}}\n    {more}\n");
    let needs =
        "    depends_on: {init: {condition: service_completed_successfully}, other: {condition: service_started}}\n";
    let file = |code: u8| {
        let init = format!("{{command: [sh, -c, \"sleep 0.3; exit {code}\"], network_mode: none}}");
        let init = format!("  init: {{image: \"{image}:${{SHOP_VERSION}}\", {}\n", init.trim_start_matches('{'));
        [
            shop.compose_file(needs),
            init,
            service("lodger", "network_mode: service:app"),
            service("other", "network_mode: none"),
        ]
        .concat()
    };
    let project = Project { crew: ["lodger", "init"].map(Into::into).to_vec(), ..shop.project.clone() };
    let up = async || {
        let (lines, _told) = mpsc::channel(100);
        shop.cli.up(&project, lines).await.map_err(|error| error.to_string())
    };
    let container =
        async |service: &str| shop.lab.engine.container(&shop.lab.named(&format!("{service}-1"))).await.unwrap();
    shop.write("compose.yml", &file(0));
    up().await.unwrap();
    let (init, app, lodger) = (container("init").await.unwrap(), shop.app().await, container("lodger").await.unwrap());
    assert_eq!((init.is_alive(), init.exit_code), (false, 0), "it was waited for");
    assert!(init.started_at < app.started_at && app.started_at < lodger.started_at);
    assert_eq!(lodger.lives_in(), [app.id.as_str()]);
    assert_eq!(container("other").await, None, "who is not named is neither waited for nor made");
    for service in ["app", "init", "lodger"] {
        let dry_run = shop.cli.dry_run(&project, service).await.unwrap();
        assert!(dry_run.unchanged, "{service}: {dry_run:?}");
    }
    shop.write("compose.yml", &file(3));
    let error = up().await.unwrap_err();
    assert!(error.contains("\"init\" didn't complete successfully: exit 3"), "{error}");
}

/// Prints the image that Compose resolves, and the command it would run.
#[tokio::test]
#[ignore = "run by the test below, with another environment"]
async fn resolve() {
    let Some(project) = std::env::var_os(HELPER).and_then(|_| std::env::var("PROJECT").ok()) else { return };
    let project: Project = serde_json::from_str(&project).unwrap();
    let config = ComposeCli::from_environment().config(&project, None).await.unwrap();
    println!("resolved {:?} {:?}", config.name, config.services["app"].image.as_deref().unwrap_or_default());
}

#[tokio::test]
async fn our_own_environment_does_not_reach_the_project() {
    let shop = Shop::new();
    let project = serde_json::to_string(&shop.project).unwrap();
    let environment = [
        ("PROJECT", project.as_str()),
        ("SHOP_VERSION", "9"),
        ("COMPOSE_FILE", "/nowhere.yml"),
        ("COMPOSE_PROJECT_NAME", "another"),
    ];
    let output = again("compose::resolve", &environment).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = format!("resolved \"{0}\" \"{0}:1\"", shop.lab.name);
    assert!(said.contains(&expected), "{said}");
}
