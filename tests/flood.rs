//! An update, the health route and a good client while thousands of others hold connections, against the real
//! program. `UPDATER_FLOOD` names how many; this process must be allowed to open as many files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lab::releases::{Offer, REPO, ReleaseServer};
use lab::signer::Signer;
use lab::{eventually, free_port};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const TOKEN: &str = "0123456789abcdef";
/// How long the flood lasts at least.
const FLOOD: Duration = Duration::from_secs(8);
/// The most memory: with the pages of the program itself it stays under the 32 MiB that a sidecar may be limited to.
const MEMORY_KIB: u64 = 20 * 1024;

/// The program in stub mode, with a release on offer.
struct Updater {
    process: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
    _releases: ReleaseServer,
}

impl Updater {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::new(folder.path());
        let releases = ReleaseServer::start("127.0.0.1");
        let manifest = manifest().to_string().into_bytes();
        let signature = signer.signature(&manifest);
        releases.offer(Offer {
            tag: "v1.1.0".into(),
            assets: vec![("release.json".into(), manifest.into()), ("release.json.sig".into(), signature.into())],
            ..Offer::default()
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let state = folder.path().join("state");
        let env_file = folder.path().join(".env");
        std::fs::write(&env_file, "DEMO_VERSION=1.0.0\n").unwrap();
        let settings = [
            ("TOKEN", TOKEN.to_owned()),
            ("LISTEN", address.to_string()),
            ("STATE_DIR", state.display().to_string()),
            ("ENV_FILE", env_file.display().to_string()),
            ("REPO", REPO.to_owned()),
            ("GITHUB_API", releases.url()),
            ("APP_NAME", "demo".to_owned()),
            ("VERSION_KEY", "DEMO_VERSION".to_owned()),
            ("SIGNING_KEY", signer.public_key().display().to_string()),
            ("HEALTH_STABLE", format!("{}s", FLOOD.as_secs() / 2)),
            ("STUB", "true".to_owned()),
        ];
        let settings = settings.map(|(name, value)| (format!("PROCESSGIT_UPDATER_{name}"), value));
        let program = env!("CARGO_BIN_EXE_processgit-updater");
        let process = Command::new(program).envs(settings).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let updater = Self { process, address, _folder: folder, _releases: releases };
        eventually("an answer of /healthz", Duration::from_secs(20), || updater.ask("GET", "/healthz", None).ok());
        updater
    }

    /// What is answered, and after how long. Who loses the connection asks again, as clients do.
    fn insist(&self, path: &str) -> (Value, Duration) {
        let begun = Instant::now();
        let answer = eventually(path, Duration::from_secs(20), || self.ask("GET", path, None).ok());
        (answer, begun.elapsed())
    }

    /// One request over a connection of its own.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, reqwest::Error> {
        let request = lab::http::client().request(method.parse().unwrap(), format!("http://{}{path}", self.address));
        let request = if path == "/healthz" { request } else { request.bearer_auth(TOKEN) };
        let request = request.header("connection", "close").body(body.map(Value::to_string).unwrap_or_default());
        lab::http::send(request).map(|answer| answer.json())
    }

    /// Resident memory that is no part of a file: the pages of an unoptimized program say nothing.
    fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }
}

