//! One repository has several names: the manifest's and the Compose file's need not be the same.

use std::sync::Arc;

use processgit_updater::engine::simulated::{Behaviour, NoFaults, World};
use processgit_updater::update::Order;
use processgit_updater::update::job::{Job, State};
use serde_json::{Value, json};

use crate::bench::{Installation, Scene, request};
use crate::invariants::assert_invariants;

/// The name in the Compose file, and the registry and repository of the manifest.
type Names = (fn(&mut World), &'static str, fn(&mut Value));

fn named(registry: &str, repository: &str, manifest: &mut Value) {
    manifest["image"]["registry"] = json!(registry);
    manifest["image"]["repository"] = json!(repository);
}

const SPELLINGS: [Names; 10] = [
    (|w| w.expect("acme/app", "1.1.0"), "acme/app", |m| named("docker.io", "acme/app", m)),
    (|w| w.expect("acme/app", "1.1.0"), "acme/app", |m| named("index.docker.io", "acme/app", m)),
    (|w| w.expect("acme/app", "1.1.0"), "acme/app", |m| named("registry-1.docker.io", "acme/app", m)),
    (|w| w.expect("docker.io/acme/app", "1.1.0"), "docker.io/acme/app", |m| named("docker.io", "acme/app", m)),
    (
        |w| w.expect("index.docker.io/acme/app", "1.1.0"),
        "index.docker.io/acme/app",
        |m| named("docker.io", "acme/app", m),
    ),
    (
        |w| w.expect("registry-1.docker.io/acme/app", "1.1.0"),
        "registry-1.docker.io/acme/app",
        |m| named("docker.io", "acme/app", m),
    ),
    (|w| w.expect("app", "1.1.0"), "app", |m| named("docker.io", "library/app", m)),
    (|w| w.expect("library/app", "1.1.0"), "library/app", |m| named("docker.io", "app", m)),
    (|w| w.expect("GHCR.io/acme/app", "1.1.0"), "GHCR.io/acme/app", |m| named("ghcr.io", "acme/app", m)),
    (|w| w.expect("[::1]:5000/app", "1.1.0"), "[::1]:5000/app", |m| named("[::1]:5000", "app", m)),
];

fn installation((world, _, manifest): Names, behaviour: Behaviour) -> Installation {
    Installation::new(Scene { world, manifest, behaviour, ..Scene::default() })
}

fn runs(installation: &Installation) -> String {
    installation.world.world().containers[0].image_ref.clone()
}

#[tokio::test(start_paused = true)]
async fn an_update_commits_and_comes_back_by_any_name() {
    for names in SPELLINGS {
        let spelled = names.1;
        for (behaviour, end, version) in
            [(Behaviour::Good, State::Committed, "1.1.0"), (Behaviour::Crashes, State::RolledBack, "1.0.0")]
        {
            let installation = installation(names, behaviour);
            let job = installation.run(Arc::new(NoFaults)).await;
            assert_eq!(job.state, end, "{spelled}: {:?}", job.error);
            assert_eq!(runs(&installation), format!("{spelled}:{version}"), "what Compose resolves is what runs");
            assert_invariants(&installation, &job, spelled);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_again_is_nothing_new_and_the_way_back_by_hand_is_open() {
    for names in SPELLINGS {
        let spelled = names.1;
        let installation = installation(names, Behaviour::Good);
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        let job = async |order| -> Job { installation.submit_and_wait(&updater, order).await };
        assert_eq!(job(Order::Update(request())).await.state, State::Committed, "{spelled}");
        let container = installation.world.world().containers[0].id.clone();
        let again = job(Order::Update(request())).await;
        assert_eq!(again.state, State::Committed, "{spelled}: {:?}", again.error);
        assert_eq!(installation.world.world().containers[0].id, container, "{spelled}: nothing is made anew");
        let back = job(Order::Rollback { with_data: true, accept_drift: false, accept_partial: false }).await;
        assert_eq!(back.state, State::Committed, "{spelled}: {:?}", back.error);
        assert_eq!(runs(&installation), format!("{spelled}:1.0.0"));
    }
}
