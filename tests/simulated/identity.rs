//! Which container is the application's, and which only looks like it.

use std::sync::{Arc, Mutex};

use processgit_updater::engine::simulated::{Behaviour, NoFaults, World};
use processgit_updater::engine::{Container, RunState, label};
use processgit_updater::update::job::State;
use processgit_updater::update::ports::Options;

use crate::bench::{Installation, Scene, update};
use crate::invariants::assert_verdict;
use crate::others::Meddler;

type Deed = fn(&mut World);
type Setting = fn(&mut Options);

fn rename(world: &mut World, name: &str) {
    world.containers[0].name = name.into();
}

/// A container of this name with the labels of the application's.
fn beside(world: &mut World, name: &str, change: fn(&mut Container)) {
    let mut c = world.containers[0].clone();
    c.id = format!("{name:d<64}");
    c.name = name.into();
    c.image_id = "sha256:copy".into();
    c.state = RunState::Running;
    c.mounts.clear();
    change(&mut c);
    world.containers.push(c);
}

/// As `docker commit` and `docker run` make it.
fn copy(world: &mut World) {
    beside(world, "copy", |c| drop(c.labels.insert(label::IMAGE.into(), "sha256:another".into())));
}

/// `docker run --label …`, with the three labels by which people filter.
fn with_three_labels(world: &mut World) {
    beside(world, "three", |c| drop(c.labels.remove(label::CONFIG_HASH)));
}

#[tokio::test(start_paused = true)]
async fn the_application_is_found_by_its_labels() {
    let (none, other): (Setting, Setting) = (|_| {}, |o| o.app_container = "test-processgit-1".into());
    let by_service: Setting = |o| (o.app_container, o.app_service) = ("shop".into(), Some("processgit".into()));
    // What it is called, how it is looked for, and why it is not found.
    let rows: [(&str, Deed, Setting, Option<&str>); 9] = [
        ("by its name", |_| {}, none, None),
        ("another number, looked for by the service", |w| rename(w, "test-processgit-2"), none, None),
        ("another number, looked for by the first", |w| rename(w, "test-processgit-7"), other, None),
        ("a name of its own, looked for by Compose's", |w| rename(w, "shop"), other, None),
        ("by the service that is set", |w| rename(w, "shop-1.2"), by_service, None),
        (
            "another container has its name",
            |w| {
                rename(w, "test-processgit-1");
                beside(w, "processgit", |c| c.labels.clear());
            },
            none,
            // The simulated Compose gives that name.
            Some("the name processgit is taken"),
        ),
        (
            "of two projects",
            |w| {
                rename(w, "a");
                beside(w, "b", |c| drop(c.labels.insert(label::PROJECT.into(), "second".into())));
            },
            none,
            Some("several have the labels of its service: a, b"),
        ),
        ("none", |w| drop(w.containers.remove(0)), none, Some("and none with the labels of its service")),
        ("not made by Compose", |w| w.containers[0].labels.clear(), none, Some("was not made by Docker Compose")),
    ];
    for (what, world, options, refused) in rows {
        let installation = Installation::new(Scene { world, options, ..Scene::default() });
        let job = installation.run(Arc::new(NoFaults)).await;
        match refused {
            None => assert_eq!(job.state, State::Committed, "{what}: {:?}", job.error),
            Some(text) => assert!(job.error.clone().is_some_and(|e| e.contains(text)), "{what}: {:?}", job.error),
        }
    }
}

/// A name that the setting does not have, and that nothing but the last update tells.
#[tokio::test(start_paused = true)]
async fn a_name_that_changed_with_an_update_is_found_by_the_journal() {
    let scene = Scene {
        world: |w| {
            rename(w, "shop-1.0");
        },
        options: |o| o.app_container = "shop-1.0".into(),
        before: &[update],
        ..Scene::default()
    };
    // The update has named it as the files say.
    let installation = Installation::ready(scene).await;
    assert_eq!(installation.world.world().containers[0].name, "processgit");
    let job = installation.run(Arc::new(NoFaults)).await;
    assert_eq!(job.state, State::Committed, "{:?}", job.error);
}

