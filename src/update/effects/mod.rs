//! What an update does to the world: one file per thing it touches, the deed and its undoing side by
//! side. Which comes when is [`super::transition`]'s business.

mod app;
mod claim;
mod data;
mod gate;
mod guard;
mod image;
mod oneshot;
mod order;
mod swap;
pub mod volumes;
mod writers;

pub use app::{containers, is_half_swapped};
pub use claim::taken_by_another;
pub use data::standing;
pub use guard::keep_old;
pub use image::{brought, untag_brought};
pub use oneshot::clear as clear_one_shot;

use super::context::Context;
use super::plan::Plan;
use super::ports::{DataError, EnvError, JournalError};
use super::record::{Learned, Record};
use super::refusal::{Code, Explained, Refusal};
use super::transition::Effect;
use crate::command::line;
use crate::engine::{Container, EngineError};
use crate::envfile::EnvFileError;

/// Why an effect failed, for the operator. Engine trouble is told apart, because waiting may help.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EffectError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A port failed, and has said how.
    #[error("{}", .0.what)]
    Port(Refusal),
    #[error("{0}")]
    Other(String),
    /// The version that was tried does not work: a verdict, and trying again changes nothing.
    #[error("{0}")]
    Bad(String),
    /// Looked, and did nothing: it counts as not begun.
    #[error("{0}")]
    Refused(String),
}

impl EffectError {
    pub fn other(error: impl std::fmt::Display) -> Self {
        Self::Other(error.to_string())
    }

    /// Somebody else's container has the name that one of ours is to have.
    fn in_the_way(container: &Container) -> Self {
        Self::other(format!(
            "a container named {} exists that this updater has not made: look at it with `{}`, and remove it if nobody needs it",
            container.name,
            line(["docker", "inspect", &container.name])
        ))
    }

    /// What the job ends for, when this effect fails so.
    pub fn code(&self, effect: Effect) -> Code {
        match (self, effect) {
            (Self::Port(refusal), _) => refusal.code,
            (Self::Refused(_), _) => Code::Claimed,
            (Self::Engine(error), _) if error.is_unreachable() => error.code(),
            (Self::Bad(_), Effect::Migrate) => Code::MigrationFailed,
            (Self::Bad(_), _) => Code::Unhealthy,
            (_, Effect::Pull) => Code::PullFailed,
            (_, Effect::Migrate) => Code::StepFailed,
            (_, Effect::HookBefore | Effect::HookAfter | Effect::HookRestored) => Code::HookFailed,
            (_, Effect::Swap) => Code::SwapFailed,
            (Self::Engine(error), _) => error.code(),
            (Self::Other(_), _) => Code::StepFailed,
        }
    }
}

impl From<EnvError> for EffectError {
    fn from(error: EnvError) -> Self {
        Self::Port(error.into())
    }
}

impl From<DataError> for EffectError {
    fn from(error: DataError) -> Self {
        Self::Port(error.into())
    }
}

impl From<JournalError> for EffectError {
    fn from(error: JournalError) -> Self {
        Self::Port(error.into())
    }
}

impl From<EnvFileError> for EffectError {
    fn from(error: EnvFileError) -> Self {
        Self::Port(error.into())
    }
}

pub type Result<T = ()> = std::result::Result<T, EffectError>;

/// Does it. What is learned is kept with the outcome.
pub async fn perform(effect: Effect, cx: &Context, record: &Record, plan: &Plan, learned: &mut Learned) -> Result {
    if effect.changes_data() {
        guard::before_data_changes(cx, effect, record, plan).await?;
    }
    match effect {
        Effect::Claim => claim::claim(cx, record, plan).await,
        Effect::Pull => image::pull(cx, plan, learned).await,
        Effect::Verify => image::verify(cx, plan, learned).await,
        Effect::Guard => guard::guard(cx, record, plan).await,
        Effect::HotCopy => data::hot_copy(cx, plan).await,
        Effect::Disarm => app::disarm(cx, record, plan).await,
        Effect::Stop => app::stop(cx, plan, learned).await,
        Effect::HookBefore => oneshot::before_copy(cx, plan, learned).await,
        Effect::ColdCopy => data::cold_copy(cx, plan, learned).await,
        Effect::CopyRunning => data::copy_running(cx, plan, learned).await,
        Effect::StartNeeded => order::start_needed_first(cx, plan, learned).await,
        Effect::Migrate => oneshot::migrate(cx, plan, learned).await,
        Effect::LoadData => data::load(cx, plan, learned).await,
        Effect::HookAfter => {
            oneshot::after_restore(cx, plan, learned).await?;
            app::require_stopped(cx, plan, learned, "the hook after the restore").await
        }
        Effect::HookRestored => oneshot::after_restore(cx, plan, learned).await,
        Effect::WriteEnv => swap::write_env(cx, record, plan).await,
        Effect::Swap => swap::swap(cx, plan, learned).await,
        Effect::Resume => app::resume(cx, plan, learned).await,
        Effect::Gate => gate::gate(cx, plan, learned).await,
        Effect::Tidy => image::tidy(cx, plan, learned).await,

        Effect::HaltNew => app::halt_new(cx, plan, learned).await,
        Effect::RestoreData => data::restore_data(cx, plan, learned).await,
        Effect::RestoreEnv => swap::restore_env(cx, plan).await,
        Effect::RestoreTags => image::restore_tags(cx, plan, learned).await,
        Effect::StartOld => swap::start_old(cx, record, plan).await,
        Effect::Rearm => app::rearm(cx, plan).await,
        Effect::Prove => gate::prove(cx, record, plan).await,
        Effect::Sweep => image::sweep(cx, plan, learned).await,
    }
}
