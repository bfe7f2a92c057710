use jiff::Timestamp;

use crate::engine::{ComposeConfig, Healthcheck, Mount, MountKind, Project, RestartPolicy};
use crate::update::job::{JobId, State};
use crate::update::plan::{
    Baseline, Commands, DataBeside, DataPlan, EnvChange, Hooks, OneShot, Partial, Plan, Previous, Purpose, Target,
};
use crate::update::record::{Heading, Record};
use crate::update::transition::{Action, App, Effect, Env, Seen, next, way_back, way_there};
use crate::update::{Order, Request};

pub fn plan() -> Plan {
    let data = Mount {
        kind: MountKind::Volume,
        name: "data".into(),
        source: "/v".into(),
        destination: "/data".into(),
        writable: true,
        subpath: String::new(),
    };
    Plan {
        purpose: Purpose::Update,
        stays: false,
        hot_only: false,
        hooks: Hooks::default(),
        companions: vec![],
        waits: vec![],
        post_start: false,
        commands: Commands::default(),
        crew: vec![],
        target: Target {
            tag: "v2".into(),
            version: "2.0.0".into(),
            registry: "r".into(),
            repository: "a".into(),
            spelled: None,
            image_tag: "2".into(),
            digest: "sha256:2".into(),
            known_image: None,
            estimated_downtime_seconds: None,
        },
        project: Project {
            name: "p".into(),
            service: "app".into(),
            crew: vec![],
            working_dir: "/w".into(),
            config_files: vec!["/w/c.yml".into()],
            env_files: vec![],
            version_key: "V".into(),
            underscores: None,
        },
        previous: Previous {
            container_id: "old".into(),
            container_name: "app".into(),
            image_id: "sha256:1".into(),
            image_ref: "r/a:1".into(),
            repo_digest: None,
            version: Some("1.0.0".into()),
            restart_policy: RestartPolicy::never(),
            baseline: Baseline { running: true, answered_ok: true, healthcheck: Healthcheck::None },
        },
        env: EnvChange {
            key: "V".into(),
            before: None,
            after: None,
            value_before: Some("1".into()),
            value_after: Some("2".into()),
        },
        migration: Some(OneShot {
            image: None,
            command: vec!["m".into()],
            config: ComposeConfig::default(),
            lacks: vec![],
        }),
        data: DataPlan { copied: vec![data], ..DataPlan::default() },
        beside: DataBeside::default(),
        partial: Partial::default(),
        no_op: false,
        updater: None,
        of_updater: false,
        had_image: false,
        tag_meant: None,
        configuration: None,
        health_timeout_seconds: 0,
        changes: vec![],
        drift: vec![],
        warnings: vec![],
    }
}

pub fn record() -> Record {
    let request = Request { target_tag: "v2".into(), ..Request::default() };
    Record { plan: Some(plan()), ..Record::new(JobId("job_1".into()), Order::Update(request)) }
}

/// Everything up to, not including, `effect` is done.
pub fn up_to(effect: Effect) -> Record {
    let mut record = record();
    let way = way_there(&plan());
    record.done = way.into_iter().take_while(|e| *e != effect).collect();
    record.begun.clone_from(&record.done);
    record
}

pub fn seen(app: App, env: Env) -> Seen {
    Seen { app, env, old_image: true, new_image: true, since_swap: 0 }
}

const STOPPED: App = App::Untouched { running: false };
const RUNS: App = App::Untouched { running: true };
const NEW: App = App::New { running: true, ours: true };

#[test]
fn the_way_there_follows_the_plan() {
    use Effect::*;
    let full = plan();
    let no_data = Plan { data: DataPlan::default(), ..plan() };
    let plain = Plan { migration: None, ..no_data.clone() };
    for (name, plan, expected) in [
        (
            "data and migration",
            full,
            vec![Claim, Pull, Verify, Guard, HotCopy, Disarm, Stop, ColdCopy, Migrate, WriteEnv, Swap, Gate, Tidy],
        ),
        (
            "migration only",
            no_data,
            vec![Claim, Pull, Verify, Guard, Disarm, Stop, Migrate, WriteEnv, Swap, Gate, Tidy],
        ),
        ("neither", plain.clone(), vec![Claim, Pull, Verify, Guard, WriteEnv, Swap, Gate, Tidy]),
        ("nothing to do", Plan { no_op: true, ..plain }, vec![Gate]),
    ] {
        assert_eq!(way_there(&plan), expected, "{name}");
    }
}

