//! What the doctor finds, one broken thing a row.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use processgit_updater::doctor::Verdict::{Bad, Warning};
use processgit_updater::doctor::around::Holder;
use processgit_updater::engine::simulated::{Behaviour, Fate, Mate, World};
use processgit_updater::engine::{ContainerSpec, EngineError, Healthcheck, RunState, label};
use processgit_updater::health::VersionAt;
use processgit_updater::https::fault::Fault;
use processgit_updater::registry::{Login, RegistryError, RegistryFault};
use processgit_updater::release::{Asset, Channel, Release, ReleaseSource, SourceError, SourceFault};
use processgit_updater::store::StoreError;
use processgit_updater::trust::error::{LogFault, Signed};
use processgit_updater::trust::{Trust, TrustError, TrustFault};
use processgit_updater::update::job::Verified;
use processgit_updater::update::ports::{DataError, EnvError, HookSetting, Obstacle, Place, PlaceError};

use crate::bench::{At, SEAL, Scene, add_service, runs_as};
use crate::doctor::{Case, around, fails, fails_as, one, ports, troubles, world};

struct Elsewhere(Result<Vec<String>, PlaceError>);

#[async_trait]
impl Place for Elsewhere {
    async fn check(&self) -> Result<Vec<String>, PlaceError> {
        self.0.clone()
    }
    async fn settle(&self) -> Result<(), PlaceError> {
        Ok(())
    }
}

fn registry(fault: RegistryFault) -> RegistryError {
    RegistryError::new(fault, "ghcr.io", "it happened")
}

