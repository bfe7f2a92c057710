//! What the tests need of the world: the real cosign and openssl, a registry on a loopback port.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use processgit_updater::https::Authorities;
use processgit_updater::settings::Signing;
use processgit_updater::trust::judge::Judge;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
pub const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// The carriers of a row: the end of the asset's name, and its bytes.
pub type Found<'a> = &'a [(&'a str, &'a [u8])];
/// Payloads with their annotations, under cosign's old tag.
pub type Simple = Vec<(Vec<u8>, Value)>;

pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn output(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("COSIGN_PASSWORD", "x")
        .env("HOME", folder)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} does not start ({error}): run ci/lab.sh install"))
}

/// Runs a program to its end and gives back what it printed.
pub fn run(folder: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = output(folder, program, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    output.stdout
}

/// Runs a program that may fail.
pub fn succeeds(folder: &Path, program: &str, arguments: &[&str]) -> bool {
    output(folder, program, arguments).status.success()
}

/// A folder with key pairs and files, and the real cosign working in it.
pub struct Cosign {
    folder: TempDir,
}

/// Where a signature goes: cosign's format today, or the one before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    New,
    Old,
}

impl Cosign {
    pub fn new(keys: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = ["--no-default-fulcio", "--no-default-oidc", "--no-default-rekor", "--no-default-tsa"];
        run(folder.path(), "cosign", &[&["signing-config", "create"][..], &config, &["--out", "sc.json"]].concat());
        for key in keys {
            run(folder.path(), "cosign", &["generate-key-pair", "--output-key-prefix", key]);
        }
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        name.to_owned()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub fn run(&self, arguments: &[&str]) -> Vec<u8> {
        run(self.folder(), "cosign", arguments)
    }

    /// Signs a file; gives back the bundle in cosign's new format, or in the old one with the bare signature.
    pub fn sign_blob(&self, key: &str, file: &str, format: Format) -> (Vec<u8>, Vec<u8>) {
        let key = format!("{key}.key");
        let start = ["sign-blob", "--key", &key, "-y", "--bundle", "out.bundle"];
        match format {
            Format::New => {
                self.run(&[&start[..], &["--signing-config", "sc.json", file]].concat());
                (self.read("out.bundle"), Vec::new())
            }
            Format::Old => {
                self.run(&[&start[..], &OLD, &["--output-signature", "out.sig", file]].concat());
                (self.read("out.bundle"), self.read("out.sig"))
            }
        }
    }

    pub fn sign_image(&self, key: &str, image: &str, format: Format) {
        let key = format!("{key}.key");
        let start = ["sign", "--key", &key, "-y", "--allow-http-registry"];
        let format: &[&str] = if format == Format::New { &["--signing-config", "sc.json"] } else { &OLD };
        self.run(&[&start[..], format, &[image]].concat());
    }
}

const OLD: [&str; 3] = ["--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false"];

/// The judge of an operator who pinned `key`.
pub async fn pinned(key: PathBuf) -> Judge {
    let signing = Signing {
        key: Some(key),
        issuer: String::new(),
        identity_regex: String::new(),
        trusted_root: None,
        refreshed_root: None,
        verify_image: false,
    };
    Judge::from_settings(&signing, &Authorities::default()).await.unwrap()
}

/// docker-registry on a loopback port of its own choice, gone with this value.
pub struct Registry {
    child: Child,
    pub address: String,
    http: reqwest::Client,
    _config: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yml");
        std::fs::write(&config, "version: 0.1\nstorage: {inmemory: {}}\nhttp: {addr: '127.0.0.1:0'}\n").unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("docker-registry does not start ({error}): run ci/lab.sh install"));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("listening on ")?.1.split(['"', ' ']).next()?.to_owned()))
            .expect("docker-registry says where it listens");
        // It would block once nobody reads what it says.
        std::thread::spawn(move || lines.map_while(Result::ok).count());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { child, address, http, _config: folder }
    }

    fn url(&self, repository: &str, rest: &str) -> String {
        format!("http://{}/v2/{repository}/{rest}", self.address)
    }

    pub async fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let opened = self.http.post(self.url(repository, "blobs/uploads/")).send().await.unwrap();
        let mut place = url::Url::parse(opened.headers()["location"].to_str().unwrap()).unwrap();
        place.query_pairs_mut().append_pair("digest", &digest);
        let put = self.http.put(place).body(bytes.to_vec()).send().await.unwrap();
        assert!(put.status().is_success(), "{}", put.status());
        digest
    }

    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: Option<&str>,
        media_type: &str,
        json: &Value,
    ) -> String {
        let body = json.to_string();
        let digest = sha256(body.as_bytes());
        let url = self.url(repository, &format!("manifests/{}", reference.unwrap_or(&digest)));
        let put = self.http.put(url).header("content-type", media_type).body(body).send().await.unwrap();
        assert!(put.status().is_success(), "{}: {}", put.status(), put.text().await.unwrap());
        digest
    }

    /// A tiny image that differs by `content`; gives back its digest.
    pub async fn push_image(&self, repository: &str, content: &str) -> String {
        let config = self.put_blob(repository, content.as_bytes()).await;
        let config =
            json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": content.len()});
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
        self.put_manifest(repository, Some("1.0"), MANIFEST, &manifest).await
    }

    async fn put_layers(
        &self,
        repository: &str,
        tag: Option<&str>,
        layers: &[(&str, &[u8], Value)],
    ) -> (String, usize) {
        let config = self.put_blob(repository, b"{}").await;
        let mut list = Vec::new();
        for (media_type, bytes, annotations) in layers {
            let digest = self.put_blob(repository, bytes).await;
            list.push(
                json!({"mediaType": media_type, "digest": digest, "size": bytes.len(), "annotations": annotations}),
            );
        }
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2});
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": list});
        (self.put_manifest(repository, tag, MANIFEST, &manifest).await, manifest.to_string().len())
    }

    /// Attaches bundles to `digest` as cosign 3 does without a referrers API, wrong artifact type included.
    pub async fn push_bundles(&self, repository: &str, digest: &str, bundles: &[Vec<u8>]) {
        let mut listed = Vec::new();
        for bundle in bundles {
            let (manifest, size) = self.put_layers(repository, None, &[(BUNDLE, bundle, json!({}))]).await;
            let kind = "application/vnd.oci.empty.v1+json";
            listed.push(json!({"mediaType": MANIFEST, "digest": manifest, "size": size, "artifactType": kind}));
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed});
        self.put_manifest(repository, Some(&digest.replace(':', "-")), INDEX, &index).await;
    }

    /// Attaches payloads with their annotations under cosign's old tag.
    pub async fn push_simple(&self, repository: &str, digest: &str, signatures: &[(Vec<u8>, Value)]) {
        let layers: Vec<_> = signatures.iter().map(|(p, a)| (SIMPLE, p.as_slice(), a.clone())).collect();
        self.put_layers(repository, Some(&format!("{}.sig", digest.replace(':', "-"))), &layers).await;
    }

    async fn get(&self, repository: &str, rest: &str) -> Vec<u8> {
        let accept = format!("{MANIFEST}, {INDEX}");
        let got = self.http.get(self.url(repository, rest)).header("accept", accept).send().await.unwrap();
        assert!(got.status().is_success(), "{rest}: {}", got.status());
        got.bytes().await.unwrap().to_vec()
    }

    pub async fn get_manifest(&self, repository: &str, reference: &str) -> Value {
        serde_json::from_slice(&self.get(repository, &format!("manifests/{reference}")).await).unwrap()
    }

    /// The bundles cosign has attached to `digest`.
    pub async fn bundles(&self, repository: &str, digest: &str) -> Vec<Vec<u8>> {
        let index = self.get_manifest(repository, &digest.replace(':', "-")).await;
        let mut found = Vec::new();
        for entry in index["manifests"].as_array().unwrap() {
            let manifest = self.get_manifest(repository, entry["digest"].as_str().unwrap()).await;
            let blob = manifest["layers"][0]["digest"].as_str().unwrap();
            found.push(self.get(repository, &format!("blobs/{blob}")).await);
        }
        found
    }

    /// The payload and annotations of the first signature under the old tag of `digest`.
    pub async fn simple(&self, repository: &str, digest: &str) -> (Vec<u8>, Value) {
        let manifest = self.get_manifest(repository, &format!("{}.sig", digest.replace(':', "-"))).await;
        let layer = &manifest["layers"][0];
        let payload = self.get(repository, &format!("blobs/{}", layer["digest"].as_str().unwrap())).await;
        (payload, layer["annotations"].clone())
    }
}

