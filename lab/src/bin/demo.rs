//! The demonstration: a good release that is committed, a bad one that is rolled back, the history.
//! Everything is real but GitHub. `./demo` builds and starts it.
//!
//! ```text
//! demo          shows it and removes everything
//! demo --keep   shows it and waits, so that one can play; Ctrl-C ends it
//! ```

use std::fs;
use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::process::exit;

use lab::Lab;
use lab::deployment::{AppSpec, Deployment};
use lab::publish::ReleaseSpec;
use lab::updater::Updater;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let keep = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--keep"] => true,
        _ => {
            eprintln!("usage: demo [--keep]");
            exit(2);
        }
    };

    title("A small shop under Docker Compose: the application at 1.0.0, a database, a worker");
    let lab = Lab::new();
    let app = lab.deploy(AppSpec::new("1.0.0"));
    show(&app);

    title("Its maker publishes two signed releases: v1.1.0 is good, v1.2.0 crashes at its start");
    for (version, behaviour) in [("1.1.0", "good"), ("1.2.0", "crash")] {
        let release = lab.publish(ReleaseSpec::new(version).behaviour(behaviour));
        say(&format!("{}: image {}", release.tag, release.image.reference()));
    }
    let settings = [("HEALTH_TIMEOUT", "30s"), ("DEBUG", "false")];
    let updater = Updater::start(&lab::updater_program(), &lab, &app, &settings);

    title("The good release: pulled, verified, swapped, proven healthy, committed");
    run(&updater, &["update", "v1.1.0"], 0);
    show(&app);

    title("The bad release: it crashes, so everything becomes again what it was");
    run(&updater, &["update", "v1.2.0"], 3);
    show(&app);
    say("the siblings were never touched, and .env names what runs");

    title("The updater remembers");
    run(&updater, &["history"], 0);

    if keep {
        wait(&app, &updater);
    }
    drop((updater, app, lab));
    title("Everything is removed again. That was it.");
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
    println!("{}", styled("36", &format!("  $ processgit-updater {}", arguments.join(" "))));
    let status = updater.command().args(arguments).status().expect("the updater's own program");
    assert_eq!(status.code(), Some(expected), "not what was to be shown; the updater's log:\n{}", updater.log_text());
}

/// Leaves everything running until Ctrl-C; `./demo` sweeps afterwards.
fn wait(app: &Deployment, updater: &Updater) -> ! {
    let variables: String = updater
        .settings()
        .iter()
        .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', r"'\''")))
        .collect();
    let folder = lab::updater_program().parent().map(PathBuf::from).unwrap_or_default();
    let file = app.folder().join("environment.sh");
    fs::write(&file, format!("{variables}export PATH='{}':\"$PATH\"\n", folder.display())).expect("writing it down");
    title("It stays as it is until you press Ctrl-C here");
    say("in another terminal:");
    for line in [
        &format!("source {}", file.display()),
        "processgit-updater status",
        "processgit-updater check v1.2.0",
        "processgit-updater update v1.2.0 --retry",
        &format!("cd {} && docker compose ps", app.folder().display()),
        &format!("curl {}", app.health_url),
    ] {
        say(&format!("  {line}"));
    }
    loop {
        std::thread::park();
    }
}
