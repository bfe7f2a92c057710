//! The laboratory: everything around the updater that is needed to test, show and measure it on a real
//! engine. Nothing here is simulated but GitHub.
//!
//! ```text
//!              ┌──────────── Lab: one run, removed without trace when dropped ────────────┐
//!   publish →  │ Registry (docker-registry)   Signer (cosign)   ReleaseServer ("GitHub")  │
//!              │        ↑ images                                       ↑ releases         │
//!   deploy  →  │ Deployment (Compose project) ←──────────────── Updater (the product)     │
//!              │        ↑ Poller, World: what is seen from outside                        │
//!              └──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`run`]        | one run: its name, its folder, its removal; sweeping what dead runs left |
//! | [`http`]       | blocking requests over one shared runtime |
//! | [`engine`]     | the few questions to Docker's API that tests ask |
//! | [`registry`]   | a private registry |
//! | [`image`]      | images FROM scratch, written by hand |
//! | [`signer`]     | cosign and a key pair |
//! | [`releases`]   | a server that answers like GitHub's releases API, or misbehaves on request |
//! | [`publish`]    | a whole release: image, manifest, signatures, assets |
//! | [`deployment`] | a Compose project with `.env` and siblings |
//! | [`updater`]    | the product, running and answering |
//! | [`process`]    | … as a process of this machine |
//! | [`sidecar`]    | … as a container beside the application |
//! | [`socket_proxy`] | a filter before the engine's socket |
//! | [`tree`]       | data like an application's, for measurements |
//! | [`strace`]     | what a process does to files |
//! | [`power_cut`]  | what of it may be on the disk when the power goes out |
//! | [`load`]       | how many answers a second? |
//! | [`poller`]     | how long was the application away? |
//! | [`world`]      | what must not change, before and after |
//!
//! This is test support: it panics, with the whole story, when the world is not as expected. All calls
//! block; servers and pollers run on a runtime of their own, so tests are plain functions.

pub mod databases;
pub mod deployment;
pub mod engine;
mod forward;
pub mod http;
pub mod image;
pub mod load;
pub mod poller;
pub mod power_cut;
pub mod process;
pub mod publish;
pub mod registry;
pub mod releases;
pub mod run;
mod shared;
pub mod sidecar;
pub mod signer;
pub mod socket_proxy;
pub mod strace;
pub mod tree;
pub mod updater;
pub mod world;
pub mod writer;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use deployment::{AppSpec, Deployment};
use engine::Engine;
use publish::{Published, ReleaseSpec};
use registry::Registry;
use releases::ReleaseServer;
use run::Run;
use signer::Signer;

/// One laboratory, shared with nobody.
pub struct Lab {
    pub registry: Registry,
    pub releases: ReleaseServer,
    pub signer: Signer,
    /// A key that no updater trusts.
    pub stranger: Signer,
    pub engine: Engine,
    /// The address at which containers reach this laboratory's servers, if they can.
    pub gateway: Option<Ipv4Addr>,
    /// Last, because fields are dropped in order: it removes what the others left.
    pub run: Run,
}

impl Lab {
    /// Starts registry and release server, and removes what dead runs left behind.
    pub fn new() -> Self {
        Self::begin("127.0.0.1", None)
    }

    /// Registry and release server are reached by containers in networks of their own, too.
    ///
    /// A registry without TLS must have a loopback name, so `localhost` it is: this machine's own for the
    /// engine, the gateway to this machine in the containers' `/etc/hosts`.
    pub fn for_containers() -> Self {
        let gateway = Engine::connect().gateway();
        let lab = Self::begin("localhost", Some(gateway));
        for address in lab.releases.addresses().into_iter().chain([lab.registry.host.as_str()]) {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
            forward::start((gateway, port), port);
        }
        lab
    }

    fn begin(host: &str, gateway: Option<Ipv4Addr>) -> Self {
        let engine = Engine::connect();
        let run = Run::begin(&engine);
        Self {
            registry: Registry::start(&run, host),
            releases: ReleaseServer::start(host),
            signer: Signer::new(&run.subfolder("signer")),
            stranger: Signer::new(&run.subfolder("stranger")),
            engine,
            gateway,
            run,
        }
    }

    /// Builds, signs and offers a release.
    pub fn publish(&self, spec: ReleaseSpec) -> Published {
        publish::publish(self, spec)
    }

    /// Brings the application up under Compose, running and answering.
    pub fn deploy(&self, spec: AppSpec) -> Deployment {
        Deployment::up(self, spec)
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

/// Asks `found` again and again until it answers, at most `deadline`; panics naming `what` otherwise.
pub fn eventually<T>(what: &str, deadline: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < deadline, "{what}: not seen within {deadline:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sixteen random hexadecimal digits.
pub fn random_hex() -> String {
    format!("{:016x}", random())
}

/// The standard library seeds every hasher anew; that is all the randomness names and ports need.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// A port nobody listens on, outside the range from which the kernel takes ports for connections going
/// out: it stays free while the application is recreated.
pub fn free_port() -> u16 {
    loop {
        let port = 10_000 + (random() % 20_000) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The product, as built beside the program that asks: for `demo` and `bench`; tests know it from Cargo.
pub fn updater_program() -> PathBuf {
    let own = std::env::current_exe().expect("the path of this program");
    let program = own.with_file_name("processgit-updater");
    assert!(program.is_file(), "{} is not built: start ./demo or ./bench, which build it", program.display());
    program
}

/// The static demonstration application, built by `./test`.
pub fn demo_app() -> PathBuf {
    application("demo-app")
}

/// One of the static applications; they lie in one folder.
pub(crate) fn application(name: &str) -> PathBuf {
    let relative = format!("{}-unknown-linux-gnu/release/{name}", std::env::consts::ARCH);
    let own = std::env::current_exe().expect("the path of this program");
    std::env::var_os("LAB_DEMO_APP")
        .map(|demo_app| PathBuf::from(demo_app).with_file_name(name))
        .or_else(|| own.ancestors().map(|folder| folder.join(&relative)).find(|path| path.is_file()))
        .filter(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not built ({relative}): run ./test, which builds it"))
}
