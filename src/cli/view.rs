//! How a job is shown while it runs: plain lines, or live on a terminal.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::news::{News, Seen};
use super::text;
use crate::update::job::{CopyProgress, Job, Layer, Progress};

/// The most layers that have a bar at a time: more would scroll.
const BARS: usize = 8;
const STEP: &str = "{spinner} {prefix:15}  {elapsed:>4}  {wide_msg}";
const LAYER: &str = "  {prefix:12}  {bar:24}  {decimal_bytes:>9} of {decimal_total_bytes:9}  {msg}";
/// A layer whose size is not known yet.
const WAITING: &str = "  {prefix:12}  {msg}";

/// Shows a job, each time it was looked at.
pub trait View {
    /// `job` as it is now.
    fn show(&mut self, job: &Job);
    /// Something that is not the job's.
    fn note(&mut self, text: &str);
}

/// The view for where the output goes.
pub fn choose(json: bool) -> Box<dyn View> {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    match json {
        true => Box::new(Silent),
        false if std::io::stderr().is_terminal() && std::io::stdout().is_terminal() && !dumb => {
            Box::new(Live::new(MultiProgress::new(), std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())))
        }
        false => Box::new(Plain::new(std::io::stdout())),
    }
}

/// Nothing but notes, which go to stderr: the answer is one JSON document at the end.
struct Silent;

impl View for Silent {
    fn show(&mut self, _job: &Job) {}

    fn note(&mut self, text: &str) {
        eprintln!("{text}");
    }
}

/// One line per event, for logs and pipes.
pub struct Plain<W> {
    out: W,
    seen: Seen,
}

impl<W: Write> Plain<W> {
    pub fn new(out: W) -> Self {
        Self { out, seen: Seen::default() }
    }

    /// A reader that has gone away does not stop the job, nor the wait for its verdict.
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.out, "{line}");
    }
}

impl<W: Write> View for Plain<W> {
    fn show(&mut self, job: &Job) {
        for news in self.seen.news(job) {
            match news {
                News::Began(state) => self.line(state.name()),
                News::Said(line) => self.line(&format!("  | {line}")),
                News::Warned(warning) => self.line(&format!("warning: {warning}")),
                News::Ended { state, took, error: None } => {
                    self.line(&format!("{state} done in {}", text::duration(took)));
                }
                News::Ended { state, took, error: Some(error) } => {
                    self.line(&format!("{state} failed after {}: {error}", text::duration(took)));
                }
            }
        }
    }

    fn note(&mut self, text: &str) {
        self.line(text);
    }
}

/// The running step at the bottom, with its layers; what is over scrolls up as lines.
///
/// ```text
///   │ release v0.1.2 found
/// ✓ planning          0.4 s
/// ⠙ pulling           12 s
///   4f4fb700ef54  ━━━━━━━━━━━━╸━━━━━━━   18.4 MB of 29.1 MB  Downloading
/// ```
pub struct Live {
    multi: MultiProgress,
    color: bool,
    seen: Seen,
    step: Option<ProgressBar>,
    layers: BTreeMap<String, ProgressBar>,
}

impl Live {
    pub fn new(multi: MultiProgress, color: bool) -> Self {
        Self { multi, color, seen: Seen::default(), step: None, layers: BTreeMap::new() }
    }

