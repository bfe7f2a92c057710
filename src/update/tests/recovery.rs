//! Recovery is total: every record under every sight has a next action, and every action leads nearer to an
//! end. The same enumeration writes the tables of `docs/recovery.md`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::transition::{plan, record};
use crate::engine::RestartPolicy;
use crate::update::job::State;
use crate::update::plan::{Companion, DataPlan, Hooks, Plan, Purpose};
use crate::update::record::{Heading, Record};
use crate::update::transition::{
    Action, App, Effect, Env, Seen, UNATTENDED_RESTORE_SECONDS, next, touched, way_back, way_there,
};

/// The kinds of Plan, each with other effects.
fn kinds() -> Vec<(&'static str, Plan)> {
    let everything = Plan {
        hooks: Hooks { before_copy: plan().migration, after_restore: plan().migration },
        companions: vec![Companion {
            service: None,
            container_id: "worker".into(),
            name: "worker".into(),
            restart_policy: RestartPolicy::never(),
            needed: false,
            holds_data: false,
        }],
        ..plan()
    };
    let restore = || Purpose::Restore { generation: "g".into() };
    let no_data = |plan: Plan| Plan { data: DataPlan::default(), ..plan };
    let uncovered =
        DataPlan { copied: vec![], uncovered: plan().data.copied, why: "off".into(), ..DataPlan::default() };
    let database = |plan: Plan| {
        let held = |companion: &Companion| Companion { needed: true, holds_data: true, ..companion.clone() };
        Plan { companions: plan.companions.iter().map(held).collect(), ..plan }
    };
    let by_hand = || Plan { migration: None, ..everything.clone() };
    vec![
        ("an update with everything", everything.clone()),
        ("an update with everything, and a database", database(everything.clone())),
        ("an update with data", Plan { migration: None, ..plan() }),
        ("an update with a migration, `SNAPSHOT=off`", Plan { data: uncovered, ..plan() }),
        ("an update without data", no_data(Plan { migration: None, ..plan() })),
        ("a restore with another version", Plan { purpose: restore(), ..by_hand() }),
        ("a restore, the version stays", Plan { purpose: restore(), stays: true, ..by_hand() }),
        ("a snapshot", Plan { purpose: Purpose::Snapshot, stays: true, ..by_hand() }),
        ("a hot snapshot", Plan { purpose: Purpose::Snapshot, stays: true, hot_only: true, ..by_hand() }),
        ("an update to what runs already", Plan { no_op: true, migration: None, ..plan() }),
    ]
}

const APPS: [(App, &str); 11] = [
    (App::Untouched { running: true }, "untouched, runs"),
    (App::Untouched { running: false }, "untouched, stopped"),
    (App::OldAnew { running: true }, "old made anew, runs"),
    (App::OldAnew { running: false }, "old made anew, stopped"),
    (App::New { running: true, ours: true }, "our new one, runs"),
    (App::New { running: false, ours: true }, "our new one, stopped"),
    (App::New { running: true, ours: false }, "somebody's new one, runs"),
    (App::New { running: false, ours: false }, "somebody's new one, stopped"),
    (App::Mixed, "mixed"),
    (App::Foreign, "foreign"),
    (App::Gone, "gone"),
];

const ENVS: [(Env, &str); 5] = [
    (Env::Before, "before"),
    (Env::After, "after"),
    (Env::KeyBefore, "edited, key as before"),
    (Env::KeyAfter, "edited, key as after"),
    (Env::Other, "edited, key too"),
];

/// Where a record can stand.
#[derive(Clone)]
struct Position {
    record: Record,
    /// The next effect of the way that it is on; `None` at the end of it.
    next: Option<Effect>,
    /// The first effect of the way there that is not done, and whether it was begun.
    came_from: (Option<Effect>, bool),
}

/// Every position on the way there, and on the way back from each of them.
fn positions(plan: &Plan) -> Vec<Position> {
    let way = way_there(plan);
    let mut found = Vec::new();
    for at in 0..=way.len() {
        let next = way.get(at).copied();
        for begun in if next.is_some() { vec![false, true] } else { vec![false] } {
            let mut there = Record { plan: Some(plan.clone()), ..record() };
            there.done = way[..at].to_vec();
            there.begun = way[..at + usize::from(begun)].to_vec();
            there.learned.generation = there.has_done(Effect::ColdCopy).then(|| "g".to_owned());
            let came_from = (next, begun);
            found.push(Position { record: there.clone(), next, came_from });
            let back = Record { heading: Heading::Back { why: WHY.into() }, ..there };
            let way = way_back(&back);
            for undone in 0..=way.len() {
                let mut record = back.clone();
                record.begun.extend(&way[..undone]);
                record.done.extend(&way[..undone]);
                found.push(Position { record, next: way.get(undone).copied(), came_from });
            }
        }
    }
    found
}

