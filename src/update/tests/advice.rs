use super::transition::{plan, seen, up_to};
use crate::engine::{Healthcheck, RestartPolicy};
use crate::update::advice::{by_hand, settle};
use crate::update::plan::{Companion, DataPlan, Hooks, Member, Plan, Purpose, Was};
use crate::update::record::Record;
use crate::update::transition::{App, Effect, Env, Seen};

const NEW: App = App::New { running: true, ours: true };
const STOPPED: App = App::Untouched { running: false };
const TAG: &str = "docker tag sha256:1 r/a:1";
const SET: &str = "processgit-updater env set V 1 --file /w/.env";
const UP: &str = "docker compose -p p --project-directory /w -f /w/c.yml up -d --no-deps --no-build --pull never app";
const MAKE: &str =
    "docker compose -p p --project-directory /w -f /w/c.yml up --no-start --no-deps --no-build --pull never app";
const RESTORE: &str = "processgit-updater snapshot restore g1 --yes";
const BACK: &str = "The data is back as it was (snapshot g1). ";
const KEEP: &str = "To keep what runs now: processgit-updater settle job_1 --yes. ";
const FIRST: &str = "The data may have been changed, and must be put back before the old version starts: snapshot g1 has it, and what is there now is kept. ";
const HALF: &str = "docker ps -aq --filter 'name=^/[0-9a-f]{12}_(app)$' | xargs -r docker rm -f";
const HALF_OF_CREW: &str = "docker ps -aq --filter 'name=^/[0-9a-f]{12}_(app|p-worker-1)$' | xargs -r docker rm -f";

/// An update that has done all before `effect`, and whose data was copied if it came so far.
fn before(effect: Effect) -> Record {
    let mut record = up_to(effect);
    record.learned.generation = record.has_done(Effect::ColdCopy).then(|| "g1".into());
    record
}

fn also(mut record: Record, done: &[Effect]) -> Record {
    record.begun.extend(done);
    record.done.extend(done);
    record
}

fn with_plan(record: Record, change: impl FnOnce(&mut Plan)) -> Record {
    let mut plan = plan();
    change(&mut plan);
    Record { plan: Some(plan), ..record }
}

fn always() -> RestartPolicy {
    RestartPolicy { name: "always".into(), maximum_retry_count: 0 }
}