    fn line(&self, line: &str) {
        let _ = self.multi.println(line);
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn began(&mut self, name: &str) {
        self.over();
        let bar = self.multi.add(ProgressBar::new_spinner());
        bar.set_style(style(STEP));
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        self.step = Some(bar);
    }

    /// Clears what belongs to the running step.
    fn over(&mut self) {
        let layers = std::mem::take(&mut self.layers).into_values();
        layers.chain(self.step.take()).for_each(|bar| bar.finish_and_clear());
    }

    fn ended(&mut self, name: &str, took: Duration, error: Option<&str>) {
        self.over();
        let mark = if error.is_some() { self.paint("31", "✗") } else { self.paint("32", "✓") };
        self.line(&format!("{mark} {name:15}  {}", text::duration(took)));
        if let Some(error) = error {
            self.line(&format!("  {}", self.paint("31", error)));
        }
    }

    fn progress(&mut self, progress: Option<&Progress>) {
        match progress {
            Some(Progress::Layers(layers)) => self.pulled(layers),
            Some(Progress::Copy(copy)) => {
                if let Some(step) = &self.step {
                    step.set_message(copied(copy));
                }
            }
            None => {}
        }
    }

    fn pulled(&mut self, layers: &[Layer]) {
        let complete = |layer: &Layer| matches!(layer.status.as_str(), "Pull complete" | "Already exists");
        if let Some(step) = &self.step {
            let done = layers.iter().filter(|layer| complete(layer)).count();
            step.set_message(format!("{done} of {} layers", layers.len()));
        }
        let moving: Vec<&Layer> = layers.iter().filter(|layer| !complete(layer)).take(BARS).collect();
        self.layers.retain(|id, bar| {
            let stays = moving.iter().any(|layer| layer.id == *id);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        for layer in moving {
            let multi = &self.multi;
            let bar = self.layers.entry(layer.id.clone()).or_insert_with(|| multi.add(layer_bar(&layer.id)));
            bar.set_style(style(if layer.total == 0 { WAITING } else { LAYER }).progress_chars("━╸─"));
            bar.set_length(layer.total.max(layer.current));
            bar.set_position(layer.current);
            bar.set_message(text::clean(&layer.status).into_owned());
        }
    }
}

impl View for Live {
    fn show(&mut self, job: &Job) {
        for news in self.seen.news(job) {
            match news {
                News::Began(state) => self.began(state.name()),
                News::Said(line) => self.line(&format!("  {}", self.paint("2", &format!("│ {line}")))),
                News::Warned(warning) => self.line(&format!("{} {warning}", self.paint("33", "!"))),
                News::Ended { state, took, error } => self.ended(state.name(), took, error.as_deref()),
            }
        }
        self.progress(job.steps.last().and_then(|step| step.progress.as_ref()));
        if job.state.is_end() {
            self.over();
        }
    }

    fn note(&mut self, text: &str) {
        self.line(text);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.over();
    }
}

/// Made without a setter: those draw, and a bar that is not yet added draws over the others.
fn layer_bar(id: &str) -> ProgressBar {
    ProgressBar::new(0).with_style(style(WAITING)).with_prefix(text::clean(id).into_owned())
}

/// A template of ours; one that is wrong shows the default instead, and a test.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

pub(super) fn copied(copy: &CopyProgress) -> String {
    let of = |total: Option<String>| total.map_or_else(String::new, |total| format!(" of {total}"));
    let plural = if copy.total_files.unwrap_or(copy.files) == 1 { "" } else { "s" };
    // The application may write meanwhile: then there is more than was expected.
    let files = of(copy.total_files.filter(|total| *total >= copy.files).map(|total| total.to_string()));
    let bytes = of(copy.total_bytes.filter(|total| *total >= copy.bytes).map(text::bytes));
    let rate = text::bytes(copy.rate);
    format!("{}{files} file{plural}  {}{bytes}  {rate}/s", copy.files, text::bytes(copy.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::{ProgressDrawTarget, TermLike};
    use jiff::Timestamp;

    use crate::update::job::{JobId, State};

    /// A job with every kind of event, look by look.
    fn looks() -> Vec<Job> {
        let at = |second| Timestamp::from_second(second).unwrap();
        let layer =
            |id: &str, status: &str, current| Layer { id: id.into(), status: status.into(), current, total: 9_000_000 };
        let mut job = Job::new(JobId("job_1".into()), "v1".into(), at(0), false);
        let mut looks = vec![job.clone()];
        job.enter(State::Planning, at(0));
        job.say("release v1 found", at(0));
        job.warnings.push("drift accepted".into());
        looks.push(job.clone());
        job.enter(State::Pulling, at(2));
        let layers = vec![layer("aaaa", "Pull complete", 9_000_000), layer("bbbb", "Downloading", 4_500_000)];
        job.progress(Progress::Layers(layers), at(3));
        looks.push(job.clone());
        job.enter(State::Snapshotting, at(20));
        job.progress(
            Progress::Copy(CopyProgress { files: 1, bytes: 2_000_000, rate: 1_000_000, ..CopyProgress::default() }),
            at(21),
        );
        looks.push(job.clone());
        job.fail_step("no space left", at(23));
        job.enter(State::RollingBack, at(23));
        job.enter(State::RolledBack, at(24));
        looks.push(job);
        looks
    }

    #[test]
    fn plain_lines() {
        let mut view = Plain::new(Vec::new());
        looks().iter().for_each(|job| view.show(job));
        insta::assert_snapshot!(String::from_utf8(view.out).unwrap(), @r"
        planning
          | release v1 found
        warning: drift accepted
        planning done in 2.0 s
        pulling
        pulling done in 18 s
        snapshotting
        snapshotting failed after 3.0 s: no space left
        rolling_back
        rolling_back done in 1.0 s
        ");
    }

    /// A terminal that remembers everything that was ever written.
    #[derive(Debug, Clone, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, line: &str) -> io::Result<()> {
            self.write_str(line)?;
            self.write_str("\n")
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn live_on_a_terminal() {
        let paper = Paper::default();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(paper.clone()), 255);
        let mut view = Live::new(MultiProgress::with_draw_target(target), false);
        looks().iter().for_each(|job| view.show(job));
        let shown = paper.0.lock().unwrap().clone();
        for text in [
            "  │ release v1 found",
            "! drift accepted",
            "✓ planning         2.0 s",
            "✓ pulling          18 s",
            "✗ snapshotting     3.0 s",
            "  no space left",
            "✓ rolling_back     1.0 s",
        ] {
            assert!(shown.contains(text), "{text:?} is missing in:\n{shown}");
        }
        assert!(!shown.contains('\u{1b}'), "colors were not wanted");
    }

    #[test]
    fn templates_are_valid() {
        for template in [STEP, LAYER, WAITING] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
