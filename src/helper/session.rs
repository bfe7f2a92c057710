//! A helper from the updater's side: made when it is first needed, called, ended when it is idle.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep};

use super::own::{Own, OwnContainer};
use super::wire::{self, Call, Failure, Frame, Said};
use crate::engine::seal::Seal;
use crate::engine::{ContainerSpec, DEFAULT_HOST, Engine, EngineError, Mount, Result, label};
use crate::snapshot::Limits;
use crate::snapshot::host::Retention;
use crate::update::job::CopyProgress;
use crate::update::ports::CopyReport;

/// A helper that nobody has called for so long is ended.
const IDLE: Duration = Duration::from_secs(20);
/// How long a helper may take until it listens.
const START: Duration = Duration::from_secs(30);
/// Pause between two attempts to reach a helper that has just been started.
const KNOCK: Duration = Duration::from_millis(5);
/// The longest that Compose or `.env` may take: a swap, with a minute to spare.
const LONGEST_CALL: Duration = Duration::from_secs(11 * 60);
/// How long a helper of an earlier life may go on: it may have just begun a swap.
const FAREWELL: Duration = LONGEST_CALL;
/// The most that a path of a Unix socket may have, bytes (`sun_path` in unix(7), with its end).
const LONGEST_SOCKET: usize = 107;

/// The most memory that a helper gets, bytes. What a copy holds is bounded by [`snapshot::HELD`] twice (names of
/// folders, inodes with several names) and some megabytes of buffers; what Compose needs to resolve the largest
/// project we have seen is a tenth of this. The page cache counts too, but the kernel takes that back first. Without
/// a limit an application could make the host's memory run out by what it writes to its own data.
///
/// [`snapshot::HELD`]: crate::snapshot::HELD
const MEMORY: i64 = 768 << 20;

/// Compose wants a home that it can write to.
const HOME: &str = "/helper-home";

/// What a helper is for: what it sees and may do follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Compose and `.env`: the project's folders, the engine.
    Deployment,
    /// Copies: the application's mounts, the snapshot repository. No network, no engine.
    Data,
}

impl Kind {
    pub fn role(self) -> &'static str {
        match self {
            Kind::Deployment => "helper-deployment",
            Kind::Data => "helper-data",
        }
    }

    /// Everything else is dropped. `.env` keeps its owner; copies keep everything (capabilities(7)).
    fn capabilities(self) -> &'static [&'static str] {
        match self {
            Kind::Deployment => &["CHOWN", "DAC_OVERRIDE", "FOWNER"],
            Kind::Data => &["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"],
        }
    }
}

/// Settings of the updater that its helpers need too.
#[derive(Debug, Clone)]
pub struct HelperOptions {
    pub state_dir: PathBuf,
    pub snapshots: PathBuf,
    pub retention: Retention,
    pub limits: Limits,
    /// As in `DOCKER_HOST`; empty is the default.
    pub docker_host: String,
    /// By which this updater recognises its own containers.
    pub seal: Seal,
    /// This process only looks, perhaps beside the updater that has the state folder: its helpers are not that
    /// updater's, so neither waits for the other's or ends them.
    pub looks_only: bool,
}

/// All helpers of this process: one of each kind at most.
pub struct Helpers {
    engine: Arc<dyn Engine>,
    own: Arc<Own>,
    options: HelperOptions,
    deployment: Mutex<Option<Session>>,
    data: Mutex<Option<Session>>,
    /// What the last helper for the deployment has seen.
    deployment_mounts: Mutex<Vec<Mount>>,
    /// For tasks that must not keep it alive.
    this: Weak<Self>,
}

/// A helper that runs.
struct Session {
    container: String,
    socket: PathBuf,
    /// Beside those that every helper has.
    mounts: Vec<Mount>,
    /// The helper ends when this does.
    _lifeline: UnixStream,
    /// One more for each call that is under way.
    users: Arc<()>,
    used: Instant,
    /// It has begun something that a later call ends.
    held: bool,
}