const WHY: &str = "(why it went back)";

/// The process that began it, a later one, the last one that may do something, and one too many.
const LIVES: [u32; 4] = [1, 2, Record::MAX_LIVES + 1, Record::MAX_LIVES + 2];

#[test]
fn every_record_under_every_sight_leads_nearer_to_an_end() {
    let mut cases = 0;
    // Of one that has worn out only the advice depends on what is seen.
    let (all, few) = (sights(&[false, true]), sights(&[true]));
    for (kind, plan) in kinds() {
        for Position { mut record, next: to_do, .. } in positions(&plan) {
            for (lives, others_wrote, fails) in variants(&record) {
                (record.lives, record.interrupted) = (lives, lives > 1);
                record.learned.others_wrote = others_wrote;
                record.failed_back = to_do.filter(|_| fails);
                for seen in if lives > Record::MAX_LIVES { &few } else { &all } {
                    let action = next(&record, seen);
                    judge(&record, &plan, to_do, seen, &action, kind);
                    cases += 1;
                }
            }
        }
    }
    println!("cases: records under sights {cases}");
    assert!(cases > 1_000_000);
}

fn variants(record: &Record) -> Vec<(u32, bool, bool)> {
    let back = record.heading != Heading::There;
    let flags = |on: bool| if on { vec![false, true] } else { vec![false] };
    let mut variants = Vec::new();
    for lives in LIVES {
        for others_wrote in flags(touched(record)) {
            variants.extend(flags(back).into_iter().map(|fails| (lives, others_wrote, fails)));
        }
    }
    variants
}

fn sights(images: &[bool]) -> Vec<Seen> {
    let mut sights = Vec::new();
    for (app, _) in APPS {
        for (env, _) in ENVS {
            for since_swap in [0, UNATTENDED_RESTORE_SECONDS + 1] {
                for old_image in images.iter().copied() {
                    let new_images = images.iter().copied();
                    sights.extend(new_images.map(|new_image| Seen { app, env, old_image, new_image, since_swap }));
                }
            }
        }
    }
    sights
}

/// The bound: an effect is done once (the proof perhaps twice), it turns once, and what fails on the way back
/// ends it. So a job ends after as many actions as there are effects, whatever is seen meanwhile.
fn judge(record: &Record, plan: &Plan, to_do: Option<Effect>, seen: &Seen, action: &Action, kind: &str) {
    let context = || format!("{kind}: {record:?} {seen:?}: {action:?}");
    match action {
        Action::Do(effect) => {
            let again = *effect == Effect::Prove && record.begun.iter().filter(|e| *e == effect).count() == 1;
            assert!(!record.has_done(*effect) || again, "done twice: {}", context());
            assert!(record.failed_back != Some(*effect), "tried again after it failed: {}", context());
            let in_turn = Some(*effect) == to_do || again || record.learned.others_wrote;
            assert!(in_turn, "out of turn: {}", context());
        }
        Action::Turn(_) => assert_eq!(record.heading, Heading::There, "turns twice: {}", context()),
        Action::End(end) => {
            let error = end.error.as_deref().unwrap_or_default();
            let selects_old = plan.stays || matches!(seen.env, Env::Before | Env::KeyBefore);
            let is_true = match end.state {
                State::Committed if plan.hot_only => true,
                State::Committed => {
                    matches!(seen.app, App::New { running: true, .. } | App::Untouched { running: true })
                }
                State::RolledBack if touched(record) => {
                    let runs_old =
                        matches!(seen.app, App::Untouched { running: true } | App::OldAnew { running: true });
                    runs_old && selects_old
                }
                State::RolledBack => true,
                State::Failed => error.contains("by hand: (1) ") || error.contains("data was not restored"),
                _ => false,
            };
            assert!(is_true, "{}", context());
        }
    }
}

