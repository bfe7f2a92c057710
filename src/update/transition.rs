//! What next? One pure, total function from what was recorded and what is seen to the next action. It
//! runs live and in recovery: a process that died is a record whose `interrupted` is set.
//!
//! ```text
//!   Forward ──Do(effect)──▶ … ──▶ End(committed)
//!      │ an effect failed, the world is not as planned, or the process died before the gate
//!      ▼ Turn(why)
//!   Back    ──Do(effect)──▶ … ──▶ End(rolled_back)   proven: the application is what it was
//!                            ├──▶ End(aborted)      left on request before anything was touched
//!                            └──▶ End(failed)        a person is needed, and is told what to do
//! ```

use serde::{Deserialize, Serialize};

use super::job::State;
use super::plan::{Plan, Purpose};
use super::record::{Heading, Record};

/// Something done to the world. Each is idempotent or looks before it acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// No other updater works on this application.
    Claim,
    /// Pull by digest, tag locally.
    Pull,
    /// Signature, platform, digest among RepoDigests.
    Verify,
    /// Never-started containers keep both images from pruning.
    Guard,
    /// First copy of the data, the application running.
    HotCopy,
    /// Restart policy `no`, so that nothing revives the stopped application.
    Disarm,
    Stop,
    /// The operator's command before the data is copied.
    HookBefore,
    /// Second copy, the application stopped.
    ColdCopy,
    /// A copy without stopping anything, as a snapshot of its own.
    CopyRunning,
    /// What was stopped and the application needs, its database for example, runs again and is ready.
    StartNeeded,
    Migrate,
    /// An earlier generation's data.
    LoadData,
    /// The operator's command after data was put back.
    HookAfter,
    WriteEnv,
    /// Compose makes the new container.
    Swap,
    /// The very container that was stopped runs again, and so do its companions.
    Resume,
    /// Does the new version work?
    Gate,
    /// Remove guards; retention of images.
    Tidy,

    /// Whatever of the new version runs is stopped: its container, its migration.
    HaltNew,
    RestoreData,
    HookRestored,
    RestoreEnv,
    /// Tags mean again what they meant; the old image is at hand.
    RestoreTags,
    /// The old version runs again.
    StartOld,
    /// The restart policy it had.
    Rearm,
    /// Is the application as well as it was before?
    Prove,
    /// Remove guards, and the image we pulled.
    Sweep,
}

impl Effect {
    /// The step in which it happens.
    pub fn state(self) -> State {
        match self {
            Effect::Claim => State::Planning,
            Effect::Pull => State::Pulling,
            Effect::Verify | Effect::Guard => State::Verifying,
            Effect::HotCopy | Effect::Disarm | Effect::Stop | Effect::HookBefore | Effect::ColdCopy => {
                State::Snapshotting
            }
            Effect::CopyRunning => State::Snapshotting,
            Effect::LoadData | Effect::HookAfter | Effect::StartNeeded | Effect::Migrate => State::Migrating,
            Effect::WriteEnv | Effect::Swap | Effect::Resume => State::Swapping,
            Effect::Gate | Effect::Tidy => State::Healthchecking,
            _ => State::RollingBack,
        }
    }

    /// It changes what the application depends on. Before the first of these, the way back is empty.
    pub fn touches(self) -> bool {
        matches!(
            self,
            Effect::Disarm | Effect::Stop | Effect::Migrate | Effect::LoadData | Effect::WriteEnv | Effect::Swap
        )
    }

    /// The data may be other than it was once this has begun.
    pub fn changes_data(self) -> bool {
        matches!(self, Effect::Migrate | Effect::LoadData | Effect::HookAfter | Effect::Swap | Effect::Resume)
    }
}

/// The application's container and those that are moved with it, compared with the Plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum App {
    /// The very container that ran before.
    Untouched {
        running: bool,
    },
    /// Another container of the old image, from the old configuration.
    OldAnew {
        running: bool,
    },
    /// A container of the new image; `ours`: the one that this job's swap made.
    New {
        running: bool,
        ours: bool,
    },
    /// Of the services that are moved together some are the old version's, some the new one's, or gone.
    Mixed,
    /// Neither: somebody else's doing.
    Foreign,
    Gone,
}

