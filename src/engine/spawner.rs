//! Child processes that die with this one.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that spawned the child ends, not the process. Worker
//! threads of an async runtime come and go, so every child is started by one thread of our own that
//! lives as long as the process. A task runs there to its end even when whoever waits for it has
//! stopped waiting.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, getpid, getppid, kill_process_group, set_parent_process_death_signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::lines::Lines;
use super::memory_file::MemoryFile;
use crate::failpoint;

/// The lines of a child's output that are kept for an error message.
const TAIL: usize = 20;
/// How long a killed child may take to be gone, seconds.
const REAP: Duration = Duration::from_secs(5);

/// A child process to be run to its end.
#[derive(Debug, Clone)]
pub struct Program {
    /// Full path; no search, no shell.
    pub path: PathBuf,
    pub args: Vec<OsString>,
    /// The child's whole environment: nothing of ours is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// Working folder; ours when `None`.
    pub folder: Option<PathBuf>,
    /// Then it is killed, together with the processes it started.
    pub deadline: Duration,
    /// The most it may print to either stream, in bytes.
    pub most_output: usize,
    /// Stdout is a result (perhaps with secrets in it), not talk: it is collected, but appears neither
    /// among the lines nor in an error.
    pub stdout_is_data: bool,
    /// The child can open these, and no other child can.
    pub files: Vec<MemoryFile>,
}

/// What came of it.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The last lines of what it said, as they came.
    pub tail: Vec<String>,
}

/// Why a child did not run to its own end.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("{} cannot be started: {source}", program.display())]
    NotStarted { program: PathBuf, source: io::Error },
    #[error("the thread that starts child processes cannot be started: {0}")]
    NoThread(io::Error),
    #[error("{} was killed: not done after {seconds} s; it last said: {said}", program.display())]
    Deadline { program: PathBuf, seconds: u64, said: String },
    #[error("{} was killed: it printed more than {limit} bytes", program.display())]
    TooMuch { program: PathBuf, limit: usize },
    #[error("talking to {}: {source}", program.display())]
    Broken { program: PathBuf, source: io::Error },
}

/// Runs a program to its end on the spawning thread. `lines` gets what it prints, as far as the receiver
/// keeps up: a slow receiver never holds up the child.
///
/// Dropping the future does not end the child: half of an `up` is worse than all of it. `held` (a lock) is
/// dropped when the child has ended.
pub async fn run(
    program: Program,
    lines: Option<mpsc::Sender<String>>,
    held: impl Send + 'static,
) -> Result<Finished, SpawnError> {
    let path = program.path.clone();
    let task = spawning_thread()?.spawn(async move {
        let _held = held;
        run_here(program, lines).await
    });
    task.await
        .unwrap_or_else(|error| Err(SpawnError::Broken { program: path, source: io::Error::other(error.to_string()) }))
}

/// The runtime of the one thread that starts children.
fn spawning_thread() -> Result<&'static Handle, SpawnError> {
    static THREAD: OnceLock<Handle> = OnceLock::new();
    if let Some(handle) = THREAD.get() {
        return Ok(handle);
    }
    let runtime = Builder::new_current_thread().enable_all().build().map_err(SpawnError::NoThread)?;
    let handle = runtime.handle().clone();
    let forever = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("children".into()).spawn(forever).map_err(SpawnError::NoThread)?;
    // Two first callers at once start two threads; both live as long as the process, one is used.
    Ok(THREAD.get_or_init(|| handle))
}

async fn run_here(program: Program, lines: Option<mpsc::Sender<String>>) -> Result<Finished, SpawnError> {
    let mut child =
        start(&program).map_err(|source| SpawnError::NotStarted { program: program.path.clone(), source })?;
    let mut tail = VecDeque::with_capacity(TAIL);
    let outcome = timeout(program.deadline, attend(&mut child, &program, &mut tail, lines)).await;
    if !matches!(outcome, Ok(Ok(_))) {
        kill_group(&child);
        // Reaped here, so that it is certain to be gone when the error is read.
        let _ = timeout(REAP, child.wait()).await;
    }
    outcome.unwrap_or_else(|_| {
        let said = Vec::from(tail).join("; ");
        Err(SpawnError::Deadline { program: program.path, seconds: program.deadline.as_secs(), said })
    })
}

fn start(program: &Program) -> io::Result<Child> {
    let mut command = Command::new(&program.path);
    command.args(&program.args).env_clear().envs(program.env.iter().cloned());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: Ctrl-C at the terminal reaches us and not a half-done swap.
    command.process_group(0);
    if let Some(folder) = &program.folder {
        command.current_dir(folder);
    }
    die_with_parent(&mut command);
    hand_over(&mut command, program.files.clone());
    command.spawn()
}

/// The child is killed when this process dies, however it dies.
#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    let between_fork_and_exec = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above: then no signal will ever come.
        if getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: the closure runs in the forked child, where only async-signal-safe work is allowed: it makes
    // two plain system calls (prctl, getppid) and compares numbers; it neither allocates nor locks.
    unsafe { command.pre_exec(between_fork_and_exec) };
}

