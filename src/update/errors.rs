//! What the calls of the ports fail with: kinds with values, so that whoever decides asks the kind and never
//! reads a text. All of them can be said through a helper's socket.
//!
//! One enum a room; a kind is a variant, its sentence, and where it has them a line in `code` and `remedy`.

use std::io;

use serde::{Deserialize, Serialize};

use super::refusal::{Code, Explained, Remedy};
use crate::engine::EngineError;
use crate::envfile::EnvFileError;

/// What the system said. Unlike [`io::Error`] it can be cloned and sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{text}")]
pub struct IoCause {
    /// The error number, where the system gave one.
    pub errno: Option<i32>,
    pub text: String,
}

impl IoCause {
    /// It is one of these.
    pub fn is(&self, any_of: &[rustix::io::Errno]) -> bool {
        any_of.iter().any(|errno| self.errno == Some(errno.raw_os_error()))
    }

    /// The disk, or the quota, is full.
    pub fn is_full(&self) -> bool {
        self.is(&[rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT])
    }
}

impl From<io::Error> for IoCause {
    fn from(error: io::Error) -> Self {
        Self { errno: error.raw_os_error(), text: error.to_string() }
    }
}

impl From<rustix::io::Errno> for IoCause {
    fn from(errno: rustix::io::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// The container's labels keep the paths of what it was made from.
const FOLDER_MOVED: &str = "put the folder back; or, if it was moved, make the containers anew from where it is now (`docker compose up -d --force-recreate` there), and let PROCESSGIT_UPDATER_ENV_FILE name the .env there";

/// Why `.env` cannot be read, or could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvError {
    /// Seen from the updater's container.
    #[error("PROCESSGIT_UPDATER_ENV_FILE {path} is in no mount of this container")]
    NotMounted { path: String, folder: String },
    #[error("PROCESSGIT_UPDATER_ENV_FILE {path}: there is no folder {folder}; Compose has read {}", .project_env.join(" and "))]
    NoFolder { path: String, folder: String, project_env: Vec<String> },
    /// Compose reads another file.
    #[error("PROCESSGIT_UPDATER_ENV_FILE {path}: Compose reads {theirs} instead")]
    Other { path: String, theirs: String },
    #[error(
        "PROCESSGIT_UPDATER_ENV_FILE {path}: Compose has read {theirs} when it made the container, and there is no such folder any more"
    )]
    Unseen { path: String, theirs: String },
    #[error("PROCESSGIT_UPDATER_ENV_FILE {path}: it is mounted as a single file, so it cannot be replaced atomically")]
    SingleFile { path: String, folder: String },
    #[error("PROCESSGIT_UPDATER_ENV_FILE {path}: its folder {folder} cannot be written: {cause}")]
    Unwritable { path: String, folder: String, cause: IoCause },
    #[error("{path} cannot be removed: {cause}")]
    NotRemoved { path: String, cause: IoCause },
    #[error(transparent)]
    File(#[from] EnvFileError),
    /// The helper that does it, or the engine that makes the helper.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A fault of this program.
    #[error("{0}")]
    Broken(String),
}

impl Explained for EnvError {
    fn code(&self) -> Code {
        match self {
            Self::NotMounted { .. } => Code::EnvNotMounted,
            Self::NoFolder { .. } => Code::EnvNoFolder,
            Self::Other { .. } => Code::EnvOtherFile,
            Self::Unseen { .. } => Code::EnvUnseen,
            Self::SingleFile { .. } => Code::EnvSingleFile,
            Self::Unwritable { .. } | Self::NotRemoved { .. } => Code::EnvUnwritable,
            Self::File(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::Broken(_) => Code::Internal,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::NotMounted { folder, .. } => {
                Some(Remedy::Text(format!("mount the deployment's folder at {folder} in the updater's container")))
            }
            Self::NoFolder { path, project_env, .. } => match project_env.last() {
                Some(file) if file != path => Some(Remedy::Setting(format!("PROCESSGIT_UPDATER_ENV_FILE={file}"))),
                _ => Some(Remedy::Text(FOLDER_MOVED.into())),
            },
            Self::Other { theirs, .. } => Some(Remedy::Setting(format!("PROCESSGIT_UPDATER_ENV_FILE={theirs}"))),
            Self::Unseen { .. } => Some(Remedy::Text(FOLDER_MOVED.into())),
            Self::SingleFile { folder, .. } => {
                Some(Remedy::Text(format!("mount its folder instead: volumes: [\".:{folder}\"]")))
            }
            Self::Unwritable { folder, .. } => Some(Remedy::Text(format!(
                "`findmnt -T {}` shows what is mounted read-only: mount it writable, or take `:ro` away",
                shell_words::quote(folder)
            ))),
            Self::File(error) => error.remedy(),
            Self::Engine(error) => error.remedy(),
            Self::NotRemoved { .. } | Self::Broken(_) => None,
        }
    }
}

/// Why no job may be begun where this process is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceError {
    #[error(
        "the state folder {state} (PROCESSGIT_UPDATER_STATE_DIR) is no mount: journal and snapshots would be gone with the container, in the middle of a job too"
    )]
    StateNotMounted { state: String },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Explained for PlaceError {
    fn code(&self) -> Code {
        match self {
            Self::StateNotMounted { .. } => Code::StateNotMounted,
            Self::Engine(error) => error.code(),
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::StateNotMounted { state } => Some(Remedy::Text(format!(
                "mount a volume or a folder of the host there: volumes: [\"/srv/processgit-updater:{state}\"]"
            ))),
            Self::Engine(error) => error.remedy(),
        }
    }
}

