//! The update, top to bottom: plan, then do what [`transition::next`] says until it says how it ends.
//!
//! For every effect: record the intent, flush, act, record the outcome; and before every decision look at
//! the world. A process may die between any two lines: the next one finds the record, sets
//! `interrupted`, and runs the very same loop.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::door::AbortError;
use super::effects::{self, EffectError};
use super::job::{Reason, State};
use super::observe::{Blind, observe};
use super::plan::{Plan, Purpose};
use super::ports::{Entry, JournalError};
use super::record::{Heading, Record};
use super::refusal::{Code, Explained};
use super::settle;
use super::survey::{self, Refused};
use super::transition::{self, Action, Effect, Seen, Verdict};
use super::{Order, Request};
use crate::failpoint;
use crate::text;

/// How long anything that may pass is waited for, before a person is called.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// The same for an engine that is away: without it a person can do nothing either, and once it is back the
/// job goes on by itself. Long enough for an upgrade that goes wrong.
const PATIENCE_WITH_ENGINE: Duration = Duration::from_secs(2 * 3600);
/// An undo is tried so often before a person is called.
const UNDO_TRIES: u32 = 3;
/// The first pause before trying again; it doubles, up to thirty seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Runs the job to its end, or until `stop`: then it is left to the next start.
pub async fn run(cx: &Context, mut record: Record, stop: &CancellationToken) {
    if record.interrupted && !settled(cx, stop).await {
        return cx.door.shut(AbortError::Stopping);
    }
    if let Order::SelfUpdate(request) = &record.order {
        let request = request.clone();
        return super::self_update::run(cx, record, &request, stop).await;
    }
    if record.interrupted {
        // An earlier life may have ended between an outcome and what follows it.
        let ended = record.done.iter().copied().chain(record.failed_there).chain(record.failed_back);
        for effect in ended {
            effects::clear_one_shot(cx, effect).await;
        }
    }
    while record.plan.is_none() && !record.interrupted && record.heading == Heading::There {
        tokio::select! {
            planned = plan(cx, &mut record) => match planned {
                Ok(()) => note(cx, &record, Entry::Note("planned".into())).await,
                Err(refused) => {
                    let refused = settle::without_contradictions(&cx.book, cx.options.stub, refused);
                    turn(cx, &mut record, refused.code(), &refused.to_string()).await;
                }
            },
            () = cx.door.asked() => mind_the_door(cx, &mut record).await,
        }
    }
    if record.lives > Record::MAX_LIVES + 1 {
        // Even the last life, which only had to look, has met a fault.
        return end(cx, &record, transition::worn_out(&record, None)).await;
    }
    while !stop.is_cancelled() {
        mind_the_door(cx, &mut record).await;
        let action = match look(cx, &record, stop).await {
            Ok(Some(seen)) => {
                record.learned.others_wrote |= transition::others_write(&record, &seen);
                transition::next(&record, &seen)
            }
            Ok(None) => continue,
            Err(blind) => blind_end(&record, &blind),
        };
        match action {
            Action::Do(effect) => act(cx, &mut record, effect, stop).await,
            Action::Turn(why) => {
                let code = if record.interrupted { Code::Interrupted } else { Code::Meddled };
                turn(cx, &mut record, code, &why).await;
            }
            Action::End(verdict) => return end(cx, &record, verdict).await,
        }
    }
    cx.door.shut(AbortError::Stopping);
}

/// The door is open, so nothing was touched: whoever has asked to abort is let out.
async fn mind_the_door(cx: &Context, record: &mut Record) {
    if !cx.door.is_asked() {
        return;
    }
    let before = record.clone();
    record.aborted = true;
    if record.heading == Heading::There {
        record.turn(Code::Aborted, "stopped on request, before anything was changed".into());
    }
    // Whoever is told that the job is aborted may rely on it, whatever happens to this process.
    let recorded = save(cx, record, Entry::Note("aborted on request".into())).await;
    match &recorded {
        Ok(()) => {
            tracing::info!(job = %cx.job, "aborted on request");
            cx.change(|job| job.fail_step("stopped on request", cx.ports.clock.now()));
        }
        Err(_) => *record = before,
    }
    cx.door.answer(recorded.map_err(|e| AbortError::Journal(e.to_string())));
}