impl Helpers {
    pub fn new(engine: Arc<dyn Engine>, own: Arc<Own>, options: HelperOptions) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            engine,
            own,
            options,
            deployment: Mutex::default(),
            data: Mutex::default(),
            deployment_mounts: Mutex::default(),
            this: this.clone(),
        })
    }

    /// `None`: this process is on the host and needs no helper.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn own(&self) -> Result<Option<Arc<OwnContainer>>> {
        self.own.container().await
    }

    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    pub fn options(&self) -> &HelperOptions {
        &self.options
    }

    fn slot(&self, kind: Kind) -> &Mutex<Option<Session>> {
        match kind {
            Kind::Deployment => &self.deployment,
            Kind::Data => &self.data,
        }
    }

    /// Calls a helper that sees at least `mounts`. `ear` gets what it says meanwhile.
    ///
    /// # Errors
    /// No helper can be made, it died, or what the call itself failed with.
    pub async fn call<T: DeserializeOwned, E: From<Failure>>(
        &self,
        own: &OwnContainer,
        kind: Kind,
        mounts: &[Mount],
        call: &Call,
        ear: Ear<'_>,
    ) -> std::result::Result<T, E> {
        let answer = self.asked(own, kind, mounts, call, ear).await?;
        serde_json::from_value(answer).map_err(|e| E::from(died(kind, &format!("its answer: {e}")).into()))
    }

    async fn asked(
        &self,
        own: &OwnContainer,
        kind: Kind,
        mounts: &[Mount],
        call: &Call,
        ear: Ear<'_>,
    ) -> std::result::Result<serde_json::Value, Failure> {
        let (mut stream, _user) = match self.connect(own, kind, mounts).await? {
            Some(connected) => connected,
            // It has died since it was last called; nothing was asked of it yet.
            None => self.connect(own, kind, mounts).await?.ok_or_else(|| died(kind, "it cannot be reached"))?,
        };
        let broken = |e: std::io::Error| died(kind, &e.to_string());
        let conversation = async {
            wire::say(&mut stream, call).await.map_err(broken)?;
            loop {
                let frame = wire::hear(&mut stream).await.map_err(broken)?;
                match frame.ok_or_else(|| died(kind, "it ended before it had answered"))? {
                    Frame::Bytes(bytes) => ear.bytes(bytes).await?,
                    Frame::Message(text) => match serde_json::from_slice(&text).map_err(|e| broken(e.into()))? {
                        Said::Done(value) => return Ok(value),
                        Said::Failed(error) => return Err(error),
                        Said::Line(line) => ear.line(line),
                        Said::Copied(copied) => ear.copied(copied),
                    },
                }
            }
        };
        match kind {
            // Within it every child has its own, shorter deadline.
            Kind::Deployment => tokio::time::timeout(LONGEST_CALL, conversation).await.unwrap_or_else(|_| {
                Err(died(kind, &format!("no answer within {} minutes", LONGEST_CALL.as_secs() / 60)).into())
            }),
            // A copy takes as long as there is data; one that dies ends the connection.
            Kind::Data => conversation.await,
        }
    }

    /// A helper for the deployment is there before it is needed: soon the application will be down. As far
    /// as possible; whoever needs it makes it otherwise.
    pub async fn warm_up(&self, own: &OwnContainer) {
        let mounts = self.deployment_mounts.lock().await.clone();
        if !mounts.is_empty()
            && let Err(error) = self.connect(own, Kind::Deployment, &mounts).await
        {
            tracing::warn!("a helper that will be needed cannot be made yet: {error}");
        }
    }

    /// Keeps the helper although it is idle, until a call that ends what was begun.
    pub async fn hold(&self, kind: Kind, held: bool) {
        if let Some(session) = self.slot(kind).lock().await.as_mut() {
            session.held = held;
        }
    }

    /// A connection to a helper that sees `mounts`; `None` when the one at hand has died.
    async fn connect(&self, own: &OwnContainer, kind: Kind, mounts: &[Mount]) -> Result<Option<(UnixStream, Arc<()>)>> {
        let mut slot = self.slot(kind).lock().await;
        let all = match &*slot {
            Some(session) if sees(&session.mounts, mounts) => None,
            Some(session) => Some(together(&session.mounts, mounts)),
            None => Some(mounts.to_vec()),
        };
        if let Some(all) = all {
            if let Some(session) = slot.take() {
                self.end(session).await;
            }
            let opened = match self.open(own, kind, all).await {
                // What an earlier call needed may be gone by now.
                Err(_) if !mounts.is_empty() => self.open(own, kind, mounts.to_vec()).await,
                other => other,
            };
            let opened = opened?;
            if kind == Kind::Deployment {
                self.deployment_mounts.lock().await.clone_from(&opened.mounts);
            }
            *slot = Some(opened);
        }
        let Some(session) = slot.as_mut() else { return Ok(None) };
        session.used = Instant::now();
        match UnixStream::connect(&session.socket).await {
            Ok(stream) => Ok(Some((stream, session.users.clone()))),
            Err(_) => {
                *slot = None;
                Ok(None)
            }
        }
    }

    /// Makes and starts a helper and waits until it listens.
    async fn open(&self, own: &OwnContainer, kind: Kind, mounts: Vec<Mount>) -> Result<Session> {
        self.farewell(own, kind).await?;
        let socket = self.new_socket(kind).await?;
        let spec = self.specification(own, kind, &mounts, &socket)?;
        let container = self.engine.create(&spec).await?;
        let opened = self.start(kind, &container, &socket).await;
        match opened {
            Ok(lifeline) => {
                self.end_when_idle(kind, container.clone());
                let users = Arc::default();
                Ok(Session { container, socket, mounts, _lifeline: lifeline, users, used: Instant::now(), held: false })
            }
            Err(error) => {
                let _ = self.engine.remove(&container).await;
                Err(error)
            }
        }
    }

    async fn start(&self, kind: Kind, container: &str, socket: &Path) -> Result<UnixStream> {
        let (lines, mut printed) = mpsc::channel(64);
        let (engine, id) = (self.engine.clone(), container.to_owned());
        self.engine.start(container).await?;
        // It removes itself with its log: what it says is read while it runs.
        tokio::spawn(async move { engine.logs(&id, lines).await });
        let deadline = Instant::now() + START;
        loop {
            if let Ok(mut stream) = UnixStream::connect(socket).await {
                wire::say(&mut stream, &Call::Lifeline).await.map_err(|e| died(kind, &e.to_string()))?;
                tokio::spawn(async move {
                    while let Some(line) = printed.recv().await {
                        tracing::info!(helper = kind.role(), "{line}");
                    }
                });
                return Ok(stream);
            }
            if printed.is_closed() || Instant::now() > deadline {
                let mut said = Vec::new();
                while let Ok(line) = printed.try_recv() {
                    said.push(line);
                }
                return Err(died(kind, &format!("it did not come up; it said: {}", said.join("; "))));
            }
            sleep(KNOCK).await;
        }
    }

    /// Helpers of earlier lives end by themselves, but a swap that they have begun is theirs to end.
    ///
    /// # Errors
    /// The engine cannot be asked, or one is still at work.
    pub async fn farewell(&self, own: &OwnContainer, kind: Kind) -> Result<()> {
        let owner = self.owner(own)?;
        for left in self.engine.containers(&[(label::ROLE, kind.role()), (label::OWNER, &owner)]).await? {
            if self.options.seal.read(&left).is_none() {
                continue;
            }
            if left.is_running() {
                tracing::info!(helper = left.name, "waiting for a helper of an earlier life");
                match tokio::time::timeout(FAREWELL, self.engine.wait(&left.id)).await {
                    Ok(Ok(_)) => {}
                    // It has removed itself.
                    Ok(Err(error)) if error.is_not_found() => {}
                    Ok(Err(error)) => return Err(error),
                    Err(_) => {
                        return Err(EngineError::Failed(format!(
                            "the helper {} of an earlier life is still at work after {} minutes",
                            left.name,
                            FAREWELL.as_secs() / 60
                        )));
                    }
                }
            }
            self.engine.remove(&left.id).await?;
        }
        Ok(())
    }

    /// Whose helpers they are: the state folder's, whatever the container is called.
    fn owner(&self, own: &OwnContainer) -> Result<String> {
        let owner = owner(own, &self.options.state_dir).ok_or_else(|| self.no_mount())?;
        Ok(if self.options.looks_only { format!("{owner} (doctor)") } else { owner })
    }

    fn no_mount(&self) -> EngineError {
        EngineError::Failed(format!(
            "the state folder {} (PROCESSGIT_UPDATER_STATE_DIR) is no mount: all would be forgotten with the container; mount a volume or a folder of the host there",
            self.options.state_dir.display()
        ))
    }

    async fn new_socket(&self, kind: Kind) -> Result<PathBuf> {
        let folder = self.options.state_dir.join("helpers");
        let failed = |e: std::io::Error| EngineError::Failed(format!("{}: {e}", folder.display()));
        let mut builder = tokio::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&folder).await.map_err(failed)?;
        let socket = folder.join(format!("{}-{:08x}", kind.role(), rand::random::<u32>()));
        if socket.as_os_str().len() > LONGEST_SOCKET {
            return Err(EngineError::Failed(format!(
                "{} is too long for a socket: choose a shorter PROCESSGIT_UPDATER_STATE_DIR",
                socket.display()
            )));
        }
        Ok(socket)
    }

    fn specification(&self, own: &OwnContainer, kind: Kind, mounts: &[Mount], socket: &Path) -> Result<ContainerSpec> {
        let options = &self.options;
        let program = std::env::current_exe().map_err(|e| EngineError::Failed(format!("the own program: {e}")))?;
        let mut all = vec![own.mount_of(&options.state_dir).cloned().ok_or_else(|| self.no_mount())?];
        if kind == Kind::Data {
            let missing = || {
                EngineError::Failed(format!(
                    "the snapshot folder {} (PROCESSGIT_UPDATER_SNAPSHOT_DIR) is no mount: mount a volume or a folder of the host there",
                    options.snapshots.display()
                ))
            };
            all.push(own.mount_of(&options.snapshots).cloned().ok_or_else(missing)?);
        }
        let host = if options.docker_host.is_empty() { DEFAULT_HOST } else { &options.docker_host };
        let mut networks = Vec::new();
        if kind == Kind::Deployment {
            match host.strip_prefix("unix://") {
                Some(path) => all.extend(own.mount_of(Path::new(path)).cloned()),
                None => networks = own.container.reachable_networks(),
            }
        }
        all.extend(mounts.iter().cloned());
        all.dedup_by(|a, b| a.destination == b.destination);
        let env = vec![format!("HOME={HOME}"), format!("DOCKER_HOST={host}")];
        let text = |path: &Path| path.display().to_string();
        let Limits { depth, entries } = options.limits;
        let limits = [format!("--max-depth={depth}"), format!("--max-entries={entries}")];
        let age = options.retention.max_age.map(|age| format!("--max-age-seconds={}", age.as_secs()));
        let command = ["helper".to_owned(), text(socket), text(&options.snapshots), options.retention.keep.to_string()];
        Ok(options.seal.put_on(ContainerSpec {
            name: format!("processgit-updater-{}", socket.file_name().unwrap_or_default().to_string_lossy()),
            image: own.container.image_id.clone(),
            entrypoint: Some(vec![text(&program)]),
            command: Some(command.into_iter().chain(age).chain(limits).collect()),
            env,
            user: Some("0:0".into()),
            labels: [(label::ROLE, kind.role().to_owned()), (label::OWNER, self.owner(own)?)]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            mounts: all,
            networks,
            cap_add: kind.capabilities().iter().map(|c| (*c).to_owned()).collect(),
            cap_drop: vec!["ALL".into()],
            security_opt: own.security_options(),
            read_only: true,
            tmpfs: [(HOME.to_owned(), "mode=0700".to_owned())].into(),
            memory: Some(MEMORY),
            auto_remove: true,
            ..ContainerSpec::default()
        }))
    }

    /// Ends it and waits until it is gone, so that the next one finds nobody.
    async fn end(&self, session: Session) {
        let container = session.container.clone();
        drop(session);
        let _ = tokio::time::timeout(START, self.engine.wait(&container)).await;
        let _ = self.engine.remove(&container).await;
    }

    fn end_when_idle(&self, kind: Kind, container: String) {
        let this = self.this.clone();
        tokio::spawn(async move {
            loop {
                sleep(IDLE).await;
                let Some(helpers) = this.upgrade() else { return };
                let mut slot = helpers.slot(kind).lock().await;
                let Some(session) = slot.as_ref().filter(|s| s.container == container) else { return };
                let idle = Arc::strong_count(&session.users) == 1 && !session.held && session.used.elapsed() >= IDLE;
                if idle {
                    *slot = None;
                    return;
                }
            }
        });
    }
}

