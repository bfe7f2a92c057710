//! What a person looking for a fault asks of the engine: how it is, and whether a proxy before it lets
//! through all that an update needs. Nothing is changed: each call names something that does not exist.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerUpdateBody, NetworkConnectRequest};
use bollard::query_parameters::{
    CreateImageOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder, ListVolumesOptionsBuilder,
    LogsOptionsBuilder, RemoveImageOptions, RenameContainerOptionsBuilder, TagImageOptionsBuilder,
};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use jiff::Timestamp;

use super::super::insecure::{EngineRegistries, InsecureRegistries};
use super::super::{EngineFacts, Result, Volume, label};
use super::{DockerEngine, LOOK, convert};

/// The id of no container.
const NOBODY: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// The name of no image, network or volume.
const NOTHING: &str = "processgit-updater-doctor.invalid/nothing";
/// No name at all: the engine refuses it before it asks a registry.
const NO_NAME: &str = "NO NAME";

/// A call, as the list in `deploy/socket-proxy.yml` has it, and its trial.
type Trial<'a> = (&'static str, Pin<Box<dyn Future<Output = std::result::Result<(), Error>> + Send + 'a>>);

impl DockerEngine {
    /// How the engine is.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn facts(&self) -> Result<EngineFacts> {
        let client = self.client().await?;
        let info = self.within(LOOK, "asking", "the engine about itself", client.docker.info()).await?;
        let security = info.security_options.unwrap_or_default();
        Ok(EngineFacts {
            rootless: security.iter().any(|option| option.split(',').any(|part| part == "name=rootless")),
            storage: info.driver.unwrap_or_default(),
            time: info.system_time.and_then(|time| time.to_string().parse::<Timestamp>().ok()),
        })
    }

    /// The volumes that Compose files call `key`, of every project.
    ///
    /// # Errors
    /// The engine does not answer, or a proxy before it refuses.
    pub async fn volumes_called(&self, key: &str) -> Result<Vec<Volume>> {
        let client = self.client().await?;
        let filters = HashMap::from([("label".to_owned(), vec![format!("{}={key}", label::VOLUME)])]);
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let list = self.within(LOOK, "listing", "the volumes", client.docker.list_volumes(Some(options))).await?;
        Ok(list.volumes.unwrap_or_default().into_iter().map(convert::volume).collect())
    }

    /// Which registries the engine takes as insecure.
    async fn registries(&self) -> Result<InsecureRegistries> {
        let client = self.client().await?;
        let info = self.within(LOOK, "asking", "the engine about itself", client.docker.info()).await?;
        let told = info.registry_config.unwrap_or_default();
        let hosts = told.index_configs.unwrap_or_default().into_iter();
        Ok(InsecureRegistries {
            hosts: hosts.map(|(host, index)| (host, index.secure.unwrap_or(true))).collect(),
            networks: told.insecure_registry_cidrs.unwrap_or_default(),
        })
    }

    /// Calls that an update needs and that are refused: `POST containers/create`. A proxy says 403, or that it
    /// does not know the method; the engine itself only says that there is no such thing.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn refused_calls(&self) -> Result<Vec<String>> {
        let client = self.client().await?;
        let tried = trials(&client.docker).into_iter().map(|(call, trial)| async move {
            let answer = tokio::time::timeout(LOOK, trial).await;
            matches!(answer, Ok(Err(Error::DockerResponseServerError { status_code: 403 | 405, .. })))
                .then(|| call.to_owned())
        });
        Ok(join_all(tried).await.into_iter().flatten().collect())
    }
}

#[async_trait]
impl EngineRegistries for DockerEngine {
    async fn insecure(&self) -> Option<InsecureRegistries> {
        self.registries().await.ok()
    }
}

fn trials(docker: &Docker) -> Vec<Trial<'_>> {
    let nothing = || Some(TagImageOptionsBuilder::new().repo(NOTHING).tag("none").build());
    let filters = std::collections::HashMap::from([("label".to_owned(), vec![NOTHING.to_owned()])]);
    let list = ListContainersOptionsBuilder::new().filters(&filters).build();
    let body = ContainerCreateBody { image: Some(NOTHING.to_owned()), ..ContainerCreateBody::default() };
    let join = NetworkConnectRequest { container: NOBODY.to_owned(), endpoint_config: None };
    let events = EventsOptionsBuilder::new().since("1").until("2").build();
    let logs = LogsOptionsBuilder::new().stdout(true).build();
    let rename = RenameContainerOptionsBuilder::new().name("processgit-updater-doctor").build();
    let pull = CreateImageOptionsBuilder::new().from_image(NO_NAME).build();
    let id = NOBODY;
    vec![
        ("GET _ping", Box::pin(async { docker.ping().await.map(drop) })),
        ("GET version", Box::pin(async { docker.version().await.map(drop) })),
        ("GET info", Box::pin(async { docker.info().await.map(drop) })),
        ("GET events", Box::pin(async { docker.events(Some(events)).try_next().await.map(drop) })),
        ("GET containers/json", Box::pin(async { docker.list_containers(Some(list)).await.map(drop) })),
        ("GET containers/*/json", Box::pin(async move { docker.inspect_container(id, None).await.map(drop) })),
        ("GET containers/*/logs", Box::pin(async move { docker.logs(id, Some(logs)).try_next().await.map(drop) })),
        ("POST containers/create", Box::pin(async { docker.create_container(None, body).await.map(drop) })),
        ("POST containers/*/start", Box::pin(async move { docker.start_container(id, None).await })),
        ("POST containers/*/stop", Box::pin(async move { docker.stop_container(id, None).await })),
        ("POST containers/*/wait", Box::pin(async move { docker.wait_container(id, None).try_next().await.map(drop) })),
        ("POST containers/*/rename", Box::pin(async move { docker.rename_container(id, rename).await })),
        (
            "POST containers/*/update",
            Box::pin(async move { docker.update_container(id, ContainerUpdateBody::default()).await }),
        ),
        ("DELETE containers/*", Box::pin(async move { docker.remove_container(id, None).await })),
        ("GET images/*/json", Box::pin(async { docker.inspect_image(NOTHING).await.map(drop) })),
        (
            "POST images/create",
            Box::pin(async { docker.create_image(Some(pull), None, None).try_next().await.map(drop) }),
        ),
        ("POST images/*/tag", Box::pin(async move { docker.tag_image(NOTHING, nothing()).await })),
        (
            "DELETE images/*",
            Box::pin(async { docker.remove_image(NOTHING, None::<RemoveImageOptions>, None).await.map(drop) }),
        ),
        (
            "GET networks/*",
            Box::pin(async { docker.inspect_network("processgit-updater-doctor", None).await.map(drop) }),
        ),
        (
            "POST networks/*/connect",
            Box::pin(async { docker.connect_network("processgit-updater-doctor", join).await }),
        ),
        ("GET volumes/*", Box::pin(async { docker.inspect_volume("processgit-updater-doctor").await.map(drop) })),
    ]
}
