//! Compose takes its behaviour from `.env` too: none of it may change what a look says and what a swap does.

use std::collections::BTreeMap;
use std::path::Path;

use processgit_updater::engine::{Compose, Engine, Project};
use regex::bytes::Regex;
use tokio::sync::mpsc;

use crate::compose::Shop;
use crate::lab::{docker, write};

fn known() -> BTreeMap<&'static str, &'static str> {
    let lines = include_str!("compose_variables.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once('=').expect("NAME=value")).collect()
}

/// Go keeps its texts without ends, one after the other: a variable's name may go on with the next text.
#[test]
fn the_list_has_every_variable_of_the_installed_compose() {
    let path = std::env::var_os("PATH").expect("PATH");
    let mut binaries = std::env::split_paths(&path).map(|folder| folder.join("docker-compose"));
    let binary = std::fs::read(binaries.find(|file| file.is_file()).expect("docker-compose")).unwrap();
    let known = known();
    let mut found = 0;
    for name in Regex::new("COMPOSE_[A-Z]{2}[A-Z_]+").unwrap().find_iter(&binary) {
        let name = std::str::from_utf8(name.as_bytes()).unwrap();
        for name in name.split("COMPOSE_").filter(|rest| !rest.is_empty()) {
            let name = format!("COMPOSE_{name}");
            assert!(known.keys().any(|known| name.starts_with(known)), "{name} is not in the list");
            found += 1;
        }
    }
    assert!(found > 15, "the binary holds {found} names: is it Compose?");
}

/// Beside the application a container of the same project that no file of the updater's names: it is there
/// afterwards, and so is the application, under its name.
#[tokio::test]
async fn none_of_them_changes_a_look_or_a_swap() {
    let shop = Shop::new();
    shop.lab.image("1", 0);
    let image = format!("{}:1", shop.lab.name);
    let folder = Path::new(&shop.project.working_dir);
    let beside = format!("services: {{sibling: {{image: \"{image}\", network_mode: none}}}}\n");
    let beside = write(folder.join("beside.yml"), &beside);
    let (beside, project) = (beside.display().to_string(), shop.project.name.as_str());
    docker(&["compose", "-p", project, "-f", &beside, "up", "-d", "--pull", "never"]);
    shop.up().await.unwrap();
    let (app, sibling) = (shop.app().await, shop.lab.named("sibling-1"));
    let config = shop.cli.config(&shop.project, None).await.unwrap();

    for (name, value) in known() {
        shop.write(".env", &format!("SHOP_VERSION=1\n{name}={value}\n"));
        let swap = async {
            let (lines, _told) = mpsc::channel(100);
            let resolved = shop.cli.config(&shop.project, None).await?;
            let dry_run = shop.cli.dry_run(&shop.project, "app").await?;
            shop.cli.up(&shop.project, lines).await.map(|()| (resolved, dry_run))
        };
        let (resolved, dry_run) = swap.await.unwrap_or_else(|e| panic!("{name}={value}: {e}"));
        assert_eq!(resolved, config, "{name}={value}");
        assert!(dry_run.unchanged, "{name}={value}: {dry_run:?}");
        assert_eq!(shop.app().await.id, app.id, "{name}={value}: the application is as it was");
        let sibling = shop.lab.engine.container(&sibling).await.unwrap();
        assert!(sibling.is_some_and(|c| c.is_running()), "{name}={value}: the sibling is gone");
    }
}

/// What the files ask for is what `.env` says, not what we need ourselves.
#[tokio::test]
async fn our_own_needs_do_not_stand_for_the_projects_variables() {
    let shop = Shop::new();
    let variables = "\"${DOCKER_HOST:-none} ${HOME:-none} ${HTTP_PROXY:-none} ${COMPOSE_PROJECT_NAME}\"";
    shop.write("compose.yml", &shop.compose_file(&format!("    hostname: {variables}\n")));
    let hostname = async || {
        let config = shop.cli.config(&shop.project, None).await.unwrap();
        config.service("app").unwrap().hostname.clone().unwrap()
    };
    assert!(hostname().await.starts_with("none "), "no address of an engine was given");
    shop.write(".env", "DOCKER_HOST=tcp://proxy:2375\nHOME=/home/me\nHTTP_PROXY=http://p\n");
    assert_eq!(hostname().await, format!("tcp://proxy:2375 /home/me http://p {}", shop.project.name));
}

/// `--compatibility`, or the variable in a shell: the name of the container that runs shows it, and it stays.
#[tokio::test]
async fn a_container_keeps_the_kind_of_name_that_it_has() {
    let shop = Shop::new();
    shop.lab.image("1", 0);
    shop.lab.image("2", 1);
    let made = |folder: &str| {
        docker(&["compose", "--compatibility", "--project-directory", folder, "up", "-d", "--pull", "never"])
    };
    shop.write("compose.yml", &format!("name: {}\n{}", shop.project.name, shop.compose_file("")));
    made(&shop.project.working_dir);
    let name = format!("{}_app_1", shop.project.name);
    let before = shop.lab.engine.container(&name).await.unwrap().expect("its name has underscores");
    let project = Project { underscores: Some(true), ..shop.project.clone() };
    assert!(shop.cli.dry_run(&project, "app").await.unwrap().unchanged);
    shop.write(".env", "SHOP_VERSION=2\n");
    let (lines, _told) = mpsc::channel(100);
    shop.cli.up(&project, lines).await.unwrap();
    let after = shop.lab.engine.container(&name).await.unwrap().expect("the name is the same");
    assert_ne!(after.id, before.id);
}