#[test]
fn what_a_person_is_told() {
    use Effect::*;
    let armed = |plan: &mut Plan| {
        plan.previous.restart_policy = RestartPolicy { name: "on-failure".into(), maximum_retry_count: 3 };
        plan.companions = vec![Companion {
            service: None,
            container_id: "w".into(),
            name: "p-worker-1".into(),
            restart_policy: always(),
            needed: false,
            holds_data: false,
        }];
    };
    let database = |plan: &mut Plan| {
        armed(plan);
        plan.companions[0].needed = true;
        plan.companions[0].holds_data = true;
    };
    let crew = |plan: &mut Plan| {
        plan.project.crew = vec!["worker".into()];
        let (container_id, container_name) = ("w".into(), "p-worker-1".into());
        let was = Was::Running { healthcheck: Healthcheck::None };
        plan.crew = vec![Member { service: "worker".into(), container_id, container_name, was, needed: false }];
    };
    let (up, make) = (format!("{UP} worker"), format!("{MAKE} worker"));
    let rearm = "docker update --restart=on-failure:3 app";
    let worker = ["docker update --restart=always p-worker-1", "docker start p-worker-1"];
    let restores = |plan: &mut Plan| {
        (plan.stays, plan.migration) = (true, None);
        plan.purpose = Purpose::Restore { generation: "g0".into() };
    };
    let uncovered = |plan: &mut Plan| {
        plan.data =
            DataPlan { uncovered: std::mem::take(&mut plan.data.copied), why: "off".into(), ..plan.data.clone() };
    };
    let hooked = |plan: &mut Plan| {
        plan.hooks = Hooks { after_restore: plan.migration.clone(), ..Hooks::default() };
    };
    let absent = |plan: &mut Plan| plan.env.value_before = None;
    let inside = |plan: &mut Plan| plan.updater = Some("0123456789ab".into());
    let set_inside = "docker exec 0123456789ab processgit-updater env set V 1";
    let restore_inside = "docker exec 0123456789ab processgit-updater snapshot restore g1 --yes";
    let by_digest = |plan: &mut Plan| plan.previous.image_ref = "r/a@sha256:1".into();
    let went_back = |record| also(record, &[HaltNew, RestoreData]);
    let nothing: &str = "";
    // What, the record, the application now, what is told before, the commands.
    type Row<'a> = (&'a str, Record, Option<App>, &'a str, Vec<&'a str>);
    let rows: Vec<Row<'_>> = vec![
        ("stopped, nothing changed", before(ColdCopy), Some(STOPPED), nothing, vec![SET, "docker start app"]),
        ("the migration began", also(before(Migrate), &[Migrate]), Some(STOPPED), FIRST, vec![SET, RESTORE]),
        (
            "the new version ran",
            before(Gate),
            Some(App::New { running: false, ours: true }),
            FIRST,
            vec![TAG, SET, MAKE, RESTORE],
        ),
        ("it runs", before(Gate), Some(NEW), KEEP, vec![TAG, SET, MAKE, RESTORE]),
        ("nothing can be seen", before(Gate), None, FIRST, vec![TAG, SET, MAKE, RESTORE]),
        ("the data is back", went_back(before(Gate)), Some(App::Gone), BACK, vec![TAG, SET, UP]),
        (
            "a hook must bring data back too",
            with_plan(went_back(before(Gate)), hooked),
            Some(App::Gone),
            FIRST,
            vec![TAG, SET, MAKE, RESTORE],
        ),
        (
            "a half-done swap",
            also(went_back(before(Gate)), &[StartOld]),
            Some(App::Gone),
            BACK,
            vec![TAG, SET, HALF, UP],
        ),
        (
            "a half-done swap of several services",
            with_plan(also(went_back(before(Gate)), &[StartOld]), crew),
            Some(App::Mixed),
            BACK,
            vec![TAG, SET, HALF_OF_CREW, &up],
        ),
        (
            "the new version of several services ran",
            with_plan(before(Gate), crew),
            Some(App::Mixed),
            FIRST,
            vec![TAG, SET, &make, RESTORE, &up],
        ),
        (
            "policies and companions",
            with_plan(went_back(before(Gate)), armed),
            Some(App::Gone),
            BACK,
            vec![TAG, SET, UP, rearm, worker[0], worker[1]],
        ),
        (
            "a database, before the application",
            with_plan(went_back(before(Gate)), database),
            Some(App::Gone),
            BACK,
            vec![TAG, SET, UP, rearm, worker[0], worker[1]],
        ),
        (
            "a database that stands still with the application",
            with_plan(before(ColdCopy), database),
            Some(STOPPED),
            nothing,
            vec![SET, rearm, worker[0], worker[1], "docker start app"],
        ),
        (
            "a database whose data goes back is started by the job that puts it back",
            with_plan(also(before(Migrate), &[Migrate]), database),
            Some(STOPPED),
            FIRST,
            vec![SET, rearm, worker[0], RESTORE],
        ),
        ("not even stopped", with_plan(before(Disarm), armed), Some(STOPPED), nothing, vec![SET, "docker start app"]),
        (
            "no key before",
            with_plan(before(ColdCopy), absent),
            Some(App::Gone),
            nothing,
            vec![TAG, "processgit-updater env unset V --file /w/.env", UP],
        ),
        (
            "the updater in a container",
            with_plan(before(Gate), inside),
            None,
            FIRST,
            vec![TAG, set_inside, MAKE, restore_inside],
        ),
        ("by digest", with_plan(before(ColdCopy), by_digest), Some(App::Gone), nothing, vec![SET, UP]),
        (
            "no copy",
            with_plan(also(up_to(Gate), &[]), uncovered),
            Some(App::Gone),
            "There is no copy of /data (off), which may have been changed: put a backup of your own back before the old version starts. ",
            vec![TAG, SET, UP],
        ),
        (
            "a restore by hand",
            with_plan(also(before(Migrate), &[LoadData]), restores),
            Some(STOPPED),
            FIRST,
            vec![RESTORE],
        ),
    ];
    for (name, record, app, about, commands) in rows {
        let sight: Option<Seen> = app.map(|app| seen(app, Env::After));
        let text = by_hand(&record, record.plan.as_ref().unwrap(), sight.as_ref());
        // Whoever has done it all declares it done.
        let settle = settle(&record, record.plan.as_ref().unwrap());
        let commands = commands.into_iter().chain([settle.as_str()]);
        let numbered: Vec<String> = commands.enumerate().map(|(n, c)| format!("({}) {c}", n + 1)).collect();
        let end = format!("To have the old version back by hand: {}", numbered.join("  "));
        assert!(text.ends_with(&end), "{name}:\n{text}\n{end}");
        assert!(text.starts_with(about) && (!about.is_empty() || text == end), "{name}: {text}");
    }
}

