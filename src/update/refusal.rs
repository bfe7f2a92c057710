//! Why a job is not begun, or did not do what it was asked for, as data: a stable code, a sentence that names
//! the thing, its value and what was expected, and what to do. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::EngineError;
use crate::envfile::EnvFileError;
use crate::release::manifest::ManifestError;
use crate::release::{SourceError, SourceFault};
use crate::text;

/// The codes' one table: what they are called in Rust, everywhere else, and what they say. `docs/codes.md` is
/// made of it.
macro_rules! codes {
    ($($variant:ident $name:literal $meaning:literal)*) => {
        /// What went wrong, under a name that stays. Programs decide by it; people read the sentence.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Code {
            $(#[doc = $meaning] #[serde(rename = $name)] $variant,)*
            /// One that a newer updater has.
            #[serde(other, rename = "other")]
            Other,
        }

        impl Code {
            /// Each with its meaning, in the order of the table.
            pub const ALL: &[(Self, &str)] = &[$((Self::$variant, $meaning),)*];

            /// As it stands in JSON.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other => "other",
                }
            }
        }
    };
}

codes! {
    // The release and its manifest.
    ReleaseNotFound "release_not_found" "There is no such release, or none in this channel."
    ReleaseSource "release_source" "The release server cannot be reached, limits its clients, or answers nonsense."
    ReleaseTooLarge "release_too_large" "An answer or an asset of the release server is larger than it may be."
    ReleaseLimited "release_limited" "The release server limits how often it is asked."
    ReleaseDenied "release_denied" "The release server wants a token, refuses it, or hides the repository."
    Uploading "uploading" "The release's files are not all there yet."
    NoManifest "no_manifest" "The release has no `release.json`."
    ManifestInvalid "manifest_invalid" "`release.json` breaks a rule of schema version 1."
    NotTrusted "not_trusted" "No signature of the manifest or image counts here."
    NotVerifiable "not_verifiable" "A signature could not be checked, because something it needs cannot be reached."
    // Whether it may replace what runs.
    WrongApplication "wrong_application" "The manifest is for another application."
    WrongTag "wrong_tag" "The manifest is for another tag."
    Downgrade "downgrade" "The version is older than the one that runs."
    OlderThanCommitted "older_than_committed" "The version is older than one that was committed here."
    VersionUnknown "version_unknown" "Which version runs is not known, so a downgrade cannot be excluded."
    TooOld "too_old" "The running version is too old for this release."
    Platform "platform" "The image is not for this engine's platform."
    KnownBad "known_bad" "This image was started here before and rolled back."
    PartlyUpdated "partly_updated" "Some of the services that are moved together run the version already."
    // Where the updater runs.
    StateNotMounted "state_not_mounted" "The state folder would be gone with the updater's container."
    // The engine and Compose.
    EngineUnreachable "engine_unreachable" "The Docker engine does not answer."
    EngineNotFound "engine_not_found" "The engine does not have what was named."
    EngineConflict "engine_conflict" "A name is taken, or something is in use."
    EngineFailed "engine_failed" "The engine or Compose refused, or failed."
    ProjectMoved "project_moved" "The Compose files, or the folder, that the container was made from are not where they were."
    OldInAnotherProject "old_in_another_project" "Another project has older volumes of the same names, so the application may run on empty data."
    ComposeUnreadable "compose_unreadable" "Compose cannot read the deployment."
    // The application and how it was made.
    NoContainer "no_container" "The application has no container."
    NotByCompose "not_by_compose" "The container was not made by Docker Compose."
    ImageGone "image_gone" "The image that runs was removed from the engine."
    ServiceMissing "service_missing" "A service that is to be moved, or to run a hook, has no container."
    NameWrong "name_wrong" "A setting names a service or container that does not exist, or that cannot be used so."
    Replicas "replicas" "A service has several containers."
    Lodger "lodger" "A container that is not moved lives in the namespaces of one that is."
    NotSelected "not_selected" "The version key does not select the image."
    KeyChangesMore "key_changes_more" "The version key changes more than image and version."
    Drift "drift" "Files and containers do not agree."
    ShellVariable "shell_variable" "The Compose files depend on a variable, or on a home folder, that only the operator's shell has."
    NotApplied "not_applied" "`.env` selects another version than the one that runs."
    TouchesOthers "touches_others" "Compose would change something beside what is moved."
    // The file that selects the version.
    EnvNotMounted "env_not_mounted" "`.env` is in no mount of the updater's container."
    EnvNoFolder "env_no_folder" "The folder of `.env` does not exist."
    EnvOtherFile "env_other_file" "Compose reads another `.env`."
    EnvUnseen "env_unseen" "The `.env` that Compose reads cannot be seen by the updater."
    EnvSingleFile "env_single_file" "`.env` is mounted by itself, so it cannot be replaced."
    EnvUnwritable "env_unwritable" "`.env` cannot be replaced."
    EnvInvalid "env_invalid" "`.env` is no file that Compose can read, or that can hold the value."
    EnvOwner "env_owner" "A new `.env` cannot be given the owner of the old one."
    // The data.
    NoData "no_data" "There is no data to copy."
    SnapshotsOff "snapshots_off" "Snapshots are off."
    DataUnseen "data_unseen" "The application's data cannot be seen by the updater."
    DataUnreadable "data_unreadable" "Some of the data cannot be read."
    DataMoved "data_moved" "What is at a mount is not what the application sees, or not what it was when the job was planned."
    VolumeUnavailable "volume_unavailable" "A volume's content cannot be had while the application is stopped."
    MountsBelow "mounts_below" "File systems are mounted below a volume that is mounted only while it is used."
    DataBeside "data_beside" "Data of the application beside its own mounts is not copied, so a rollback cannot put it back."
    PartialSnapshot "partial_snapshot" "The snapshot has other mounts than the application."
    DataChanged "data_changed" "Data changed while nothing was to write to it."
    SnapshotsInData "snapshots_in_data" "The snapshot folder and the data are one inside the other."
    SnapshotFolder "snapshot_folder" "The snapshot folder's file system cannot hold everything that a copy needs."
    NoRoom "no_room" "There is not enough room."
    NoSuchSnapshot "no_such_snapshot" "There is no snapshot of this name."
    SnapshotDamaged "snapshot_damaged" "A snapshot is not what was written."
    RestoreDiffers "restore_differs" "What was put back is not what the snapshot says."
    CopyFailed "copy_failed" "Data could not be copied or put back."
    Writers "writers" "Other containers write to the application's data."
    MountKind "mount_kind" "A mount is of a kind that a one-shot container cannot be given."
    SourceGone "source_gone" "Something that a container is given from the host does not exist any more."
    // Jobs by hand.
    NothingToRollBack "nothing_to_roll_back" "No update was committed since the last rollback."
    VersionChanged "version_changed" "Another version runs than the last committed update installed."
    NoSnapshotOfUpdate "no_snapshot_of_update" "The last update took no snapshot."
    PinnedByDigest "pinned_by_digest" "The version before is named by a digest, which no version key selects."
    // The updater itself.
    Unsettled "unsettled" "A failed job waits for a person."
    Busy "busy" "A job is at work."
    JournalNoRoom "journal_no_room" "The journal's disk is full."
    JournalFailed "journal_failed" "The journal cannot be read or written."
    SelfUpdateOnHost "self_update_on_host" "An updater on the host cannot be replaced by itself."
    NoDeputy "no_deputy" "Nothing here can carry out a self-update."
    DeputyLost "deputy_lost" "The container that should have updated the updater left no verdict."
    TimedOut "timed_out" "No answer came in time."
    Internal "internal" "A fault of this program."
    // What only doctor looks for.
    SettingInvalid "setting_invalid" "A setting cannot be understood."
    SettingUnknown "setting_unknown" "A variable has no effect, because no setting has its name."
    TokenWeak "token_weak" "The token can be guessed."
    Stub "stub" "Every Docker operation is simulated."
    SocketDenied "socket_denied" "This user may not open the engine's socket."
    CallsRefused "calls_refused" "A proxy before the engine refuses calls that an update needs."
    NoRestart "no_restart" "Nothing starts the container after a reboot or a crash."
    NotRunning "not_running" "The application does not run."
    HealthWrong "health_wrong" "The health URL does not answer as it has to."
    HealthcheckLate "healthcheck_late" "The HEALTHCHECK may say nothing until the gate has ended."
    NoEnv "no_env" "There is no `.env` yet."
    DataNotCopied "data_not_copied" "Data is not copied, so a rollback cannot put it back."
    SnapshotsInProject "snapshots_in_project" "The snapshots lie in a volume that `docker compose down -v` deletes."
    SizeUnknown "size_unknown" "There is so much data that its size is not known yet."
    NoCompose "no_compose" "Docker Compose is not at hand."
    ComposeRecreates "compose_recreates" "Compose would make a container anew although nothing material differs."
    Followers "followers" "Services that are not moved follow the version key too."
    PolicyInvalid "policy_invalid" "Signatures cannot be judged."
    RootEnded "root_ended" "The trusted root holds no key that is valid."
    RootOld "root_old" "The trusted root is old."
    RootStale "root_stale" "The trusted root was not refreshed."
    Clock "clock" "A clock is wrong."
    FewRequests "few_requests" "The release server allows only a few more requests."
    ImageMissing "image_missing" "The registry does not have the release's image."
    RegistryFailed "registry_failed" "The registry does not answer, or refuses."
    RegistryDenied "registry_denied" "The registry wants other credentials."
    ImageNotVerified "image_not_verified" "Signatures of images are not looked at."
    OtherImage "other_image" "The newest release is of another image than the one that runs."
    WouldBeRefused "would_be_refused" "The newest release would be refused."
    StateUnwritable "state_unwritable" "The state folder cannot be written."
    StateNoRoom "state_no_room" "The state folder has little room left."
    StateLocked "state_locked" "Another updater works on the state folder."
    JournalNewer "journal_newer" "A newer updater wrote the journal."
    JournalDamaged "journal_damaged" "The journal was damaged."
    JobUnfinished "job_unfinished" "A job has not ended, and no updater works on it."
    Leftover "leftover" "A container of an ended job was left."
    NotOurs "not_ours" "A container says that it belongs to this updater, and does not."
    UpdaterSilent "updater_silent" "No updater answers, or it refuses the token."
    // What a job that had begun ended for.
    Aborted "aborted" "The job was stopped on request."
    Claimed "claimed" "Another updater works on this application."
    PullFailed "pull_failed" "The image could not be pulled."
    MigrationFailed "migration_failed" "The migration of the new version failed."
    HookFailed "hook_failed" "A command of the operator failed."
    Unhealthy "unhealthy" "What was started did not prove healthy."
    SwapFailed "swap_failed" "Compose did not make the container that was wanted."
    Meddled "meddled" "Something that the job relied on was changed by somebody else."
    Interrupted "interrupted" "The updater was interrupted, and went back."
    NotSeen "not_seen" "For a long time nothing could be seen of what is true."
    StepFailed "step_failed" "A step of the job failed."
}