#[tokio::test(start_paused = true)]
async fn the_engine_and_the_place() {
    for (what, case, verdict, says) in [
        (
            "no engine",
            Case { faults: At::nth("engine.info", 1, Fate::Away), ..Case::default() },
            Bad,
            &["engine: the Docker engine does not answer", "systemctl start docker"][..],
        ),
        (
            "an address that is none",
            around(|a| a.facts = Err(EngineError::Unreachable("DOCKER_HOST is \"x\"".into()))),
            Bad,
            &["engine: ", "DOCKER_HOST is \"x\""],
        ),
        (
            "a proxy that allows too little",
            around(|a| a.refused = vec!["POST containers/*/update".into()]),
            Bad,
            &["engine calls: ", "POST containers/*/update", "deploy/socket-proxy.yml"],
        ),
        (
            "containers cannot be listed",
            fails("engine.containers", "listing containers: refused"),
            Bad,
            &["engine calls: listing containers"],
        ),
        (
            "a state folder in the container's layer",
            ports(|p| p.place = Arc::new(Elsewhere(Err(PlaceError::StateNotMounted { state: "/s".into() })))),
            Bad,
            &["place: the state folder /s ", "is no mount", "volumes: "],
        ),
        (
            "nobody starts the updater again",
            ports(|p| p.place = Arc::new(Elsewhere(Ok(vec!["restart policy `no`".into()])))),
            Warning,
            &["place: restart policy `no`", "docker update --restart unless-stopped"],
        ),
    ] {
        one(what, case, verdict, says).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_application() {
    for (what, case, verdict, says) in [
        (
            "another name",
            world(|w| {
                w.containers[0].name = "other".into();
                w.containers[0].labels.insert(label::SERVICE.into(), "other".into());
            }),
            Bad,
            &["application: there is no container \"processgit\"", "docker compose up -d"][..],
        ),
        (
            "stopped",
            world(|w| w.containers[0].state = RunState::Exited),
            Bad,
            &["application: container processgit is exited (exit code 0)", "docker start processgit"],
        ),
        (
            "unhealthy",
            world(|w| w.containers[0].healthcheck = Healthcheck::Unhealthy),
            Bad,
            &["application: ", "unhealthy", "docker logs --tail 50 processgit"],
        ),
        (
            "nobody starts it again",
            world(|w| w.containers[0].restart_policy.name = "no".into()),
            Warning,
            &["application: ", "restart policy `no`", "restart: unless-stopped"],
        ),
        (
            "500",
            world(|w| w.images.values_mut().for_each(|i| i.behaviour = Behaviour::Answers500)),
            Bad,
            &["health: ", "answers 500, expected 200", "PROCESSGIT_UPDATER_HEALTH_URL"],
        ),
        ("silence", fails("probe.ask", "refused"), Bad, &["health: ", "does not answer: refused"]),
        (
            "an answer without its version",
            Case {
                scene: Scene {
                    options: |o| o.health.version = Some(VersionAt::Pointer("/v".into())),
                    ..Scene::default()
                },
                ..Case::default()
            },
            Bad,
            &["health: ", "nothing at /v"],
        ),
        (
            "a slow HEALTHCHECK",
            world(|w| {
                w.containers[0].healthcheck = Healthcheck::Healthy;
                w.containers[0].healthcheck_seconds = 30;
            }),
            Warning,
            &["healthcheck: ", "30 s", "PROCESSGIT_UPDATER_HEALTH_TIMEOUT=60s"],
        ),
        (
            "made by hand",
            world(|w| w.containers[0].labels.clear()),
            Bad,
            &["project: ", "com.docker.compose.project", "docker compose up -d"],
        ),
        (
            "its image was pruned",
            world(|w| w.images.clear()),
            Bad,
            &["services: ", "was removed from the engine", "docker compose up -d processgit"],
        ),
    ] {
        if what == "its image was pruned" {
            // Then it cannot answer either, in this world.
            let found = troubles(case).await;
            assert!(found.iter().any(|(_, text)| says.iter().all(|part| text.contains(part))), "{found:?}");
            continue;
        }
        one(what, case, verdict, says).await;
    }
}

fn scene(scene: Scene) -> Case {
    Case { scene, ..Case::default() }
}

fn runs_latest(world: &mut World) {
    runs_as(world, "latest");
}

#[tokio::test(start_paused = true)]
async fn the_deployment() {
    for (what, case, verdict, says) in [
        (
            "a service without a container",
            scene(Scene { options: |o| o.move_services = vec!["worker".into()], ..Scene::default() }),
            Bad,
            &["services: service worker", "docker compose up -d worker"][..],
        ),
        (
            "no Compose",
            fails("compose.config", "no Docker Compose v2"),
            Bad,
            &["compose: ", "no Docker Compose v2", "docker compose config"],
        ),
        (
            "a folder that is read-only",
            fails_as(
                "env.preflight",
                EnvError::Unwritable {
                    path: "/deploy/.env".into(),
                    folder: "/deploy".into(),
                    cause: std::io::Error::from_raw_os_error(30).into(),
                },
            ),
            Bad,
            &[".env: ", "its folder /deploy cannot be written: Read-only", "findmnt -T /deploy", "mount it writable"],
        ),
        (
            "no .env",
            world(|w| {
                w.env = None;
                runs_latest(w);
            }),
            Warning,
            &[".env: there is no", "env set PROCESSGIT_VERSION"],
        ),
        (
            "a key that selects nothing",
            scene(Scene { options: |o| o.version_key = "OTHER".into(), ..Scene::default() }),
            Bad,
            &["version key: with OTHER=", "image: ghcr.io/algomation-ai/processgit:${OTHER:-latest}"],
        ),
        (
            "a version that is none",
            scene(Scene {
                env: "PROCESSGIT_VERSION=latest\n",
                world: |w| {
                    w.images.values_mut().for_each(|i| i.version = "main".into());
                    runs_latest(w);
                },
                ..Scene::default()
            }),
            Warning,
            &[
                "version key: which version runs is not known: PROCESSGIT_VERSION=latest names no version",
                "the application calls itself \"main\"",
                "update --allow-downgrade",
            ],
        ),
        (
            "another service of the same image",
            world(|w| {
                let now = w.containers[0].started_at.unwrap();
                w.add_mate("init", Mate::Init, now);
            }),
            Warning,
            &["followers: init", "PROCESSGIT_UPDATER_MOVE_SERVICES=init"],
        ),
        (
            "half a swap",
            world(|w| {
                let mut half = w.containers[0].clone();
                (half.id, half.name) = ("b".repeat(64), "aaaaaaaaaaaa_processgit".into());
                half.state = RunState::Created;
                w.containers.push(half);
            }),
            Bad,
            &["services: service processgit has 2 containers", "--scale processgit=1"],
        ),
        (
            "a lodger",
            world(|w| {
                add_service(w, "tail", false);
                w.containers[1].state = RunState::Exited;
                w.containers[1].network_mode = format!("container:{}", w.containers[0].id);
            }),
            Bad,
            &["services: container test-tail-1 lives in the namespaces of processgit", "MOVE_SERVICES"],
        ),
    ] {
        one(what, case, verdict, says).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_data() {
    for (what, case, verdict, says) in [
        (
            "snapshots are off",
            scene(Scene { snapshots: false, ..Scene::default() }),
            Warning,
            &["data: NO data is copied", "/data", "PROCESSGIT_UPDATER_SNAPSHOT=on"][..],
        ),
        (
            "left out",
            scene(Scene { options: |o| o.snapshot_exclude = vec!["/data".into()], ..Scene::default() }),
            Warning,
            &["data: not copied: /data", "SNAPSHOT_EXCLUDE"],
        ),
        (
            "somebody else writes",
            world(|w| add_service(w, "db", true)),
            Bad,
            &["writers: ", "test-db-1", "PROCESSGIT_UPDATER_STOP_SERVICES="],
        ),
        (
            "a database beside it",
            world(|w| {
                let now = w.containers[0].started_at.expect("it runs");
                w.add_store("db", std::time::Duration::ZERO, now);
            }),
            Warning,
            &[
                "data beside: data beside the application is NOT copied: db (volume db; the application depends on it)",
                "PROCESSGIT_UPDATER_DATA_ELSEWHERE=db",
                "PROCESSGIT_UPDATER_DATA_SERVICES=db",
            ],
        ),
        (
            "a name that nothing has",
            scene(Scene { options: |o| o.data_elsewhere = vec!["bd".into()], ..Scene::default() }),
            Warning,
            &["data beside: PROCESSGIT_UPDATER_DATA_ELSEWHERE names bd", "take it out"],
        ),
        (
            "nothing to stop of that name",
            scene(Scene { options: |o| o.stop_services = vec!["worker".into()], ..Scene::default() }),
            Bad,
            &["writers: PROCESSGIT_UPDATER_STOP_SERVICES names worker", "take it out"],
        ),
        (
            "a hook without its service",
            scene(Scene {
                options: |o| {
                    o.hook_before_copy = Some(HookSetting { service: "db".into(), command: vec!["dump".into()] });
                },
                ..Scene::default()
            }),
            Bad,
            &["hooks: ", "\"db: dump\"", "docker compose up -d"],
        ),
        (
            "no room",
            fails_as(
                "data.preflight",
                DataError::Preflight(vec![Obstacle::NoRoom { folder: "/s".into(), needed: 9, free: 1 }]),
            ),
            Bad,
            &["room: no room", "9 MiB needed, 1 MiB free", "free 9 MiB there", "PROCESSGIT_UPDATER_SNAPSHOT_DIR"],
        ),
    ] {
        one(what, case, verdict, says).await;
    }
}

/// What `.env` selects and what runs come together by an update or by an edit, never by `docker compose up`, which
/// would be an update without a way back.
#[tokio::test(start_paused = true)]
async fn another_version_in_env() {
    let found = troubles(scene(Scene { env: "PROCESSGIT_VERSION=1.0.9\n", ..Scene::default() })).await;
    let (verdict, text) = &found[0];
    assert_eq!(*verdict, Warning, "{found:#?}");
    for part in [
        "drift: PROCESSGIT_VERSION=1.0.9 in .env has not been applied",
        "processgit-updater env set --file ",
        " PROCESSGIT_VERSION 1.0.0",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(found.iter().all(|(_, text)| !text.contains("compose up")), "{found:#?}");
}

struct Silent(SourceError);

#[async_trait]
impl ReleaseSource for Silent {
    async fn latest(&self, _: Channel) -> Result<Release, SourceError> {
        Err(self.0.clone())
    }
    async fn by_tag(&self, _: &str) -> Result<Release, SourceError> {
        Err(self.0.clone())
    }
    async fn fetch(&self, _: &Asset, _: usize) -> Result<Bytes, SourceError> {
        Err(self.0.clone())
    }
}

/// The release is listed; none of its files is there.
struct Listed(Arc<dyn ReleaseSource>);

#[async_trait]
impl ReleaseSource for Listed {
    async fn latest(&self, channel: Channel) -> Result<Release, SourceError> {
        self.0.latest(channel).await
    }
    async fn by_tag(&self, tag: &str) -> Result<Release, SourceError> {
        self.0.by_tag(tag).await
    }
    async fn fetch(&self, asset: &Asset, _: usize) -> Result<Bytes, SourceError> {
        Err(SourceError::new(SourceFault::NoFile, format!("{} is gone", asset.name)))
    }
}

/// Nobody is trusted, for this reason.
struct Distrusts(TrustFault);

#[async_trait]
impl Trust for Distrusts {
    fn carriers(&self) -> &'static [&'static str] {
        &[]
    }
    async fn manifest(&self, _: &Bytes, _: &BTreeMap<String, Bytes>) -> Result<Verified, TrustError> {
        Err(TrustError::new(self.0.clone(), "it happened"))
    }
    async fn image(&self, _: &str, _: &str, _: &str) -> Result<Verified, TrustError> {
        Err(TrustError::new(self.0.clone(), "it happened"))
    }
    fn agrees(&self, _: &str, _: &str) -> Result<(), TrustError> {
        Ok(())
    }
    fn describe(&self) -> String {
        String::new()
    }
}

#[tokio::test(start_paused = true)]
async fn the_world_outside() {
    for (what, case, verdict, says) in [
        (
            "no policy",
            around(|a| a.trust = Err("PROCESSGIT_UPDATER_SIGNING_KEY=/k: cannot be read".into())),
            Bad,
            &["trust: PROCESSGIT_UPDATER_SIGNING_KEY=/k"][..],
        ),
        (
            "an old root",
            around(|a| a.trust.as_mut().unwrap().since = Some("2026-01-03T00:00:00Z".parse().unwrap())),
            Warning,
            &["trusted root: ", "334 days old", "PROCESSGIT_UPDATER_TRUSTED_ROOT_REFRESH=true"],
        ),
        (
            "another time",
            around(|a| a.reach.as_mut().unwrap().date = Some("2026-12-03T00:05:00Z".parse().unwrap())),
            Warning,
            &["clock: ", "the release source is 300 s ahead", "timedatectl"],
        ),
        (
            "no way out",
            ports(|p| p.releases = Arc::new(Silent(SourceError::timeout("unreachable")))),
            Bad,
            &["releases: unreachable", "try again; if it stays slow"],
        ),
        (
            "no release",
            ports(|p| p.releases = Arc::new(Silent(SourceError::not_found("there is no stable release")))),
            Warning,
            &["releases: there is no stable release", "--channel prerelease"],
        ),
        (
            "few questions left",
            around(|a| a.reach.as_mut().unwrap().remaining = Some(2)),
            Warning,
            &["releases: ", "2 of 60 questions left", "PROCESSGIT_UPDATER_GITHUB_TOKEN"],
        ),
        (
            "a release of something else",
            scene(Scene { manifest: |m| m["image"]["repository"] = "algomation-ai/other".into(), ..Scene::default() }),
            Bad,
            &["newest release: ", "algomation-ai/other:1.1.0", "PROCESSGIT_UPDATER_REPO"],
        ),
        (
            "a release that policy refuses",
            scene(Scene { manifest: |m| m["name"] = "other".into(), ..Scene::default() }),
            Warning,
            &["newest release: v1.1.0 would be refused", "other", "processgit-updater check v1.1.0"],
        ),
        (
            "a manifest that is none",
            scene(Scene { manifest: |m| m["surprise"] = true.into(), ..Scene::default() }),
            Bad,
            &["newest release: ", "surprise", "choose another release, or tell the publisher"],
        ),
        (
            "a file that is not there",
            ports(|p| p.releases = Arc::new(Listed(p.releases.clone()))),
            Bad,
            &["newest release: release.json cannot be fetched: release.json is gone", "try again in a few minutes"],
        ),
        (
            "a manifest that is not signed",
            ports(|p| p.trust = Arc::new(Distrusts(TrustFault::Unsigned(Signed::Manifest)))),
            Bad,
            &["newest release: the manifest of v1.1.0 is not trusted: it happened", "ask the publisher to sign"],
        ),
        (
            "a log that cannot be reached",
            ports(|p| {
                let fault = LogFault::Unanswered(Fault::Dns);
                p.trust = Arc::new(Distrusts(TrustFault::Log { host: "rekor.example".into(), fault }));
            }),
            Bad,
            &["newest release: the manifest of v1.1.0 cannot be verified: it happened", "let this machine reach rekor"],
        ),
        (
            "no credentials",
            around(|a| a.has_image = Err(registry(RegistryFault::Denied(Login::None)))),
            Bad,
            &["registry: it happened", "docker login ghcr.io"],
        ),
        (
            "a certificate that nobody here believes",
            around(|a| {
                a.has_image =
                    Err(registry(RegistryFault::Unanswered { fault: Fault::UnknownAuthority, elsewhere: None }))
            }),
            Bad,
            &["registry: it happened", "PROCESSGIT_UPDATER_CA_FILE"],
        ),
        (
            "a registry that is overloaded",
            around(|a| a.has_image = Err(registry(RegistryFault::Server))),
            Bad,
            &["registry: it happened", "try again later"],
        ),
        ("no such image", around(|a| a.has_image = Ok(false)), Bad, &["registry: ghcr.io has no", "@sha256:1111"]),
        (
            "signatures on images do not count",
            scene(Scene { options: |o| o.verify_image = false, ..Scene::default() }),
            Warning,
            &["image signature: ", "PROCESSGIT_UPDATER_VERIFY_IMAGE=true"],
        ),
    ] {
        let mut case = case;
        if what == "a release of something else" {
            // The simulated world would follow the manifest.
            case.ports = |p| p.trust = Arc::new(crate::bench::Trusting);
        }
        one(what, case, verdict, says).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_and_what_is_left() {
    let left = |job: Option<&'static str>, role: &'static str| {
        let world: fn(&mut World) = match (job.is_some(), role) {
            (true, _) => |w| label_one(w, label::JOB, "job_0000000000000001", "guard-old"),
            (false, _) => |w| label_one(w, label::OWNER, "volume /var/lib/processgit-updater", "helper-data"),
        };
        scene(Scene { world, ..Scene::default() })
    };
    for (what, case, verdict, says) in [
        (
            "a folder that cannot be written",
            around(|a| a.state.unwritable = Some("Permission denied".into())),
            Bad,
            &["state folder: ", "PROCESSGIT_UPDATER_STATE_DIR", "Permission denied", "install -d"][..],
        ),
        ("a full disk", around(|a| a.state.free = Some(1 << 20)), Warning, &["state folder: ", "1 MiB free", "df -h"]),
        (
            "a damaged journal",
            around(|a| {
                let damaged = StoreError::Damaged { file: "/s/journal.db".into(), why: "no header".into() };
                a.state.unreadable = Some(Arc::new(damaged));
            }),
            Bad,
            &["journal: ", "cannot be read", "start the updater"],
        ),
        (
            "a newer journal",
            around(|a| {
                let newer = StoreError::Newer { file: "/s/journal.db".into(), found: 9, known: 1 };
                a.state.unreadable = Some(Arc::new(newer));
            }),
            Bad,
            &["journal: ", "format 9", "install the version of the updater that ran last"],
        ),
        (
            "a job that nobody ends",
            Case { unfinished: true, ..around(|a| a.state.holder = Holder::Nobody) },
            Bad,
            &["jobs: job_00000000000000a1 has not ended", "processgit-updater serve"],
        ),
        (
            "a guard of a job that has ended",
            left(Some("job"), "guard-old"),
            Warning,
            &["leftovers: container left (guard-old) is left of job_0000000000000001", "docker rm -f left"],
        ),
        (
            "another updater's claim",
            world(|w| {
                label_one(w, label::OWNER, "other", "claim");
                w.containers.last_mut().unwrap().name = "processgit-updater-claim-test.processgit".into();
            }),
            Bad,
            &["leftovers: another updater works on service processgit", "docker rm processgit-updater-claim-test"],
        ),
        (
            "a forged label of a job of ours",
            world(|w| {
                label_one(w, label::JOB, "job_0000000000000001", "guard-old");
                w.containers.last_mut().unwrap().labels.remove(label::SEAL);
            }),
            Warning,
            &[
                "leftovers: these containers say that they belong to this updater, and do not carry its seal: left.",
                "docker inspect left",
            ],
        ),
        (
            "a forged owner",
            world(|w| {
                label_one(w, label::OWNER, "first", "helper-data");
                w.containers.last_mut().unwrap().name = "another".into();
            }),
            Warning,
            &["leftovers: these containers say that they belong to this updater", "docker inspect another"],
        ),
        (
            "a helper, and no updater",
            Case { around: |a| a.state.holder = Holder::Nobody, ..left(None, "helper-data") },
            Warning,
            &["leftovers: container left (helper-data)", "docker logs left"],
        ),
    ] {
        one(what, case, verdict, says).await;
    }
}

pub fn label_one(world: &mut World, name: &str, value: &str, role: &str) {
    add_service(world, "left", false);
    let c = world.containers.last_mut().unwrap();
    c.name = "left".into();
    let labels = [(name.to_owned(), value.to_owned()), (label::ROLE.to_owned(), role.to_owned())].into();
    c.labels = SEAL.put_on(ContainerSpec { name: c.name.clone(), labels, ..ContainerSpec::default() }).labels;
}