/// What an earlier life began and its engine still does is waited for, never raced. False when asked to
/// stop meanwhile.
async fn settled(cx: &Context, stop: &CancellationToken) -> bool {
    let mut pause = FIRST_PAUSE;
    loop {
        let settled = tokio::select! {
            settled = cx.ports.place.settle() => settled,
            () = stop.cancelled() => return false,
        };
        let Err(why) = settled else { return true };
        tracing::warn!(job = %cx.job, "trying again in {pause:?}: {why}");
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return false,
        }
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// Planning has no effects, so nothing is recorded before it.
async fn plan(cx: &Context, record: &mut Record) -> Result<(), Refused> {
    enter(cx, State::Planning);
    let plan = match &record.order {
        Order::Update(request) => plan_update(cx, request).await?,
        order => plan_by_hand(cx, order).await?,
    };
    plan.changes.iter().for_each(|change| cx.say(change));
    plan.drift.iter().for_each(|line| cx.say(&format!("accepted drift: {line}")));
    plan.warnings.iter().for_each(|warning| cx.warn(warning));
    record.plan = Some(plan);
    Ok(())
}

async fn plan_update(cx: &Context, request: &Request) -> Result<Plan, Refused> {
    let (ports, options) = (&cx.ports, &cx.options);
    let (candidate, deployment) =
        tokio::join!(survey::candidate(ports, &request.target_tag), survey::deployment(ports, options));
    let candidate = candidate?;
    cx.change(|job| {
        job.target_version = Some(candidate.manifest.version.to_string());
        job.target_digest = Some(candidate.manifest.image.digest.clone());
        job.target_image = Some(candidate.manifest.image_reference());
        job.verified.push(candidate.verified.clone());
    });
    let deployment = deployment?.knowing(&candidate.manifest);
    cx.change(|job| {
        job.previous_image = Some(deployment.container.image_ref.clone());
        job.previous_version = deployment.version_text();
    });
    cx.say(&format!("manifest signed by {} ({})", candidate.verified.identity, candidate.verified.carrier));
    let (wish, refusals) = survey::wish::update(ports, options, request, &candidate, &deployment).await?;
    survey::assemble::plan(ports, options, &deployment, wish, refusals).await
}

async fn plan_by_hand(cx: &Context, order: &Order) -> Result<Plan, Refused> {
    let (ports, options) = (&cx.ports, &cx.options);
    let deployment = survey::deployment(ports, options).await?;
    let wish = survey::wish::by_hand(ports, order, &deployment).await?;
    let target = &wish.target;
    cx.change(|job| {
        job.target_tag.clone_from(&target.tag);
        job.target_version = Some(target.version.clone()).filter(|v| !v.is_empty());
        job.target_image = Some(target.reference());
        job.target_digest = Some(target.digest.clone()).filter(|d| !d.is_empty());
        job.previous_image = Some(deployment.container.image_ref.clone());
        job.previous_version = deployment.version_text();
    });
    survey::assemble::plan(ports, options, &deployment, wish, Vec::new()).await
}

/// What is seen; `None` when asked to stop or to abort meanwhile. An engine that is away is waited for, because it
/// may come back with everything as it should be.
async fn look(cx: &Context, record: &Record, stop: &CancellationToken) -> Result<Option<Seen>, String> {
    let Some(plan) = &record.plan else { return Ok(Some(Seen::NOTHING)) };
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let Blind { why, is_engine_away } = match observe(cx, record, plan).await {
            Ok(seen) => return Ok(Some(seen)),
            Err(blind) => blind,
        };
        tracing::warn!(job = %cx.job, "nothing can be seen, trying again in {pause:?}: {why}");
        if pause == FIRST_PAUSE {
            cx.say(&format!("{why}; trying again until it can be seen what is true"));
        }
        if is_over(began, pause, is_engine_away) {
            return Err(format!("for {} minutes nothing could be seen: {why}", began.elapsed().as_secs() / 60));
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = cx.door.asked() => return Ok(None),
            () = stop.cancelled() => return Ok(None),
        }
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// Whoever waits since `began` and would go on for `pause` has waited for long enough.
fn is_over(began: Instant, pause: Duration, is_engine_away: bool) -> bool {
    let patience = if is_engine_away { PATIENCE_WITH_ENGINE } else { PATIENCE };
    began.elapsed() + pause > patience
}

fn blind_end(record: &Record, why: &str) -> Action {
    let advice = record.plan.as_ref().map(|plan| super::advice::by_hand(record, plan, None)).unwrap_or_default();
    let error = format!("{}; {why}. {advice}", record.why_or("the update had begun"));
    Action::End(Verdict { state: State::Failed, error: Some(error) })
}

/// One effect: intent, flush, act, outcome.
async fn act(cx: &Context, record: &mut Record, effect: Effect, stop: &CancellationToken) {
    let Some(plan) = record.plan.clone() else { return };
    if let Some(why) = transition::too_late_to_abort(effect)
        && !cx.door.close(why)
    {
        return;
    }
    enter(cx, effect.state());
    record.begin(effect);
    if record.begun.iter().any(|begun| begun.touches()) {
        cx.change(|job| job.touched = Some(true));
    }
    if matches!(effect, Effect::Swap | Effect::Resume) {
        // With the intent, not with the outcome: a process that dies in the middle has begun too.
        record.learned.swap_began.get_or_insert_with(|| cx.ports.clock.now());
    }
    if let Err(e) = save(cx, record, Entry::Intent(effect)).await
        && record.heading == Heading::There
    {
        // What cannot be written down is not begun.
        record.begun.retain(|b| *b != effect);
        return turn(cx, record, e.code(), &e.to_string()).await;
    }
    failpoint::enter(format_args!("{effect:?}"));
    failpoint::reach(format_args!("begun"));
    let outcome = match &record.heading {
        Heading::There => tokio::select! {
            outcome = attempt(effect, cx, record, &plan) => Some(outcome),
            () = stop.cancelled(), if may_be_left(effect) => None,
            () = cx.door.asked(), if may_be_left(effect) => None,
        },
        Heading::Back { .. } => Some(attempt_undo(effect, cx, record, &plan).await),
    };
    let has_outcome = outcome.is_some();
    match outcome {
        // Asked to stop: the next life goes on from here. Asked to abort: the loop sees to it.
        None => {}
        Some(Ok(learned)) => {
            failpoint::reach(format_args!("acted"));
            record.learned = learned;
            record.done.push(effect);
            note(cx, record, Entry::Done(effect)).await;
            failpoint::reach(format_args!("done"));
        }
        Some(Err(e)) => failed(cx, record, effect, &e).await,
    }
    if has_outcome {
        effects::clear_one_shot(cx, effect).await;
    }
}

/// These wait, and lose nothing when they are left in the middle.
fn may_be_left(effect: Effect) -> bool {
    use Effect::*;
    matches!(effect, Pull | Verify | HotCopy | CopyRunning | Gate)
}

async fn attempt(
    effect: Effect,
    cx: &Context,
    record: &Record,
    plan: &Plan,
) -> Result<super::record::Learned, (EffectError, super::record::Learned)> {
    let mut learned = record.learned.clone();
    match effects::perform(effect, cx, record, plan, &mut learned).await {
        Ok(()) => Ok(learned),
        Err(e) => Err((e, learned)),
    }
}

/// An undo is worth several tries, and worth waiting for an engine that is away.
async fn attempt_undo(
    effect: Effect,
    cx: &Context,
    record: &Record,
    plan: &Plan,
) -> Result<super::record::Learned, (EffectError, super::record::Learned)> {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut tries = 0;
    loop {
        tries += 1;
        let failure = match attempt(effect, cx, record, plan).await {
            Ok(learned) => return Ok(learned),
            Err(failure) => failure,
        };
        let away = matches!(&failure.0, EffectError::Engine(e) if e.is_unreachable());
        if matches!(failure.0, EffectError::Bad(_)) || (tries >= UNDO_TRIES && !away) || is_over(began, pause, away) {
            return Err(failure);
        }
        if tries <= UNDO_TRIES {
            cx.say(&format!("{}; trying again", failure.0));
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

async fn failed(cx: &Context, record: &mut Record, effect: Effect, failure: &(EffectError, super::record::Learned)) {
    let (error, learned) = failure;
    let text = error.to_string();
    tracing::warn!(job = %cx.job, ?effect, "{text}");
    record.learned = learned.clone();
    if matches!(error, EffectError::Refused(_)) {
        record.begun.retain(|b| *b != effect);
    }
    let now = cx.ports.clock.now();
    cx.change(|job| job.fail_step(&text, now));
    match &record.heading {
        Heading::There => {
            record.failed_there = Some(effect);
            record.blamed = matches!(error, EffectError::Bad(_));
            record.turn(error.code(effect), text.clone());
        }
        Heading::Back { why } => {
            record.heading = Heading::Back { why: format!("{why}; and on the way back: {text}") };
            record.failed_back = Some(effect);
        }
    }
    failpoint::reach(format_args!("failed"));
    note(cx, record, Entry::Failed(effect, text)).await;
    failpoint::reach(format_args!("failure noted"));
}

/// From here on it goes back.
async fn turn(cx: &Context, record: &mut Record, code: Code, why: &str) {
    tracing::warn!(job = %cx.job, "turning back: {why}");
    let now = cx.ports.clock.now();
    cx.change(|job| job.fail_step(why, now));
    record.turn(code, why.to_owned());
    note(cx, record, Entry::Note(format!("turning back: {why}"))).await;
}

/// The verdict, written down; the very last step.
pub(super) async fn end(cx: &Context, record: &Record, verdict: Verdict) {
    cx.door.shut(AbortError::TooLate(format!("too late to abort: the job has ended, {}", verdict.state)));
    let now = cx.ports.clock.now();
    let plan = record.plan.as_ref();
    let committed = plan
        .filter(|p| verdict.state == State::Committed && !p.no_op && p.purpose == Purpose::Update)
        .and_then(|p| p.target.version.parse().ok());
    let bad_digest = plan.filter(|_| record.new_version_is_bad()).map(|p| p.target.digest.clone());
    failpoint::enter(format_args!("end"));
    failpoint::reach(format_args!("decided"));
    // The public job ends only after the journal knows it: whoever sees the end may start the next.
    let mut ended = cx.book.get(&cx.job.0).map(|job| (*job).clone());
    if let Some(job) = &mut ended {
        job.error = verdict.error.as_deref().map(|error| text::clean_lines(error).into_owned());
        job.reason = reason(record, &verdict);
        // A deputy's job is the updater's, which asks for a person itself.
        job.needs_you = verdict.state == State::Failed && cx.options.data_in.is_none();
        job.warnings.extend(settle::reminders(&cx.book, job));
        job.enter(verdict.state, now);
        if let Err(e) = cx.ports.journal.save(job, record, Entry::Ended { bad_digest, committed }).await {
            // The world is as the verdict says; only the memory of it is missing, and the next start
            // will find it out again.
            tracing::error!(job = %cx.job, "the end could not be recorded: {e}");
            job.warnings.push(format!("the end could not be recorded: {e}"));
        }
        failpoint::reach(format_args!("recorded"));
        if let Some(plan) = plan.filter(|_| verdict.state == State::Failed)
            && let Err(e) = effects::keep_old(cx, plan).await
        {
            let image = &plan.previous.image_ref;
            job.warnings.push(format!("the old image {image} is not protected from `docker image prune`: {e}"));
        }
        cx.ports.journal.log(
            &cx.job,
            &format!("{}{}", verdict.state, verdict.error.iter().map(|e| format!(": {e}")).collect::<String>()),
        );
        tracing::info!(job = %cx.job, state = %verdict.state, error = verdict.error.as_deref(), "the job has ended");
        let job = job.clone();
        cx.change(|known| *known = job);
    }
}

/// The first cause; what is to be done stands in the error.
fn reason(record: &Record, verdict: &Verdict) -> Option<Reason> {
    let error = verdict.error.as_ref().filter(|_| verdict.state != State::Committed)?;
    let text = record.why_or(error);
    Some(Reason { code: record.code.unwrap_or(Code::NotSeen), text })
}

pub(super) fn enter(cx: &Context, state: State) {
    let now = cx.ports.clock.now();
    cx.change(|job| {
        if job.state != state {
            tracing::info!(job = %job.id, state = %state, "step");
            cx.ports.journal.log(&cx.job, &format!("== {state}"));
        }
        job.enter(state, now);
    });
}

pub(super) async fn save(cx: &Context, record: &Record, entry: Entry) -> Result<(), JournalError> {
    let Some(job) = cx.book.get(&cx.job.0) else { return Ok(()) };
    cx.ports.journal.save(&job, record, entry).await
}

/// A record whose loss changes nothing: the effect is done, recovery would find the intent and look.
pub(super) async fn note(cx: &Context, record: &Record, entry: Entry) {
    if let Err(e) = save(cx, record, entry).await {
        tracing::error!(job = %cx.job, "{e}");
    }
}