/// What comes of typing a remedy that is a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Afterwards the reason is gone, or was overruled by the person who typed it.
    Repairs,
    /// It only shows more.
    Shows,
}

impl Code {
    /// The codes that may come with a command of their own. Whatever else has no remedy may come with one that shows
    /// more, such as `docker ps -a`.
    pub const COMMANDS: &[(Self, Does)] = &[
        (Self::Downgrade, Does::Repairs),
        (Self::OlderThanCommitted, Does::Repairs),
        (Self::TooOld, Does::Repairs),
        (Self::KnownBad, Does::Repairs),
        (Self::PartlyUpdated, Does::Repairs),
        (Self::ProjectMoved, Does::Repairs),
        (Self::ComposeUnreadable, Does::Shows),
        (Self::ImageGone, Does::Repairs),
        (Self::ServiceMissing, Does::Repairs),
        (Self::Replicas, Does::Repairs),
        (Self::Drift, Does::Repairs),
        (Self::ShellVariable, Does::Repairs),
        (Self::NotApplied, Does::Repairs),
        (Self::TouchesOthers, Does::Repairs),
        (Self::EnvOtherFile, Does::Repairs),
        (Self::NoSuchSnapshot, Does::Shows),
        (Self::VersionChanged, Does::Shows),
        (Self::NoSnapshotOfUpdate, Does::Repairs),
        (Self::Unsettled, Does::Repairs),
        (Self::JournalFailed, Does::Shows),
        (Self::TokenWeak, Does::Shows),
        (Self::NoRestart, Does::Repairs),
        (Self::NotRunning, Does::Repairs),
        (Self::Unhealthy, Does::Shows),
        (Self::SizeUnknown, Does::Shows),
        (Self::ComposeRecreates, Does::Repairs),
        (Self::Clock, Does::Repairs),
        (Self::RegistryDenied, Does::Repairs),
        (Self::WouldBeRefused, Does::Shows),
        (Self::StateNoRoom, Does::Shows),
        (Self::JournalDamaged, Does::Shows),
        (Self::Leftover, Does::Repairs),
        (Self::NotOurs, Does::Shows),
        (Self::Claimed, Does::Shows),
    ];