/// A container that Compose does not count as the service's is no obstacle, whenever it comes; a copy that it does
/// count ends the update before the swap, and is neither stopped nor removed. Both ways have an end.
#[tokio::test(start_paused = true)]
async fn a_container_that_looks_like_the_application_is_left_alone() {
    let rows: [(&str, Deed, &str, State); 6] = [
        ("three labels, during the migration", with_three_labels, "engine.wait", State::Committed),
        ("three labels, after the swap", with_three_labels, "compose.up/start", State::Committed),
        ("a copy, before the stop", copy, "data.hot", State::RolledBack),
        ("a copy, during the migration", copy, "engine.wait", State::RolledBack),
        ("a copy, with .env written", copy, "env.write", State::RolledBack),
        ("a copy, after the swap", copy, "compose.up/start", State::Committed),
    ];
    for (what, deed, call, end) in rows {
        let installation = Installation::ready(Scene { migration: Some("migrate"), ..Scene::default() }).await;
        let deed = Mutex::new(Some(deed));
        let meddler = Arc::new(Meddler { world: installation.world.clone(), call, deed });
        let job = installation.run(meddler.clone()).await;
        assert!(meddler.deed.lock().unwrap().is_none(), "{what}: it came to that");
        assert_eq!(job.state, end, "{what}: {:?}", job.error);
        let mut world = installation.world.world();
        let at = world.containers.iter().position(|c| ["copy", "three"].contains(&&*c.name));
        let copied = at.map(|at| world.containers.remove(at));
        drop(world);
        assert!(copied.is_some_and(|c| c.is_running()), "{what}: it is left alone");
        assert_verdict(&installation, &job, what);
        if end == State::RolledBack {
            let error = job.error.unwrap_or_default();
            assert!(
                error.contains("container copy was not made by Compose") && error.contains("docker rm -f copy"),
                "{error}"
            );
        }
    }
}

/// Before anything is begun it is a reason to refuse.
#[tokio::test(start_paused = true)]
async fn a_copy_that_is_there_already_is_refused() {
    for world in [copy as Deed, |w| beside(w, "test-processgit-2", |_| {})] {
        let installation = Installation::ready(Scene { world, ..Scene::default() }).await;
        let before = installation.world.world().containers.clone();
        let job = installation.run(Arc::new(NoFaults)).await;
        let error = job.error.unwrap_or_default();
        assert!(job.state == State::RolledBack && error.contains("service processgit has 2 containers"), "{error}");
        assert_eq!(installation.world.world().containers, before);
    }
    let installation = Installation::ready(Scene { world: with_three_labels, ..Scene::default() }).await;
    assert_eq!(installation.run(Arc::new(NoFaults)).await.state, State::Committed);
}

/// An image that carries the label of an environment file, as `docker commit` makes it.
#[tokio::test(start_paused = true)]
async fn an_environment_file_that_the_image_names_does_not_count() {
    fn labelled(world: &mut World, image: &str, container: &str) {
        world.image_labels.insert(label::ENVIRONMENT_FILE.into(), image.into());
        world.containers[0].labels.insert(label::ENVIRONMENT_FILE.into(), container.into());
    }
    let rows: [(&str, Deed, Option<&str>); 3] = [
        ("inherited", |w| labelled(w, "/evil/.env", "/evil/.env"), None),
        ("the operator's own, and the image's", |w| labelled(w, "/simulated/.env", "/simulated/.env"), None),
        ("given to Compose", |w| labelled(w, "/evil/.env", "/srv/other.env"), Some("/srv/other.env")),
    ];
    for (what, world, refused) in rows {
        for behaviour in [Behaviour::Good, Behaviour::Crashes] {
            let job =
                Installation::ready(Scene { world, behaviour, ..Scene::default() }).await.run(Arc::new(NoFaults)).await;
            match refused {
                Some(text) => assert!(job.error.is_some_and(|e| e.contains(text)), "{what}"),
                None => {
                    assert_eq!(job.state == State::Committed, behaviour == Behaviour::Good, "{what}: {:?}", job.error)
                }
            }
        }
    }
}