impl Drop for Updater {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn manifest() -> Value {
    json!({
        "schema_version": 1, "name": "demo", "version": "1.1.0", "tag": "v1.1.0",
        "released_at": "2026-01-01T00:00:00Z", "prerelease": false, "min_upgrade_from": null,
        "image": {
            "registry": "registry.example", "repository": "demo/app", "tag": "1.1.0",
            "digest": format!("sha256:{:0>64}", "1"), "platforms": ["linux/amd64", "linux/arm64"],
        },
        "signing": {"method": "cosign-keyless", "issuer": "https://issuer.example", "identity_regex": "^x$"},
        "release_notes_url": "https://example.invalid/",
        "migration": {"required": false}, "breaking_changes": [], "deprecations": [],
    })
}

/// What a hostile connection does.
#[derive(Clone, Copy)]
enum Does {
    /// Nothing at all.
    Silent,
    /// A request that is never finished.
    HalfOpen,
    /// The same, a byte at a time.
    Drips,
    /// Asks, with a wrong token, and keeps the connection.
    Guesses,
    /// Asks for `/healthz`, and keeps the connection.
    Healthz,
    /// Asks, and never reads.
    Deaf,
}

const ALL: [Does; 6] = [Does::Silent, Does::HalfOpen, Does::Drips, Does::Guesses, Does::Healthz, Does::Deaf];

async fn misbehave(does: Does, mut stream: TcpStream) -> std::io::Result<()> {
    let head = b"GET /status HTTP/1.1\r\nHost: x\r\nX-Slow: ";
    match does {
        Does::Silent => {}
        Does::HalfOpen => stream.write_all(head).await?,
        Does::Drips => {
            for byte in head.iter().cycle().take(2000) {
                stream.write_all(&[*byte]).await?;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Does::Guesses => stream.write_all(b"GET /status HTTP/1.1\r\nAuthorization: Bearer wrong\r\n\r\n").await?,
        Does::Healthz => stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await?,
        Does::Deaf => {
            stream.write_all(&b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100)).await?;
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
    }
    // Until it is thrown out; then the connection is kept half-closed for a while, as a hostile client would.
    let mut answers = [0; 512];
    while stream.read(&mut answers).await? > 0 {}
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

/// In a runtime of its own, so that good clients are not held up by the bad ones beside them.
struct Flood {
    runtime: Option<tokio::runtime::Runtime>,
    made: Arc<AtomicUsize>,
}

impl Flood {
    /// Many connections from many addresses, a tenth of them from one; who is thrown out comes again.
    fn begin(target: SocketAddr, connections: usize) -> Self {
        let made = Arc::new(AtomicUsize::new(0));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        for number in 0..connections {
            let made = made.clone();
            let [high, low] = (number as u16).to_be_bytes();
            let source = if number % 10 == 0 { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(127, 1 + high, low, 1) };
            runtime.spawn(async move {
                // In batches: the flood must not drown this machine, only the program.
                tokio::time::sleep(Duration::from_millis(number as u64 / 4)).await;
                loop {
                    let socket = TcpSocket::new_v4().unwrap();
                    let bound = socket.bind(SocketAddr::from((source, 0)));
                    if bound.is_ok()
                        && let Ok(stream) = socket.connect(target).await
                    {
                        made.fetch_add(1, Relaxed);
                        let _ = misbehave(ALL[number % ALL.len()], stream).await;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
        Self { runtime: Some(runtime), made }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[test]
fn a_flood_of_connections_hinders_nobody() {
    let connections = std::env::var("UPDATER_FLOOD").map_or(2000, |count| count.parse().unwrap());
    let files = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files }).unwrap();
    assert!(files.is_none_or(|files| files > connections as u64 + 200), "this process may open {files:?} files only");
    let updater = Updater::start();
    let flood = Flood::begin(updater.address, connections);
    eventually("all hostile connections", Duration::from_secs(60), || {
        (flood.made.load(Relaxed) >= connections).then_some(())
    });

    let begun = Instant::now();
    let accepted = updater.ask("POST", "/update", Some(&json!({"target_tag": "v1.1.0"}))).unwrap();
    let path = format!("/update/{}", accepted["job_id"].as_str().unwrap_or_else(|| panic!("{accepted}")));
    let (mut healthz, mut good, mut memory, mut files) = (Duration::ZERO, Duration::ZERO, 0, 0);
    let job = loop {
        let (health, waited) = updater.insist("/healthz");
        assert_eq!(health["status"], "ok");
        healthz = healthz.max(waited);
        let (job, waited) = updater.insist(&path);
        good = good.max(waited);
        (memory, files) = (memory.max(updater.memory_kib()), files.max(updater.open_files()));
        let has_ended = ["committed", "rolled_back", "failed"].iter().any(|end| job["state"] == *end);
        if has_ended && begun.elapsed() > FLOOD {
            break job;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let made = flood.made.load(Relaxed);
    eprintln!("{made} connections: /healthz {healthz:?}, a good client {good:?}, {memory} KiB, {files} open files");
    assert_eq!(job["state"], "committed", "{job:#}");
    assert!(healthz < Duration::from_secs(1), "/healthz took {healthz:?}");
    assert!(good < Duration::from_secs(3), "a client with the token took {good:?}");
    assert!(memory < MEMORY_KIB, "{memory} KiB");
    assert!(files < 2048 + 200, "{files} open files");
}