/// Why data was not copied, put back or looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataError {
    #[error("PROCESSGIT_UPDATER_SNAPSHOT is off")]
    Off,
    #[error("{destination} is at {path} on the engine's host, and there is no such path here")]
    Unseen { destination: String, path: String },
    #[error(
        "the snapshot folder {folder} is at {repository} on the host, and the application's {destination} at {data}: one is inside the other"
    )]
    Inside { folder: String, repository: String, destination: String, data: String },
    /// All reasons why no snapshot can be taken.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Preflight(Vec<Obstacle>),
    #[error("there is no snapshot {id:?}; there are: {}", .known.join(", "))]
    NoSuchSnapshot { id: String, known: Vec<String> },
    /// The kernel refused something.
    #[error("cannot {doing} {path}: {cause}{remedy}")]
    Io { doing: String, path: String, cause: IoCause, remedy: String },
    /// The root of a mount is not the one that was noted, or not what the application sees.
    #[error("{0}")]
    Moved(String),
    #[error("{0}")]
    VolumeUnavailable(String),
    #[error("{0}")]
    Changed(String),
    #[error("{0}")]
    Interrupted(String),
    /// A snapshot is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// What was put back is not what the snapshot says.
    #[error("{0}")]
    Differs(String),
    #[error("{0}")]
    Busy(String),
    #[error("job {job} is active ({state}): prune when it has ended")]
    JobActive { job: String, state: String },
    /// What is asked for cannot be done.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The helper that does it, or the engine that makes the helper.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A fault of this program.
    #[error("{0}")]
    Broken(String),
}

/// One reason why no snapshot can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// MiB
    #[error("no room for the snapshot in {folder}: {needed} MiB needed, {free} MiB free")]
    NoRoom { folder: String, needed: u64, free: u64 },
    #[error("not enough inodes in {folder}: {needed} needed, {free} free")]
    NoInodes { folder: String, needed: u64, free: u64 },
    #[error("the snapshot folder {folder} is inside {data}")]
    FolderInData { folder: String, data: String },
    #[error("{data} is inside the snapshot folder {folder}")]
    DataInFolder { folder: String, data: String },
    #[error("{path} cannot be read")]
    Unreadable { path: String },
    #[error("{count} more cannot be read in {data}")]
    MoreUnreadable { data: String, count: u64 },
    #[error("the snapshot folder {folder} cannot hold everything: {why}")]
    Unable { folder: String, why: String },
}

