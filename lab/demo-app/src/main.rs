//! The application that the laboratory updates. It does what the environment baked into its image says.
//!
//! ```text
//! demo-app                            serve
//! demo-app check [--fail]             HEALTHCHECK: 0 when the server beside it answers 200
//! demo-app migrate [--fail] [--hang]  write the schema this version knows into DATA_DIR
//! demo-app dump HOST FILE [--fail]    write what the database there holds into a file …
//! demo-app load HOST FILE [--fail]    … and bring it back, as hooks do
//! demo-app fill MEBIBYTES [--fail]    write that much into DATA_DIR
//! ```
//!
//! | variable | default | |
//! |---|---|---|
//! | `APP_VERSION` | `0.0.0` | what it says it is |
//! | `BEHAVIOUR` | `good` | see [`Behaviour`] |
//! | `PORT` | `3000` | |
//! | `VERSION_PATH` | `/api/v1/version` | where it says so; `/data` shows its data, `/notes` its notes (POST adds one) |
//! | `DATA_DIR` | none | keeps a counter of starts and a schema version there |
//! | `DATABASE` | none | the host of another of its kind, which keeps the same for it, as a database would |
//! | `CHURN` | none | so many files below DATA_DIR it writes to every second, one after the other |
//! | `FILL` | none | so many mebibytes it writes into DATA_DIR at its start |
//! | `SCHEMA` | `1` | the schema this version knows; it brings older data to it at its start, and refuses to start on newer |

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;
use std::{env, fs};

use demo_app::{die, end_on_sigterm, read_request, respond, variable};

/// How an image behaves: `BEHAVIOUR=name` or `BEHAVIOUR=name:number`.
enum Behaviour {
    /// `good`: answers at once.
    Good,
    /// `crash`: exits with 1 at the start.
    Crash,
    /// `crash-late:SECONDS`: answers well, then exits with 1.
    CrashLate(Duration),
    /// `error500`: answers 500, always.
    Error500,
    /// `flaky:N`: every Nth answer is a 500.
    Flaky(u64),
    /// `slow:SECONDS`: listens only after that long.
    Slow(Duration),
    /// `never`: runs, but does not listen.
    Never,
    /// `silent`: accepts connections and never answers.
    Silent,
    /// `wrong-version`: answers 200 with another version.
    WrongVersion,
    /// `migrate-fails`: answers at once; its `migrate` exits with 1.
    MigrateFails,
    /// `damages:SECONDS`: overwrites its notes at the start, answers well, then exits with 1.
    Damages(Duration),
}

impl Behaviour {
    fn parse(text: &str) -> Option<Self> {
        let (name, number) = text.split_once(':').unwrap_or((text, ""));
        let seconds = || number.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
        Some(match name {
            "good" => Self::Good,
            "crash" => Self::Crash,
            "crash-late" => Self::CrashLate(seconds()?),
            "error500" => Self::Error500,
            "flaky" => Self::Flaky(number.parse().ok().filter(|n| *n > 0)?),
            "slow" => Self::Slow(seconds()?),
            "never" => Self::Never,
            "silent" => Self::Silent,
            "wrong-version" => Self::WrongVersion,
            "migrate-fails" => Self::MigrateFails,
            "damages" => Self::Damages(seconds()?),
            _ => return None,
        })
    }
}

fn main() {
    end_on_sigterm();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let flag = |name: &str| arguments.iter().any(|a| a == name);
    match arguments.first().map(String::as_str) {
        None => serve(),
        Some("check") => check(flag("--fail")),
        Some("migrate") => migrate(flag("--fail"), flag("--hang")),
        Some("dump") => dump(argument(&arguments, 1), argument(&arguments, 2), flag("--fail")),
        Some("load") => load(argument(&arguments, 1), argument(&arguments, 2), flag("--fail")),
        Some("fill") => {
            fill(argument(&arguments, 1));
            if flag("--fail") {
                die("failing after it, as it was asked to");
            }
        }
        Some(other) => die(&format!("unknown command {other:?}: see the head of its source")),
    }
}

fn argument(arguments: &[String], place: usize) -> &str {
    arguments.get(place).map_or_else(|| die(&format!("{arguments:?} lacks an argument")), String::as_str)
}