impl App {
    /// Something runs, and may write.
    fn runs(self) -> bool {
        match self {
            App::Untouched { running } | App::OldAnew { running } | App::New { running, .. } => running,
            App::Mixed | App::Foreign => true,
            App::Gone => false,
        }
    }
}

/// `.env`, compared with the Plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Env {
    /// The very bytes from before.
    Before,
    /// The very bytes we write.
    After,
    /// Edited by somebody; the key has its value from before.
    KeyBefore,
    /// Edited by somebody; the key has the new value.
    KeyAfter,
    /// Edited by somebody; the key has neither.
    Other,
}

/// The world, as far as the next action depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub app: App,
    pub env: Env,
    pub old_image: bool,
    pub new_image: bool,
    /// Seconds since something may have been writing: the swap was begun, or somebody started a container
    /// of the service. 0 while nothing has.
    pub since_swap: i64,
}

impl Seen {
    /// Before there is a Plan nothing is looked at.
    pub const NOTHING: Self =
        Self { app: App::Gone, env: Env::Other, old_image: false, new_image: false, since_swap: 0 };
}

/// How it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub state: State,
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Do(Effect),
    Turn(String),
    End(Verdict),
}

/// How long after the swap an unattended rollback may still put old data back: later, what
/// people have written since would be lost.
pub const UNATTENDED_RESTORE_SECONDS: i64 = 3600;

/// The effects of the way there, in order.
pub fn way_there(plan: &Plan) -> Vec<Effect> {
    use Effect::*;
    if plan.no_op {
        return vec![Gate];
    }
    if plan.hot_only {
        return vec![CopyRunning, Tidy];
    }
    let copied = plan.data.is_copied();
    let stops = plan.stops_first();
    let (moves, restores) = (!plan.stays, plan.restores().is_some());
    [
        (true, Claim),
        (moves, Pull),
        (moves, Verify),
        (moves, Guard),
        (copied, HotCopy),
        (stops, Disarm),
        (stops, Stop),
        (copied && plan.hooks.before_copy.is_some(), HookBefore),
        (copied, ColdCopy),
        (restores, LoadData),
        (restores && plan.hooks.after_restore.is_some(), HookAfter),
        (stops && plan.starts_needed_first(), StartNeeded),
        (plan.migration.is_some(), Migrate),
        (moves, WriteEnv),
        (moves, Swap),
        (stops && (plan.stays || !plan.companions.is_empty()), Resume),
        (true, Gate),
        (true, Tidy),
    ]
    .into_iter()
    .filter_map(|(wanted, effect)| wanted.then_some(effect))
    .collect()
}

/// The effects of the way back, in order: undo what was begun, nothing else.
pub fn way_back(record: &Record) -> Vec<Effect> {
    use Effect::*;
    let began = |e: Effect| record.has_begun(e);
    let touched = touched(record);
    let changed = data_was_exposed(record);
    let plan = record.plan.as_ref();
    let restores = record.has_done(ColdCopy) && plan.is_some_and(|p| may_differ(record, p));
    let hooked = plan.is_some_and(|p| p.hooks.after_restore.is_some());
    [
        (changed || began(HookBefore), HaltNew),
        // First what Compose reads: whoever starts the application from here on starts the old version.
        (began(WriteEnv), RestoreEnv),
        (began(Pull), RestoreTags),
        (restores, RestoreData),
        (restores && hooked, HookRestored),
        // Even where nothing of ours has stopped it: somebody else may have.
        (touched, StartOld),
        (began(Disarm), Rearm),
        (touched, Prove),
        (!record.begun.is_empty(), Sweep),
    ]
    .into_iter()
    .filter_map(|(wanted, effect)| wanted.then_some(effect))
    .collect()
}

/// The data may be other than before. Taking a snapshot changes nothing that could be put back.
pub(super) fn may_differ(record: &Record, plan: &Plan) -> bool {
    plan.purpose != Purpose::Snapshot && data_was_exposed(record)
}

