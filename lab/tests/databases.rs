//! The laboratory's database servers and the application that keeps its data in one, on the real engine.

use std::process::Command;
use std::time::Duration;

use lab::databases::{DATABASE, PASSWORD, Server};
use lab::deployment::{AppSpec, Deployment};
use lab::engine::must_run;
use lab::image::ImageSpec;
use lab::writer::Writer;
use lab::{Lab, eventually};
use serde_json::json;

fn spec(server: Server) -> AppSpec {
    AppSpec {
        database: Some(server),
        depends_on: "{ database: { condition: service_healthy } }".into(),
        database_lines: server.service_lines(),
        file_lines: vec!["volumes: { db: {} }".into()],
        files: vec![("start-delay".into(), String::new())],
        ..AppSpec::new("1.0.0")
    }
}

fn in_database(app: &Deployment, command: &[&str]) -> String {
    must_run(Command::new("docker").args(["exec", &format!("{}-database-1", app.project)]).args(command))
}

/// The server keeps what one of these has written for the other to read, is stopped by its own signal within its
/// grace, and takes its time if it is told to.
fn keeps_its_data(server: Server, write: &[&str], read: &[&str], says: &str) {
    let lab = Lab::new();
    let app = lab.deploy(spec(server));
    let name = format!("{}-database-1", app.project);
    in_database(&app, write);
    app.write("start-delay", "2");
    lab.engine.stop(&name);
    let stopped = lab.engine.container(&name).expect("the database");
    assert_eq!(stopped["State"]["ExitCode"], json!(0), "{server:?}: {stopped:#}");
    lab.engine.start(&name);
    let health = || lab.engine.container(&name).expect("the database")["State"]["Health"]["Status"].clone();
    assert_ne!(health(), json!("healthy"), "{server:?} did not wait");
    eventually("a healthy database", Duration::from_secs(30), || (health() == "healthy").then_some(()));
    assert_eq!(in_database(&app, read).trim(), says, "{server:?}");
}

#[test]
fn postgres_keeps_its_data() {
    for server in [Server::Postgres15, Server::Postgres18] {
        let psql = |sql| ["psql", "-qAt", "-U", "postgres", DATABASE, "-c", sql];
        keeps_its_data(server, &psql("CREATE TABLE t AS SELECT 7 AS n"), &psql("SELECT n FROM t"), "7");
    }
}

#[test]
fn mariadb_keeps_its_data() {
    let password = format!("-p{PASSWORD}");
    let sql = |sql| ["mariadb", "-NB", "-uroot", &password, DATABASE, "-e", sql];
    keeps_its_data(Server::MariaDb, &sql("CREATE TABLE t AS SELECT 7 AS n"), &sql("SELECT n FROM t"), "7");
}

#[test]
fn valkey_keeps_its_data() {
    keeps_its_data(Server::Valkey, &["valkey-cli", "SET", "n", "7"], &["valkey-cli", "GET", "n"], "7");
}

#[test]
fn the_application_migrates_step_by_step_and_ends_without_its_database() {
    let lab = Lab::new();
    let mut spec = spec(Server::Postgres15);
    spec.image = ImageSpec::notes("1.0.0", 1);
    spec.environment.push(format!("DATABASE_URL: postgres://postgres:{PASSWORD}@database/{DATABASE}"));
    let app = lab.deploy(spec);
    let psql = |sql: &str| in_database(&app, &["psql", "-qAt", "-U", "postgres", DATABASE, "-c", sql]);
    let base = app.health_url.trim_end_matches(&app.spec.version_path);
    let written = Writer::start(&format!("{base}/notes")).stop();
    assert!(written.confirmed_by("1.0.0").count() > 0, "{written:#?}");
    for (schema, version) in [(2, "1.1.0"), (3, "1.2.0")] {
        lab.registry.push("demo/app", version, &ImageSpec::notes(version, schema));
        app.edit(&app.env_file(), |text| {
            text.lines()
                .map(|line| {
                    if line.starts_with("APP_VERSION=") {
                        format!("APP_VERSION={version}\n")
                    } else {
                        format!("{line}\n")
                    }
                })
                .collect()
        });
        app.compose(&["up", "-d", "--no-deps", "--pull", "always", "app"]);
        app.await_version(version);
        assert_eq!(psql("SELECT version FROM schema_version").trim(), schema.to_string());
    }
    for note in written.confirmed_by("1.0.0") {
        assert_eq!(psql(&format!("SELECT count(*) FROM notes WHERE body = '{note}'")).trim(), "1", "{note}");
    }

    lab.engine.stop(&format!("{}-database-1", app.project));
    app.compose(&["restart", "app"]);
    let restarts = || app.app().expect("the application")["RestartCount"].as_u64();
    eventually("a restart of the application", Duration::from_secs(30), || restarts().filter(|count| *count > 0));
}
