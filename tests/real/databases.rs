//! A real database beside the application: what becomes of the schema, of the rows, and of what the application has
//! confirmed to its users, on both sides of the verdict. Somebody writes during every job.

use std::fs;
use std::process::Command;
use std::time::Duration;

use lab::databases::DATABASE;
use lab::databases::Server::{self, MariaDb, Postgres15, Postgres18, Valkey};
use lab::engine::must_run;
use lab::eventually;
use lab::publish::ReleaseSpec;
use lab::sidecar::{Network, Sees};
use lab::updater::{Job, TOKEN};
use lab::world::World;
use lab::writer::{Notes, Writer};
use serde_json::{Value, json};

use crate::advice::commands;
use crate::case::Leaves::{Restored, Updated, Whatever};
use crate::case::{Case, Leaves, Stage};
use crate::postgres::{Content, beside, container, dumped, sql, with_postgres};

/// The database's volume belongs to the transaction.
fn covered(server: Server, behaviour: &'static str) -> Case {
    with_postgres(server, behaviour).setting("DATA_SERVICES", "database")
}

/// A job, and what there was on both sides of it.
struct Played {
    stage: Stage,
    job: Job,
    before: Content,
    after: Content,
    written: Notes,
    /// The database's container before it.
    server: Value,
}

fn server(stage: &Stage) -> Value {
    stage.lab.engine.container(&container(stage)).expect("the database")
}

fn write_to(stage: &Stage) -> Writer {
    let base = stage.app.health_url.trim_end_matches(&stage.app.spec.version_path);
    Writer::start(&format!("{base}/notes"))
}

/// Runs the update of the case while somebody writes.
fn play(case: Case) -> Played {
    play_on(case.stage())
}

fn play_on(stage: Stage) -> Played {
    let (before, server) = (Content::of(&stage), server(&stage));
    let writer = write_to(&stage);
    let job = stage.update();
    let written = writer.stop();
    let after = Content::of(&stage);
    println!("{}: {}", job.state(), job.error());
    Played { stage, job, before, after, written, server }
}

impl Played {
    /// All is as before the job, in the database as well.
    fn rolled_back(self, says: &[&str]) -> Self {
        self.job.assert_end("rolled_back", says);
        self.assert_world(Restored);
        self.after.assert_as_before(&self.before, &self.written);
        self
    }

    /// The new version with its own schema, and everything that either version has confirmed.
    fn committed(self) -> Self {
        self.job.assert_end("committed", &[]);
        self.assert_world(Updated);
        assert_eq!(self.after.version, 2);
        self.after.assert_notes(&self.before, &self.written, &["1.0.0", "1.1.0"]);
        assert_eq!(self.after.tables["users"], self.before.tables["users"]);
        self
    }

    /// The database is the same container, it was stopped by its own signal and runs again; beside the application and
    /// its data nothing has changed.
    fn assert_world(&self, leaves: Leaves) {
        let (before, after) = (self.stage.before.clone().without_starts(), World::of(&self.stage.app).without_starts());
        self.stage.assert_leaves_in(leaves, Duration::ZERO, &before, &after);
        let now = server(&self.stage);
        assert_eq!((&now["Id"], &now["Image"]), (&self.server["Id"], &self.server["Image"]));
        assert_eq!(now["State"]["Health"]["Status"], json!("healthy"));
        assert_ne!(now["State"]["StartedAt"], self.server["State"]["StartedAt"], "it was not stopped");
        let log = self.stage.app.compose(&["logs", "--no-log-prefix", "database"]);
        assert!(!log.contains("was not properly shut down"), "it was not stopped politely: {log}");
    }

    /// Whatever happened, the next update works.
    fn and_the_next_update_works(self) {
        let next = self.stage.lab.publish(ReleaseSpec::notes("1.2.0", 3));
        self.stage.updater.update(&next.tag).assert_end("committed", &[]);
        assert_eq!(self.stage.app.running_version().as_deref(), Some("1.2.0"));
        let now = Content::of(&self.stage);
        assert_eq!(now.version, 3);
        now.assert_notes(&self.after, &self.written, &["1.0.0"]);
    }
}

/// Nothing names the database: its schema is migrated by the new version, and stays migrated when that is replaced by
/// the old one.
#[test]
fn without_any_setting_a_migrated_schema_is_not_called_restored() {
    let played = play(with_postgres(Postgres15, "error500"));
    played.job.assert_end("failed", &["database"]);
    assert_eq!((played.before.version, played.after.version), (1, 2));
    played.after.assert_notes(&played.before, &played.written, &["1.0.0"]);
}

