//! What a PostgreSQL server beside the application holds, looked at from outside: through the server's own client, in
//! its own container.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use lab::databases::{DATABASE, PASSWORD, Server};
use lab::engine::must_run;
use lab::image::ImageSpec;
use lab::publish::ReleaseSpec;
use lab::writer::Notes;

use crate::case::{Case, Stage, case};

/// An application with this server beside it, as the documentation sets it up; no setting says so.
pub fn beside(server: Server) -> Case {
    case()
        .app(move |a| {
            a.database = Some(server);
            a.depends_on = "{ database: { condition: service_healthy } }".into();
            a.database_lines = server.service_lines();
            a.file_lines.push("volumes: { db: {} }".into());
            a.files.push(("start-delay".into(), String::new()));
        })
        .setting("SNAPSHOT", "on")
        .setting("HEALTH_TIMEOUT", "6s")
}

/// The application that keeps its data in this server, at 1.0.0, which knows schema 1; a release 1.1.0 that knows
/// schema 2, and behaves so.
pub fn with_postgres(server: Server, behaviour: &'static str) -> Case {
    beside(server)
        .app(|a| {
            a.image = ImageSpec::notes("1.0.0", 1);
            a.environment.push(format!("DATABASE_URL: postgres://postgres:{PASSWORD}@database/{DATABASE}"));
        })
        .release(move |_| ReleaseSpec::notes("1.1.0", 2).behaviour(behaviour))
}

/// The database is dumped and loaded by the hooks that the documentation recommends.
pub fn dumped(server: Server, behaviour: &'static str) -> Case {
    const PAGE: &str = include_str!("../../docs/databases.md");
    let hook = |name: &str| {
        let line = PAGE.lines().find_map(|line| line.strip_prefix("PROCESSGIT_UPDATER_")?.strip_prefix(name));
        line.and_then(|line| line.strip_prefix("=\"")?.strip_suffix('"')).expect("the hook's recipe")
    };
    with_postgres(server, behaviour)
        .app(|a| {
            let environment = a.database_lines.iter().position(|line| line == "environment:").expect("an environment");
            a.database_lines.insert(environment + 1, format!("  PGPASSWORD: {PASSWORD}"));
            a.service_lines.push("volumes: [dumps:/dumps]".into());
            a.file_lines = vec!["volumes: { db: {}, dumps: {} }".into()];
        })
        .setting("HOOK_BEFORE_COPY", hook("HOOK_BEFORE_COPY"))
        .setting("HOOK_AFTER_RESTORE", hook("HOOK_AFTER_RESTORE"))
}

/// The container of the service `database`.
pub fn container(stage: &Stage) -> String {
    format!("{}-database-1", stage.app.project)
}

/// Runs SQL, one statement or more; every value in a line of its own.
pub fn sql(stage: &Stage, statements: &str) -> String {
    let options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"];
    let mut psql = Command::new("docker");
    psql.args(["exec", &container(stage), "psql", "--username", "postgres", "--dbname", DATABASE]).args(options);
    must_run(psql.args(["--command", statements]))
}

/// All that the application keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    pub version: u32,
    /// Columns, constraints, indexes, views and types, one a line.
    pub schema: String,
    /// Number of rows and a checksum over all of them, but for the notes: those are written to meanwhile.
    pub tables: BTreeMap<String, String>,
    pub notes: BTreeSet<String>,
}

const SCHEMA: &str = "
    SELECT 'column ' || table_name || '.' || column_name || ' ' || udt_name || ' ' || is_nullable || ' ' || coalesce(column_default, '')
      FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid)
      FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT 'view ' || viewname || ' ' || definition FROM pg_views WHERE schemaname = 'public'
    UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'e'
    UNION ALL SELECT 'owner ' || tablename || ' ' || tableowner FROM pg_tables WHERE schemaname = 'public'
    ORDER BY 1";

/// As `TABLE ROWS:CHECKSUM`.
const TABLES: &str = "
    SELECT tablename || ' ' || (xpath('/row/sum/text()', query_to_xml(format(
        'SELECT count(*) || '':'' || md5(coalesce(string_agg(t::text, '' '' ORDER BY t::text), '''')) AS sum FROM %I t',
        tablename), false, true, '')))[1]
      FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'notes' ORDER BY 1";

/// The column has another name in another schema.
const NOTES: &str = "SELECT coalesce(to_jsonb(n) ->> 'title', to_jsonb(n) ->> 'body') FROM notes n";

impl Content {
    pub fn of(stage: &Stage) -> Self {
        let version = sql(stage, "SELECT version FROM schema_version");
        let tables = sql(stage, TABLES);
        let tables = tables.lines().filter_map(|line| line.split_once(' '));
        Self {
            version: version.trim().parse().expect("one version"),
            schema: sql(stage, SCHEMA),
            tables: tables.map(|(name, sum)| (name.to_owned(), sum.to_owned())).collect(),
            notes: sql(stage, NOTES).lines().map(str::to_owned).collect(),
        }
    }

    /// Of the content `before`, nothing is lost or changed, and nothing is here that is no note sent since. What this
    /// version has confirmed is here.
    pub fn assert_notes(&self, before: &Self, written: &Notes, confirmed_by: &[&str]) {
        let lost: Vec<_> = before.notes.difference(&self.notes).collect();
        assert!(lost.is_empty(), "notes from before are lost: {lost:#?}");
        let strange: Vec<_> =
            self.notes.iter().filter(|note| !before.notes.contains(*note) && !written.sent.contains(*note)).collect();
        assert!(strange.is_empty(), "notes that nobody has written: {strange:#?}");
        for version in confirmed_by {
            let lost: Vec<_> = written.confirmed_by(version).filter(|note| !self.notes.contains(*note)).collect();
            assert!(lost.is_empty(), "notes that {version} has confirmed are lost: {lost:#?}");
        }
    }

    /// The same schema, the same rows, and every note that the old version has confirmed.
    pub fn assert_as_before(&self, before: &Self, written: &Notes) {
        assert_eq!((self.version, &self.schema), (before.version, &before.schema), "left: now, right: before");
        assert_eq!(self.tables, before.tables, "left: now, right: before");
        self.assert_notes(before, written, &["1.0.0"]);
    }
}
