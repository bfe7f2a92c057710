//! Looks at the release and at the deployment, and makes the Plan. No effects: whatever is wrong is found
//! here, before anything is touched, and all of it is told at once.
//!
//! | file | holds |
//! |---|---|
//! | this one    | what is found: a genuine release, the deployment |
//! | [`wish`]    | what is wanted: another version, a snapshot, earlier data |
//! | [`compose`] | does the wish change what it names, and nothing else? |
//! | [`beside`]  | would `up` touch anything but what is moved? (pure) |
//! | [`data_services`] | databases beside the application whose data belongs to the transaction |
//! | [`data`]    | which data is copied, who else writes to it, the operator's hooks |
//! | [`data_beside`] | data in other containers and on other hosts, and who looks after it (pure) |
//! | [`hosts`]   | the hosts that variables and arguments name (pure) |
//! | [`reach`]   | which container answers to such a name (pure) |
//! | [`sources`] | is everything still there that containers are given from the host? |
//! | [`unset`]   | do the files need what only the operator's shell has? (pure) |
//! | [`labels`]  | how Compose made the container (pure) |
//! | [`named`]   | is there anything of the name that a setting gives? (pure) |
//! | [`unwell`]  | is the application well, so that the gate can judge another version? |
//! | [`assemble`]| the Plan |

pub mod assemble;
pub mod beside;
pub mod compose;
pub mod data;
pub mod data_beside;
pub mod data_services;
pub mod hosts;
pub mod labels;
pub mod named;
pub mod reach;
pub mod sources;
pub mod unset;
pub mod unwell;
pub mod wish;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::effects::is_half_swapped;
use super::job::Verified;
use super::ports::{Options, Ports, VerifiedDigest};
pub use super::refusal::Refused;
use super::refusal::{Code, Refusal};
use super::running::{self, Evidence, Running, VERSION_LABEL};
use crate::command::{line, word};
use crate::engine::{ComposeConfig, Container, EngineInfo, Image, Project, label};
use crate::envfile;
use crate::health::Answer;
use crate::reference;
use crate::release::manifest::{MANIFEST_CAP, Manifest};
use crate::release::{Asset, MANIFEST, Release};
use crate::trust::CARRIER_CAP;

/// So long after its publication the files of a release may still be uploading.
const UPLOADING: SignedDuration = SignedDuration::from_mins(30);
/// The application may take so long to name its version.
const ASKED: Duration = Duration::from_secs(2);

/// A release whose manifest is genuine.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub release: Release,
    pub manifest: Manifest,
    pub verified: Verified,
}

/// What runs, and how it was made.
#[derive(Debug, Clone)]
pub struct Deployment {
    pub engine: EngineInfo,
    pub container: Container,
    pub image: Image,
    pub project: Project,
    pub crew: Vec<Mate>,
    /// Whose data belongs to the transaction too.
    pub data_services: Vec<DataService>,
    /// Why there is none of that name.
    pub no_data_services: Vec<Refusal>,
    /// Every container of the engine.
    pub containers: Vec<Container>,
    pub env: Option<Vec<u8>>,
    /// The key's value in `.env`.
    pub env_value: Option<String>,
    pub running: Running,
    /// What an operator should know of where the updater itself runs.
    pub place_warnings: Vec<String>,
}

/// A service that is moved together with the application's, as it is now.
#[derive(Debug, Clone)]
pub struct Mate {
    pub service: String,
    pub container: Container,
    pub image: Image,
}

/// A service beside the application that holds data of its own, and does not move: a database.
#[derive(Debug, Clone)]
pub struct DataService {
    /// Of the service, or of the container where it is of another project.
    pub name: String,
    pub container: Container,
    /// It has no HEALTHCHECK, but accepts TCP connections at this port.
    pub port: Option<u16>,
}

impl Deployment {
    /// All that is moved: service, container, the image it runs.
    pub fn moved(&self) -> impl Iterator<Item = (&str, &Container, &Image)> {
        let crew = self.crew.iter().map(|mate| (mate.service.as_str(), &mate.container, &mate.image));
        std::iter::once((self.project.service.as_str(), &self.container, &self.image)).chain(crew)
    }

    /// All whose data belongs to the transaction: service, container.
    pub fn with_data(&self) -> impl Iterator<Item = (&str, &Container)> {
        let others = self.data_services.iter().map(|service| (service.name.as_str(), &service.container));
        self.moved().map(|(service, container, _)| (service, container)).chain(others)
    }

    /// It is one of the containers that are moved.
    pub fn moves(&self, container: &Container) -> bool {
        self.moved().any(|(_, moved, _)| moved.id == container.id)
    }

    /// The service's containers, one-off runs left out.
    pub fn of_service<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Container> {
        of_service(&self.containers, &self.project, service)
    }

