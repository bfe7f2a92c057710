//! What every effect has at hand: the ports, and a way to say what goes on.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::book::Book;
use super::door::Door;
use super::job::{Job, JobId, Layer, Progress};
use super::ports::{CopyReport, Options, Ports};

/// One job's surroundings.
#[derive(Clone)]
pub struct Context {
    pub ports: Ports,
    pub options: Arc<Options>,
    pub book: Arc<Book>,
    pub job: JobId,
    /// The way out of it.
    pub door: Arc<Door>,
}

impl Context {
    /// Changes the job as the world sees it.
    pub fn change(&self, change: impl FnOnce(&mut Job)) {
        self.book.change(&self.job.0, change);
    }

    /// A line of the running step, and of the job's whole log.
    pub fn say(&self, line: &str) {
        let line = line.trim_end();
        self.ports.journal.log(&self.job, line);
        let now = self.ports.clock.now();
        self.change(|job| job.say(line, now));
    }

    /// Something the operator should know, which stops nothing.
    pub fn warn(&self, text: &str) {
        tracing::warn!(job = %self.job, "{text}");
        self.ports.journal.log(&self.job, &format!("warning: {text}"));
        self.change(|job| {
            if !job.warnings.iter().any(|w| w == text) {
                job.warnings.push(text.to_owned());
            }
        });
    }

    pub fn progress(&self, progress: Progress) {
        let now = self.ports.clock.now();
        self.change(|job| job.progress(progress, now));
    }

    /// Lines that a call sends, said as they come. The task ends when the sender is dropped.
    pub fn lines(&self, prefix: &'static str) -> (mpsc::Sender<String>, tokio::task::JoinHandle<()>) {
        let (sender, mut receiver) = mpsc::channel::<String>(256);
        let context = self.clone();
        let task = tokio::spawn(async move {
            while let Some(line) = receiver.recv().await {
                context.say(&format!("{prefix}{line}"));
            }
        });
        (sender, task)
    }

    /// Layers that a pull sends, shown as they come.
    pub fn layers(&self) -> (mpsc::Sender<Vec<Layer>>, tokio::task::JoinHandle<()>) {
        let (sender, mut receiver) = mpsc::channel::<Vec<Layer>>(16);
        let context = self.clone();
        let task = tokio::spawn(async move {
            while let Some(layers) = receiver.recv().await {
                context.progress(Progress::Layers(layers));
            }
        });
        (sender, task)
    }

    /// Copying that is shown as it comes on.
    pub fn copying(&self) -> CopyReport {
        let context = self.clone();
        Arc::new(move |copied| context.progress(Progress::Copy(copied)))
    }
}
