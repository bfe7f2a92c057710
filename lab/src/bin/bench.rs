//! The measurements: one table, everything in one run, each number beside its goal. `./bench` builds and
//! starts it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::deployment::{AppSpec, Deployment};
use lab::image::ImageSpec;
use lab::poller::{Poller, Samples};
use lab::publish::{Published, ReleaseSpec};
use lab::sidecar::{Sees, Sidecar};
use lab::updater::{Memory, TOKEN, Updater};
use lab::{Lab, load, tree};

/// Rounds of each alternated measurement.
const ROUNDS: usize = 5;
const SETTINGS: [(&str, &str); 4] =
    [("HEALTH_STABLE", "0s"), ("HEALTH_TIMEOUT", "5s"), ("HEALTH_INTERVAL", "500ms"), ("DEBUG", "false")];
/// Rounds of what is measured on much data, how much of it, and every how many-th file is copied beside it.
const DATA_ROUNDS: usize = 3;
const FILES: usize = 60_000;
const MEGABYTES: usize = 700;
const CHANGED: usize = 100;
/// So many files a second the application writes to: a hundredth in two seconds.
const CHURN: usize = 300;
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
const MIB: f64 = 1024.0 * 1024.0;

fn main() {
    let program = lab::updater_program();
    let lab = Lab::new();
    let app = lab.deploy(AppSpec::new("1.0.0"));
    let mut updater = Updater::start(&program, &lab, &app, &SETTINGS);
    let mut table = Table::default();

    at_rest(&mut updater, &mut table);
    updates(&lab, &app, &updater, "update", &mut table);
    bad_releases(&lab, &app, &updater, &mut table);
    drop((updater, app, lab));
    beside_the_application(&program, &mut table);
    data(&program, &mut table);
    let size = fs::metadata(&program).expect("the updater's program").len() as f64 / MIB;
    table.row("binary", format!("{size:.1} MiB"), "", "≤ 20 MiB", size <= 20.0);
    println!("{}", table.text());
}

/// Start, memory, answers: nothing is updated meanwhile.
fn at_rest(updater: &mut Updater, table: &mut Table) {
    say("start to first answer");
    let address = updater.base.trim_start_matches("http://").to_owned();
    let start = median((0..ROUNDS).map(|_| start_to_answer(updater, &address)).collect());
    table.row("start to first answer", ms(start), "", "≤ 20 ms", start <= Duration::from_millis(20));

    say("memory and answers a second");
    updater.restart();
    memory("memory at rest", updater.memory(), table);
    for _ in 0..1000 {
        updater.get("/status").expect_status(&[200], "GET /status");
    }
    memory("memory after 1,000 requests", updater.memory(), table);
    let rate = load::requests_a_second(&address, "/status", TOKEN, 8, Duration::from_secs(3));
    table.row("GET /status a second", format!("{rate:.0}"), "", "≥ 30000", rate >= 30_000.0);
}

fn memory(when: &str, memory: Memory, table: &mut Table) {
    let mib = |kib: u64| kib as f64 / 1024.0;
    let resident = mib(memory.resident_kib);
    let beside = format!("{:.1} MiB of it anonymous", mib(memory.anonymous_kib));
    table.row(when, format!("{resident:.1} MiB"), &beside, "≤ 10 MiB", resident <= 10.0);
}

/// From before the process exists to its first whole answer.
fn start_to_answer(updater: &mut Updater, address: &str) -> Duration {
    updater.kill9();
    let start = Instant::now();
    updater.spawn();
    let answers = || {
        let mut stream = TcpStream::connect(address).ok()?;
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    };
    while answers().is_none() {
        assert!(start.elapsed() < Duration::from_secs(10), "the updater does not answer:\n{}", updater.log_text());
        std::thread::sleep(Duration::from_micros(200));
    }
    start.elapsed()
}

