//! The helper's side: answers calls with the very code that runs in process on the host.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::wire::{self, Call, Failure, Frame, Said};
use crate::engine::compose::ComposeCli;
use crate::engine::{Compose, EngineError};
use crate::envfile::{self, DeployedEnv};
use crate::snapshot::Limits;
use crate::snapshot::host::{HostData, Retention};
use crate::update::job::CopyProgress;
use crate::update::ports::{CopyReport, DataStore, EnvStore};

/// A helper that nobody talks to within this time is nobody's.
const FIRST_CALL: Duration = Duration::from_secs(60);
/// Pieces of an export, bytes.
const PIECE: usize = 256 * 1024;

/// What a helper is told at its start.
#[derive(Debug, Clone)]
pub struct HelperSettings {
    /// Where it listens, in the state folder.
    pub socket: PathBuf,
    pub snapshots: PathBuf,
    pub retention: Retention,
    pub limits: Limits,
}

/// Serves until the updater that made it is gone, and what cannot be left in the middle has ended.
///
/// # Errors
/// The socket cannot be made.
pub async fn serve(settings: HelperSettings) -> io::Result<()> {
    let listener = listen(&settings.socket)?;
    let hands = Arc::new(Hands {
        compose: ComposeCli::from_environment(),
        data: HostData::new(settings.snapshots, settings.retention).within(settings.limits),
        // Nobody waits for these when the updater is gone; `up` is waited for.
        swaps: TaskTracker::new(),
        alone: CancellationToken::new(),
        called: CancellationToken::new(),
    });
    let mut term = signal(SignalKind::terminate())?;
    let patience = tokio::time::sleep(FIRST_CALL);
    tokio::pin!(patience);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let hands = hands.clone();
                tokio::spawn(async move { hands.attend(stream).await });
            }
            () = hands.alone.cancelled() => break,
            _ = term.recv() => break,
            () = &mut patience, if !hands.called.is_cancelled() => break,
        }
    }
    hands.swaps.close();
    hands.swaps.wait().await;
    let _ = tokio::fs::remove_file(&settings.socket).await;
    Ok(())
}

/// The updater may be another user; who may open the folder may talk.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

struct Hands {
    compose: ComposeCli,
    data: HostData,
    swaps: TaskTracker,
    /// The lifeline broke.
    alone: CancellationToken,
    called: CancellationToken,
}

impl Hands {
    /// One connection, one call. A caller that goes away ends what may be left in the middle.
    async fn attend(self: Arc<Self>, stream: UnixStream) {
        let (mut from, mut to) = stream.into_split();
        let call = match wire::hear(&mut from).await {
            Ok(Some(Frame::Message(bytes))) => serde_json::from_slice(&bytes),
            _ => return,
        };
        self.called.cancel();
        let mut gone = Box::pin(async move {
            let _ = wire::hear(&mut from).await;
        });
        let (said, mut told) = mpsc::channel::<Out>(64);
        let tell = tokio::spawn(async move {
            while let Some(out) = told.recv().await {
                let sent = match &out {
                    Out::Said(said) => wire::say(&mut to, said).await,
                    Out::Bytes(bytes) => wire::send(&mut to, bytes).await,
                };
                if sent.is_err() {
                    return;
                }
            }
        });
        match call {
            Ok(Call::Lifeline) => {
                gone.await;
                self.alone.cancel();
            }
            Ok(call) => {
                tokio::select! {
                    end = self.clone().answer(call, said.clone()) => {
                        let _ = said.send(Out::Said(end)).await;
                    }
                    () = &mut gone => {}
                }
            }
            Err(e) => {
                let why = format!("a call that this helper does not know: {e}");
                let _ = said.send(Out::Said(broken(why))).await;
            }
        }
        drop(said);
        let _ = tell.await;
    }