/// Data that may be other than before and is not put back, as people read it.
pub(super) fn lost(record: &Record, plan: &Plan) -> Option<String> {
    let mounts = plan.data.uncovered().filter(|_| may_differ(record, plan));
    let uncovered = &plan.beside.uncovered;
    let beside = (!uncovered.is_empty() && beside_was_exposed(record))
        .then(|| format!("the data of {} (beside the application, and not copied)", uncovered.join(", ")));
    let lost: Vec<String> = mounts.into_iter().chain(beside).collect();
    (!lost.is_empty()).then(|| lost.join(", and "))
}

/// A migration, or another version than the one that ran before, may have changed what is beside the application.
/// Where the very container is only stopped and started, nobody else has had it.
pub(super) fn beside_was_exposed(record: &Record) -> bool {
    record.learned.others_wrote || record.has_begun(Effect::Migrate) || record.has_begun(Effect::Swap)
}

/// Something other than the old version has had the data: by our doing, or by somebody else's.
fn data_was_exposed(record: &Record) -> bool {
    record.learned.others_wrote || record.begun.iter().any(|e| e.changes_data())
}

/// The application is already ours to change, and before our own swap another version runs: somebody's
/// `compose up` was quicker.
pub fn others_write(record: &Record, seen: &Seen) -> bool {
    let strange = matches!(seen.app, App::New { .. } | App::Mixed | App::Foreign);
    strange && touched(record) && record.heading == Heading::There && !record.has_begun(Effect::Swap)
}

pub(super) fn touched(record: &Record) -> bool {
    record.begun.iter().any(|e| e.touches())
}

/// Why a job cannot be left on request any more once this has begun; `None` while it still can.
pub fn too_late_to_abort(effect: Effect) -> Option<&'static str> {
    match effect {
        Effect::Tidy => Some("too late to abort: the job is done, and only tidies up"),
        e if e.touches() => Some(
            "too late to abort: the application is being changed; if it does not prove healthy, everything is put back by itself",
        ),
        _ => None,
    }
}

/// The next action. Total: every record and every sight has one.
pub fn next(record: &Record, seen: &Seen) -> Action {
    let Some(plan) = &record.plan else {
        // Nothing was planned, so nothing was done.
        let why = record.why_or("the updater was interrupted while planning; nothing was changed: ask again");
        return Action::End(untouched(record, why));
    };
    // Where nothing was touched one life more may tidy up.
    if record.lives > Record::MAX_LIVES + u32::from(!touched(record)) {
        return Action::End(worn_out(record, Some(seen)));
    }
    match &record.heading {
        Heading::There => next_there(record, plan, seen),
        Heading::Back { why } => next_back(record, plan, seen, why),
    }
}

fn next_there(record: &Record, plan: &Plan, seen: &Seen) -> Action {
    let Some(effect) = way_there(plan).into_iter().find(|e| !record.has_done(*e)) else {
        return committed_or_turn(plan, seen);
    };
    // Once the gate is passed nothing is taken back.
    if effect != Effect::Tidy
        && let Some(why) = too_late_to_restore(record, plan, seen)
    {
        return failed(record, plan, seen, &why);
    }
    if record.interrupted && !matches!(effect, Effect::Resume | Effect::Gate | Effect::Tidy) {
        let when = effect.state();
        return Action::Turn(format!(
            "the updater was interrupted during {when} ({} of {} lives)",
            record.lives,
            Record::MAX_LIVES
        ));
    }
    use Effect::{ColdCopy, Disarm, HookBefore, LoadData, Migrate, StartNeeded, Stop, Swap, WriteEnv};
    let surprise = match effect {
        Disarm | Stop | HookBefore | ColdCopy | StartNeeded | Migrate | LoadData | WriteEnv | Swap => {
            surprise_before(record, plan, effect, seen)
        }
        Effect::Gate => surprise_at_gate(plan, seen),
        _ => None,
    };
    match surprise {
        Some(why) => Action::Turn(why.to_owned()),
        None => Action::Do(effect),
    }
}