/// The owner of the helpers that serve this state folder, as their label has it; `None`: it is no mount.
pub fn owner(own: &OwnContainer, state_dir: &Path) -> Option<String> {
    let state = own.mount_of(state_dir)?;
    let place = if state.name.is_empty() { &state.source } else { &state.name };
    Some(format!("{place} {}", state_dir.display()))
}

/// Who listens to what a helper says before it answers.
pub enum Ear<'a> {
    Nobody,
    /// As far as the receiver keeps up.
    Lines(&'a mpsc::Sender<String>),
    Copying(&'a CopyReport),
    /// All of it: a slow receiver slows the helper down, one that is gone ends the call.
    Bytes(&'a mpsc::Sender<Vec<u8>>),
}

impl Ear<'_> {
    fn line(&self, line: String) {
        if let Self::Lines(lines) = self {
            let _ = lines.try_send(line);
        }
    }

    fn copied(&self, copied: CopyProgress) {
        if let Self::Copying(report) = self {
            report(copied);
        }
    }

    async fn bytes(&self, bytes: Vec<u8>) -> Result<()> {
        let Self::Bytes(pieces) = self else { return Ok(()) };
        pieces.send(bytes).await.map_err(|_| EngineError::Failed("nobody takes the bytes any more".into()))
    }
}

fn died(kind: Kind, why: &str) -> EngineError {
    EngineError::Failed(format!("the container {} that does this work: {why}", kind.role()))
}

/// Every wanted mount is there, or lies in a folder that is.
fn sees(there: &[Mount], wanted: &[Mount]) -> bool {
    wanted.iter().all(|w| there.iter().any(|t| covers(t, w)))
}

fn covers(outer: &Mount, inner: &Mount) -> bool {
    let same = outer == inner;
    let within = |a: &str, b: &str| Path::new(b).strip_prefix(a).ok().map(Path::to_owned);
    let nested = outer.source == outer.destination
        && inner.source == inner.destination
        && within(&outer.destination, &inner.destination).is_some();
    (same || nested) && (outer.writable || !inner.writable)
}

/// Both, without what is covered.
fn together(a: &[Mount], b: &[Mount]) -> Vec<Mount> {
    let mut all: Vec<Mount> = Vec::new();
    for mount in b.iter().chain(a) {
        if !all.iter().any(|known| covers(known, mount)) {
            all.retain(|known| !covers(mount, known));
            all.push(mount.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::MountKind;

    fn mount(text: &str) -> Mount {
        let (path, writable) = (text.trim_end_matches('!'), text.ends_with('!'));
        Mount {
            kind: MountKind::Bind,
            name: String::new(),
            source: path.into(),
            destination: path.into(),
            writable,
            subpath: String::new(),
        }
    }

    fn mounts(text: &str) -> Vec<Mount> {
        text.split_whitespace().map(mount).collect()
    }

    #[test]
    fn a_helper_is_used_again_if_it_sees_enough() {
        // `!` is writable.
        for (there, wanted, enough, both) in [
            ("", "", true, ""),
            ("", "/srv/app!", false, "/srv/app!"),
            ("/srv/app!", "/srv/app!", true, "/srv/app!"),
            ("/srv/app!", "/srv/app", true, "/srv/app!"),
            ("/srv/app", "/srv/app!", false, "/srv/app!"),
            ("/srv!", "/srv/app!", true, "/srv!"),
            ("/srv/app!", "/srv!", false, "/srv!"),
            ("/srv/app!", "/opt/x", false, "/opt/x /srv/app!"),
            ("/srv/app!", "/srv/apple", false, "/srv/apple /srv/app!"),
        ] {
            let (there, wanted) = (mounts(there), mounts(wanted));
            assert_eq!(sees(&there, &wanted), enough, "{there:?} {wanted:?}");
            if !enough {
                assert_eq!(together(&there, &wanted), mounts(both));
            }
        }
    }
}