impl Explained for Obstacle {
    fn code(&self) -> Code {
        match self {
            Self::NoRoom { .. } | Self::NoInodes { .. } => Code::NoRoom,
            Self::FolderInData { .. } | Self::DataInFolder { .. } => Code::SnapshotsInData,
            Self::Unreadable { .. } | Self::MoreUnreadable { .. } => Code::DataUnreadable,
            Self::Unable { .. } => Code::SnapshotFolder,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        Some(match self {
            Self::NoRoom { needed, free, .. } => Remedy::Text(format!(
                "free {} MiB there, or keep the snapshots elsewhere (PROCESSGIT_UPDATER_SNAPSHOT_DIR)",
                needed.saturating_sub(*free) + 1
            )),
            Self::NoInodes { .. } => {
                Remedy::Text("keep the snapshots on another file system (PROCESSGIT_UPDATER_SNAPSHOT_DIR)".into())
            }
            Self::FolderInData { .. } | Self::DataInFolder { .. } => {
                Remedy::Text("keep the snapshots elsewhere (PROCESSGIT_UPDATER_SNAPSHOT_DIR)".into())
            }
            Self::Unreadable { .. } | Self::MoreUnreadable { .. } => {
                Remedy::Text("run the updater with the rights of root".into())
            }
            Self::Unable { .. } => Remedy::Text(
                "keep the snapshots on a file system of Linux such as ext4 or xfs (PROCESSGIT_UPDATER_SNAPSHOT_DIR)"
                    .into(),
            ),
        })
    }
}

impl Explained for DataError {
    fn code(&self) -> Code {
        match self {
            Self::Off => Code::SnapshotsOff,
            Self::Unseen { .. } => Code::DataUnseen,
            Self::Inside { .. } => Code::SnapshotsInData,
            Self::Preflight(obstacles) => obstacles.first().map_or(Code::Internal, Explained::code),
            Self::NoSuchSnapshot { .. } => Code::NoSuchSnapshot,
            Self::Io { cause, .. } if cause.is_full() => Code::NoRoom,
            Self::Io { .. } | Self::Interrupted(_) | Self::Refused(_) => Code::CopyFailed,
            Self::Moved(_) => Code::DataMoved,
            Self::VolumeUnavailable(_) => Code::VolumeUnavailable,
            Self::Changed(_) => Code::DataChanged,
            Self::Damaged(_) => Code::SnapshotDamaged,
            Self::Differs(_) => Code::RestoreDiffers,
            Self::Busy(_) | Self::JobActive { .. } => Code::Busy,
            Self::Journal(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::Broken(_) => Code::Internal,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Off => Some(Remedy::Setting("PROCESSGIT_UPDATER_SNAPSHOT=on".into())),
            Self::Unseen { .. } => {
                Some(Remedy::Text(
                    "put it back, if it was moved or removed; where the engine runs on another machine, run the updater there, or set PROCESSGIT_UPDATER_SNAPSHOT=off"
                        .into(),
                ))
            }
            Self::Inside { .. } => {
                Some(Remedy::Text("keep the snapshots elsewhere (PROCESSGIT_UPDATER_SNAPSHOT_DIR)".into()))
            }
            Self::Preflight(obstacles) => obstacles.first().and_then(Explained::remedy),
            Self::NoSuchSnapshot { .. } => Some(Remedy::Command("processgit-updater snapshot list".into())),
            Self::Journal(error) => error.remedy(),
            Self::Engine(error) => error.remedy(),
            _ => None,
        }
    }
}

/// Why something was not remembered, or is not known any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalError {
    /// The disk is full, as far as SQLite tells.
    #[error("the journal: {0}; is there room in the state folder?")]
    NoRoom(String),
    #[error("the journal: {0}")]
    Failed(String),
}

impl Explained for JournalError {
    fn code(&self) -> Code {
        match self {
            Self::NoRoom(_) => Code::JournalNoRoom,
            Self::Failed(_) => Code::JournalFailed,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        None
    }
}

/// Why the updater's own update was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeputyError {
    #[error("this updater runs on the host, where nobody else can replace it")]
    OnHost,
    #[error("container {container} was not made by Docker Compose, and only Compose can make it anew")]
    NotByCompose { container: String },
    /// In the simulation, and for the deputy itself.
    #[error("{0}")]
    None(&'static str),
    #[error(transparent)]
    Source(#[from] crate::release::SourceError),
    #[error("no deputy can be made: {0}")]
    Engine(#[from] EngineError),
    /// Nothing was begun, because it could not be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A person has to look.
    #[error("{0}")]
    Lost(String),
}

impl DeputyError {
    /// Nothing was changed.
    pub fn not_begun(&self) -> bool {
        !matches!(self, Self::Lost(_))
    }
}

impl Explained for DeputyError {
    fn code(&self) -> Code {
        match self {
            Self::OnHost => Code::SelfUpdateOnHost,
            Self::NotByCompose { .. } => Code::NotByCompose,
            Self::None(_) => Code::NoDeputy,
            Self::Source(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::Journal(error) => error.code(),
            Self::Lost(_) => Code::DeputyLost,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::OnHost => {
                Some(Remedy::Text("install the new program and restart `serve`, which takes up where it was".into()))
            }
            Self::NotByCompose { .. } => Some(Remedy::Text("pull the new image and run it as you ran this one".into())),
            Self::Source(error) => error.remedy(),
            Self::Engine(error) => error.remedy(),
            Self::Journal(error) => error.remedy(),
            Self::None(_) | Self::Lost(_) => None,
        }
    }
}
