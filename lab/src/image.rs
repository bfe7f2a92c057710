//! Images FROM scratch, written by hand: a config, two layers and a manifest are a few hundred bytes of
//! JSON and two tar files, made faster than any builder starts.

use std::fs;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::run::LABEL;

/// What an image of the demonstration application is made of.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    pub version: String,
    /// See the demonstration application: `good`, `crash`, `slow:2` …
    pub behaviour: String,
    /// What is in it.
    pub program: Program,
    /// More of its environment.
    pub env: Vec<(String, String)>,
    /// The program that is started.
    pub entrypoint: String,
    /// CMD, its arguments.
    pub command: Vec<String>,
    /// As Docker's image config has it (durations in nanoseconds).
    pub healthcheck: Option<Value>,
    /// VOLUME: paths for which Compose makes anonymous volumes.
    pub volumes: Vec<String>,
    /// `linux/amd64`: claimed, whatever the program is.
    pub platform: String,
    /// The tag names an index of one platform, as `docker buildx` pushes it.
    pub index: bool,
    /// Bytes of noise in the version's own layer.
    pub ballast: usize,
}

impl ImageSpec {
    pub fn new(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            behaviour: "good".to_owned(),
            program: Program::DemoApp,
            env: Vec::new(),
            entrypoint: "/demo-app".to_owned(),
            command: Vec::new(),
            healthcheck: None,
            volumes: Vec::new(),
            platform: own_platform(),
            index: false,
            ballast: 16 * 1024,
        }
    }

    /// The application with its data in PostgreSQL. It knows this schema.
    pub fn notes(version: &str, schema: u32) -> Self {
        Self {
            program: Program::NotesApp,
            entrypoint: "/notes-app".to_owned(),
            env: vec![("SCHEMA".to_owned(), schema.to_string())],
            ..Self::new(version)
        }
    }
}

/// One of the applications in `lab/demo-app`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    DemoApp,
    /// Its data is in PostgreSQL.
    NotesApp,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::DemoApp => "demo-app",
            Self::NotesApp => "notes-app",
        }
    }
}

/// `linux/amd64` here.
pub fn own_platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// Bytes with a digest, as registries keep them.
#[derive(Debug, Clone)]
pub struct Blob {
    pub media_type: &'static str,
    pub bytes: Arc<[u8]>,
    pub digest: String,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        Self { media_type, bytes: bytes.into(), digest }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The program alone: the same bytes in every image of it, so engines fetch it once.
pub(crate) fn program_layer(program: Program) -> &'static Blob {
    fn layer(program: Program) -> Blob {
        let path = crate::application(program.name());
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Blob::new(LAYER, tar(program.name(), 0o755, &bytes))
    }
    static DEMO_APP: LazyLock<Blob> = LazyLock::new(|| layer(Program::DemoApp));
    static NOTES_APP: LazyLock<Blob> = LazyLock::new(|| layer(Program::NotesApp));
    match program {
        Program::DemoApp => &DEMO_APP,
        Program::NotesApp => &NOTES_APP,
    }
}

/// A file of noise: no two images share it, so every update has something to fetch.
pub(crate) fn version_layer(spec: &ImageSpec) -> Blob {
    let mut noise = crate::random() | 1;
    let text: Vec<u8> = (0..spec.ballast)
        .map(|_| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            (noise >> 56) as u8
        })
        .collect();
    Blob::new(LAYER, tar("ballast", 0o644, &text))
}

pub(crate) fn config(spec: &ImageSpec, layers: &[Blob], run: &str) -> Blob {
    let (os, architecture) = spec.platform.split_once('/').expect("a platform is os/architecture[/variant]");
    let (architecture, variant) = architecture.split_once('/').unwrap_or((architecture, ""));
    let own = [("APP_VERSION", spec.version.as_str()), ("BEHAVIOUR", spec.behaviour.as_str())];
    let more = spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let env: Vec<String> = own.into_iter().chain(more).map(|(name, value)| format!("{name}={value}")).collect();
    let mut config = json!({
        "Entrypoint": [spec.entrypoint],
        "Cmd": spec.command,
        "Env": env,
        "Labels": { "org.opencontainers.image.version": spec.version, LABEL: run },
    });
    if let Some(healthcheck) = &spec.healthcheck {
        config["Healthcheck"] = healthcheck.clone();
    }
    if !spec.volumes.is_empty() {
        config["Volumes"] = spec.volumes.iter().map(|path| (path.clone(), json!({}))).collect();
    }
    let mut value = json!({
        "os": os,
        "architecture": architecture,
        "created": "2026-01-01T00:00:00Z",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| &layer.digest).collect::<Vec<_>>() },
    });
    if !variant.is_empty() {
        value["variant"] = json!(variant);
    }
    Blob::json(CONFIG, &value)
}

pub(crate) fn manifest(config: &Blob, layers: &[Blob]) -> Blob {
    let layers: Vec<Value> = layers.iter().map(Blob::descriptor).collect();
    let value = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(), "layers": layers });
    Blob::json(MANIFEST, &value)
}

pub(crate) fn index(manifest: &Blob, platform: &str) -> Blob {
    let (os, architecture) = platform.split_once('/').expect("a platform is os/architecture");
    let mut entry = manifest.descriptor();
    entry["platform"] = json!({ "os": os, "architecture": architecture });
    Blob::json(INDEX, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] }))
}

/// A tar file with one file in it.
fn tar(name: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut header = [0u8; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}\0"));
    put(108, "0000000\0"); // owner
    put(116, "0000000\0"); // group
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0"); // time
    put(148, "        "); // the checksum counts itself as spaces
    put(156, "0"); // a plain file
    put(257, "ustar\x0000");
    let checksum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{checksum:06o}\0 ").as_bytes());
    let padding = content.len().next_multiple_of(BLOCK) - content.len();
    [&header[..], content, &vec![0; padding], &[0; 2 * BLOCK]].concat()
}
