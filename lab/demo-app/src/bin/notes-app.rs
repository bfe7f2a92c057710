//! An application with its data in PostgreSQL, as many are: at its start it migrates the schema to its version, and it
//! ends with code 1 when the database cannot be reached. It does what the environment baked into its image says.
//!
//! ```text
//! notes-app            migrate, then serve
//! notes-app migrate    only migrate
//! ```
//!
//! | variable | default | |
//! |---|---|---|
//! | `DATABASE_URL` | needed | `postgres://USER:PASSWORD@HOST/DATABASE` |
//! | `SCHEMA` | `1` | the schema this version knows, see [`MIGRATIONS`]; as many applications do, it starts on a newer one |
//! | `APP_VERSION` | `0.0.0` | what it says it is |
//! | `BEHAVIOUR` | `good` | see [`Behaviour`] |
//! | `PORT` | `3000` | |
//! | `VERSION_PATH` | `/api/v1/version` | where it says its version; `/healthz` asks the database; `POST /notes` adds a note |

use std::net::{TcpListener, TcpStream};
use std::thread::{sleep, spawn};
use std::time::Duration;
use std::{env, fmt};

use demo_app::{die, end_on_sigterm, read_request, respond, variable};
use postgres::{Client, Config, NoTls};

/// Each begins with the version before it, and makes tables that refer to older ones or changes a column: a dump of
/// the old schema cannot be loaded over the new one.
const MIGRATIONS: [&[&str]; 3] = [
    &[
        "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL UNIQUE)",
        "CREATE TABLE notes (id bigserial PRIMARY KEY, user_id integer NOT NULL REFERENCES users, \
         title text NOT NULL, starred integer NOT NULL DEFAULT 0)",
        "INSERT INTO users (name) VALUES ('ada'), ('grace')",
        "INSERT INTO notes (user_id, title) SELECT 1 + n % 2, 'old ' || n FROM generate_series(1, 200) n",
    ],
    &[
        "CREATE TABLE tags (id serial PRIMARY KEY, note_id bigint NOT NULL REFERENCES notes, label text NOT NULL)",
        "ALTER TABLE notes RENAME COLUMN title TO body",
        "ALTER TABLE notes ALTER starred DROP DEFAULT, ALTER starred TYPE boolean USING starred <> 0, \
         ALTER starred SET DEFAULT false",
        "INSERT INTO tags (note_id, label) SELECT id, 'imported' FROM notes",
    ],
    &[
        "CREATE TYPE kind AS ENUM ('image', 'text')",
        "CREATE TABLE attachments (id serial PRIMARY KEY, tag_id integer NOT NULL REFERENCES tags, \
         user_id integer NOT NULL REFERENCES users, kind kind NOT NULL)",
        "CREATE VIEW starred AS SELECT id, body FROM notes WHERE starred",
        "INSERT INTO attachments (tag_id, user_id, kind) SELECT id, 1, 'text' FROM tags",
    ],
];

/// How an image behaves: `BEHAVIOUR=name` or `BEHAVIOUR=name:seconds`.
enum Behaviour {
    /// `good`
    Good,
    /// `error500`: migrates, then answers 500, always.
    Error500,
    /// `migrate-fails`: the migration fails, and its transaction with it.
    MigrateFails,
    /// `migrate-half`: half of the migration is committed before it fails.
    MigrateHalf,
    /// `writes-and-crashes:SECONDS`: migrates, changes and removes what older versions wrote, adds to it, answers well,
    /// then ends with 1.
    WritesAndCrashes(Duration),
}

impl Behaviour {
    fn parse(text: &str) -> Option<Self> {
        let (name, number) = text.split_once(':').unwrap_or((text, ""));
        Some(match name {
            "good" => Self::Good,
            "error500" => Self::Error500,
            "migrate-fails" => Self::MigrateFails,
            "migrate-half" => Self::MigrateHalf,
            "writes-and-crashes" => Self::WritesAndCrashes(Duration::try_from_secs_f64(number.parse().ok()?).ok()?),
            _ => return None,
        })
    }
}

struct App {
    version: String,
    behaviour: Behaviour,
    schema: usize,
    database: Config,
}

fn main() {
    end_on_sigterm();
    let behaviour = variable("BEHAVIOUR", "good");
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| die("DATABASE_URL is not set"));
    let mut database: Config = url.parse().unwrap_or_else(|e| die(&format!("DATABASE_URL: {e}")));
    database.connect_timeout(Duration::from_secs(5));
    let app: &'static App = Box::leak(Box::new(App {
        version: variable("APP_VERSION", "0.0.0"),
        behaviour: Behaviour::parse(&behaviour).unwrap_or_else(|| die(&format!("BEHAVIOUR={behaviour}: not known"))),
        schema: variable("SCHEMA", "1").parse().unwrap_or_else(|_| die("SCHEMA is no number")),
        database,
    }));
    println!("notes-app {} starts ({behaviour})", app.version);
    app.migrate().unwrap_or_else(|e| die(&said("the migration failed", &e)));
    match env::args().nth(1).as_deref() {
        None => app.serve(),
        Some("migrate") => {}
        Some(other) => die(&format!("unknown command {other:?}: see the head of its source")),
    }
}