#[test]
fn a_good_version_migrates_at_its_start() {
    play(covered(Postgres15, "good")).committed().and_the_next_update_works();
}

#[test]
fn a_good_version_migrates_at_its_start_on_another_major() {
    play(covered(Postgres18, "good")).committed();
}

#[test]
fn a_good_migration_runs_beside_the_database() {
    let migrates = |case: Case| case.release(|_| ReleaseSpec::notes("1.1.0", 2).migration("migrate"));
    let played = play(migrates(covered(Postgres15, "good"))).committed();
    assert!(played.job.output("migrating").contains("schema 2 is in place"), "{:#}", played.job.0);
}

#[test]
fn a_migration_at_the_start_fails() {
    play(covered(Postgres15, "migrate-fails")).rolled_back(&["not healthy"]).and_the_next_update_works();
}

#[test]
fn a_migration_at_the_start_is_half_committed() {
    play(covered(Postgres15, "migrate-half")).rolled_back(&["not healthy"]).and_the_next_update_works();
}

fn half_migrated(server: Server) -> Case {
    covered(server, "good").release(|_| ReleaseSpec::notes("1.1.0", 2).behaviour("migrate-half").migration("migrate"))
}

#[test]
fn a_migration_is_half_committed() {
    play(half_migrated(Postgres18)).rolled_back(&["the migration failed"]).and_the_next_update_works();
}

#[test]
fn a_version_migrates_writes_and_crashes() {
    play(covered(Postgres15, "writes-and-crashes:0.3")).rolled_back(&["not healthy"]).and_the_next_update_works();
}

#[test]
fn a_version_migrates_writes_and_crashes_on_another_major() {
    play(covered(Postgres18, "writes-and-crashes:0.3")).rolled_back(&["not healthy"]);
}

#[test]
fn a_version_migrates_and_is_never_healthy() {
    play(covered(Postgres15, "error500")).rolled_back(&["500"]);
}

/// It needs this long from its next start on.
fn delay(stage: &Stage, seconds: u32) {
    stage.app.write("start-delay", &format!("{seconds}\n"));
}

#[test]
fn a_database_that_needs_twenty_seconds_is_ready_before_the_new_version() {
    let stage = covered(Postgres15, "good").setting("HEALTH_TIMEOUT", "1m").stage();
    delay(&stage, 20);
    let played = play_on(stage).committed();
    let app = played.stage.app.app().expect("the application");
    assert_eq!(app["RestartCount"], json!(0), "the application was started before its database");
}

#[test]
fn and_before_the_old_version() {
    let stage = covered(Postgres15, "migrate-half").setting("HEALTH_TIMEOUT", "1m").stage();
    delay(&stage, 8);
    let played = play_on(stage).rolled_back(&["not healthy"]);
    let app = played.stage.app.app().expect("the application");
    assert_eq!(app["RestartCount"], json!(0), "the application was started before its database");
}

/// Its port says when it is ready.
fn without_a_healthcheck(behaviour: &'static str) -> Played {
    let case = covered(Postgres15, behaviour).setting("HEALTH_TIMEOUT", "1m").app(|a| {
        a.depends_on = "[database]".into();
        let check = a.database_lines.iter().position(|line| line == "healthcheck:").expect("a HEALTHCHECK");
        a.database_lines.truncate(check);
    });
    let stage = case.stage();
    delay(&stage, 7);
    let played = play_on(stage);
    let app = played.stage.app.app().expect("the application");
    assert_eq!(app["RestartCount"], json!(0), "the application was started before its database");
    played
}

#[test]
fn a_database_without_a_healthcheck_is_ready_before_the_new_version_too() {
    let played = without_a_healthcheck("good");
    played.job.assert_end("committed", &[]);
    assert_eq!(played.after.version, 2);
    played.after.assert_notes(&played.before, &played.written, &["1.0.0", "1.1.0"]);
}

#[test]
fn a_database_without_a_healthcheck_is_ready_before_the_old_version_too() {
    let played = without_a_healthcheck("migrate-half");
    played.job.assert_end("rolled_back", &["not healthy"]);
    played.after.assert_as_before(&played.before, &played.written);
}

