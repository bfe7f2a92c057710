//! Somebody writes while the application is updated, and remembers what the application has confirmed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::{eventually, http};

/// The pause after each note.
const PACE: Duration = Duration::from_millis(20);
/// Longer than this is no answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of the notes.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// All that were sent, confirmed or not: each may have been written.
    pub sent: BTreeSet<String>,
    /// Those that were confirmed, and by which version.
    pub confirmed: Vec<(String, String)>,
}

impl Notes {
    /// Those that this version has confirmed.
    pub fn confirmed_by<'a>(&'a self, version: &'a str) -> impl Iterator<Item = &'a str> {
        self.confirmed.iter().filter(move |(_, by)| by == version).map(|(note, _)| note.as_str())
    }
}

pub struct Writer {
    notes: Arc<Mutex<Notes>>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Adds one note after the other at this address; returns when the first one is confirmed.
    pub fn start(url: &str) -> Self {
        let notes: Arc<Mutex<Notes>> = Arc::default();
        let (url, sink) = (url.to_owned(), notes.clone());
        let run = crate::random_hex();
        let task = http::runtime().spawn(async move {
            for number in 1.. {
                let note = format!("note {number} of {run}");
                sink.lock().expect("nobody panics while writing").sent.insert(note.clone());
                if let Some(version) = send(&url, &note).await {
                    sink.lock().expect("nobody panics while writing").confirmed.push((note, version));
                }
                tokio::time::sleep(PACE).await;
            }
        });
        let writer = Self { notes, task };
        eventually("a confirmed note", Duration::from_secs(20), || {
            (!writer.notes.lock().expect("nobody panics while writing").confirmed.is_empty()).then_some(())
        });
        writer
    }

    pub fn stop(self) -> Notes {
        self.task.abort();
        self.notes.lock().expect("nobody panics while writing").clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The version that confirms it.
async fn send(url: &str, note: &str) -> Option<String> {
    let request = http::client().post(url).body(note.to_owned()).timeout(PATIENCE);
    let answer = request.send().await.ok().filter(|answer| answer.status() == 201)?;
    let body: serde_json::Value = answer.json().await.ok()?;
    body["version"].as_str().map(str::to_owned)
}