/// A later life finds an application that has been writing for long, or that is not the one this job
/// started: whatever is wrong, its data is not taken back unattended.
fn too_late_to_restore(record: &Record, plan: &Plan, seen: &Seen) -> Option<String> {
    let would_restore = record.has_done(Effect::ColdCopy) && may_differ(record, plan);
    if !record.interrupted || !would_restore || record.has_done(Effect::RestoreData) {
        return None;
    }
    let runs = seen.app.runs();
    if record.has_done(Effect::HaltNew) && !runs {
        // What was stopped on the way back and still is, nobody has written to since.
        return None;
    }
    if seen.since_swap > UNATTENDED_RESTORE_SECONDS {
        return Some(format!(
            "the updater was away for {} minutes in which the application may have been writing; restoring data that old is not done unattended",
            seen.since_swap / 60
        ));
    }
    let started = record.has_done(Effect::Swap) || record.has_done(Effect::Resume);
    (started && runs && !is_ours(plan, seen)).then(|| {
        "what runs now is not what the updater started before it was interrupted; what was written to it is not taken back unattended".to_owned()
    })
}

/// What runs is what this job has started.
fn is_ours(plan: &Plan, seen: &Seen) -> bool {
    match seen.app {
        App::New { ours, .. } => ours,
        App::Untouched { .. } => plan.stays,
        _ => false,
    }
}

/// Just before the application is touched the world is still as planned, or we turn back.
fn surprise_before(record: &Record, plan: &Plan, effect: Effect, seen: &Seen) -> Option<&'static str> {
    let stopped_by_us = record.has_done(Effect::Stop);
    Some(match (seen.app, seen.env) {
        (App::Untouched { running: true }, _) if stopped_by_us => {
            "somebody started the application while it was stopped for the update"
        }
        (App::Untouched { .. }, _) if !seen.old_image && !stopped_by_us => "the image that runs was removed meanwhile",
        (App::Untouched { .. }, _) if !seen.new_image && !plan.stays => {
            "the image that was pulled was removed meanwhile"
        }
        (App::Untouched { .. }, Env::Before) => return None,
        // Without another version `.env` is nobody's business.
        (App::Untouched { .. }, _) if plan.stays => return None,
        (App::Untouched { .. }, env) if effect == Effect::Swap && selects_new(plan, env) => return None,
        (App::Untouched { .. }, _) => "somebody edited .env meanwhile",
        (App::Gone, _) => "the application's container was removed meanwhile",
        (App::OldAnew { .. } | App::New { .. } | App::Foreign, _) => {
            "somebody replaced the application's container meanwhile"
        }
        (App::Mixed, _) => "somebody replaced or removed a container meanwhile that is moved with the application",
    })
}

/// `.env` selects the new version. Without another version the file is nobody's business.
fn selects_new(plan: &Plan, env: Env) -> bool {
    plan.stays || matches!(env, Env::After | Env::KeyAfter) || selects_both(plan, env)
}

/// `.env` selects the old version.
fn selects_old(plan: &Plan, env: Env) -> bool {
    plan.stays || matches!(env, Env::Before | Env::KeyBefore) || selects_both(plan, env)
}

/// The key has one value before and after; which image it means is a matter of tags.
fn selects_both(plan: &Plan, env: Env) -> bool {
    plan.env.keeps_the_value() && env != Env::Other
}

/// The gate may also be resumed after the swap, by a later life.
fn surprise_at_gate(plan: &Plan, seen: &Seen) -> Option<&'static str> {
    if plan.no_op {
        return None;
    }
    match seen.app {
        App::Untouched { .. } if plan.stays => None,
        _ if plan.stays => Some("somebody replaced the application's container before it was proven"),
        App::New { ours: true, .. } => None,
        App::New { ours: false, .. } => Some("somebody replaced the new version's container before it was proven"),
        App::Untouched { .. } | App::OldAnew { .. } => Some("the old version runs instead of the new one"),
        App::Mixed => Some("only some of the services that are moved together are the new version's"),
        App::Foreign => Some("a container that neither version made took the application's place"),
        App::Gone => Some("the new version's container was removed before it was proven"),
    }
}

