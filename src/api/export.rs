//! A snapshot as the body of an answer: what writes it blocks, what sends it must not.
//!
//! ```text
//! export task ── Sink (blocking Write) ──▶ bounded channel ──▶ body ──▶ client
//! ```
//! A client that reads slowly slows the writer down; one that goes away, or reads nothing for
//! [`STALLED`], makes the writer fail. A writer that fails midway aborts the connection: the client must
//! not take half an archive for a whole one.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::errors::ApiError;
use super::long::LongAnswer;
use crate::api::Face;
use crate::update::ports::DataError;

/// The most of one write that is sent at once, bytes.
const CHUNK: usize = 128 * 1024;
/// How many of them wait for the client.
const WAITING: usize = 8;
/// How long a client may read nothing.
const STALLED: Duration = Duration::from_secs(120);

/// The archive, as it is made. What fails before the first byte is an answer of its own.
pub async fn body(face: Arc<dyn Face>, id: String, long: LongAnswer) -> Result<Body, ApiError> {
    let (sender, mut chunks) = mpsc::channel(WAITING);
    let sink = Box::new(Sink { runtime: Handle::current(), sender });
    let writer = tokio::spawn(async move { face.export_snapshot(&id, sink).await });
    let first = chunks.recv().await;
    let export = Export { first, chunks, writer, _long: long };
    if export.first.is_none() {
        export.end().await.map_err(ApiError::Internal)?;
        return Ok(Body::empty());
    }
    Ok(Body::from_stream(stream::try_unfold(export, Export::next)))
}

struct Export {
    first: Option<Bytes>,
    chunks: Receiver<Bytes>,
    writer: JoinHandle<Result<(), DataError>>,
    _long: LongAnswer,
}

impl Export {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, io::Error> {
        let chunk = match self.first.take() {
            Some(first) => Some(first),
            None => self.chunks.recv().await,
        };
        match chunk {
            Some(chunk) => Ok(Some((chunk, self))),
            // An error in a body is what makes the server abort the connection.
            None => self.end().await.map(|()| None).map_err(io::Error::other),
        }
    }

    /// Whether the writer has written all of it.
    async fn end(self) -> Result<(), String> {
        let ended = self.writer.await.map_err(|e| e.to_string()).and_then(|ended| ended.map_err(|e| e.to_string()));
        ended.inspect_err(|why| tracing::warn!("an export failed: {why}"))
    }
}

/// The writer's end. Blocks, so it must be used on a thread that may.
struct Sink {
    runtime: Handle,
    sender: Sender<Bytes>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = &bytes[..bytes.len().min(CHUNK)];
        let sent = self.sender.send(Bytes::copy_from_slice(chunk));
        match self.runtime.block_on(async { timeout(STALLED, sent).await }) {
            Ok(Ok(())) => Ok(chunk.len()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone away")),
            Err(_) => {
                let why = format!("the client has read nothing for {} s", STALLED.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