    /// What typing its command does; `None`: it comes with none.
    pub fn command(self) -> Option<Does> {
        Self::COMMANDS.iter().find(|(code, _)| *code == self).map(|(_, does)| *does)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What to do. In JSON it is two fields, `remedy` and `remedy_kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "remedy_kind", content = "remedy", rename_all = "snake_case")]
pub enum Remedy {
    /// A command that can be pasted as it stands.
    Command(String),
    /// `NAME=value`, a setting of the updater.
    Setting(String),
    /// Anything else, as an imperative sentence without its period.
    Text(String),
}

impl Remedy {
    /// The words, whatever their kind.
    pub fn words(&self) -> &str {
        match self {
            Self::Command(words) | Self::Setting(words) | Self::Text(words) => words,
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => write!(f, "Run `{command}`"),
            Self::Setting(setting) => write!(f, "Set {setting}"),
            Self::Text(text) => {
                let mut letters = text.chars();
                // Not the first letter of a command or a name in backticks.
                let first = letters.next().into_iter().flat_map(char::to_uppercase);
                first.chain(letters).try_for_each(|letter| write!(f, "{letter}"))
            }
        }
    }
}

/// One reason, complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: Code,
    /// The thing, the value seen, what was expected; a sentence without its period.
    pub what: String,
    #[serde(flatten)]
    pub remedy: Option<Remedy>,
}

impl Refusal {
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: text::clean_lines(&what.into()).into_owned(), remedy: None }
    }

    /// What an error is a reason for, after `before`: `the manifest of v1: `.
    pub fn of(before: impl fmt::Display, error: &impl Explained) -> Self {
        Self { remedy: error.remedy(), ..Self::new(error.code(), format!("{before}{error}")) }
    }

    /// The remedy is this command.
    #[must_use]
    pub fn command(self, command: impl Into<String>) -> Self {
        debug_assert!(self.code.command().is_some(), "{} is missing in Code::COMMANDS", self.code);
        Self { remedy: Some(Remedy::Command(command.into())), ..self }
    }

    /// The remedy is this setting, `NAME=value`.
    #[must_use]
    pub fn setting(self, setting: impl Into<String>) -> Self {
        Self { remedy: Some(Remedy::Setting(setting.into())), ..self }
    }

    /// The remedy is what these words say.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        Self { remedy: Some(Remedy::Text(text.into())), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.remedy {
            None => f.write_str(&self.what),
            Some(remedy) => write!(f, "{}. {remedy}", self.what),
        }
    }
}

/// The job is refused; every reason that was found. As text it is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Refused(pub Vec<Refusal>);

impl Refused {
    /// For this reason alone.
    pub fn because(code: Code, what: impl Into<String>) -> Self {
        Refusal::new(code, what).into()
    }

    /// What to do, where the reason itself does not say it.
    #[must_use]
    pub fn or_text(self, text: &str) -> Self {
        self.or(|| Remedy::Text(text.into()))
    }

    /// The command to type, where the reason itself does not say what to do.
    #[must_use]
    pub fn or_command(self, command: &str) -> Self {
        self.or(|| Remedy::Command(command.into()))
    }

    fn or(mut self, remedy: impl Fn() -> Remedy) -> Self {
        for refusal in &mut self.0 {
            refusal.remedy.get_or_insert_with(&remedy);
        }
        self
    }

    /// The code of the first reason, for a job that can have only one.
    pub fn code(&self) -> Code {
        self.0.first().map_or(Code::Internal, |refusal| refusal.code)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(vec![refusal])
    }
}

/// An error that knows its code and what helps. Whoever decides asks it, and never reads the text.
pub trait Explained: fmt::Display {
    fn code(&self) -> Code;
    fn remedy(&self) -> Option<Remedy>;
}

impl<E: Explained> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::of("", &error)
    }
}

impl<E: Explained> From<E> for Refused {
    fn from(error: E) -> Self {
        Refusal::from(error).into()
    }
}

impl Explained for EngineError {
    fn code(&self) -> Code {
        match self {
            Self::Unreachable(_) => Code::EngineUnreachable,
            Self::NotFound(_) => Code::EngineNotFound,
            Self::Conflict(_) => Code::EngineConflict,
            Self::SourceGone { .. } => Code::SourceGone,
            Self::ProjectGone { .. } => Code::ProjectMoved,
            Self::Failed(_) => Code::EngineFailed,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::SourceGone { .. } | Self::ProjectGone { .. } => Some(Remedy::Text(
                "put it back; or, if the deployment's folder was moved, make the containers anew from where it is now: `docker compose up -d --force-recreate` there".to_owned(),
            )),
            _ => None,
        }
    }
}

impl Explained for EnvFileError {
    fn code(&self) -> Code {
        match self {
            Self::Mounted { .. } => Code::EnvSingleFile,
            Self::Owner { .. } => Code::EnvOwner,
            Self::Flagged { .. } | Self::Sticky { .. } | Self::Dangling { .. } | Self::Io { .. } => Code::EnvUnwritable,
            _ => Code::EnvInvalid,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        None
    }
}

impl Explained for SourceError {
    fn code(&self) -> Code {
        use SourceFault as Fault;
        match &self.fault {
            Fault::NotFound | Fault::NoFile => Code::ReleaseNotFound,
            Fault::TooLarge => Code::ReleaseTooLarge,
            Fault::RateLimit { .. } | Fault::SecondaryLimit => Code::ReleaseLimited,
            Fault::NoRepository { .. }
            | Fault::Unauthorized { .. }
            | Fault::Forbidden { .. }
            | Fault::SingleSignOn
            | Fault::NoTokenThere { .. } => Code::ReleaseDenied,
            Fault::WebPage
            | Fault::Insecure
            | Fault::Redirects
            | Fault::Unanswered { .. }
            | Fault::Server
            | Fault::Nonsense
            | Fault::Token => Code::ReleaseSource,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        self.advice().map(Remedy::Text)
    }
}

impl Explained for ManifestError {
    fn code(&self) -> Code {
        Code::ManifestInvalid
    }

    fn remedy(&self) -> Option<Remedy> {
        Some(Remedy::Text(match self {
            Self::Wrong { field, .. } if field == "schema_version" => {
                "update the updater, which knows schema version 1 only".into()
            }
            _ => "choose another release, or tell the publisher".into(),
        }))
    }
}