/// These files stay open in the child.
#[allow(unsafe_code)]
fn hand_over(command: &mut Command, files: Vec<MemoryFile>) {
    if files.is_empty() {
        return;
    }
    let between_fork_and_exec = move || {
        for file in &files {
            fcntl_setfd(file, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: as above: one plain system call (fcntl) for each file.
    unsafe { command.pre_exec(between_fork_and_exec) };
}

/// Reads both streams to their end and waits for the exit.
async fn attend(
    child: &mut Child,
    program: &Program,
    tail: &mut VecDeque<String>,
    lines: Option<mpsc::Sender<String>>,
) -> Result<Finished, SpawnError> {
    let broken = |source| SpawnError::Broken { program: program.path.clone(), source };
    let (mut out, mut err) = (Stream::new(child.stdout.take()), Stream::new(child.stderr.take()));
    while out.open() || err.open() {
        let said = tokio::select! {
            said = out.read(), if out.open() => said.map(|lines| if program.stdout_is_data { Vec::new() } else { lines }),
            said = err.read(), if err.open() => said,
        };
        for line in said.map_err(broken)? {
            failpoint::reach(format_args!("a child has spoken"));
            if let Some(lines) = &lines {
                let _ = lines.try_send(line.clone());
            }
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        if out.all.len().max(err.all.len()) > program.most_output {
            return Err(SpawnError::TooMuch { program: program.path.clone(), limit: program.most_output });
        }
    }
    let status = child.wait().await.map_err(broken)?;
    Ok(Finished { status, stdout: out.all, stderr: err.all, tail: tail.iter().cloned().collect() })
}

/// One of the child's output streams.
struct Stream<R> {
    pipe: Option<R>,
    lines: Lines,
    all: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Stream<R> {
    fn new(pipe: Option<R>) -> Self {
        Self { pipe, lines: Lines::default(), all: Vec::new() }
    }

    fn open(&self) -> bool {
        self.pipe.is_some()
    }

    /// The lines that the next bytes complete. At the end of the stream it is no longer open.
    async fn read(&mut self) -> io::Result<Vec<String>> {
        let Some(pipe) = &mut self.pipe else { return Ok(Vec::new()) };
        let before = self.all.len();
        if pipe.read_buf(&mut self.all).await? == 0 {
            self.pipe = None;
            return Ok(self.lines.finish().into_iter().collect());
        }
        Ok(self.lines.push(&self.all[before..]))
    }
}

fn kill_group(child: &Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(group) = group {
        // It may be gone already; then there is nothing to kill.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program {
            path: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            folder: Some("/".into()),
            deadline: Duration::from_secs(20),
            most_output: 1024,
            stdout_is_data: false,
            files: Vec::new(),
        }
    }

    #[tokio::test]
    async fn both_streams_the_exit_code_and_the_lines_are_told() {
        let (sender, mut receiver) = mpsc::channel(8);
        let finished = run(shell("echo out; sleep 0.1; echo err >&2; exit 3"), Some(sender), ()).await.unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!((finished.stdout.as_slice(), finished.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(finished.tail, ["out", "err"]);
        assert_eq!(receiver.recv().await.as_deref(), Some("out"));
        assert_eq!(receiver.recv().await.as_deref(), Some("err"));
        assert_eq!(receiver.recv().await, None);
    }

    #[tokio::test]
    async fn only_the_given_environment_is_seen() {
        let finished = run(shell("/usr/bin/env"), None, ()).await.unwrap();
        let seen = String::from_utf8(finished.stdout).unwrap();
        assert!(!seen.contains("HOME="), "{seen}");
        assert!(seen.contains("PATH=/usr/bin:/bin"), "{seen}");
    }

    #[tokio::test]
    async fn a_child_past_its_deadline_is_killed_with_its_children() {
        let mut program = shell("sleep 1000 & echo $!; wait");
        program.deadline = Duration::from_millis(200);
        let error = run(program, None, ()).await.unwrap_err().to_string();
        assert!(error.starts_with("/bin/sh was killed: not done after 0 s"), "{error}");
        let grandchild = format!("/proc/{}/stat", error.rsplit(' ').next().unwrap());
        let alive = || std::fs::read_to_string(&grandchild).is_ok_and(|stat| !stat.contains(") Z "));
        for _ in 0..200 {
            if !alive() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{grandchild} still lives");
    }

    #[tokio::test]
    async fn data_on_stdout_is_kept_out_of_errors() {
        let mut program = shell("echo secret; echo talk >&2; sleep 1000");
        program.stdout_is_data = true;
        program.deadline = Duration::from_millis(200);
        let error = run(program, None, ()).await.unwrap_err().to_string();
        assert!(error.ends_with("it last said: talk"), "{error}");
    }

    #[tokio::test]
    async fn a_child_that_prints_without_end_is_killed() {
        let error = run(shell("yes"), None, ()).await.unwrap_err();
        assert!(matches!(error, SpawnError::TooMuch { limit: 1024, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let mut program = shell("");
        program.path = "/nowhere/docker-compose".into();
        let error = run(program, None, ()).await.unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/docker-compose cannot be started: No such file"), "{error}");
    }

    #[tokio::test]
    async fn a_child_is_run_to_its_end_though_nobody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut receiver) = mpsc::channel(8);
        let mut program = shell("echo begun; sleep 0.2; touch done; echo done");
        program.folder = Some(folder.path().into());
        let waiting = tokio::spawn(run(program, Some(sender), ()));
        assert_eq!(receiver.recv().await.as_deref(), Some("begun"));
        waiting.abort();
        assert_eq!(receiver.recv().await.as_deref(), Some("done"));
        assert!(folder.path().join("done").exists());
    }
}