/// The tables in `docs/recovery.md` are what the code does. `UPDATE_DOCS=1` writes them.
#[test]
fn the_page_about_recovery_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recovery.md");
    let page = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- generated from here -->\n", "<!-- to here -->\n");
    let (head, rest) = page.split_once(begin).unwrap();
    let (old, tail) = rest.split_once(end).unwrap();
    let tables = tables();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{head}{begin}{tables}{end}{tail}")).unwrap();
    } else {
        assert_eq!(old, tables, "docs/recovery.md is stale: run this test with UPDATE_DOCS=1");
    }
}

fn tables() -> String {
    let mut text = effects() + &ways();
    for (kind, plan) in kinds() {
        if ["an update with everything", "a restore, the version stays"].contains(&kind) {
            let _ = write!(text, "\n## What comes next: {kind}\n");
            text += &sight_tables(&plan);
        }
    }
    text
}

/// What each effect does, and why it may be done again by a life that does not know whether it was done.
fn effects() -> String {
    use Effect::*;
    let mut text = String::from(
        "## The effects\n\n| effect | step | what it does, and why it may be begun again |\n|---|---|---|\n",
    );
    let there = [
        Claim,
        Pull,
        Verify,
        Guard,
        HotCopy,
        Disarm,
        Stop,
        HookBefore,
        ColdCopy,
        CopyRunning,
        Migrate,
        LoadData,
        HookAfter,
        StartNeeded,
        WriteEnv,
        Swap,
        Resume,
        Gate,
        Tidy,
    ];
    let back = [HaltNew, RestoreEnv, RestoreTags, RestoreData, HookRestored, StartOld, Rearm, Prove, Sweep];
    for effect in there.into_iter().chain(back) {
        let _ = writeln!(text, "| {effect:?} | {} | {} |", effect.state(), why(effect));
    }
    text + "\n"
}

fn why(effect: Effect) -> &'static str {
    match effect {
        Effect::Claim => "a never-started container whose name only one updater can have; its own is taken over",
        Effect::Pull => "by digest, then tagged locally; the same bytes whenever it is done",
        Effect::Verify => "only looks: signature, platform, digest",
        Effect::Guard => {
            "never-started containers hold both images, so that no prune takes them; there is one or it is made"
        }
        Effect::HotCopy => "the first copy, while the application runs; a half one is thrown away",
        Effect::Disarm => "restart policy `no`, so that no engine restart starts the application in between",
        Effect::Stop => "what is stopped stays stopped; since when it ran is recorded, to notice whoever starts it",
        Effect::HookBefore => "the operator's command, in a container of its own that is removed first",
        Effect::ColdCopy => "complete and durable before anything else begins; a half one counts for nothing",
        Effect::CopyRunning => "a snapshot that stops nothing; a half one is thrown away",
        Effect::Migrate => "never twice: whoever died here goes back, to the data from before",
        Effect::LoadData => "an earlier snapshot's data; never twice: whoever died here goes back",
        Effect::StartNeeded => {
            "what the application needs runs again, ready: its database, for the migration and for the swap"
        }
        Effect::HookAfter => "the operator's command after data was loaded",
        Effect::WriteEnv => "the version key, by rename: before or after, never half",
        Effect::Swap => "one `compose up`; half-made containers are tidied up first, whoever left them",
        Effect::Resume => "what was stopped and stays is started; what runs already runs on",
        Effect::Gate => "only looks: is the new version well?",
        Effect::Tidy => "removes what only this job needed; what is gone is gone",
        Effect::HaltNew => "nothing of the new version runs any more, its migration neither",
        Effect::RestoreEnv => "the bytes from before, or only the key where somebody has edited the file",
        Effect::RestoreTags => "tags mean what they meant; an old image that is gone is pulled again",
        Effect::RestoreData => {
            "what is there is copied first, then the data from before is put back; nobody may run meanwhile"
        }
        Effect::HookRestored => "the operator's command after data was put back",
        Effect::StartOld => "the very container where it stands, otherwise `compose up` of the old configuration",
        Effect::Rearm => "the restart policies there were",
        Effect::Prove => {
            "as well as before the update, on the volumes there were; whatever was stopped meanwhile is started; what is not well is looked at twice"
        }
        Effect::Sweep => "removes what the job left; if that fails, the next start does it",
    }
}

fn list(effects: &[Effect]) -> String {
    let names: Vec<_> = effects.iter().map(|e| format!("{e:?}")).collect();
    if names.is_empty() { "nothing".into() } else { names.join(" · ") }
}

