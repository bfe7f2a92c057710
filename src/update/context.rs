//! What every effect has at hand: the ports, and a way to say what goes on.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::book::Book;
use super::door::Door;
use super::job::{Job, JobId, Layer, Progress};
use super::ports::{CopyReport, Options, Ports};
use crate::engine::seal::Ours;
use crate::engine::{Container, ContainerSpec, EngineError, label};
use crate::health::Evidence;
use crate::text;

/// One job's surroundings.
#[derive(Clone)]
pub struct Context {
    pub ports: Ports,
    pub options: Arc<Options>,
    pub book: Arc<Book>,
    pub job: JobId,
    /// The way out of it.
    pub door: Arc<Door>,
    /// [`super::record::Record::sealed`]
    pub sealed: bool,
}

impl Context {
    /// The labels of a container that this job has made; `None` for every other.
    pub fn owns<'a>(&self, container: &'a Container) -> Option<Ours<'a>> {
        self.options.owner.seal.read_of(container, &self.job, self.sealed)
    }

    /// A container that belongs to this job.
    pub fn sealed(&self, mut spec: ContainerSpec, role: &str) -> ContainerSpec {
        spec.labels.insert(label::JOB.to_owned(), self.job.0.clone());
        spec.labels.insert(label::ROLE.to_owned(), role.to_owned());
        self.options.owner.seal.put_on(spec)
    }

    /// Containers that carry this job's label: those that it has made. The others are left alone, and told.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn own_containers(&self) -> Result<Vec<Container>, EngineError> {
        let found = self.ports.engine.containers(&[(label::JOB, &self.job.0)]).await?;
        let (own, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|c| self.owns(c).is_some());
        for other in others {
            self.warn(&format!(
                "container {} carries the label of this job, and was not made by it: it is left alone",
                other.name
            ));
        }
        Ok(own)
    }

    /// Changes the job as the world sees it.
    pub fn change(&self, change: impl FnOnce(&mut Job)) {
        self.book.change(&self.job.0, change);
    }

    /// A line of the running step, and of the job's whole log.
    pub fn say(&self, line: &str) {
        let line = &*text::clean(line.trim_end());
        self.ports.journal.log(&self.job, line);
        let now = self.ports.clock.now();
        self.change(|job| job.say(line, now));
    }

    /// Something the operator should know, which stops nothing.
    pub fn warn(&self, text: &str) {
        let text = &*text::clean(text);
        tracing::warn!(job = %self.job, "{text}");
        self.ports.journal.log(&self.job, &format!("warning: {text}"));
        self.change(|job| {
            if !job.warnings.iter().any(|w| w == text) {
                job.warnings.push(text.to_owned());
            }
        });
    }

    /// What a container that failed has left. The first one tells why the job turned back; what fails on the way back
    /// stands in the error.
    pub fn keep_evidence(&self, evidence: &Evidence) {
        self.change(|job| {
            job.evidence.get_or_insert_with(|| evidence.clone());
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