    async fn answer(self: Arc<Self>, call: Call, said: mpsc::Sender<Out>) -> Said {
        let report = reporter(said.clone());
        match call {
            Call::Lifeline => done(Ok::<_, EngineError>(())),
            Call::ComposeVersion => done(self.compose.version().await),
            Call::ComposeConfig { project, env } => done(self.compose.config(&project, env.as_deref()).await),
            Call::ComposeWritten { project } => done(self.compose.written(&project).await),
            Call::ComposeDryRun { project, service } => done(self.compose.dry_run(&project, &service).await),
            Call::ComposeUp { project } => {
                self.change(said, |hands, lines| async move { hands.compose.up(&project, lines).await }).await
            }
            Call::ComposeCreate { project, config } => {
                self.change(said, |hands, _| async move { hands.compose.create(&project, &config).await }).await
            }
            Call::ComposeRun { project, config, env } => {
                let run =
                    |hands: Arc<Self>, _| async move { hands.compose.run(&project, &config, env.as_deref()).await };
                self.change(said, run).await
            }
            Call::ComposeStop { project, service } => {
                self.change(said, |hands, lines| async move { hands.compose.stop(&project, &service, lines).await })
                    .await
            }
            Call::ComposeStart { project, service } => {
                self.change(said, |hands, lines| async move { hands.compose.start(&project, &service, lines).await })
                    .await
            }
            Call::Read { path } => done(envfile::aio::read(path.into()).await),
            Call::EnvWrite { path, bytes } => done(DeployedEnv::new(path.into()).write(bytes.as_deref()).await),
            Call::EnvPreflight { path, project_env } => {
                done(DeployedEnv::new(path.into()).preflight(&project_env).await)
            }
            Call::DataLook { mounts } => done(self.data.look(&mounts).await),
            Call::DataPreflight { mounts } => done(self.data.preflight(&mounts).await),
            Call::DataRoom { mounts } => done(self.data.room(&mounts).await),
            Call::DataHot { label, mounts } => done(self.data.hot(&label, &mounts, report).await),
            Call::DataCold { label, mounts } => done(self.data.cold(&label, &mounts, report).await),
            Call::DataRunning { label, mounts } => done(self.data.running(&label, &mounts, report).await),
            Call::DataRestore { label, generation, mounts, pinned } => {
                done(self.data.restore(&label, &generation, &mounts, &pinned, report).await)
            }
            Call::DataLoad { generation, mounts } => done(self.data.load(&generation, &mounts, report).await),
            Call::DataTidy { job, standing } => done(self.data.tidy(&job, &standing).await),
            Call::DataList => done(self.data.list().await),
            Call::DataVerify { generation } => done(self.data.verify(&generation).await),
            Call::DataDistance { generation, mounts } => done(self.data.distance(&generation, &mounts).await),
            Call::DataExport { generation } => done(self.data.export(&generation, Box::new(Pieces::new(said))).await),
        }
    }

    /// Goes on without a listener: half a swap is worse than a whole one.
    async fn change<F, D>(self: Arc<Self>, said: mpsc::Sender<Out>, what: F) -> Said
    where
        F: FnOnce(Arc<Self>, mpsc::Sender<String>) -> D,
        D: Future<Output = Result<(), EngineError>> + Send + 'static,
    {
        let (lines, mut printed) = mpsc::channel::<String>(256);
        tokio::spawn(async move {
            while let Some(line) = printed.recv().await {
                let _ = said.send(Out::Said(Said::Line(line))).await;
            }
        });
        match self.swaps.spawn(what(self.clone(), lines)).await {
            Ok(ended) => done(ended),
            Err(e) => broken(e.to_string()),
        }
    }
}

/// What goes out.
enum Out {
    Said(Said),
    Bytes(Vec<u8>),
}

/// Progress is told as far as the other side keeps up.
fn reporter(said: mpsc::Sender<Out>) -> CopyReport {
    Arc::new(move |copied: CopyProgress| {
        let _ = said.try_send(Out::Said(Said::Copied(copied)));
    })
}

fn done<T: Serialize>(result: Result<T, impl Into<Failure>>) -> Said {
    match result {
        Ok(value) => match serde_json::to_value(value) {
            Ok(value) => Said::Done(value),
            Err(e) => broken(e.to_string()),
        },
        Err(error) => Said::Failed(error.into()),
    }
}

fn broken(why: String) -> Said {
    Said::Failed(EngineError::Failed(why).into())
}

/// A blocking writer whose bytes go out as frames; written to on a blocking thread only.
struct Pieces {
    said: mpsc::Sender<Out>,
    piece: Vec<u8>,
}

impl Pieces {
    fn new(said: mpsc::Sender<Out>) -> Self {
        Self { said, piece: Vec::with_capacity(PIECE) }
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.said.blocking_send(Out::Bytes(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(socket: &Path, call: &Call) -> Said {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        wire::say(&mut stream, call).await.unwrap();
        match wire::hear(&mut stream).await.unwrap() {
            Some(Frame::Message(text)) => serde_json::from_slice(&text).unwrap(),
            other => panic!("no message: {other:?}"),
        }
    }

    #[tokio::test]
    async fn it_lives_as_long_as_the_updater_that_made_it() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let settings = HelperSettings {
            socket: socket.clone(),
            snapshots: folder.path().join("snapshots"),
            retention: Retention { keep: 1, max_age: None },
            limits: Limits::DEFAULT,
        };
        let serving = tokio::spawn(serve(settings));
        while !socket.exists() {
            tokio::task::yield_now().await;
        }
        let mut lifeline = UnixStream::connect(&socket).await.unwrap();
        wire::say(&mut lifeline, &Call::Lifeline).await.unwrap();

        let env = folder.path().join(".env").display().to_string();
        let read = || Call::Read { path: env.clone() };
        assert!(matches!(asked(&socket, &read()).await, Said::Done(serde_json::Value::Null)), "there is no file");
        let write = Call::EnvWrite { path: env.clone(), bytes: Some(b"A=1\n".to_vec()) };
        assert!(matches!(asked(&socket, &write).await, Said::Done(_)));
        assert!(matches!(asked(&socket, &read()).await, Said::Done(bytes) if bytes == serde_json::json!(b"A=1\n")));
        assert!(matches!(asked(&socket, &Call::DataList).await, Said::Done(list) if list == serde_json::json!([])));
        let verify = Call::DataVerify { generation: "none".into() };
        assert!(matches!(asked(&socket, &verify).await, Said::Failed(why) if why.to_string().contains("none")));

        drop(lifeline);
        serving.await.unwrap().unwrap();
        assert!(!socket.exists(), "nothing is left");
    }
}