    /// One container of each service of the project that has any.
    pub fn of_services<'a>(&'a self, config: &'a ComposeConfig) -> BTreeMap<&'a str, &'a Container> {
        config.services.keys().filter_map(|name| Some((name.as_str(), self.of_service(name).next()?))).collect()
    }

    /// With what a manifest says that has just been verified.
    #[must_use]
    pub fn knowing(self, manifest: &Manifest) -> Self {
        let running = self.running.knowing(manifest, &self.container.image_ref, &self.image.repo_digests);
        Self { running, ..self }
    }

    /// This image is the one that runs.
    pub fn runs(&self, digest: &str) -> bool {
        self.image.repo_digests.iter().any(|name| name.split_once('@').is_some_and(|(_, found)| found == digest))
    }

    /// For people: the version where it is known, else the tag of the image that runs (`latest`).
    pub fn version_text(&self) -> Option<String> {
        let tag = || reference::version_of(&self.container.image_ref).map(str::to_owned);
        self.running.version().map(ToString::to_string).or_else(tag)
    }
}

/// Fetches the release, has its manifest judged, and only then reads what it says.
pub async fn candidate(ports: &Ports, tag: &str) -> Result<Candidate, Refused> {
    let release = ports.releases.by_tag(tag).await?;
    let young = young(&release, ports.clock.now());
    let Some(asset) = release.assets.iter().find(|a| a.name == MANIFEST) else {
        return Err(match &young {
            Some(young) => Refusal::new(Code::Uploading, format!("release {tag} has no asset {MANIFEST} yet: {young}"))
                .text("try again in a few minutes"),
            None => Refusal::new(
                Code::NoManifest,
                format!("release {tag} has no asset {MANIFEST}: it was not published for this updater"),
            )
            .text("choose another release, or tell the publisher"),
        }
        .into());
    };
    if let Some(asset) = release.assets.iter().find(|asset| !asset.uploaded) {
        let text = format!("{} of release {tag} is still being uploaded", asset.name);
        let remedy =
            "try again in a few minutes; if it stays so, its upload has failed, and the publisher must repeat it";
        return Err(Refusal::new(Code::Uploading, text).text(remedy).into());
    }
    let manifest = fetch(ports, asset, MANIFEST_CAP).await?;
    let carriers = carriers(ports, &release).await?;
    let uploading = young.filter(|_| carriers.is_empty());
    let verified = ports.trust.manifest(&manifest, &carriers).await.map_err(|e| match e {
        // Whatever else is wrong with a release that is still uploading, waiting comes first.
        _ if uploading.is_some() => {
            let uploading = uploading.as_deref().unwrap_or_default();
            Refusal::new(Code::Uploading, format!("release {tag} has no signature of {MANIFEST} yet: {uploading}"))
                .text("try again in a few minutes")
        }
        e if e.is_refusal() => Refusal::of(format_args!("the manifest of {tag} is not trusted: "), &e),
        e => Refusal::of(format_args!("the manifest of {tag} cannot be verified: "), &e),
    })?;
    let refused = format!("the manifest of {tag} is refused: ");
    let manifest = Manifest::parse(&manifest).map_err(|e| Refusal::of(&refused, &e))?;
    let signing = &manifest.signing;
    ports.trust.agrees(&signing.method, &signing.issuer).map_err(|e| Refusal::of(&refused, &e))?;
    Ok(Candidate { release, manifest, verified })
}

/// What is said of a release whose files may not be there yet.
fn young(release: &Release, now: Timestamp) -> Option<String> {
    let published = release.published_at?;
    let age = now.duration_since(published);
    // Clocks differ a little.
    (age < UPLOADING && age > -UPLOADING).then(|| {
        let minutes = age.as_mins().max(0);
        format!("it was published {minutes} min ago ({published}), so its files may still be uploading")
    })
}

async fn carriers(ports: &Ports, release: &Release) -> Result<BTreeMap<String, Bytes>, Refused> {
    let wanted = release.assets.iter().filter(|a| ports.trust.carriers().contains(&a.name.as_str()));
    let fetched =
        wanted.map(|asset| async { Ok::<_, Refused>((asset.name.clone(), fetch(ports, asset, CARRIER_CAP).await?)) });
    futures_util::future::try_join_all(fetched).await.map(|list| list.into_iter().collect())
}

async fn fetch(ports: &Ports, asset: &Asset, cap: usize) -> Result<Bytes, Refused> {
    let fetched = ports.releases.fetch(asset, cap).await;
    Ok(fetched.map_err(|e| Refusal::of(format_args!("{} cannot be fetched: ", asset.name), &e))?)
}

