//! The demonstration: a good release that is committed, a bad one that is rolled back, the history.
//! Everything is real but GitHub. `./demo` builds and starts it.
//!
//! ```text
//! demo               shows it and removes everything
//! demo --container   the same, with the updater in a container of the application's project
//! demo --keep        shows it and waits, so that one can play; Ctrl-C ends it
//! ```

use std::fs;
use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use lab::deployment::{AppSpec, Deployment};
use lab::publish::ReleaseSpec;
use lab::sidecar::{Network, Sees, Sidecar};
use lab::updater::Updater;
use lab::{Lab, http};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = arguments.iter().find(|argument| !["--container", "--keep"].contains(&argument.as_str())) {
        eprintln!("{unknown} is unknown; usage: demo [--container] [--keep]");
        exit(2);
    }
    let asked = |name: &str| arguments.iter().any(|argument| argument == name);
    let in_a_container = asked("--container");

    title("An application under Docker Compose at 1.0.0 that keeps notes in a volume, a database, a worker");
    let lab = if in_a_container { Lab::for_containers() } else { Lab::new() };
    let mut spec = AppSpec::new("1.0.0");
    spec.environment = vec!["DATA_DIR: /data".into()];
    spec.service_lines = vec!["volumes: [notes:/data]".into()];
    spec.file_lines = vec!["volumes: { notes: {} }".into()];
    spec.sidecar = in_a_container.then(sidecar);
    let app = lab.deploy(spec);
    show(&app);
    let notes = format!("http://{}/notes", host_of(&app.health_url));
    for note in ["Order 42: 12 chairs", "Call Anna on Monday"] {
        http::send(http::client().post(&notes).body(note)).expect("the application takes a note");
    }
    show_notes(&notes);

    title("Its vendor publishes two signed releases: v1.1.0 is good, v1.2.0 overwrites the notes and crashes");
    for (version, behaviour) in [("1.1.0", "good"), ("1.2.0", "damages:1")] {
        let release = lab.publish(ReleaseSpec::new(version).behaviour(behaviour));
        say(&format!("{}: image {}", release.tag, release.image.reference()));
    }
    let settings = [("HEALTH_TIMEOUT", "30s"), ("DEBUG", "false")];
    if in_a_container {
        title("The updater joins the project: it sees the deployment's folder, its own state, the engine's socket");
    }
    let updater = Updater::start(&lab::updater_program(), &lab, &app, &settings);

    title("The good release: pulled, verified, data copied, swapped, proven healthy, committed");
    run(&updater, &["update", "v1.1.0"], 0);
    show(&app);
    show_notes(&notes);

    title("The bad release: it damages the notes and crashes; image, .env and data are put back");
    let before = read(&notes);
    let damaged = seen_meanwhile(&notes, &before, || run(&updater, &["update", "v1.2.0"], 3));
    say(&format!("while 1.2.0 ran, the notes were: {}", quoted(&damaged)));
    assert_eq!(read(&notes), before, "the notes were not put back");
    show(&app);
    show_notes(&notes);
    say("the siblings were never touched, and .env names what runs");

    title("The updater remembers");
    run(&updater, &["history"], 0);

    if asked("--keep") {
        wait(&app, &updater);
    }
    drop((updater, app, lab));
    title("Everything is removed again. That was it.");
}

/// `127.0.0.1:3000` of an address.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(host, _)| host)
}

/// What the application answers; empty while it does not.
fn read(notes: &str) -> String {
    http::get(notes).ok().filter(|answer| answer.status == 200).map(|answer| answer.text()).unwrap_or_default()
}

fn quoted(notes: &str) -> String {
    notes.lines().map(|line| format!("{line:?}")).collect::<Vec<_>>().join(", ")
}

fn show_notes(notes: &str) {
    say(&format!("  its notes: {}", quoted(&read(notes))));
}

/// What the notes were while `work` was done, other than `before`.
fn seen_meanwhile(notes: &str, before: &str, work: impl FnOnce()) -> String {
    let done = AtomicBool::new(false);
    scope(|threads| {
        let watcher = threads.spawn(|| {
            let mut damaged = String::new();
            while !done.load(Ordering::Relaxed) {
                let now = read(notes);
                if !now.is_empty() && now != before {
                    damaged = now;
                }
                sleep(Duration::from_millis(50));
            }
            damaged
        });
        work();
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("the watcher")
    })
}

/// As in `deploy/`.
fn sidecar() -> Sidecar {
    let mut sidecar = Sidecar::new(Sees::Deploy);
    sidecar.network = Network::Project;
    let careful = ["read_only: true", "cap_drop: [ALL]", "security_opt: [\"no-new-privileges:true\"]"];
    sidecar.lines.extend(careful.map(str::to_owned));
    sidecar
}

fn title(text: &str) {
    println!("\n{}", styled("1", &format!("▌ {text}")));
}

/// Bold or coloured on a terminal, plain elsewhere.
fn styled(style: &str, text: &str) -> String {
    if stdout().is_terminal() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

fn say(text: &str) {
    println!("  {text}");
}

/// What an operator would look at.
fn show(app: &Deployment) {
    let version = app.running_version().unwrap_or_else(|| "nobody".into());
    let in_env = app.version_in_env().unwrap_or_default();
    say(&format!("{} answers: {version}; .env says {}={in_env}", app.health_url, app.spec.version_key));
    let listed = app.compose(&["ps", "--format", "{{.Service}} {{.Image}} {{.Status}}"]);
    for line in listed.lines() {
        let mut words = line.splitn(3, ' ');
        let mut next = || words.next().unwrap_or_default();
        say(&format!("  {:<10} {:<34} {}", next(), next(), next()));
    }
}

/// Runs a command of the product, as one would type it.
fn run(updater: &Updater, arguments: &[&str], expected: i32) {
    println!("{}", styled("36", &format!("  $ {} {}", updater.command_text(), arguments.join(" "))));
    let status = updater.command().args(arguments).status().expect("the updater's own program");
    assert_eq!(status.code(), Some(expected), "not what was to be shown; the updater's log:\n{}", updater.log_text());
}

/// Leaves everything running until Ctrl-C; `./demo` sweeps afterwards.
fn wait(app: &Deployment, updater: &Updater) -> ! {
    let mut lines = vec![format!("cd {}", app.folder().display())];
    if app.spec.sidecar.is_none() {
        let settings = updater.settings().iter();
        let variables = settings.map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', r"'\''")));
        let folder = lab::updater_program().parent().map(PathBuf::from).unwrap_or_default();
        let path = format!("export PATH='{}':\"$PATH\"\n", folder.display());
        fs::write(app.folder().join("environment.sh"), variables.chain([path]).collect::<String>())
            .expect("writing it down");
        lines.push("source environment.sh".into());
    }
    let commands = ["status", "check v1.2.0", "update v1.2.0 --retry"];
    lines.extend(commands.map(|command| format!("{} {command}", updater.command_text())));
    lines.extend(["docker compose ps".into(), format!("curl {}", app.health_url)]);
    title("It stays as it is until you press Ctrl-C here");
    say("in another terminal:");
    for line in lines {
        say(&format!("  {line}"));
    }
    loop {
        std::thread::park();
    }
}