#[test]
fn the_data_of_a_database_may_be_in_a_folder() {
    let in_a_folder = covered(Postgres15, "writes-and-crashes:0.3").app(|a| {
        for line in &mut a.database_lines {
            *line = line.replace("- db:", "- ./database:");
        }
    });
    play(in_a_folder).rolled_back(&["not healthy"]).and_the_next_update_works();
}

fn of_a_sidecar(behaviour: &'static str) -> Case {
    covered(Postgres18, behaviour).sidecar(Sees::Deploy, |s| s.network = Network::Project)
}

#[test]
fn a_sidecar_starts_the_database_before_the_new_version() {
    play(of_a_sidecar("good")).committed();
}

#[test]
fn a_sidecar_puts_the_database_back() {
    play(of_a_sidecar("writes-and-crashes:0.3")).rolled_back(&["not healthy"]);
}

fn ends(stage: &Stage, path: &str, body: &Value) -> Job {
    let accepted = stage.updater.post(path, body).expect_status(&[202], path).json();
    let job = stage.updater.wait_for_end(accepted["job_id"].as_str().expect("a job"));
    job.assert_end("committed", &[]);
    job
}

#[test]
fn a_snapshot_is_taken_and_restored_and_a_rollback_brings_the_old_schema() {
    let stage = covered(Postgres15, "good").stage();
    let writer = write_to(&stage);
    let snapshot = ends(&stage, "/snapshots", &json!({}));
    let written = writer.stop();
    let first = Content::of(&stage);
    first.assert_notes(&first, &written, &["1.0.0"]);

    sql(
        &stage,
        "DELETE FROM notes WHERE id % 2 = 0; CREATE TABLE strange (id integer); UPDATE users SET name = name || '!'",
    );
    let id = snapshot.0["snapshot"].as_str().expect("a snapshot");
    ends(&stage, &format!("/snapshots/{id}/restore"), &json!({}));
    let restored = Content::of(&stage);
    // What was confirmed after the snapshot is in the copy that the restore has made.
    assert_eq!((&restored.schema, &restored.tables), (&first.schema, &first.tables));
    assert!(restored.notes.is_subset(&first.notes));

    stage.update().assert_end("committed", &[]);
    assert_eq!(Content::of(&stage).version, 2);
    ends(&stage, "/rollback", &json!({}));
    assert_eq!(Content::of(&stage), restored);
    assert_eq!(stage.app.running_version().as_deref(), Some("1.0.0"));
}

/// `kill -9` of the updater at this place; then it is started again, and the job ends by itself, in a state that is true.
/// Whether it came by the place, and its verdict.
fn killed_at(stage: &mut Stage, place: &str) -> (bool, String) {
    stage.updater.variables.insert("UPDATER_FAILPOINT".into(), format!("kill {place}"));
    stage.updater.restart();
    stage.before = World::of(&stage.app);
    let before = Content::of(stage);
    let writer = write_to(stage);
    let id = stage.updater.begin(&json!({ "target_tag": stage.release.tag, "retry": true }));
    let died = eventually(place, Duration::from_secs(60), || {
        if stage.updater.ended().is_some() {
            return Some(true);
        }
        has_ended(stage, &id).then_some(false)
    });
    stage.updater.variables.clear();
    stage.updater.restart();
    let job = stage.updater.wait_for_end(&id);
    let written = writer.stop();
    println!("{place}: {} {}", job.state(), job.error());
    let now = Content::of(stage);
    match job.state() {
        "rolled_back" => {
            stage.before.clone().without_starts().assert_restored(&World::of(&stage.app).without_starts());
            now.assert_as_before(&before, &written);
        }
        "committed" => {
            assert_eq!((now.version, stage.app.running_version().as_deref()), (2, Some("1.1.0")));
            now.assert_notes(&before, &written, &["1.0.0", "1.1.0"]);
        }
        _ => panic!("{place}: {:#}", job.0),
    }
    (died, job.state().to_owned())
}

/// It may die while it is being asked.
fn has_ended(stage: &Stage, id: &str) -> bool {
    let request = lab::http::client().get(format!("{}/update/{id}", stage.updater.base)).bearer_auth(TOKEN);
    lab::http::send(request).is_ok_and(|answer| answer.status == 200 && Job(answer.json()).has_ended())
}