#[test]
fn the_way_back_undoes_what_was_begun_and_nothing_else() {
    use Effect::*;
    for (begun, expected) in [
        (Claim, vec![Sweep]),
        (Pull, vec![RestoreTags, Sweep]),
        (HotCopy, vec![RestoreTags, Sweep]),
        (Disarm, vec![RestoreTags, StartOld, Rearm, Prove, Sweep]),
        (ColdCopy, vec![RestoreTags, StartOld, Rearm, Prove, Sweep]),
        (Migrate, vec![HaltNew, RestoreTags, RestoreData, StartOld, Rearm, Prove, Sweep]),
        (WriteEnv, vec![HaltNew, RestoreEnv, RestoreTags, RestoreData, StartOld, Rearm, Prove, Sweep]),
        (Gate, vec![HaltNew, RestoreEnv, RestoreTags, RestoreData, StartOld, Rearm, Prove, Sweep]),
    ] {
        let mut record = up_to(begun);
        record.begun.push(begun);
        assert_eq!(way_back(&record), expected, "{begun:?} begun");
    }
}

#[test]
fn what_others_did_meanwhile_is_noticed_before_anything_is_touched() {
    let no_new = Seen { new_image: false, ..seen(RUNS, Env::Before) };
    let no_old = Seen { old_image: false, ..seen(RUNS, Env::Before) };
    for (effect, seen, why) in [
        (Effect::Disarm, seen(RUNS, Env::KeyBefore), "somebody edited .env meanwhile"),
        (Effect::Disarm, seen(App::Gone, Env::Before), "the application's container was removed meanwhile"),
        (
            Effect::Disarm,
            seen(App::OldAnew { running: true }, Env::Before),
            "somebody replaced the application's container meanwhile",
        ),
        (
            Effect::Disarm,
            seen(App::Mixed, Env::Before),
            "somebody replaced or removed a container meanwhile that is moved with the application",
        ),
        (
            Effect::Gate,
            seen(App::Mixed, Env::After),
            "only some of the services that are moved together are the new version's",
        ),
        (Effect::Disarm, seen(App::Foreign, Env::Before), "somebody replaced the application's container meanwhile"),
        (Effect::Disarm, no_new, "the image that was pulled was removed meanwhile"),
        (Effect::Disarm, no_old, "the image that runs was removed meanwhile"),
        (
            Effect::WriteEnv,
            seen(RUNS, Env::Before),
            "somebody started the application while it was stopped for the update",
        ),
        (Effect::Swap, seen(STOPPED, Env::Other), "somebody edited .env meanwhile"),
        (
            Effect::Gate,
            seen(App::New { running: true, ours: false }, Env::After),
            "somebody replaced the new version's container before it was proven",
        ),
        (Effect::Gate, seen(App::Gone, Env::After), "the new version's container was removed before it was proven"),
    ] {
        assert_eq!(next(&up_to(effect), &seen), Action::Turn(why.into()), "{effect:?} {seen:?}");
    }
    for (effect, seen) in [
        (Effect::Disarm, seen(RUNS, Env::Before)),
        (Effect::WriteEnv, seen(STOPPED, Env::Before)),
        (Effect::Swap, seen(STOPPED, Env::After)),
        (Effect::Swap, seen(STOPPED, Env::KeyAfter)),
        (Effect::Gate, seen(NEW, Env::After)),
    ] {
        assert_eq!(next(&up_to(effect), &seen), Action::Do(effect), "{effect:?} {seen:?}");
    }
}

#[test]
fn a_life_after_death_goes_back_except_at_the_gate() {
    for effect in way_there(&plan()) {
        let mut record = up_to(effect);
        record.begun.push(effect);
        record.interrupted = true;
        let action = next(&record, &seen(NEW, Env::After));
        match effect {
            Effect::Gate | Effect::Tidy => assert_eq!(action, Action::Do(effect)),
            _ => assert!(matches!(action, Action::Turn(_)), "{effect:?}: {action:?}"),
        }
    }
}

#[test]
fn endless_loops_end() {
    let record = |effect, lives| Record { lives, interrupted: true, ..up_to(effect) };
    let sight = seen(NEW, Env::After);
    assert_eq!(next(&record(Effect::Gate, Record::MAX_LIVES), &sight), Action::Do(Effect::Gate));
    let Action::End(verdict) = next(&record(Effect::Gate, Record::MAX_LIVES + 1), &sight) else { panic!("an end") };
    assert_eq!(verdict.state, State::Failed);
    assert!(verdict.error.unwrap().contains("the job could not be ended in 5 lives. To keep what runs now: "));
    // Nothing was touched, so nothing has to be done by hand.
    let untouched = next(&record(Effect::Verify, Record::MAX_LIVES + 1), &seen(RUNS, Env::Before));
    assert!(matches!(untouched, Action::Turn(_)), "{untouched:?}");
}