fn serve() {
    let version = variable("APP_VERSION", "0.0.0");
    let text = variable("BEHAVIOUR", "good");
    let Some(behaviour) = Behaviour::parse(&text) else { die(&format!("BEHAVIOUR={text} is not understood")) };
    println!("demo-app {version} starts ({text})");
    match behaviour {
        Behaviour::Crash => die("crashing at the start, as its image says"),
        Behaviour::Slow(pause) => sleep(pause),
        Behaviour::Never => loop {
            sleep(Duration::from_secs(3600));
        },
        Behaviour::CrashLate(pause) => crash_after(pause),
        Behaviour::Damages(pause) => {
            damage_notes();
            crash_after(pause);
        }
        _ => {}
    }
    if let Some(data) = data_dir() {
        open_data(&data, known_schema());
    }
    if let Some(database) = database() {
        ask(&database, "GET", &format!("/open/{}", known_schema()), "");
    }
    if let Ok(mebibytes) = env::var("FILL") {
        fill(&mebibytes);
    }
    if let Some((dir, churn)) = data_dir().zip(env::var("CHURN").ok()) {
        let a_second: usize = churn.parse().unwrap_or_else(|_| die("CHURN is no number"));
        spawn(move || churn_on(&dir, a_second / 10));
    }
    let port = variable("PORT", "3000");
    let listener =
        TcpListener::bind(format!("0.0.0.0:{port}")).unwrap_or_else(|e| die(&format!("cannot listen on {port}: {e}")));
    let app: &'static App =
        Box::leak(Box::new(App { version, behaviour, path: variable("VERSION_PATH", "/api/v1/version") }));
    for stream in listener.incoming().flatten() {
        spawn(move || app.answer(stream));
    }
}

fn crash_after(pause: Duration) {
    spawn(move || {
        sleep(pause);
        die("crashing late, as its image says")
    });
}

struct App {
    version: String,
    behaviour: Behaviour,
    path: String,
}

impl App {
    /// Answers one request; a broken connection is the client's affair.
    fn answer(&self, stream: TcpStream) {
        if matches!(self.behaviour, Behaviour::Silent) {
            sleep(Duration::from_secs(3600));
        }
        let Some(request) = read_request(&stream) else { return };
        let (status, body) = self.page(&request.method, &request.path, &request.body);
        respond(&stream, status, &body);
    }