/// A whole update, and what an operator types for the same change, in turns.
fn updates(lab: &Lab, app: &Deployment, updater: &Updater, called: &str, table: &mut Table) {
    let mut releases = (1..=2 * ROUNDS).map(|n| lab.publish(ReleaseSpec::new(&format!("1.{n}.0"))));
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        say(&format!("{called} {round} of {ROUNDS}, by the updater and by hand"));
        let mut next = || releases.next().expect("enough releases");
        ours.push(measured(app, next(), |release| updater.update(&release.tag).assert_end("committed", &[])));
        bare.push(measured(app, next(), |release| by_hand(app, release)));
    }
    let pick = |runs: &[(Duration, Duration)], which: fn(&(Duration, Duration)) -> Duration| {
        median(runs.iter().map(which).collect())
    };
    for (what, which, most) in
        [("whole", (|run| run.0) as fn(&(Duration, Duration)) -> Duration, 1.3), ("downtime", |run| run.1, 1.1)]
    {
        let (ours, bare) = (pick(&ours, which), pick(&bare, which));
        let ratio = ours.as_secs_f64() / bare.as_secs_f64();
        let beside = format!("pull && up -d: {}, ratio {ratio:.2}", ms(bare));
        table.row(&format!("{called}, {what}"), ms(ours), &beside, &format!("≤ {most} ×"), ratio <= most);
    }
}

/// The same with the updater in a container, which makes containers for its work; and how large its image is.
fn beside_the_application(program: &Path, table: &mut Table) {
    let lab = Lab::new();
    let app = lab.deploy(AppSpec { sidecar: Some(Sidecar::new(Sees::Deploy)), ..AppSpec::new("1.0.0") });
    let updater = Updater::start(program, &lab, &app, &SETTINGS);
    updates(&lab, &app, &updater, "in a container", table);
    let container = app.updater_container().and_then(|name| lab.engine.container(&name)).expect("the updater");
    let image = lab.engine.image(container["Image"].as_str().unwrap_or_default()).expect("its image");
    let size = image["Size"].as_f64().expect("a size") / MIB;
    table.row("image, Compose included", format!("{size:.1} MiB"), "", "≤ 100 MiB", size <= 100.0);
}

/// How long `change` takes until it has ended and the new version answers; and the downtime.
fn measured(app: &Deployment, release: Published, change: impl FnOnce(&Published)) -> (Duration, Duration) {
    let poller = Poller::start(&app.health_url);
    let start = Instant::now();
    change(&release);
    let ended = Instant::now();
    app.await_version(&release.version);
    // Two more samples, so that the last gap has an end.
    std::thread::sleep(Duration::from_millis(50));
    let samples = poller.stop();
    let answered = samples.first(&format!("\"{}\"", release.version)).expect("the new version answered");
    (ended.max(answered) - start, samples.downtime())
}

fn by_hand(app: &Deployment, release: &Published) {
    let key = &app.spec.version_key;
    let old = app.version_in_env().expect("a version in .env");
    app.edit(&app.env_file(), |text| {
        text.replace(&format!("{key}={old}\n"), &format!("{key}={}\n", release.image_tag))
    });
    app.compose(&["pull", "-q", &app.spec.service]);
    app.compose(&["up", "-d", &app.spec.service]);
}

/// How long the application is away when a release is no good.
fn bad_releases(lab: &Lab, app: &Deployment, updater: &Updater, table: &mut Table) {
    let outage = |behaviour: &str, version: &str| {
        say(&format!("a release that behaves like this: {behaviour}"));
        let release = lab.publish(ReleaseSpec::new(version).behaviour(behaviour));
        let before = app.running_version().expect("a version");
        let poller = Poller::start(&app.health_url);
        updater.update(&release.tag).assert_end("rolled_back", &[]);
        app.await_version(&before);
        std::thread::sleep(Duration::from_millis(50));
        longest(&poller.stop())
    };
    let (beside, most) = (format!("health timeout {}", ms(HEALTH_TIMEOUT)), HEALTH_TIMEOUT + Duration::from_secs(2));
    // A quarter of the gate, but at least 15 s: here it is all of it.
    let crash = outage("crash", "2.0.0");
    table.row("crash-looping release, outage", ms(crash), &beside, "≤ timeout + 2 s", crash <= most);
    let broken = outage("error500", "2.1.0");
    table.row("always-500 release, outage", ms(broken), &beside, "≤ timeout + 2 s", broken <= most);
}

