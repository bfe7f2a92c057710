//! What the updater and a helper say to each other: a call is a connection, a frame is its length, its kind
//! and its bytes.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::engine::{ComposeConfig, EngineError, Project};
use crate::envfile::EnvFileError;
use crate::update::job::{CopyProgress, JobId};
use crate::update::ports::{CopyLabel, DataError, DataMount, EnvError, Look, Standing};

/// The most that one frame may hold, bytes: a resolved configuration is the largest thing said.
const LARGEST: usize = 32 * 1024 * 1024;

/// What a helper is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Nothing; the helper lives as long as this connection.
    Lifeline,
    ComposeVersion,
    ComposeConfig {
        project: Project,
        /// As [`crate::engine::Compose::config`] has it.
        env: Option<Vec<u8>>,
    },
    ComposeWritten {
        project: Project,
    },
    ComposeDryRun {
        project: Project,
        service: String,
    },
    ComposeUp {
        project: Project,
    },
    ComposeCreate {
        project: Project,
        config: ComposeConfig,
    },
    ComposeRun {
        project: Project,
        config: ComposeConfig,
        env: Option<Vec<u8>>,
    },
    ComposeStop {
        project: Project,
        service: String,
    },
    ComposeStart {
        project: Project,
        service: String,
    },
    /// A file of the host; `None` where there is none.
    Read {
        path: String,
    },
    /// Atomic and durable; `None` removes it.
    EnvWrite {
        path: String,
        bytes: Option<Vec<u8>>,
    },
    EnvPreflight {
        path: String,
        project_env: Vec<String>,
    },
    DataLook {
        mounts: Vec<Look>,
    },
    DataPreflight {
        mounts: Vec<DataMount>,
    },
    DataRoom {
        mounts: Vec<DataMount>,
    },
    DataHot {
        label: CopyLabel,
        mounts: Vec<DataMount>,
    },
    DataCold {
        label: CopyLabel,
        mounts: Vec<DataMount>,
    },
    DataRunning {
        label: CopyLabel,
        mounts: Vec<DataMount>,
    },
    DataRestore {
        label: CopyLabel,
        generation: String,
        mounts: Vec<DataMount>,
        pinned: Vec<String>,
    },
    DataLoad {
        generation: String,
        mounts: Vec<DataMount>,
    },
    DataTidy {
        job: JobId,
        standing: Standing,
    },
    DataList,
    DataVerify {
        generation: String,
    },
    DataDistance {
        generation: String,
        mounts: Vec<DataMount>,
    },
    /// Answered by [`Frame::Bytes`], then by [`Said::Done`].
    DataExport {
        generation: String,
    },
}

/// What a helper answers: any number of lines and progress, then how it ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    Line(String),
    Copied(CopyProgress),
    Done(serde_json::Value),
    Failed(Failure),
}

/// A call's own error, so that it arrives with its kind and values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error(transparent)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    Engine(EngineError),
    Env(EnvError),
    Data(DataError),
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<EnvError> for Failure {
    fn from(error: EnvError) -> Self {
        Self::Env(error)
    }
}

impl From<EnvFileError> for Failure {
    fn from(error: EnvFileError) -> Self {
        Self::Env(error.into())
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::Data(error)
    }
}

impl From<Failure> for EngineError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Engine(error) => error,
            Failure::Env(error) => Self::Failed(error.to_string()),
            Failure::Data(error) => Self::Failed(error.to_string()),
        }
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.to_string()
    }
}

impl From<Failure> for EnvError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Env(error) => error,
            other => Self::Engine(other.into()),
        }
    }
}

impl From<Failure> for DataError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Data(error) => error,
            other => Self::Engine(other.into()),
        }
    }
}

/// A piece of a connection.
#[derive(Debug)]
pub enum Frame {
    Message(Vec<u8>),
    Bytes(Vec<u8>),
}

const MESSAGE: u8 = b'm';
const BYTES: u8 = b'b';

/// Writes a message.
///
/// # Errors
/// The other side is gone.
pub async fn say<T: Serialize + Sync>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    write(to, MESSAGE, &serde_json::to_vec(message)?).await
}

/// Writes bytes that are no message.
///
/// # Errors
/// The other side is gone.
pub async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    write(to, BYTES, bytes).await
}

async fn write(to: &mut (impl AsyncWrite + Unpin), kind: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|n| *n as usize <= LARGEST);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too large"))?;
    let mut frame = Vec::with_capacity(bytes.len() + 5);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.push(kind);
    frame.extend_from_slice(bytes);
    to.write_all(&frame).await
}

/// The next frame; `None` when the other side has ended between two.
///
/// # Errors
/// The connection broke, or what came is no frame.
pub async fn hear(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut head = [0; 5];
    match from.read_exact(&mut head).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if length > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    match head[4] {
        MESSAGE => Ok(Some(Frame::Message(bytes))),
        BYTES => Ok(Some(Frame::Bytes(bytes))),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of kind {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::ports::{IoCause, Obstacle};

    #[tokio::test]
    async fn frames_come_as_they_were_sent() {
        let (mut a, mut b) = tokio::io::duplex(1 << 20);
        say(&mut a, &Call::Read { path: "/srv/.env".into() }).await.unwrap();
        send(&mut a, b"\0raw").await.unwrap();
        drop(a);
        let Some(Frame::Message(text)) = hear(&mut b).await.unwrap() else { panic!("no message") };
        assert!(matches!(serde_json::from_slice(&text).unwrap(), Call::Read { path } if path == "/srv/.env"));
        assert!(matches!(hear(&mut b).await.unwrap(), Some(Frame::Bytes(bytes)) if bytes == b"\0raw"));
        assert!(hear(&mut b).await.unwrap().is_none());
    }

    /// A helper's error arrives as the kind it was, with its values.
    #[test]
    fn errors_arrive_as_they_were() {
        let cause = IoCause::from(std::io::Error::from_raw_os_error(30));
        let env = EnvError::Unwritable { path: "/d/.env".into(), folder: "/d".into(), cause };
        let data = DataError::Preflight(vec![
            Obstacle::NoRoom { folder: "/s".into(), needed: 20, free: 3 },
            Obstacle::Unable { folder: "/s".into(), why: "no ACL".into() },
        ]);
        let file = EnvFileError::Owner {
            path: "/d/.env".into(),
            uid: 1,
            gid: 2,
            source: std::io::Error::from_raw_os_error(1).into(),
        };
        let gone = EngineError::NotFound("container a".into());
        let sent = |failure: Failure| -> Failure {
            match serde_json::from_str(&serde_json::to_string(&Said::Failed(failure)).unwrap()).unwrap() {
                Said::Failed(failure) => failure,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(EnvError::from(sent(env.clone().into())), env);
        assert_eq!(EnvError::from(sent(file.clone().into())), EnvError::File(file));
        assert_eq!(DataError::from(sent(data.clone().into())), data);
        assert_eq!(EngineError::from(sent(gone.clone().into())), gone);
        assert_eq!(EnvError::from(sent(gone.clone().into())), EnvError::Engine(gone.clone()));
        assert_eq!(DataError::from(sent(gone.clone().into())), DataError::Engine(gone));
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        for (bytes, why) in [
            (&[255, 255, 255, 255, MESSAGE][..], "a frame of 4294967295 bytes"),
            (&[0, 0, 0, 0, b'?'], "a frame of kind 63"),
            (&[0, 0, 0, 9, MESSAGE, 1], "early eof"),
        ] {
            let error = hear(&mut &bytes[..]).await.unwrap_err();
            assert_eq!(error.to_string(), why);
        }
    }
}