#[test]
fn where_a_job_is_settled() {
    let of = |change: fn(&mut Plan)| {
        let record = with_plan(before(Effect::Gate), change);
        settle(&record, record.plan.as_ref().unwrap())
    };
    let id = before(Effect::Gate).job;
    assert_eq!(of(|_| {}), format!("processgit-updater settle {id} --yes"));
    let inside = of(|plan| plan.updater = Some("0123456789ab".into()));
    assert_eq!(inside, format!("docker exec 0123456789ab processgit-updater settle {id} --yes"));
    // The updater's own update failed: the journal that knows the job is in its container.
    let own = of(|plan| plan.of_updater = true);
    assert_eq!(own, format!("docker exec app processgit-updater settle {id} --yes"));
}

/// Names that would do something if a shell read them stay one word each.
#[test]
fn names_are_quoted() {
    const HOSTILE: &str = "x'; touch /pwned #$(reboot)`\"\n&";
    let hostile = |plan: &mut Plan| {
        let name = || HOSTILE.to_owned();
        let policy = RestartPolicy { name: name(), maximum_retry_count: 1 };
        plan.previous.restart_policy = policy.clone();
        plan.companions = vec![Companion {
            service: None,
            container_id: "w".into(),
            name: name(),
            restart_policy: policy,
            needed: false,
            holds_data: false,
        }];
        let was = Was::Running { healthcheck: Healthcheck::None };
        plan.crew =
            vec![Member { service: name(), container_id: "w".into(), container_name: name(), was, needed: false }];
        plan.previous.container_name = name();
        (plan.previous.image_ref, plan.previous.image_id) = (name(), name());
        (plan.env.key, plan.env.value_before) = (name(), Some(name()));
        plan.updater = Some(name());
        plan.project.name = name();
        plan.project.service = name();
        plan.project.crew = vec![name()];
        plan.project.working_dir = name();
        plan.project.config_files = vec![name()];
        plan.project.env_files = vec![name()];
    };
    for record in [before(Effect::ColdCopy), before(Effect::Gate), also(before(Effect::Gate), &[Effect::StartOld])] {
        let mut record = with_plan(record, hostile);
        record.learned.generation = record.learned.generation.map(|_| HOSTILE.into());
        for app in [None, Some(STOPPED), Some(NEW), Some(App::Gone)] {
            let sight = app.map(|app| seen(app, Env::After));
            let text = by_hand(&record, record.plan.as_ref().unwrap(), sight.as_ref());
            let (_, commands) = text.split_once("To have the old version back by hand: (1) ").unwrap();
            let words = shell_words::split(commands).unwrap();
            let touched = words.iter().filter(|word| word.contains("pwned"));
            touched.for_each(|word| assert!(word.contains(HOSTILE), "{word:?} in {commands}"));
            assert!(words.iter().filter(|word| word.contains(HOSTILE)).count() > 3, "{commands}");
        }
    }
}