    fn page(&self, method: &str, path: &str, body: &str) -> (&'static str, String) {
        static ANSWERS: AtomicU64 = AtomicU64::new(1);
        match (method, path) {
            (_, "/data") => return ("200 OK", describe_data()),
            ("POST", "/notes") => add_note(body),
            _ => {}
        }
        if path == "/notes" {
            return ("200 OK", notes().unwrap_or_default());
        }
        if let Some(answer) = data_dir().and_then(|dir| as_database(&dir, path, body)) {
            return ("200 OK", answer);
        }
        if path != self.path {
            return ("404 Not Found", r#"{"error":"there is nothing here"}"#.to_owned());
        }
        let broken = match self.behaviour {
            Behaviour::Error500 => true,
            Behaviour::Flaky(n) => ANSWERS.fetch_add(1, Ordering::Relaxed).is_multiple_of(n),
            _ => false,
        };
        if broken {
            return ("500 Internal Server Error", r#"{"error":"broken, as its image says"}"#.to_owned());
        }
        let version = if matches!(self.behaviour, Behaviour::WrongVersion) { "0.0.0-wrong" } else { &self.version };
        ("200 OK", format!(r#"{{"version":"{version}"}}"#))
    }
}

/// What it does for another of its kind: `/open/SCHEMA` counts a start, `/dump` and `/load` are all it has.
fn as_database(dir: &Path, path: &str, body: &str) -> Option<String> {
    if let Some(schema) = path.strip_prefix("/open/") {
        open_data(dir, schema.parse().ok()?);
        return Some(String::new());
    }
    match path {
        "/dump" => Some(format!("{} {}", read_number(&dir.join("counter")), read_number(&dir.join("schema")))),
        "/load" => {
            for (name, number) in ["counter", "schema"].iter().zip(body.split_whitespace()) {
                write_number(&dir.join(name), number.parse().ok()?);
            }
            Some(String::new())
        }
        _ => None,
    }
}

fn database() -> Option<String> {
    env::var("DATABASE").ok().filter(|host| !host.is_empty())
}

/// One request to another of its kind; dies without a good answer. A name may not be known yet.
fn ask(host: &str, method: &str, path: &str, body: &str) -> String {
    let address = format!("{host}:3000");
    let stream = (0..50)
        .find_map(|_| TcpStream::connect(&address).map_err(|_| sleep(Duration::from_millis(100))).ok())
        .unwrap_or_else(|| die(&format!("{address} cannot be reached")));
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = write!(&stream, "{head}{body}");
    let mut answer = String::new();
    let _ = BufReader::new(&stream).read_to_string(&mut answer);
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => body.to_owned(),
        _ => die(&format!("{address}{path} answered {answer:?}")),
    }
}

fn data_dir() -> Option<PathBuf> {
    env::var_os("DATA_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

fn read_number(file: &Path) -> u64 {
    fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn write_number(file: &Path, number: u64) {
    fs::write(file, format!("{number}\n")).unwrap_or_else(|e| die(&format!("cannot write {}: {e}", file.display())));
}

fn known_schema() -> u64 {
    variable("SCHEMA", "1").parse().unwrap_or_else(|_| die("SCHEMA is no number"))
}

/// Counts a start, brings the data to this schema, and refuses data of a newer version: that is how
/// a rollback without its data shows.
fn open_data(dir: &Path, known: u64) {
    fs::create_dir_all(dir).unwrap_or_else(|e| die(&format!("cannot make {}: {e}", dir.display())));
    let schema = read_number(&dir.join("schema"));
    if schema > known {
        die(&format!("the data has schema {schema}, this version knows {known}"));
    }
    write_number(&dir.join("schema"), known);
    let counter = dir.join("counter");
    write_number(&counter, read_number(&counter) + 1);
}

fn notes_file() -> PathBuf {
    data_dir().unwrap_or_else(|| die("DATA_DIR is not set")).join("notes")
}

/// One a line; `None` without any.
fn notes() -> Option<String> {
    fs::read_to_string(data_dir()?.join("notes")).ok()
}

fn add_note(note: &str) {
    let file = notes_file();
    let written = fs::OpenOptions::new().create(true).append(true).open(&file).and_then(|mut f| writeln!(f, "{note}"));
    written.unwrap_or_else(|e| die(&format!("cannot write {}: {e}", file.display())));
}

/// What a faulty migration does: every note is as long as before and says nothing.
fn damage_notes() {
    let damaged: String =
        notes().unwrap_or_default().lines().map(|note| "?".repeat(note.chars().count()) + "\n").collect();
    let file = notes_file();
    fs::write(&file, damaged).unwrap_or_else(|e| die(&format!("cannot write {}: {e}", file.display())));
}

fn describe_data() -> String {
    let Some(dir) = data_dir() else { return "{}".to_owned() };
    let number = |name| read_number(&dir.join(name));
    let database = database().map(|host| format!(r#","database":{}"#, ask(&host, "GET", "/data", "")));
    let (counter, schema) = (number("counter"), number("schema"));
    format!(r#"{{"counter":{counter},"schema":{schema}{}}}"#, database.unwrap_or_default())
}

fn dump(host: &str, file: &str, fail: bool) {
    let content = ask(host, "GET", "/dump", "");
    fs::write(file, &content).unwrap_or_else(|e| die(&format!("cannot write {file}: {e}")));
    println!("dumped {content}");
    if fail {
        die("the dump failed, as it was asked to");
    }
}

fn load(host: &str, file: &str, fail: bool) {
    let content = fs::read_to_string(file).unwrap_or_else(|e| die(&format!("cannot read {file}: {e}")));
    ask(host, "POST", "/load", &content);
    println!("loaded {content}");
    if fail {
        die("the loading failed, as it was asked to");
    }
}

fn files_below(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

/// Writes to files, as an application does that is in use.
fn churn_on(dir: &Path, each_tenth: usize) {
    let mut files = Vec::new();
    files_below(dir, &mut files);
    let mut next = 0;
    while !files.is_empty() {
        for _ in 0..each_tenth {
            // Far from the one before, and every one in time.
            next = (next + 7919) % files.len();
            let written =
                fs::OpenOptions::new().append(true).open(&files[next]).and_then(|mut file| file.write_all(b"x"));
            if let Err(e) = written {
                die(&format!("cannot write {}: {e}", files[next].display()));
            }
        }
        sleep(Duration::from_millis(100));
    }
}

/// Noise, so that nothing stores it in less.
fn fill(mebibytes: &str) {
    let count: u32 = mebibytes.parse().unwrap_or_else(|_| die(&format!("{mebibytes:?} is no number of mebibytes")));
    let path = data_dir().unwrap_or_else(|| die("DATA_DIR is not set")).join("fill");
    let mut file = fs::File::create(&path).unwrap_or_else(|e| die(&format!("cannot make {}: {e}", path.display())));
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..count {
        let block: Vec<u8> = (0..1 << 17)
            .flat_map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise.to_le_bytes()
            })
            .collect();
        file.write_all(&block).unwrap_or_else(|e| die(&format!("cannot write {}: {e}", path.display())));
    }
}

/// The server beside us answers 200.
fn check(fail: bool) {
    if fail {
        die("unhealthy, as its image says");
    }
    let address = format!("127.0.0.1:{}", variable("PORT", "3000"));
    let stream = TcpStream::connect(&address).unwrap_or_else(|e| die(&format!("{address}: {e}")));
    let path = variable("VERSION_PATH", "/api/v1/version");
    let _ = write!(&stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    match BufReader::new(&stream).lines().next() {
        Some(Ok(line)) if line.contains(" 200 ") => println!("healthy"),
        other => die(&format!("answered {other:?}")),
    }
}

/// Writes the schema this version knows. `--fail` leaves the data changed, as failing migrations do.
fn migrate(fail: bool, hang: bool) {
    let known = known_schema();
    let found = data_dir().map_or(0, |dir| read_number(&dir.join("schema")));
    println!("migrating schema {found} to {known}");
    if let Some(dir) = data_dir() {
        fs::create_dir_all(&dir).unwrap_or_else(|e| die(&format!("cannot make {}: {e}", dir.display())));
        write_number(&dir.join("schema"), known);
    }
    if hang {
        sleep(Duration::from_secs(3600));
    }
    if fail || variable("BEHAVIOUR", "good") == "migrate-fails" {
        die("the migration failed, as it was asked to");
    }
    println!("schema {known} is in place");
}