#[test]
fn old_data_is_not_restored_unattended_after_an_hour() {
    let mut record = up_to(Effect::Gate);
    record.interrupted = true;
    let late = Seen { since_swap: 3601, ..seen(NEW, Env::After) };
    let Action::End(verdict) = next(&record, &late) else { panic!("an end") };
    assert_eq!(verdict.state, State::Failed);
    assert!(verdict.error.unwrap().contains("the updater was away for 60 minutes in which"));
    // Nor on the way back, as long as it was not stopped there.
    let mut back = Record { heading: Heading::Back { why: "it broke".into() }, ..record.clone() };
    let Action::End(verdict) = next(&back, &late) else { panic!("an end") };
    assert_eq!(verdict.state, State::Failed);
    assert!(verdict.error.unwrap().starts_with("it broke; the updater was away for 60 minutes in which"));
    back.done.push(Effect::HaltNew);
    assert!(matches!(next(&back, &late), Action::End(_)), "somebody has started it again");
    let stopped = Seen { app: App::New { running: false, ours: true }, ..late };
    assert_eq!(next(&back, &stopped), Action::Do(Effect::RestoreEnv), "nobody has written since");
    record.plan = Some(Plan { data: DataPlan::default(), ..plan() });
    record.done.retain(|e| ![Effect::HotCopy, Effect::ColdCopy].contains(e));
    assert_eq!(next(&record, &late), Action::Do(Effect::Gate), "without data there is nothing to lose");
}

#[test]
fn data_that_somebody_else_has_written_is_not_taken_back_unattended() {
    for (app, taken_back) in [
        (NEW, true),
        (App::New { running: false, ours: false }, true),
        (App::New { running: true, ours: false }, false),
        (App::OldAnew { running: true }, false),
        (App::Mixed, false),
        (App::Foreign, false),
        (App::Gone, true),
    ] {
        let mut record = up_to(Effect::Gate);
        let live = next(&record, &seen(app, Env::After));
        assert!(!matches!(live, Action::End(_)), "while it watches, it turns back: {app:?} {live:?}");
        record.interrupted = true;
        let later = next(&record, &seen(app, Env::After));
        assert_eq!(!matches!(later, Action::End(_)), taken_back, "{app:?} {later:?}");
    }
}

#[test]
fn verdicts_need_an_observation() {
    let mut there = up_to(Effect::Pull);
    there.done = way_there(&plan());
    there.begun.clone_from(&there.done);
    let mut back = there.clone();
    back.heading = Heading::Back { why: "it broke".into() };
    back.done.extend(way_back(&back));
    back.begun.clone_from(&back.done);
    // It is proven once more where somebody has undone it.
    assert_eq!(next(&back, &seen(STOPPED, Env::Before)), Action::Do(Effect::Prove));
    back.begun.push(Effect::Prove);
    let uncovered = |mut record: Record| {
        let data = DataPlan { copied: vec![], uncovered: plan().data.copied, why: "off".into(), ..DataPlan::default() };
        record.plan = Some(Plan { data, ..plan() });
        record
    };
    // A database that nobody covers, and that the operator has declared.
    let beside = |mut record: Record, uncovered: &[&str]| {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let beside = DataBeside { uncovered: list(uncovered), declared: list(&["search"]), ..DataBeside::default() };
        record.plan = Some(Plan { beside, ..plan() });
        record
    };
    let before = |effect: Effect| {
        let mut record = up_to(effect);
        record.heading = Heading::Back { why: "it broke".into() };
        record.done = way_back(&record).into_iter().chain(record.done).collect();
        record.begun.push(Effect::Prove);
        record
    };
    let old = App::OldAnew { running: true };
    for (name, record, seen, expected) in [
        ("new runs, selected", there.clone(), seen(NEW, Env::After), Some(State::Committed)),
        ("new runs, .env edited elsewhere", there.clone(), seen(NEW, Env::KeyAfter), Some(State::Committed)),
        ("some are new", there.clone(), seen(App::Mixed, Env::After), None),
        ("new stopped", there.clone(), seen(App::New { running: false, ours: true }, Env::After), None),
        ("new runs, not selected", there.clone(), seen(NEW, Env::Other), None),
        ("old runs", there.clone(), seen(old, Env::After), None),
        ("back: old runs, as before", back.clone(), seen(old, Env::Before), Some(State::RolledBack)),
        ("back: old runs, key as before", back.clone(), seen(old, Env::KeyBefore), Some(State::RolledBack)),
        ("back: old stopped", back.clone(), seen(App::OldAnew { running: false }, Env::Before), Some(State::Failed)),
        ("back: new runs", back.clone(), seen(NEW, Env::Before), Some(State::Failed)),
        ("back: still selected", back.clone(), seen(old, Env::After), Some(State::Failed)),
        ("back: some are new", back.clone(), seen(App::Mixed, Env::Before), Some(State::Failed)),
        ("back: gone", back.clone(), seen(App::Gone, Env::Before), Some(State::Failed)),
        ("back: data not covered", uncovered(back.clone()), seen(old, Env::Before), Some(State::Failed)),
        ("back: data beside not covered", beside(back.clone(), &["db"]), seen(old, Env::Before), Some(State::Failed)),
        ("back: data beside declared", beside(back, &[]), seen(old, Env::Before), Some(State::RolledBack)),
        (
            "back before the migration",
            beside(before(Effect::Migrate), &["db"]),
            seen(RUNS, Env::Before),
            Some(State::RolledBack),
        ),
        ("back after it", beside(before(Effect::WriteEnv), &["db"]), seen(RUNS, Env::Before), Some(State::Failed)),
    ] {
        let state = match next(&record, &seen) {
            Action::End(verdict) => Some(verdict.state),
            Action::Turn(_) => None,
            Action::Do(effect) => panic!("{name}: {effect:?}"),
        };
        assert_eq!(state, expected, "{name}");
    }
}