/// Looks at the application's container and how Compose made it.
pub async fn deployment(ports: &Ports, options: &Options) -> Result<Deployment, Refused> {
    let place_warnings = ports.place.check().await?;
    let (engine, container) = tokio::join!(ports.engine.info(), application(ports, options));
    let engine = engine?;
    let container = container?;
    let project = project_of(ports, &container, options).await?;
    let image = image_of(ports, &container).await?;
    let containers = ports.engine.containers(&[]).await?;
    let crew = crew(ports, &project, &containers).await?;
    let (data_services, no_data_services) = data_services::find(ports, options, &project, &containers).await;
    ports.env.preflight(&project.environment_files()).await?;
    let env = ports.env.read().await?;
    let env_value = env.as_deref().and_then(|bytes| envfile::get(bytes, &options.version_key));
    let running = running(ports, options, &container, &image, env_value.as_deref()).await?;
    Ok(Deployment {
        engine,
        container,
        image,
        project,
        crew,
        data_services,
        no_data_services,
        containers,
        env,
        env_value,
        running,
        place_warnings,
    })
}

/// Which version runs. The journal and the application are asked only where the tag does not decide.
pub async fn running(
    ports: &Ports,
    options: &Options,
    container: &Container,
    image: &Image,
    env_value: Option<&str>,
) -> Result<Running, Refused> {
    let (verified, application) = match running::tag_decides(&container.image_ref) {
        true => (Vec::new(), Err(String::new())),
        false => {
            tokio::try_join!(verified(ports, image), async { Ok(named_by_itself(ports, options, container).await) })?
        }
    };
    let evidence = Evidence {
        image_ref: &container.image_ref,
        repo_digests: &image.repo_digests,
        version_key: &options.version_key,
        env_value,
        verified: &verified,
        application: application.as_deref().map_err(String::as_str),
        process: options.runs_as.as_ref(),
        label: image.labels.get(VERSION_LABEL).map(String::as_str),
    };
    Ok(evidence.weigh())
}

/// What verified manifests have said of the image that runs, newest first.
async fn verified(ports: &Ports, image: &Image) -> Result<Vec<VerifiedDigest>, Refused> {
    let digests = image.repo_digests.iter().filter_map(|name| name.split_once('@')).map(|(_, digest)| digest);
    let asked = digests.map(|digest| ports.journal.verified(digest));
    let found = futures_util::future::try_join_all(asked).await?;
    Ok(found.into_iter().flatten().collect())
}

/// The version that the application names, or why it names none.
async fn named_by_itself(ports: &Ports, options: &Options, container: &Container) -> Result<String, String> {
    let Some(at) = &options.health.version else {
        return Err("PROCESSGIT_UPDATER_HEALTH_VERSION is not set, so the application cannot be asked".to_owned());
    };
    if !container.is_running() {
        return Err("the application does not run, so it cannot be asked".to_owned());
    }
    match ports.probe.ask(container, ASKED).await {
        Answer::Http { status: 200, body } => at.find(&body),
        Answer::Http { status, .. } => Err(format!("the health URL answers {status}, expected 200")),
        Answer::Accepted => Err("the application cannot be asked for its version".to_owned()),
        Answer::Silent(why) => Err(format!("the health URL does not answer: {why}")),
    }
}

/// The application's container: the one that is named, if Compose has made it; else the one whose labels fit,
/// because a container's name changes with `container_name`, a scale or a failed `up`.
pub async fn application(ports: &Ports, options: &Options) -> Result<Container, Refused> {
    let name = &options.app_container;
    let named = ports.engine.container(name).await?;
    if let Some(container) = named.as_ref().filter(|c| c.is_made_by_compose()) {
        return Ok(container.clone());
    }
    let all = ports.engine.containers(&[]).await?;
    let known = ports.journal.last_committed().await?;
    let known = known.and_then(|(_, record)| record.plan).filter(|plan| plan.previous.container_name == *name);
    let known = known.map(|plan| (plan.project.name, plan.project.service));
    let fits = |c: &&Container| {
        let (project, service) = (c.label(label::PROJECT), c.label(label::SERVICE));
        let is_known = known.as_ref().is_some_and(|(p, s)| (project, service) == (Some(p), Some(s)));
        let (Some(project), Some(service)) = (project, service) else { return false };
        let is_set = options.app_service.as_ref().is_some_and(|set| set == service);
        let is_named_so = options.app_service.is_none() && (name == service || names(name, project, service));
        c.is_made_by_compose() && !is_half_swapped(c) && (is_known || is_set || is_named_so)
    };
    match (&all.iter().filter(fits).collect::<Vec<_>>()[..], named) {
        ([one], _) => Ok((*one).clone()),
        // Planning says what is wrong with it.
        ([], Some(named)) => Ok(named),
        ([], None) => Err(Refusal::new(
            Code::NoContainer,
            format!(
                "there is no container {name:?} (PROCESSGIT_UPDATER_APP_CONTAINER), and none with the labels of its service"
            ),
        )
        .text("start the application with `docker compose up -d`, or name its container")
        .into()),
        (many, _) => Err(Refusal::new(
            Code::Replicas,
            format!(
                "there is no container {name:?} (PROCESSGIT_UPDATER_APP_CONTAINER) that Compose has made, and several have the labels of its service: {}",
                many.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
            ),
        )
        .text("name the application's, or remove the others")
        .into()),
    }
}