/// The carriers of a release, as a table names them.
pub fn carriers(list: Found<'_>) -> BTreeMap<String, bytes::Bytes> {
    list.iter().map(|(name, bytes)| (format!("release.json{name}"), bytes.to_vec().into())).collect()
}

/// One change of a JSON document, by pointer.
pub fn with(document: &[u8], pointer: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(document).unwrap();
    change(json.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer} in {document:?}")));
    json.to_string().into_bytes()
}

/// The base64 text with the `at`th byte of what it encodes flipped (from the end when negative).
pub fn flip(base64_text: &str, at: isize) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let mut bytes = BASE64_STANDARD.decode(base64_text.trim()).unwrap();
    let index = if at < 0 { bytes.len().strict_sub(at.unsigned_abs()) } else { at.unsigned_abs() };
    bytes[index] ^= 1;
    BASE64_STANDARD.encode(bytes)
}

#[derive(Clone, Default)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Without an Authorization header the answer is 401 and this challenge.
    challenge: Option<String>,
}

/// A certificate authority for servers that nobody else knows.
pub struct Ca {
    key: rcgen::KeyPair,
    params: rcgen::CertificateParams,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        // A name of its own: two of one name would be told apart by a signature only.
        params.distinguished_name.push(rcgen::DnType::CommonName, sha256(&key.serialize_der()));
        Self { key, params }
    }

    pub fn pem(&self) -> String {
        self.params.self_signed(&self.key).unwrap().pem()
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let leaf = rcgen::CertificateParams::new(["0.0.0.0".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        acceptor(&leaf, &key)
    }
}

fn acceptor(leaf: &rcgen::Certificate, key: &rcgen::KeyPair) -> TlsAcceptor {
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![leaf.der().clone()], secret).unwrap()))
}