#[test]
fn an_undo_that_failed_calls_a_person() {
    let mut record = up_to(Effect::Gate);
    record.heading = Heading::Back { why: "it broke".into() };
    record.done.extend([Effect::HaltNew, Effect::RestoreEnv, Effect::RestoreTags]);
    record.failed_back = Some(Effect::RestoreData);
    let Action::End(verdict) = next(&record, &seen(STOPPED, Env::After)) else { panic!("an end") };
    assert_eq!(verdict.state, State::Failed);
    let error = verdict.error.unwrap();
    assert!(error.starts_with("it broke. ") && error.contains("To have the old version back by hand: (1) "), "{error}");
}

/// What could not be removed is no reason for another verdict: the next start removes it.
#[test]
fn a_sweep_that_failed_changes_no_verdict() {
    let mut record = up_to(Effect::Gate);
    record.heading = Heading::Back { why: "it broke".into() };
    record.done.extend(way_back(&record));
    record.begun.clone_from(&record.done);
    record.done.retain(|effect| *effect != Effect::Sweep);
    record.failed_back = Some(Effect::Sweep);
    let old = App::OldAnew { running: true };
    let Action::End(verdict) = next(&record, &seen(old, Env::Before)) else { panic!("an end") };
    assert_eq!((verdict.state, verdict.error.as_deref()), (State::RolledBack, Some("it broke")));
    // What failed before it is another matter.
    record.failed_back = Some(Effect::Prove);
    assert_eq!(next(&record, &seen(old, Env::Before)), Action::Do(Effect::Sweep));
}

/// Total: every record that a run can leave behind, under every sight, has a next action; and following
/// the actions always comes to an end.
#[test]
fn every_record_under_every_sight_has_a_next_action_and_an_end() {
    let apps = [
        STOPPED,
        RUNS,
        App::OldAnew { running: true },
        App::OldAnew { running: false },
        NEW,
        App::New { running: true, ours: false },
        App::Mixed,
        App::Foreign,
        App::Gone,
    ];
    let envs = [Env::Before, Env::After, Env::KeyBefore, Env::KeyAfter, Env::Other];
    let mut cases = 0;
    for effect in way_there(&plan()) {
        for begun in [false, true] {
            for interrupted in [false, true] {
                for back in [false, true] {
                    for (app, env) in apps.iter().flat_map(|a| envs.iter().map(move |e| (*a, *e))) {
                        let mut record = up_to(effect);
                        record.interrupted = interrupted;
                        if begun {
                            record.begun.push(effect);
                        }
                        if back {
                            record.heading = Heading::Back { why: "it broke".into() };
                        }
                        follow(record, &seen(app, env));
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, 13 * 2 * 2 * 2 * 45);
}

fn follow(mut record: Record, seen: &Seen) {
    record.learned.swap_began = Some(Timestamp::UNIX_EPOCH);
    for _ in 0..40 {
        match next(&record, seen) {
            Action::Do(effect) => {
                let begun = record.begun.iter().filter(|e| **e == effect).count();
                assert!(begun < 2, "{effect:?} is done once more at most");
                record.begin(effect);
                record.done.push(effect);
            }
            Action::Turn(why) => {
                assert_eq!(record.heading, Heading::There, "it turns once");
                record.heading = Heading::Back { why };
            }
            Action::End(_) => return,
        }
    }
    panic!("no end: {record:?} {seen:?}");
}
