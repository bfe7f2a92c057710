//! Does the application work? One probe here; the gate that judges many is [`gate`].

mod crashes;
pub mod gate;
pub mod http;
mod target;
pub mod tcp;
mod version;
mod watch;

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use target::HealthTarget;
pub use version::VersionAt;

use crate::engine::{Container, Engine};

/// What one question to the application brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It answered: the status, and what came of the body in time (at most 64 KiB of it).
    Http {
        status: u16,
        body: Vec<u8>,
    },
    /// It is there, and nothing more is asked: a port accepts connections, or a HEALTHCHECK decides.
    Accepted,
    Silent(Silence),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// Says nothing about the application: it was not even asked.
    #[error("the name {host} does not resolve ({why})")]
    NoSuchName { host: String, why: String },
    #[error("{0} refuses the connection")]
    Refused(String),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("{0}")]
    Other(String),
}

impl Silence {
    fn of_io(error: &io::Error, address: &str) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused(address.to_owned()),
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Where nothing but the container's own HEALTHCHECK is asked.
pub struct HealthcheckAlone;

#[async_trait]
impl Probe for HealthcheckAlone {
    async fn ask(&self, _container: &Container, _timeout: Duration) -> Answer {
        Answer::Accepted
    }
}

/// Asks the application. No redirects, no proxy of the environment.
#[async_trait]
pub trait Probe: Send + Sync {
    /// One question; never longer than `timeout`. Where the target's host is the container's own name, the
    /// container itself is asked, whoever else answers to that name.
    async fn ask(&self, container: &Container, timeout: Duration) -> Answer;

    /// A container, the application's or another one, accepts TCP connections at this port of its own address.
    async fn accepts(&self, container: &Container, port: u16, timeout: Duration) -> bool {
        let probe = tcp::TcpProbe { host: container.name.clone(), port };
        probe.ask(container, timeout).await == Answer::Accepted
    }
}

/// What a container that failed leaves to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its name.
    pub container: String,
    /// Of the run that ended last; `None`: it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// How often it was restarted while it was watched.
    #[serde(default)]
    pub restarts: i64,
    /// Its last lines, each once, the newest last.
    #[serde(default)]
    pub tail: Vec<String>,
}

/// So many lines are kept.
const WORDS: usize = 5;
/// So many are read for them: one that fails again and again repeats itself.
const READ: usize = 50;
/// The longest of them that is kept, in bytes.
const LONGEST_WORD: usize = 500;

impl Evidence {
    /// Reads the container's last lines. Where they cannot be read there are none.
    pub async fn read(engine: &dyn Engine, id: &str, name: &str, exit_code: Option<i64>, restarts: i64) -> Self {
        let lines = engine.log_tail(id, READ).await.unwrap_or_default();
        Self { container: name.to_owned(), exit_code, restarts, tail: last_words(&lines) }
    }

    /// For the end of an error; empty where it said nothing.
    pub fn words(&self) -> String {
        if self.tail.is_empty() {
            return String::new();
        }
        let quoted: Vec<String> = self.tail.iter().map(|line| format!("\"{line}\"")).collect();
        format!("; the last it said: {}", quoted.join(", "))
    }
}

/// The last different lines, each where it was said last.
fn last_words(lines: &[String]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for line in lines.iter().rev().map(|line| line.trim_end()).filter(|line| !line.is_empty()) {
        let line = line.get(..line.floor_char_boundary(LONGEST_WORD)).unwrap_or(line);
        if words.len() < WORDS && !words.iter().any(|word| word == line) {
            words.push(line.to_owned());
        }
    }
    words.reverse();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_said_once() {
        let long = "x".repeat(2 * LONGEST_WORD);
        for (said, expected) in [
            (&[][..], &[][..]),
            (&["a", "b"], &["a", "b"]),
            (&["died", "died", "died", "died", "died"], &["died"]),
            (&["start", "died", "start", "died"], &["start", "died"]),
            (&["died", "start", "died"], &["start", "died"]),
            (&["1", "2", "3", "4", "5", "6", "7"], &["3", "4", "5", "6", "7"]),
            (&["", "a", "  ", ""], &["a"]),
            (&[&long], &[&long[..LONGEST_WORD]]),
        ] {
            let said: Vec<String> = said.iter().map(ToString::to_string).collect();
            assert_eq!(last_words(&said), expected, "{said:?}");
        }
    }

    #[test]
    fn words_in_an_error() {
        let evidence =
            |tail: &[&str]| Evidence { tail: tail.iter().map(ToString::to_string).collect(), ..Evidence::default() };
        assert_eq!(evidence(&[]).words(), "");
        assert_eq!(evidence(&["no table", "bye"]).words(), "; the last it said: \"no table\", \"bye\"");
    }
}