/// As Compose names a service's containers: `PROJECT-SERVICE-NUMBER`, with underscores before Compose 2.
pub fn names(name: &str, project: &str, service: &str) -> bool {
    ["-", "_"].iter().any(|sep| {
        let number = name.strip_prefix(&format!("{project}{sep}{service}{sep}"));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// The project that it was made from.
pub async fn project_of(ports: &Ports, container: &Container, options: &Options) -> Result<Project, Refused> {
    let named = labels::Named {
        service: options.app_service.as_deref(),
        crew: &options.move_services,
        version_key: &options.version_key,
    };
    let project = labels::project(&container.name, &container.labels, named)?;
    with_true_env_file(ports, container, ports.planned.original(project).await).await
}

/// Compose labels a container with its `--env-file` only where one was given, and otherwise the container has what
/// its image carries: an image that was made of a service's container names a file of long ago, or any file.
/// Where both say the same, the operator's own setting decides.
async fn with_true_env_file(ports: &Ports, container: &Container, project: Project) -> Result<Project, Refused> {
    let Some(label) = container.labels.get(label::ENVIRONMENT_FILE) else { return Ok(project) };
    let image = ports.engine.image(&container.image_id).await?;
    if image.and_then(|image| image.labels.get(label::ENVIRONMENT_FILE).cloned()).as_ref() != Some(label) {
        return Ok(project);
    }
    let without = Project { env_files: Vec::new(), ..project.clone() };
    let is_true = ports.env.preflight(&without.environment_files()).await.is_ok();
    Ok(if is_true { without } else { project })
}

/// The image that it runs.
pub async fn image_of(ports: &Ports, container: &Container) -> Result<Image, Refused> {
    let service = container.label(label::SERVICE).unwrap_or_default();
    ports.engine.image(&container.image_id).await?.ok_or_else(|| {
        Refusal::new(
            Code::ImageGone,
            format!(
                "the image that {} runs ({}) was removed from the engine; there would be no way back",
                container.name, container.image_id
            ),
        )
        .command(line(["docker", "compose", "up", "-d", service]))
        .into()
    })
}

/// Each has one container: what there was before is what there must be again.
pub async fn crew(ports: &Ports, project: &Project, containers: &[Container]) -> Result<Vec<Mate>, Refused> {
    let mut crew = Vec::new();
    let mut refusals = Vec::new();
    for service in &project.crew {
        match of_service(containers, project, service).collect::<Vec<_>>()[..] {
            [one] => {
                let (container, image) = (one.clone(), image_of(ports, one).await?);
                crew.push(Mate { service: service.clone(), container, image });
            }
            [] => refusals.push(
                Refusal::new(
                    Code::ServiceMissing,
                    format!(
                        "service {service} (PROCESSGIT_UPDATER_MOVE_SERVICES) has no container in project {}",
                        project.name
                    ),
                )
                .command(line(["docker", "compose", "up", "-d", service])),
            ),
            ref many => refusals.push(replicas(service, many)),
        }
    }
    if refusals.is_empty() { Ok(crew) } else { Err(Refused(refusals)) }
}

/// What is said of a service that has not one container.
fn replicas(service: &str, containers: &[&Container]) -> Refusal {
    let names: Vec<_> = containers.iter().map(|c| c.name.as_str()).collect();
    let (count, names) = (names.len(), names.join(", "));
    let what = format!("service {service} has {count} containers ({names}), and an update moves one");
    Refusal::new(Code::Replicas, what).command(scale_to_one(service))
}

/// The command that leaves one container of the service, whichever number it has.
pub fn scale_to_one(service: &str) -> String {
    format!("docker compose up -d --no-deps --scale {0}=1 {0}", word(service))
}

fn of_service<'a>(
    containers: &'a [Container],
    project: &'a Project,
    service: &'a str,
) -> impl Iterator<Item = &'a Container> {
    containers.iter().filter(move |c| {
        c.label(label::PROJECT) == Some(&project.name)
            && c.label(label::SERVICE) == Some(service)
            && c.is_made_by_compose()
    })
}