/// An application with much data, to which it writes all the time: how much longer is it down than without
/// any copy? Beside it what the copy replaces, and the least that could be done.
fn data(program: &Path, table: &mut Table) {
    say(&format!("an application with {FILES} files, {MEGABYTES} MB"));
    let lab = Lab::new();
    let churns = |image: &mut ImageSpec| {
        image.env.extend([("DATA_DIR".into(), "/data".into()), ("CHURN".into(), CHURN.to_string())]);
    };
    let mut spec = AppSpec::new("1.0.0");
    churns(&mut spec.image);
    spec.service_lines.push("volumes: [data:/data]".into());
    spec.file_lines.push("volumes: { data: {} }".into());
    let app = lab.deploy(spec);
    let inspected = app.app().expect("the application's container");
    let folder = Path::new(inspected["Mounts"][0]["Source"].as_str().expect("a volume")).join("tree");
    tree::make(&folder, FILES, MEGABYTES).expect("making the tree");
    app.compose(&["restart", &app.spec.service]);
    app.await_version("1.0.0");
    let (scratch, archive) = (lab.run.subfolder("scratch"), lab.run.subfolder("archive").join("data.tgz"));
    let (mut with, mut without, mut tar, mut walk) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=DATA_ROUNDS {
        for (snapshot, downtimes) in [("on", &mut with), ("off", &mut without)] {
            say(&format!("update with data, {round} of {DATA_ROUNDS}, SNAPSHOT={snapshot}"));
            let settings = [&SETTINGS[..], &[("SNAPSHOT", snapshot)]].concat();
            let updater = Updater::start(program, &lab, &app, &settings);
            let version = format!("1.{round}.{}", u8::from(snapshot == "off"));
            let release = lab.publish(ReleaseSpec::new(&version).image(churns));
            let update = |release: &Published| updater.update(&release.tag).assert_end("committed", &[]);
            downtimes.push(measured(&app, release, update).1);
        }
        say("tar czf, and a walk with a copy of what changed");
        tar.push(timed(|| {
            let done = Command::new("tar").arg("czf").arg(&archive).arg("-C").arg(&folder).arg(".").status();
            // 1: a file changed meanwhile, which it only tells.
            assert!(done.expect("tar").code().is_some_and(|code| code < 2), "tar czf");
        }));
        walk.push(timed(|| tree::walk_and_copy(&folder, CHANGED, &scratch).expect("walking the tree")));
    }
    let (with, without, tar, walk) = (median(with), median(without), median(tar), median(walk));
    let added = with.saturating_sub(without);
    let beside = format!("down {} with, {} without; tar czf {}", ms(with), ms(without), ms(tar));
    table.row("update with 0.7 GB, added downtime", ms(added), &beside, "≤ tar / 20", added * 20 <= tar);
    let beside = format!("walk and copy of 1 %: {}", ms(walk));
    table.row("… beside the least possible", ms(added), &beside, "≤ 3 ×", added <= 3 * walk);
}

fn timed(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

fn longest(samples: &Samples) -> Duration {
    samples.gaps().into_iter().max().expect("a bad release interrupts the application")
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ms(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 0.1 => format!("{:.1} ms", s * 1000.0),
        s => format!("{s:.2} s"),
    }
}

/// What happens right now; the table comes at the end.
fn say(text: &str) {
    eprintln!("bench: {text}");
}

#[derive(Default)]
struct Table(Vec<[String; 5]>);

impl Table {
    fn row(&mut self, what: &str, measured: String, beside: &str, goal: &str, met: bool) {
        let verdict = if met { "met" } else { "MISSED" };
        self.0.push([what.to_owned(), measured, beside.to_owned(), goal.to_owned(), verdict.to_owned()]);
    }

    fn text(&self) -> String {
        let head = ["", "measured", "beside it", "goal", ""].map(str::to_owned);
        let rule = [0; 5].map(|_| "---".to_owned());
        let rows: Vec<&[String; 5]> = [&head, &rule].into_iter().chain(&self.0).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..5).map(width).collect();
        let line = |row: &&[String; 5]| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} |"));
            format!("|{}\n", cells.collect::<String>())
        };
        format!("{}\n{}", machine(), rows.iter().map(line).collect::<String>())
    }
}

/// On what it was measured: ratios travel, seconds do not.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let version = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    let docker = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!("{cores} cores, load {load}, Docker {docker}; medians of {ROUNDS}\n")
}