/// What each kind of job does, and what is undone from where.
fn ways() -> String {
    let mut text = String::from("## The way there\n\n| kind of job | effects, in order |\n|---|---|\n");
    for (kind, plan) in kinds() {
        let _ = writeln!(text, "| {kind} | {} |", list(&way_there(&plan)));
    }
    text += "\n## The way back\n\n| kind of job | begun, and not done | undone, in order |\n|---|---|---|\n";
    for (kind, plan) in kinds() {
        let mut last = (Vec::new(), String::new());
        let flush = |(effects, back): &(Vec<Effect>, String), text: &mut String| {
            if !effects.is_empty() {
                let _ = writeln!(text, "| {kind} | {} | {back} |", list(effects));
            }
        };
        for p in positions(&plan).iter().filter(|p| p.record.heading == Heading::There && p.came_from.1) {
            let back = list(&way_back(&p.record));
            if back != last.1 {
                flush(&last, &mut text);
                last = (Vec::new(), back);
            }
            last.0.extend(p.next);
        }
        flush(&last, &mut text);
    }
    text
}

/// Who looks, and when.
#[derive(Clone, Copy)]
struct Look {
    lives: u32,
    seen: fn(App, Env) -> Seen,
}

const fn usual(app: App, env: Env) -> Seen {
    Seen { app, env, old_image: true, new_image: true, since_swap: 0 }
}

const FIRST: Look = Look { lives: 1, seen: usual };
const LATER: Look = Look { lives: 2, seen: usual };
const MUCH_LATER: Look =
    Look { lives: 2, seen: |a, e| Seen { since_swap: UNATTENDED_RESTORE_SECONDS + 1, ..usual(a, e) } };
const NO_OLD_IMAGE: Look = Look { lives: 1, seen: |a, e| Seen { old_image: false, ..usual(a, e) } };
const NO_NEW_IMAGE: Look = Look { lives: 1, seen: |a, e| Seen { new_image: false, ..usual(a, e) } };

fn sight_tables(plan: &Plan) -> String {
    let (there, back): (Vec<_>, Vec<_>) = positions(plan).into_iter().partition(|p| p.record.heading == Heading::There);
    let mut text = String::new();
    for (title, positions, look, unlike) in [
        ("On the way there, in the life that began the job", &there, FIRST, None),
        ("The same, and the old image is gone: where that changes what comes next", &there, NO_OLD_IMAGE, Some(FIRST)),
        ("The same, and the new image is gone: where that changes what comes next", &there, NO_NEW_IMAGE, Some(FIRST)),
        ("On the way there, in a later life", &there, LATER, None),
        ("The same, more than an hour after something began to write", &there, MUCH_LATER, Some(LATER)),
        ("On the way back, in the life that began it", &back, FIRST, None),
        ("On the way back, in a later life: where that changes what comes next", &back, LATER, Some(FIRST)),
        ("The same, more than an hour after something began to write", &back, MUCH_LATER, Some(LATER)),
    ] {
        let table = table(positions, look, unlike);
        if !table.is_empty() {
            let _ = write!(
                text,
                "\n### {title}\n\n| next | application | `.env` | what comes |\n|---|---|---|---|\n{table}"
            );
        }
    }
    text
}

/// Positions with the same outcomes share their rows.
fn table(positions: &[Position], look: Look, unlike: Option<Look>) -> String {
    let mut groups: Vec<(Vec<[String; 3]>, Vec<&Position>)> = Vec::new();
    for position in positions {
        let rows = rows(position, look, unlike);
        match groups.iter_mut().find(|(known, _)| *known == rows) {
            Some((_, members)) => members.push(position),
            None => groups.push((rows, vec![position])),
        }
    }
    let mut text = String::new();
    for (rows, members) in groups {
        for (n, [apps, envs, outcome]) in rows.iter().enumerate() {
            let label = if n == 0 { label(&members, positions) } else { String::new() };
            let _ = writeln!(text, "| {label} | {apps} | {envs} | {outcome} |");
        }
    }
    text
}