/// Of a run that nothing happens to: a place in the middle of every effect that it has.
fn places(stage: &mut Stage) -> Vec<String> {
    let log = stage.lab.run.folder().join("places");
    stage.updater.variables.insert("UPDATER_FAILPOINT_LOG".into(), log.display().to_string());
    stage.updater.restart();
    stage.update().assert_end("rolled_back", &[]);
    let reached = fs::read_to_string(&log).expect("the places");
    let mut of_effects: Vec<(String, Vec<String>)> = Vec::new();
    for place in reached.lines() {
        let effect = place.split('/').next().unwrap_or_default().to_owned();
        match of_effects.iter_mut().find(|(known, _)| *known == effect) {
            Some((_, places)) => places.push(place.to_owned()),
            None => of_effects.push((effect, vec![place.to_owned()])),
        }
    }
    // Up to the stop nothing is different from an update without a database.
    let of_effects = of_effects.into_iter().skip_while(|(effect, _)| effect != "Stop");
    of_effects.map(|(_, places)| places[places.len() / 2].clone()).collect()
}

/// Dies at these places, one job each, all of which are rolled back; how often it came by.
fn deaths(stage: &mut Stage, places: &[String]) -> usize {
    let mut deaths = 0;
    for place in places {
        let (died, verdict) = killed_at(stage, place);
        assert_eq!(verdict, "rolled_back", "{place}");
        deaths += usize::from(died);
    }
    println!("cases: kill -9 with a database {deaths}");
    deaths
}

#[test]
fn the_updater_is_killed_in_every_effect_of_an_update_whose_migration_fails() {
    let mut stage = half_migrated(Postgres15).stage();
    let places = places(&mut stage);
    let deaths = deaths(&mut stage, &places);
    assert!(deaths >= 9 && deaths * 10 >= places.len() * 9, "{deaths} deaths at {places:#?}");
}

#[test]
fn the_updater_is_killed_on_the_way_back_from_a_version_that_writes() {
    let mut stage = covered(Postgres15, "writes-and-crashes:0.1").setting("HEALTH_STABLE", "2s").stage();
    let places = ["HaltNew/begun#1", "RestoreData/begun#1", "StartOld/begun#1"].map(str::to_owned);
    assert_eq!(deaths(&mut stage, &places), places.len());
}

/// After each the application is brought back to its first version by hand, with its data.
#[test]
fn the_updater_is_killed_in_an_update_to_a_good_version() {
    let mut stage = covered(Postgres18, "good").stage();
    for (place, may_end) in
        [("StartNeeded/begun#1", "rolled_back"), ("Swap/begun#1", "rolled_back"), ("Gate/begun#1", "committed")]
    {
        let first = Content::of(&stage);
        let (died, verdict) = killed_at(&mut stage, place);
        assert_eq!((died, verdict.as_str()), (true, may_end), "{place}");
        if verdict == "committed" {
            ends(&stage, "/rollback", &json!({}));
        }
        let now = Content::of(&stage);
        assert_eq!((&now.schema, &now.tables), (&first.schema, &first.tables), "{place}");
    }
}

/// A server that the application does not ask itself: `write` is what a version does to it, and `read` shows it.
struct Other {
    server: Server,
    write: fn(&str) -> Vec<String>,
    read: &'static [&'static str],
}

const MARIADB: Other = Other {
    server: MariaDb,
    write: |word| {
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS words (id integer AUTO_INCREMENT PRIMARY KEY, word text NOT NULL); \
             INSERT INTO words (word) VALUES ('{word}')"
        );
        ["mariadb", "-uroot", "-plaboratory-secret", DATABASE, "-e", &sql].map(str::to_owned).to_vec()
    },
    read: &["mariadb", "-NB", "-uroot", "-plaboratory-secret", DATABASE, "-e", "SELECT word FROM words ORDER BY id"],
};

const VALKEY: Other = Other {
    server: Valkey,
    write: |word| ["valkey-cli", "RPUSH", "words", word].map(str::to_owned).to_vec(),
    read: &["valkey-cli", "LRANGE", "words", "0", "-1"],
};

impl Other {
    fn case(&self, behaviour: &'static str) -> Case {
        let server = self.server;
        beside(server).setting("DATA_SERVICES", "database").release(move |r| r.behaviour(behaviour))
    }

    fn write(&self, stage: &Stage, word: &str) {
        must_run(Command::new("docker").arg("exec").arg(container(stage)).args((self.write)(word)));
    }

    fn words(&self, stage: &Stage) -> Vec<String> {
        let words = must_run(Command::new("docker").arg("exec").arg(container(stage)).args(self.read));
        words.lines().map(str::to_owned).collect()
    }