fn committed_or_turn(plan: &Plan, seen: &Seen) -> Action {
    let runs = match seen.app {
        App::New { running, .. } => running,
        App::Untouched { running } => (plan.no_op || plan.stays) && (running || !plan.previous.baseline.running),
        _ => plan.hot_only,
    };
    if runs && selects_new(plan, seen.env) {
        return Action::End(Verdict { state: State::Committed, error: None });
    }
    Action::Turn(format!("after the gate the observation disagrees: application {:?}, .env {:?}", seen.app, seen.env))
}

fn next_back(record: &Record, plan: &Plan, seen: &Seen, why: &str) -> Action {
    if let Some(late) = too_late_to_restore(record, plan, seen) {
        return failed(record, plan, seen, &format!("{why}; {late}"));
    }
    if let Some(effect) = way_back(record).into_iter().find(|e| !record.has_done(*e)) {
        return match record.failed_back {
            // An undo that fails is a person's business; only tidying may fail.
            Some(failed_effect) if failed_effect == effect && effect != Effect::Sweep => {
                failed(record, plan, seen, why)
            }
            Some(failed_effect) if failed_effect == effect => rolled_back(record, plan, seen, why),
            // What a failed job needs stays until a person settles it.
            _ if effect == Effect::Sweep => match rolled_back(record, plan, seen, why) {
                Action::End(verdict) if verdict.state != State::Failed => Action::Do(effect),
                otherwise => otherwise,
            },
            _ => Action::Do(effect),
        };
    }
    rolled_back(record, plan, seen, why)
}

/// The verdict of the way back: proven by what is seen, or `failed`.
fn rolled_back(record: &Record, plan: &Plan, seen: &Seen, why: &str) -> Action {
    let end = |state, error: String| Action::End(Verdict { state, error: Some(error) });
    if !touched(record) {
        return Action::End(untouched(record, why.to_owned()));
    }
    let runs_old = match seen.app {
        App::Untouched { running } | App::OldAnew { running } => running || !plan.previous.baseline.running,
        _ => false,
    };
    let selected = selects_old(plan, seen.env);
    let proofs = record.begun.iter().filter(|e| **e == Effect::Prove).count();
    if !runs_old && selected && proofs == 1 {
        // Somebody has stopped or removed it since it was proven: once more, and only once.
        return Action::Do(Effect::Prove);
    }
    if !runs_old || !selected {
        return failed(
            record,
            plan,
            seen,
            &format!(
                "{why}; and after the way back the observation disagrees: application {:?}, .env {:?}",
                seen.app, seen.env
            ),
        );
    }
    match lost(record, plan) {
        Some(lost) => end(
            State::Failed,
            format!(
                "{why}. The old version runs again, but its data was not restored: the new version may have changed {lost}. \
                 Check the application; if its data is damaged, restore it from a backup of your own. \
                 Then declare this job done: `{}`",
                super::advice::settle(record, plan)
            ),
        ),
        None => end(State::RolledBack, why.to_owned()),
    }
}

/// Nothing was changed: the verdict needs no proof.
fn untouched(record: &Record, why: String) -> Verdict {
    let state = if record.aborted { State::Aborted } else { State::RolledBack };
    Verdict { state, error: Some(why) }
}

fn failed(record: &Record, plan: &Plan, seen: &Seen, why: &str) -> Action {
    Action::End(calls_a_person(record, plan, Some(seen), why))
}

fn calls_a_person(record: &Record, plan: &Plan, seen: Option<&Seen>, why: &str) -> Verdict {
    let advice = super::advice::by_hand(record, plan, seen);
    Verdict { state: State::Failed, error: Some(format!("{why}. {advice}")) }
}

/// The end of a job that could not be ended in so many lives.
pub fn worn_out(record: &Record, seen: Option<&Seen>) -> Verdict {
    let why = record.why_or("the updater was interrupted");
    let why = format!("{why}; the job could not be ended in {} lives", Record::MAX_LIVES);
    match &record.plan {
        Some(plan) if touched(record) => calls_a_person(record, plan, seen, &why),
        _ => untouched(record, why),
    }
}
