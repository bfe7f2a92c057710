//! A private registry: docker-registry on a random loopback port, which engines trust without TLS.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::http::{self, Answer};
use crate::image::{self, Blob, ImageSpec};
use crate::run::Run;

pub struct Registry {
    process: Child,
    /// `127.0.0.1:PORT`
    pub host: String,
    run_label: String,
}

/// An image in the registry.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// `127.0.0.1:PORT`
    pub registry: String,
    /// `demo/app`
    pub repository: String,
    /// Of the manifest, or of the index where there is one.
    pub digest: String,
}

impl Pushed {
    /// `registry/repository`
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `registry/repository@sha256:…`
    pub fn reference(&self) -> String {
        format!("{}@{}", self.name(), self.digest)
    }
}

impl Registry {
    /// Listens on loopback, and is called `name`.
    pub fn start(run: &Run, name: &str) -> Self {
        let folder = run.subfolder("registry");
        let (config, log) = (folder.join("config.json"), folder.join("log"));
        let settings = json!({
            "version": 0.1,
            "log": { "level": "info", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": folder.join("blobs") }, "delete": { "enabled": true } },
            "http": { "addr": "127.0.0.1:0" },
        });
        fs::write(&config, settings.to_string()).expect("writing the registry's settings");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("the registry's log"))
            .spawn()
            .unwrap_or_else(|e| panic!("docker-registry cannot be started ({e}): run ci/lab.sh up"));
        let host = crate::eventually("the registry's port in its log", Duration::from_secs(20), || {
            let text = fs::read_to_string(&log).ok()?;
            let (host, _) = text.split_once("listening on 127.0.0.1")?.1.split_once('"')?;
            Some(format!("{name}{host}"))
        });
        Self { process, host, run_label: run.id.clone() }
    }

    fn call(&self, method: Method, url: &str, content_type: &str, body: Vec<u8>) -> Answer {
        let request = http::client().request(method.clone(), url).header("Content-Type", content_type).body(body);
        http::send(request).unwrap_or_else(|e| panic!("the registry does not answer {method} {url}: {e:?}"))
    }

    /// Builds the image and pushes it under `tag`.
    pub fn push(&self, repository: &str, tag: &str, spec: &ImageSpec) -> Pushed {
        let layers = [image::program_layer(spec.program).clone(), image::version_layer(spec)];
        let config = image::config(spec, &layers, &self.run_label);
        for blob in layers.iter().chain([&config]) {
            self.push_blob(repository, blob);
        }
        let manifest = image::manifest(&config, &layers);
        let digest = if spec.index {
            self.push_manifest(repository, &manifest.digest, &manifest);
            let index = image::index(&manifest, &spec.platform);
            self.push_manifest(repository, tag, &index);
            index.digest
        } else {
            self.push_manifest(repository, tag, &manifest);
            manifest.digest
        };
        Pushed { registry: self.host.clone(), repository: repository.to_owned(), digest }
    }

    fn push_blob(&self, repository: &str, blob: &Blob) {
        let base = format!("http://{}/v2/{repository}/blobs", self.host);
        let known = self.call(Method::HEAD, &format!("{base}/{}", blob.digest), "text/plain", Vec::new());
        if known.status == 200 {
            return;
        }
        let begun = self.call(Method::POST, &format!("{base}/uploads/"), "text/plain", Vec::new());
        let place = begun.expect_status(&[202], "beginning an upload").header("location").expect("a place").to_owned();
        let url = format!("{place}&digest={}", blob.digest);
        self.call(Method::PUT, &url, "application/octet-stream", blob.bytes.to_vec())
            .expect_status(&[201], "uploading");
    }

    fn push_manifest(&self, repository: &str, reference: &str, manifest: &Blob) {
        let url = format!("http://{}/v2/{repository}/manifests/{reference}", self.host);
        self.call(Method::PUT, &url, manifest.media_type, manifest.bytes.to_vec())
            .expect_status(&[201], "pushing a manifest");
    }

    /// The tags of a repository; signatures are among them.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let url = format!("http://{}/v2/{repository}/tags/list", self.host);
        let answer = self.call(Method::GET, &url, "text/plain", Vec::new()).json();
        let tags = answer["tags"].as_array().cloned().unwrap_or_default();
        tags.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// The registry forgets the image: nobody can pull it any more.
    pub fn forget(&self, image: &Pushed) {
        let url = format!("http://{}/v2/{}/manifests/{}", self.host, image.repository, image.digest);
        self.call(Method::DELETE, &url, "text/plain", Vec::new()).expect_status(&[202], "deleting a manifest");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