    fn a_good_version_finds_its_data(&'static self) {
        let (stage, _job) = self.case("good").before(|s| self.write(s, "before")).ends("committed", &[], Whatever);
        assert_eq!(self.words(&stage), ["before"]);
        self.write(&stage, "after");
        stage.assert_next_update_works();
        assert_eq!(self.words(&stage), ["before", "after"]);
    }

    fn what_a_bad_version_wrote_is_gone(&'static self) {
        let (stage, _job) = self
            .case("error500")
            .before(|s| self.write(s, "before"))
            .during("healthchecking", |s| self.write(s, "of the bad version"))
            .ends("rolled_back", &["500"], Whatever);
        assert_eq!(self.words(&stage), ["before"]);
        let (before, now) = (stage.before.clone().without_starts(), World::of(&stage.app).without_starts());
        before.assert_restored(&now);
        stage.assert_next_update_works();
        assert_eq!(self.words(&stage), ["before"]);
    }
}

#[test]
fn a_good_version_finds_its_data_in_mariadb() {
    MARIADB.a_good_version_finds_its_data();
}

#[test]
fn what_a_bad_version_wrote_to_mariadb_is_gone() {
    MARIADB.what_a_bad_version_wrote_is_gone();
}

#[test]
fn a_good_version_finds_its_data_in_valkey() {
    VALKEY.a_good_version_finds_its_data();
}

#[test]
fn what_a_bad_version_wrote_to_valkey_is_gone() {
    VALKEY.what_a_bad_version_wrote_is_gone();
}

/// It cannot be started any more: neither version can be. The job says what to do, and that works once the cause is
/// gone.
#[test]
fn a_database_that_never_gets_ready_fails_the_job_whose_commands_help() {
    let stage = covered(Postgres15, "good").setting("HEALTH_TIMEOUT", "3s").stage();
    let before = Content::of(&stage);
    let writer = write_to(&stage);
    delay(&stage, 10_000);
    let job = stage.update();
    let written = writer.stop();
    job.assert_end("failed", &["service database", "not healthy"]);
    stage.app.write("start-delay", "");
    stage.app.compose(&["restart", "database"]);
    let commands = commands(job.error());
    let (settle, by_hand) = commands.split_last().expect("commands");
    stage.type_in(by_hand);
    stage.app.await_version("1.0.0");
    Content::of(&stage).assert_as_before(&before, &written);
    stage.type_in(std::slice::from_ref(settle));
    stage.update().assert_end("committed", &[]);
    let after = Content::of(&stage);
    assert_eq!(after.version, 2);
    after.assert_notes(&before, &written, &["1.0.0"]);
}

/// The database is not stopped, and what the hooks do is undone under the eyes of a client that stays connected.
fn play_with_a_client(case: Case) -> Played {
    let stage = case.stage();
    let mut client = Command::new("docker");
    client.args(["exec", "--detach", &container(&stage), "psql", "--username", "postgres", "--dbname", DATABASE]);
    must_run(client.args(["--command", "SELECT pg_sleep(600)"]));
    play_on(stage)
}

fn dump_brings_the_old_schema_back(server: Server, behaviour: &'static str) {
    let played = play_with_a_client(dumped(server, behaviour));
    played.job.assert_end("rolled_back", &["not healthy"]);
    played.stage.before.assert_restored(&World::of(&played.stage.app));
    played.after.assert_as_before(&played.before, &played.written);
    played.and_the_next_update_works();
}

#[test]
fn a_dump_brings_the_old_schema_back_in_spite_of_a_client() {
    dump_brings_the_old_schema_back(Postgres15, "writes-and-crashes:0.3");
}

#[test]
fn a_dump_brings_the_old_schema_back_from_half_of_the_new_one() {
    dump_brings_the_old_schema_back(Postgres18, "migrate-half");
}

#[test]
fn a_good_version_is_dumped_and_stays() {
    let played = play_with_a_client(dumped(Postgres15, "good"));
    played.job.assert_end("committed", &[]);
    assert_eq!(played.after.version, 2);
    played.after.assert_notes(&played.before, &played.written, &["1.0.0", "1.1.0"]);
    ends(&played.stage, "/rollback", &json!({}));
    let now = Content::of(&played.stage);
    assert_eq!((now.version, &now.schema, &now.tables), (1, &played.before.schema, &played.before.tables));
}