/// The client's errors do not say what the server said.
fn said(what: &str, error: &postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{what}: {error}{cause}")
}

impl App {
    fn connect(&self) -> Client {
        self.database.connect(NoTls).unwrap_or_else(|e| die(&said("the database cannot be reached", &e)))
    }

    /// Each version in a transaction of its own.
    fn migrate(&self) -> Result<(), postgres::Error> {
        let mut client = self.connect();
        client.batch_execute(
            "SET client_min_messages = warning; CREATE TABLE IF NOT EXISTS schema_version (version integer NOT NULL)",
        )?;
        let row = client.query_one("SELECT coalesce(max(version), 0) FROM schema_version", &[])?;
        let found = usize::try_from(row.get::<_, i32>(0)).unwrap_or(0);
        println!("schema {found}, this version knows {}", self.schema);
        for (version, statements) in (1..).zip(MIGRATIONS).take(self.schema).skip(found) {
            if matches!(self.behaviour, Behaviour::MigrateHalf) {
                // Outside of a transaction each is committed by itself.
                for statement in &statements[..statements.len() / 2] {
                    client.batch_execute(statement)?;
                }
                die("dying in the middle of the migration, as its image says");
            }
            let mut transaction = client.transaction()?;
            for statement in statements {
                transaction.batch_execute(statement)?;
            }
            if matches!(self.behaviour, Behaviour::MigrateFails) {
                transaction.batch_execute("ALTER TABLE notes ADD CONSTRAINT none CHECK (false)")?;
            }
            transaction.execute("DELETE FROM schema_version", &[])?;
            transaction.batch_execute(&format!("INSERT INTO schema_version VALUES ({version})"))?;
            transaction.commit()?;
            println!("schema {version} is in place");
        }
        Ok(())
    }

    fn serve(&'static self) {
        if let Behaviour::WritesAndCrashes(pause) = self.behaviour {
            self.damage();
            spawn(move || {
                sleep(pause);
                die("crashing late, as its image says")
            });
        }
        let port = variable("PORT", "3000");
        let listener = TcpListener::bind(format!("0.0.0.0:{port}"))
            .unwrap_or_else(|e| die(&format!("cannot listen on {port}: {e}")));
        for stream in listener.incoming().flatten() {
            spawn(move || self.answer(&stream));
        }
    }

    /// What a faulty version does to data of older ones.
    fn damage(&self) {
        let notes = format!("UPDATE notes SET {} = '?' WHERE id % 3 = 0", self.text_column());
        self.connect().batch_execute(&notes).unwrap_or_else(|e| die(&said("cannot write", &e)));
        for _ in 0..20 {
            self.add_note("written by a faulty version").unwrap_or_else(|e| die(&e));
        }
    }

    fn answer(&self, stream: &TcpStream) {
        let Some(request) = read_request(stream) else { return };
        let (status, body) = match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/notes") => match self.add_note(&request.body) {
                Ok(()) => ("201 Created", self.describe()),
                Err(e) => ("500 Internal Server Error", error(&e)),
            },
            (_, "/healthz") => match self.database.connect(NoTls) {
                Ok(_) => ("200 OK", self.describe()),
                Err(e) => ("500 Internal Server Error", error(&e)),
            },
            (_, path) if path == variable("VERSION_PATH", "/api/v1/version") => match self.behaviour {
                Behaviour::Error500 => ("500 Internal Server Error", error(&"broken, as its image says")),
                _ => ("200 OK", self.describe()),
            },
            _ => ("404 Not Found", error(&"there is nothing here")),
        };
        respond(stream, status, &body);
    }

    fn describe(&self) -> String {
        format!(r#"{{"version":"{}"}}"#, self.version)
    }

    /// Returns when it is committed.
    fn add_note(&self, text: &str) -> Result<(), String> {
        let mut client = self.database.connect(NoTls).map_err(|e| said("the database cannot be reached", &e))?;
        let insert = format!("INSERT INTO notes (user_id, {}) VALUES (1, $1)", self.text_column());
        client.execute(&insert, &[&text]).map(drop).map_err(|e| said("cannot write", &e))
    }

    /// Version 2 renames it.
    fn text_column(&self) -> &'static str {
        if self.schema < 2 { "title" } else { "body" }
    }
}

fn error(what: &dyn fmt::Display) -> String {
    format!(r#"{{"error":{:?}}}"#, what.to_string())
}
