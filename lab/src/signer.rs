//! The real cosign with a key pair of its own. No transparency log: there is no internet here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::engine::must_run;

/// Where the signature of an image lies in its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The tag `sha256-<hex>.sig` of cosign 1 and 2.
    Tag,
    /// A bundle that refers to the image, as cosign 3 does.
    Referrer,
}

/// The older carriers, and no service of the public Sigstore.
const OLD: [&str; 3] = ["--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false"];

pub struct Signer {
    folder: PathBuf,
    keys: OnceLock<()>,
}

impl Signer {
    /// Keeps its keys in `folder`; they are made when first needed.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), keys: OnceLock::new() }
    }

    fn cosign(&self) -> Command {
        let mut command = Command::new("cosign");
        command.current_dir(&self.folder).env("COSIGN_PASSWORD", "laboratory").env("HOME", &self.folder);
        command
    }

    fn with_keys(&self) -> Command {
        self.keys.get_or_init(|| {
            let no_services = ["--no-default-fulcio", "--no-default-oidc", "--no-default-rekor", "--no-default-tsa"];
            must_run(self.cosign().args(["signing-config", "create", "--out", "services.json"]).args(no_services));
            must_run(self.cosign().arg("generate-key-pair"));
        });
        self.cosign()
    }

    /// The file with the PEM public key.
    pub fn public_key(&self) -> PathBuf {
        self.with_keys();
        self.folder.join("cosign.pub")
    }

    fn sign_file(&self, bytes: &[u8], options: &[&str], result: &str) -> Vec<u8> {
        let mut command = self.with_keys();
        let file = self.folder.join("blob");
        fs::write(&file, bytes).expect("writing what is to be signed");
        must_run(command.args(["sign-blob", "--key", "cosign.key", "-y"]).args(options).arg(&file));
        fs::read(self.folder.join(result)).expect("reading the signature")
    }

    /// The content of `release.json.sig`.
    pub fn signature(&self, bytes: &[u8]) -> Vec<u8> {
        self.sign_file(bytes, &[OLD.as_slice(), &["--output-signature", "blob.sig"]].concat(), "blob.sig")
    }

    /// The content of `release.json.sigstore.json`.
    pub fn bundle(&self, bytes: &[u8]) -> Vec<u8> {
        self.sign_file(bytes, &["--signing-config", "services.json", "--bundle", "blob.json"], "blob.json")
    }

    /// Signs `registry/repository@sha256:…`; the signature goes to the registry.
    pub fn image(&self, reference: &str, layout: Layout) {
        let mut command = self.with_keys();
        command.args(["sign", "--key", "cosign.key", "--allow-http-registry", "-y"]);
        match layout {
            Layout::Tag => command.args(OLD),
            Layout::Referrer => command.args(["--signing-config", "services.json"]),
        };
        must_run(command.arg(reference));
    }
}