struct TlsListener {
    tcp: tokio::net::TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tcp.accept().await.unwrap();
            // Clients that do not believe us break off here.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// A server that answers what it was told, by path, and 404 to everything else.
pub struct Stub {
    pub address: String,
    scheme: &'static str,
    replies: Arc<Mutex<BTreeMap<String, Reply>>>,
    /// Given once each, before what was told for the path.
    first: Arc<Mutex<BTreeMap<String, VecDeque<Reply>>>>,
    /// Every request: path with query, and the Authorization header.
    pub asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Stub {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self::on(listener, address, "http")
    }

    /// At an address that is this machine's and no loopback address to us.
    pub async fn start_anywhere() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("0.0.0.0:{}", listener.local_addr().unwrap().port());
        Self::on(listener, address, "http")
    }

    /// Behind a certificate by `ca`, at an address that is this machine's and no loopback address to us:
    /// loopback registries are asked over plain http.
    pub async fn over_tls(ca: &Ca) -> Self {
        Self::accepting(ca.acceptor()).await
    }

    /// As [`Stub::over_tls`], but the certificate is that of a CA which has signed itself: what `openssl req -x509`
    /// makes.
    pub async fn as_authority() -> Self {
        let mut params = rcgen::CertificateParams::new(["0.0.0.0".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self::accepting(acceptor(&params.self_signed(&key).unwrap(), &key)).await
    }

    async fn accepting(acceptor: TlsAcceptor) -> Self {
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("0.0.0.0:{}", tcp.local_addr().unwrap().port());
        Self::on(TlsListener { tcp, acceptor }, address, "https")
    }

    fn on<L>(listener: L, address: String, scheme: &'static str) -> Self
    where
        L: axum::serve::Listener,
        L::Addr: std::fmt::Debug,
    {
        let replies: Arc<Mutex<BTreeMap<String, Reply>>> = Arc::default();
        let first: Arc<Mutex<BTreeMap<String, VecDeque<Reply>>>> = Arc::default();
        let asked: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let (told, once, seen) = (replies.clone(), first.clone(), asked.clone());
        let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let authorization = request.headers().get("authorization").map_or("", |v| v.to_str().unwrap()).to_owned();
            seen.lock().unwrap().push((request.uri().to_string(), authorization.clone()));
            let absent = Reply { status: 404, ..Reply::default() };
            let path = request.uri().path();
            let queued = once.lock().unwrap().get_mut(path).and_then(VecDeque::pop_front);
            let reply = queued.or_else(|| told.lock().unwrap().get(path).cloned()).unwrap_or(absent);
            async move {
                let answer = axum::http::Response::builder();
                if let Some(challenge) = reply.challenge.filter(|_| authorization.is_empty()) {
                    return answer.status(401).header("www-authenticate", challenge).body(Vec::new().into()).unwrap();
                }
                let answer = reply.headers.into_iter().fold(answer.status(reply.status), |a, (k, v)| a.header(k, v));
                answer.body::<axum::body::Body>(reply.body.into()).unwrap()
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, scheme, replies, first, asked }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    fn put(&self, path: &str, reply: Reply) {
        self.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    pub fn answer(&self, path: &str, kind: &str, body: impl Into<Vec<u8>>) {
        let headers = vec![("content-type".to_owned(), kind.to_owned())];
        self.put(path, Reply { status: 200, headers, body: body.into(), challenge: None });
    }

    pub fn reply(&self, path: &str, status: u16, headers: &[(&str, &str)], body: &str) {
        let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.put(path, Reply { status, headers, body: body.into(), challenge: None });
    }

    /// One answer before all others.
    pub fn first(&self, path: &str, status: u16, headers: &[(&str, &str)], body: &str) {
        let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let reply = Reply { status, headers, body: body.into(), challenge: None };
        self.first.lock().unwrap().entry(path.to_owned()).or_default().push_back(reply);
    }

    pub fn guard(&self, path: &str, challenge: &str, body: String) {
        let challenge = Some(challenge.to_owned());
        self.put(path, Reply { status: 200, headers: Vec::new(), body: body.into(), challenge });
    }

    pub fn body(&self, path: &str) -> Vec<u8> {
        self.replies.lock().unwrap()[path].body.clone()
    }

    pub fn forget(&self, path: &str) {
        self.replies.lock().unwrap().remove(path);
    }

    /// Attaches bundles to `digest` as a registry with the referrers API does; gives back the blobs' paths.
    pub fn attach(&self, repository: &str, digest: &str, bundles: &[&[u8]]) -> Vec<String> {
        let put = |kind: &str, group: &str, bytes: &[u8]| {
            let digest = sha256(bytes);
            self.answer(&format!("/v2/{repository}/{group}/{digest}"), kind, bytes);
            digest
        };
        let (mut listed, mut paths) = (Vec::new(), Vec::new());
        for bundle in bundles {
            let blob = put("application/octet-stream", "blobs", bundle);
            paths.push(format!("/v2/{repository}/blobs/{blob}"));
            let layer = json!({"mediaType": BUNDLE, "digest": blob, "size": bundle.len()});
            let manifest =
                json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE, "layers": [layer]});
            let manifest = put(MANIFEST, "manifests", manifest.to_string().as_bytes());
            listed.push(json!({"mediaType": MANIFEST, "digest": manifest, "artifactType": BUNDLE}));
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed});
        self.answer(&format!("/v2/{repository}/referrers/{digest}"), INDEX, index.to_string());
        paths
    }
}
