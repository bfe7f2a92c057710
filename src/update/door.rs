//! The way out of a job: `abort`, as long as nothing was changed.
//!
//! Only the job's own task writes its record, so only it can leave the job; whoever asks waits for its
//! answer. Just before the first effect that touches the application the door is closed, under the lock
//! under which others come in: everybody who asks gets exactly one answer, and it stays true.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

/// Why a job was not aborted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AbortError {
    #[error("there is no job {0:?}: /history lists the last ones")]
    Unknown(String),
    /// Too late; says why.
    #[error("{0}")]
    TooLate(String),
    /// It could not be written down, so the job goes on.
    #[error("the journal cannot be written, so the job goes on: {0}")]
    Journal(String),
    /// The process is stopping, and the next start takes the job up.
    #[error("the updater is stopping: ask again when it is back")]
    Stopping,
}

type Answer = Result<(), AbortError>;

/// One job's door.
#[derive(Debug)]
pub struct Door {
    state: Mutex<State>,
    knocked: Notify,
}

#[derive(Debug)]
enum State {
    Open(Vec<oneshot::Sender<Answer>>),
    Left,
    Closed(AbortError),
}

impl Door {
    pub fn open() -> Self {
        Self::of(State::Open(Vec::new()))
    }

    /// Of a job that an earlier life has aborted.
    pub fn left() -> Self {
        Self::of(State::Left)
    }

    fn of(state: State) -> Self {
        Self { state: Mutex::new(state), knocked: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks to leave, and waits for the answer of the job's task.
    ///
    /// # Errors
    /// It is too late, it could not be recorded, or the process is stopping.
    pub async fn knock(&self) -> Answer {
        let answer = match &mut *self.state() {
            State::Left => return Ok(()),
            State::Closed(why) => return Err(why.clone()),
            State::Open(asking) => {
                let (sender, answer) = oneshot::channel();
                asking.push(sender);
                answer
            }
        };
        self.knocked.notify_one();
        answer.await.unwrap_or(Err(AbortError::Stopping))
    }

    /// Somebody waits for an answer.
    pub fn is_asked(&self) -> bool {
        matches!(&*self.state(), State::Open(asking) if !asking.is_empty())
    }

    /// Returns when somebody asks.
    pub async fn asked(&self) {
        while !self.is_asked() {
            self.knocked.notified().await;
        }
    }

    /// From here on it is too late. False, and still open, when somebody has asked before.
    pub fn close(&self, why: &str) -> bool {
        let mut state = self.state();
        match &*state {
            State::Open(asking) if !asking.is_empty() => return false,
            State::Open(_) => *state = State::Closed(AbortError::TooLate(why.to_owned())),
            State::Left | State::Closed(_) => {}
        }
        true
    }

    /// As [`Door::close`], and whoever has asked hears why. Who was let out stays out.
    pub fn shut(&self, why: AbortError) {
        let mut state = self.state();
        if matches!(*state, State::Left) {
            return;
        }
        if let State::Open(asking) = std::mem::replace(&mut *state, State::Closed(why.clone())) {
            answer_all(asking, &Err(why));
        }
    }

    /// Answers everybody who has asked: the job is left, or (`Err`) it could not be recorded.
    pub fn answer(&self, recorded: Answer) {
        let mut state = self.state();
        let next = if recorded.is_ok() { State::Left } else { State::Open(Vec::new()) };
        if let State::Open(asking) = std::mem::replace(&mut *state, next) {
            answer_all(asking, &recorded);
        }
    }
}

fn answer_all(asking: Vec<oneshot::Sender<Answer>>, answer: &Answer) {
    for sender in asking {
        // Whoever hung up does not want to know.
        let _ = sender.send(answer.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn late(why: &str) -> AbortError {
        AbortError::TooLate(why.into())
    }

    /// Somebody who has knocked and waits.
    async fn knocking(door: &Arc<Door>) -> tokio::task::JoinHandle<Answer> {
        let at = door.clone();
        let asker = tokio::spawn(async move { at.knock().await });
        door.asked().await;
        asker
    }

    #[tokio::test]
    async fn whoever_knocks_first_is_let_out_and_the_door_does_not_close_on_them() {
        let door = Arc::new(Door::open());
        let asker = knocking(&door).await;
        assert!(!door.close("the application is stopped"), "somebody has asked before");
        door.answer(Ok(()));
        assert_eq!(asker.await.unwrap(), Ok(()));
        assert!(door.close("too late"), "nobody waits any more");
        door.shut(late("ended"));
        assert_eq!(door.knock().await, Ok(()), "asked again, the same answer");
    }

    #[tokio::test]
    async fn a_closed_door_says_why_at_once() {
        let door = Door::open();
        assert!(door.close("first"));
        assert!(door.close("second"));
        assert_eq!(door.knock().await, Err(late("first")));
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let door = Arc::new(Door::open());
        let asker = knocking(&door).await;
        door.shut(AbortError::Stopping);
        assert_eq!(asker.await.unwrap(), Err(AbortError::Stopping));

        let door = Arc::new(Door::open());
        let asker = knocking(&door).await;
        door.answer(Err(AbortError::Journal("full".into())));
        assert_eq!(asker.await.unwrap(), Err(AbortError::Journal("full".into())));
        let again = knocking(&door).await;
        door.answer(Ok(()));
        assert_eq!(again.await.unwrap(), Ok(()), "what could not be recorded may be asked for again");
    }
}
