//! The configuration that a job was planned with, as a file that Compose reads: needed where the project's own
//! files say something else by the time the old version has to be made anew.
//!
//! Compose writes the file it was given into the labels of what it makes. So the file also says where the
//! project's own files are, and whoever plans the next job on such a container is led back to them.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ComposeConfig, EngineError, PlannedProjects, Project, Result};
use crate::envfile::file::aio;

/// One file a service, in a folder of the updater's own: it holds the environment of the service, secrets
/// included.
#[derive(Debug, Clone)]
pub struct PlannedFiles {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct PlannedFile {
    #[serde(rename = "x-processgit-updater")]
    own_files: OwnFiles,
    #[serde(flatten)]
    config: ComposeConfig,
}

/// What the project was made from before.
#[derive(Serialize, Deserialize)]
struct OwnFiles {
    config_files: Vec<String>,
    env_files: Vec<String>,
}

impl PlannedFiles {
    /// `folder` is made when it is first needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Named by a hash, because a project's and a service's name come from labels.
    fn file_of(&self, project: &Project) -> PathBuf {
        let names = format!("{}\n{}", project.name, project.service);
        self.folder.join(format!("{}.json", &blake3::hash(names.as_bytes()).to_hex()[..16]))
    }
}

#[async_trait]
impl PlannedProjects for PlannedFiles {
    async fn keep(&self, project: &Project, config: &ComposeConfig) -> Result<Project> {
        let own_files = OwnFiles { config_files: project.config_files.clone(), env_files: project.env_files.clone() };
        let file = self.file_of(project);
        let failed = |e: &dyn std::fmt::Display| EngineError::Failed(format!("{}: {e}", file.display()));
        let text = serde_json::to_string(&PlannedFile { own_files, config: config.clone() }).map_err(|e| failed(&e))?;
        // As in `ComposeConfig::as_file`.
        let bytes = text.replace('$', "$$").into_bytes();
        make_private(&self.folder).await.map_err(|e| failed(&e))?;
        aio::write_atomic(file.clone(), bytes).await.map_err(|e| failed(&e))?;
        Ok(Project { config_files: vec![file.display().to_string()], ..project.clone() })
    }

    async fn original(&self, project: Project) -> Project {
        let file = self.file_of(&project);
        if project.config_files != [file.display().to_string()] {
            return project;
        }
        let read = tokio::fs::read(&file).await;
        let kept = read.ok().and_then(|bytes| serde_json::from_slice::<PlannedFile>(&bytes).ok());
        match kept {
            Some(PlannedFile { own_files: OwnFiles { config_files, env_files }, .. }) => {
                Project { config_files, env_files, ..project }
            }
            // Compose will say that there is no such file.
            None => project,
        }
    }
}

async fn make_private(folder: &Path) -> io::Result<()> {
    tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> Project {
        Project {
            name: "shop".into(),
            service: "app".into(),
            crew: vec![],
            working_dir: "/srv/shop".into(),
            config_files: vec!["/srv/shop/docker-compose.yml".into(), "/srv/shop/prod.yml".into()],
            env_files: vec!["/srv/shop/prod.env".into()],
            version_key: "V".into(),
            underscores: None,
        }
    }

    #[tokio::test]
    async fn a_planned_configuration_leads_back_to_the_projects_own_files() {
        let folder = tempfile::tempdir().unwrap();
        let files = PlannedFiles::new(folder.path().join("planned"));
        let config = ComposeConfig::from_compose(
            br#"{"name":"shop","services":{"app":{"image":"r/app:1","environment":{"PASSWORD":"a$$b$${C}"}}}}"#,
        )
        .unwrap();
        let planned = files.keep(&project(), &config).await.unwrap();
        let [file] = &planned.config_files[..] else { panic!("{planned:?}") };
        let bytes = std::fs::read(file).unwrap();
        assert_eq!(ComposeConfig::from_compose(&bytes).unwrap().services, config.services, "it is read as it was");
        assert!(String::from_utf8_lossy(&bytes).contains("a$$b$${C}"), "nothing is replaced in it");
        assert_eq!(files.original(planned.clone()).await, project());
        // Another project, another service, the project's own files: as they are.
        let other = Project { service: "worker".into(), ..planned };
        assert_eq!(files.original(other.clone()).await, other);
        assert_eq!(files.original(project()).await, project());
    }

    #[tokio::test]
    async fn only_the_updater_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let files = PlannedFiles::new(folder.path().join("planned"));
        files.keep(&project(), &ComposeConfig::default()).await.unwrap();
        let mode = std::fs::metadata(folder.path().join("planned")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
