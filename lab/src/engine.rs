//! The few questions to Docker's API that tests ask. The product has its own, better client; this one
//! shares no code with it, so that a fault there cannot hide itself here.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::{Client, Method, Url};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::eventually;
use crate::http::{self, Answer};

#[derive(Clone)]
pub struct Engine {
    client: Client,
    socket: PathBuf,
}

impl Engine {
    /// The engine that `docker` would talk to; it must be on this machine.
    pub fn connect() -> Self {
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
        let socket = host.strip_prefix("unix://").unwrap_or_else(|| {
            panic!("DOCKER_HOST={host}: the laboratory needs an engine on this machine, unix:///path")
        });
        let client = Client::builder().unix_socket(PathBuf::from(socket)).build().expect("a client of the engine");
        let engine = Self { client, socket: socket.into() };
        engine.call(Method::GET, "/_ping", &[]).expect_status(&[200], "asking the engine");
        engine
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends the engine with this signal and waits until the next one answers. Only for one of one's own:
    /// whoever started it starts it again, and names the file with its process in `UPDATER_LAB_ENGINE_PID`.
    pub fn restart(&self, signal: Signal) {
        let file = std::env::var("UPDATER_LAB_ENGINE_PID").expect("a second engine: ci/second-engine.sh");
        let pid = || std::fs::read_to_string(&file).ok()?.trim().parse().ok().and_then(Pid::from_raw);
        let old = pid().expect("the engine's process");
        kill_process(old, signal).expect("ending the engine");
        eventually("another engine", Duration::from_secs(90), || {
            pid().filter(|pid| *pid != old)?;
            let ping = self.client.get("http://engine/_ping");
            http::send(ping).ok().filter(|answer| answer.status == 200)
        });
    }

    fn call(&self, method: Method, path: &str, query: &[(&str, &str)]) -> Answer {
        let url = Url::parse_with_params(&format!("http://engine{path}"), query).expect("a well-formed path");
        http::send(self.client.request(method.clone(), url))
            .unwrap_or_else(|e| panic!("the Docker engine does not answer {method} {path} ({e:?}): run ci/lab.sh up"))
    }

    /// `None` when it does not exist.
    fn find(&self, path: &str) -> Option<Value> {
        let answer = self.call(Method::GET, path, &[]);
        (answer.status != 404).then(|| answer.expect_status(&[200], path).json())
    }

    fn list(&self, path: &str, label: &str) -> Vec<Value> {
        let filters = json!({ "label": [label] }).to_string();
        // With containerd's store an engine answers 404 while somebody removes an image from the list.
        let answer = eventually(path, Duration::from_secs(20), || {
            let answer = self.call(Method::GET, path, &[("all", "true"), ("filters", &filters)]);
            (answer.status != 404).then_some(answer)
        });
        let answer = answer.expect_status(&[200], path).json();
        let list = if path == "/volumes" { answer["Volumes"].clone() } else { answer };
        list.as_array().cloned().unwrap_or_default()
    }

    /// By name or id, as inspected.
    pub fn container(&self, name: &str) -> Option<Value> {
        self.find(&format!("/containers/{name}/json"))
    }

    /// By id, tag or digest, as inspected.
    pub fn image(&self, reference: &str) -> Option<Value> {
        self.find(&format!("/images/{reference}/json"))
    }

    /// Running or not. `label` is `name` or `name=value`, here and below.
    pub fn containers(&self, label: &str) -> Vec<Value> {
        self.list("/containers/json", label)
    }

    pub fn images(&self, label: &str) -> Vec<Value> {
        self.list("/images/json", label)
    }

    pub fn networks(&self, label: &str) -> Vec<Value> {
        self.list("/networks", label)
    }

    pub fn volumes(&self, label: &str) -> Vec<Value> {
        self.list("/volumes", label)
    }

    /// Makes `repository:tag` mean `image`.
    pub fn tag(&self, image: &str, repository: &str, tag: &str) {
        self.call(Method::POST, &format!("/images/{image}/tag"), &[("repo", repository), ("tag", tag)])
            .expect_status(&[201], "tagging");
    }

    pub fn stop(&self, container: &str) {
        self.call(Method::POST, &format!("/containers/{container}/stop"), &[]).expect_status(&[204, 304], "stopping");
    }

    /// This machine, as containers see it.
    pub fn gateway(&self) -> Ipv4Addr {
        let bridge = self.find("/networks/bridge").unwrap_or_default();
        let gateway = bridge["IPAM"]["Config"][0]["Gateway"].as_str().and_then(|gateway| gateway.parse().ok());
        gateway.unwrap_or_else(|| panic!("the engine's default network has no gateway: {bridge:#}"))
    }

    pub fn start(&self, container: &str) {
        self.call(Method::POST, &format!("/containers/{container}/start"), &[]).expect_status(&[204, 304], "starting");
    }

    /// SIGKILL, and until it is dead. What does not run is dead already.
    pub fn kill(&self, container: &str) {
        self.call(Method::POST, &format!("/containers/{container}/kill"), &[])
            .expect_status(&[204, 404, 409], "killing");
        self.call(Method::POST, &format!("/containers/{container}/wait"), &[]).expect_status(&[200, 404], "waiting");
    }

    /// Removes `kind` (`containers`, `images`, `networks`, `volumes`). What is gone already, or still in
    /// use by somebody else, is left to the next sweep.
    pub fn remove(&self, kind: &str, name: &str) {
        self.call(Method::DELETE, &format!("/{kind}/{name}"), &[("force", "true"), ("v", "true")]);
    }
}

/// Runs a program to its end; panics with all it said when it fails.
pub fn must_run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} cannot be started ({e}): run ci/lab.sh up"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}:\n{out}{err}", output.status);
    out.into_owned()
}
