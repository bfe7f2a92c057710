//! Calls without an end of their own: waiting for an exit, following logs and events.

use std::collections::HashMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::{EventsOptionsBuilder, LogsOptionsBuilder, WaitContainerOptions};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::super::lines::Lines;
use super::super::{EngineError, Event, Result};
use super::connect::Client;
use super::error::engine_error;
use super::{DockerEngine, LOOK, Thing, named};

/// How long one request to wait may last before the engine is asked whether it is still there: a
/// connection that has silently died would otherwise be waited on for ever.
const WAIT_SLICE: Duration = Duration::from_secs(60);
/// How long an engine may be away while its container is waited for: a restart or an upgrade of it.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Waits for the exit, also over a restart of the engine.
pub(super) async fn wait(engine: &DockerEngine, id: &str) -> Result<i64> {
    let mut away_since: Option<Instant> = None;
    loop {
        match wait_a_while(engine, id).await {
            Ok(Some(code)) => return Ok(code),
            Ok(None) => away_since = None,
            Err(error) if error.is_unreachable() => {
                if away_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return Err(error);
                }
                sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The exit code; `None` when it still runs.
async fn wait_a_while(engine: &DockerEngine, id: &str) -> Result<Option<i64>> {
    let container = named("container", id);
    let client = engine.client().await?;
    let mut answers = pin!(client.docker.wait_container(id, None::<WaitContainerOptions>));
    match timeout(WAIT_SLICE, answers.next()).await {
        Ok(Some(Ok(answer))) => Ok(Some(answer.status_code)),
        // The client library calls any code but 0 an error.
        Ok(Some(Err(Error::DockerContainerWaitError { error, code }))) if error.is_empty() => Ok(Some(code)),
        Ok(Some(Err(Error::DockerContainerWaitError { error, .. }))) => {
            Err(EngineError::Failed(format!("waiting for {container}: {error}")))
        }
        Ok(Some(Err(error))) => {
            let failed = std::future::ready(Err(error));
            engine.acted(LOOK, "waiting for", Thing::Container(id), failed).await
        }
        Ok(None) => Err(engine.noticed(closed("waiting for", &container))),
        Err(_) => {
            engine.within(LOOK, "waiting for", &container, client.docker.inspect_container(id, None)).await?;
            Ok(None)
        }
    }
}

fn closed(doing: &str, subject: &str) -> EngineError {
    EngineError::Unreachable(format!("{doing} {subject}: the engine closed the connection"))
}

/// Everything the container has printed and will print, until it ends or nobody reads.
pub(super) async fn logs(client: &Client, id: &str, lines: mpsc::Sender<String>) -> Result<()> {
    let mut log = Log::open(client, id, LogsOptionsBuilder::new().follow(true).tail("all"));
    while let Some(complete) = log.next().await? {
        for line in complete {
            if lines.send(line).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The last `count` lines of what it has printed.
pub(super) async fn log_tail(client: &Client, id: &str, count: usize) -> Result<Vec<String>> {
    let mut log = Log::open(client, id, LogsOptionsBuilder::new().follow(false).tail(&count.to_string()));
    let mut tail = Vec::new();
    while let Some(complete) = log.next().await? {
        tail.extend(complete);
    }
    // A long line comes in pieces: there may be more than were asked for.
    tail.drain(..tail.len().saturating_sub(count));
    Ok(tail)
}

/// A container's output. The two streams are cut into lines each by itself: their pieces come interleaved.
struct Log {
    container: String,
    chunks: BoxStream<'static, std::result::Result<LogOutput, Error>>,
    out: Lines,
    err: Lines,
    ended: bool,
}

impl Log {
    fn open(client: &Client, id: &str, options: LogsOptionsBuilder) -> Self {
        let chunks = client.docker.logs(id, Some(options.stdout(true).stderr(true).build())).boxed();
        let (out, err) = (Lines::default(), Lines::default());
        Self { container: named("container", id), chunks, out, err, ended: false }
    }

    /// The lines that the next piece completes, perhaps none; `None` after the end.
    async fn next(&mut self) -> Result<Option<Vec<String>>> {
        if self.ended {
            return Ok(None);
        }
        let Some(chunk) = self.chunks.next().await else {
            self.ended = true;
            return Ok(Some(self.out.finish().into_iter().chain(self.err.finish()).collect()));
        };
        match chunk.map_err(|error| engine_error("reading the log of", &self.container, error))? {
            LogOutput::StdErr { message } => Ok(Some(self.err.push(&message))),
            // A terminal has one stream only.
            LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
                Ok(Some(self.out.push(&message)))
            }
        }
    }
}

/// What happens to one container, until nobody listens.
pub(super) async fn events(client: &Client, id: &str, events: mpsc::Sender<Event>) -> Result<()> {
    let container = named("container", id);
    let only =
        [("type", "container"), ("container", id)].map(|(name, value)| (name.to_owned(), vec![value.to_owned()]));
    let options = EventsOptionsBuilder::new().filters(&HashMap::from(only)).build();
    let mut messages = pin!(client.docker.events(Some(options)));
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            () = events.closed() => return Ok(()),
        };
        let message = message.ok_or_else(|| closed("following", &container))?;
        let message = message.map_err(|error| engine_error("following", &container, error))?;
        let Some(action) = message.action else { continue };
        let container_id = message.actor.and_then(|actor| actor.id).unwrap_or_default();
        if events.send(Event { action, container_id }).await.is_err() {
            return Ok(());
        }
    }
}