/// What comes next under every sight: applications with the same outcomes share a row, and so do files.
fn rows(position: &Position, look: Look, unlike: Option<Look>) -> Vec<[String; 3]> {
    let outcomes = |app: App| {
        ENVS.map(|(env, _)| {
            let outcome = outcome(position, look, app, env);
            let is_told = unlike.is_none_or(|unlike| self::outcome(position, unlike, app, env) != outcome);
            is_told.then_some(outcome)
        })
    };
    let mut by_app: Vec<([Option<String>; 5], Vec<&str>)> = Vec::new();
    for (app, name) in APPS {
        let outcomes = outcomes(app);
        match by_app.iter_mut().find(|(known, _)| *known == outcomes) {
            Some((_, names)) => names.push(name),
            None => by_app.push((outcomes, vec![name])),
        }
    }
    let mut rows = Vec::new();
    for (outcomes, apps) in by_app {
        let mut by_env: BTreeMap<&String, Vec<&str>> = BTreeMap::new();
        for (outcome, (_, env)) in outcomes.iter().zip(ENVS) {
            if let Some(outcome) = outcome {
                by_env.entry(outcome).or_default().push(env);
            }
        }
        let told = by_env.into_iter();
        rows.extend(
            told.map(|(o, envs)| [some_of(&apps, &APPS.map(|a| a.1)), some_of(&envs, &ENVS.map(|e| e.1)), o.clone()]),
        );
    }
    rows
}

fn outcome(position: &Position, look: Look, app: App, env: Env) -> String {
    let mut record = position.record.clone();
    (record.lives, record.interrupted) = (look.lives, look.lives > 1);
    match next(&record, &(look.seen)(app, env)) {
        Action::Do(effect) if Some(effect) == position.next => "do it".into(),
        Action::Do(effect) => format!("do `{effect:?}` once more"),
        Action::Turn(why) => format!("turn back: {}", general(&why)),
        Action::End(end) => {
            let why = end.error.unwrap_or_default();
            let why = general(why.split(". ").next().unwrap_or_default());
            if why.is_empty() { format!("**{}**", end.state) } else { format!("**{}**: {why}", end.state) }
        }
    }
}

/// Without the numbers and sights of this case.
fn general(why: &str) -> String {
    let why = why.split(" (2 of ").next().unwrap_or_default();
    let why = why.split(": application ").next().unwrap_or_default();
    let why = if why.starts_with("the updater was interrupted during") { "the updater was interrupted" } else { why };
    why.replace(" for 60 minutes", " for more than an hour")
}

fn some_of(names: &[&str], all: &[&str]) -> String {
    let missing: Vec<_> = all.iter().filter(|name| !names.contains(name)).copied().collect();
    match missing.len() {
        0 => "any".into(),
        n if n < names.len() && n <= 3 => format!("any but: {}", together(&missing).join("; ")),
        _ => together(names).join("; "),
    }
}

/// What runs and what is stopped share a name where both are meant.
fn together(names: &[&str]) -> Vec<String> {
    let mut short: Vec<String> = Vec::new();
    for name in names {
        let (what, state) = name.split_once(", ").unwrap_or((name, ""));
        let other = format!("{what}, runs");
        match short.iter_mut().find(|known| state == "stopped" && **known == other) {
            Some(known) => what.clone_into(known),
            None => short.push((*name).to_owned()),
        }
    }
    short
}

/// The effects that come next, and from where, where that makes a difference.
fn label(members: &[&Position], all: &[Position]) -> String {
    let mut by_next: Vec<(Option<Effect>, Vec<&Position>)> = Vec::new();
    for position in members {
        match by_next.iter_mut().find(|(next, _)| *next == position.next) {
            Some((_, positions)) => positions.push(position),
            None => by_next.push((position.next, vec![position])),
        }
    }
    let mut labels: Vec<(String, Vec<String>)> = Vec::new();
    for (next, positions) in by_next {
        let name = next.map_or("(the end)".to_owned(), |e| format!("{e:?}"));
        let total = all.iter().filter(|p| p.next == next).count();
        let from = if positions.len() == total { String::new() } else { origins(&positions) };
        match labels.iter_mut().find(|(known, _)| *known == from) {
            Some((_, names)) => names.push(name),
            None => labels.push((from, vec![name])),
        }
    }
    labels.into_iter().map(|(from, names)| names.join(" · ") + &from).collect::<Vec<_>>().join("; ")
}

fn origins(positions: &[&Position]) -> String {
    let came: Vec<_> = positions.iter().map(|p| p.came_from).collect();
    if positions.iter().all(|p| p.record.heading == Heading::There) {
        return if came.iter().all(|c| c.1) { ", begun".into() } else { String::new() };
    }
    let name = |from: &(Option<Effect>, bool)| {
        from.0.map_or("the end".to_owned(), |e| format!("{e:?}")) + if from.1 { ", begun" } else { "" }
    };
    let (first, last) = (came.first().map(name).unwrap_or_default(), came.last().map(name).unwrap_or_default());
    if first == last { format!(" (from {first})") } else { format!(" (from {first} … {last})") }
}
