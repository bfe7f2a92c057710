//! How long was the application away? Asks every 10 ms, on a fresh connection each time, as a new
//! visitor would.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::task::JoinHandle;

use crate::http;

/// The pause between two questions.
const PACE: Duration = Duration::from_millis(10);
/// Longer than this is no answer, when downtime is measured.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longer than this is no answer, when it is to be shown that there was no downtime at all: a machine that
/// is busy with other tests may be slow, and slow is not down.
const LONG_PATIENCE: Duration = Duration::from_secs(10);

/// One question.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When the answer came, or its absence was certain.
    pub at: Instant,
    /// The body of a 200.
    pub answer: Option<String>,
}

pub struct Poller {
    samples: Arc<Mutex<Vec<Sample>>>,
    task: JoinHandle<()>,
}

impl Poller {
    /// Measures downtime.
    pub fn start(url: &str) -> Self {
        Self::with_patience(url, PATIENCE)
    }

    /// Shows that there was none; a slow answer is an answer.
    pub fn patient(url: &str) -> Self {
        Self::with_patience(url, LONG_PATIENCE)
    }

    fn with_patience(url: &str, patience: Duration) -> Self {
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let (url, sink) = (url.to_owned(), samples.clone());
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .timeout(patience)
            .build()
            .expect("an HTTP client");
        let task = http::runtime().spawn(async move {
            let mut pace = tokio::time::interval(PACE);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                pace.tick().await;
                let answer = ask(&client, &url).await;
                sink.lock().expect("nobody panics while sampling").push(Sample { at: Instant::now(), answer });
            }
        });
        Self { samples, task }
    }

    /// Ends the polling.
    pub fn stop(self) -> Samples {
        self.task.abort();
        Samples(self.samples.lock().expect("nobody panics while sampling").clone())
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask(client: &Client, url: &str) -> Option<String> {
    let answer = client.get(url).send().await.ok().filter(|answer| answer.status() == 200)?;
    answer.text().await.ok()
}

/// What was seen, in order.
#[derive(Debug)]
pub struct Samples(pub Vec<Sample>);

impl Samples {
    /// Every stretch without an answer: from the last good answer before to the first one after.
    pub fn gaps(&self) -> Vec<Duration> {
        let mut gaps = Vec::new();
        let (mut last_good, mut broken) = (None, false);
        for sample in &self.0 {
            if sample.answer.is_none() {
                broken = true;
                continue;
            }
            if let (true, Some(since)) = (broken, last_good) {
                gaps.push(sample.at - since);
            }
            (last_good, broken) = (Some(sample.at), false);
        }
        gaps
    }

    /// All of them together.
    pub fn downtime(&self) -> Duration {
        self.gaps().iter().sum()
    }

    /// When an answer containing `text` first came.
    pub fn first(&self, text: &str) -> Option<Instant> {
        self.0.iter().find(|s| s.answer.as_ref().is_some_and(|answer| answer.contains(text))).map(|s| s.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_reaches_from_the_last_good_answer_to_the_next() {
        let start = Instant::now();
        let at = |ms: u64, answer: Option<&str>| Sample {
            at: start + Duration::from_millis(ms),
            answer: answer.map(str::to_owned),
        };
        let samples = Samples(vec![
            at(0, None), // not up yet: no gap
            at(10, Some("1")),
            at(20, Some("1")),
            at(30, None),
            at(40, None),
            at(50, Some("2")),
            at(60, None),
            at(75, Some("2")),
            at(80, None), // never came back: no end, no gap
        ]);
        assert_eq!(samples.gaps(), [30, 25].map(Duration::from_millis));
        assert_eq!(samples.downtime(), Duration::from_millis(55));
        assert_eq!(samples.first("2"), Some(start + Duration::from_millis(50)));
    }
}
