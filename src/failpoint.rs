//! Named places at which a test makes the process die as `kill -9` does, or stand still. A release build has
//! none of this.
//!
//! | variable | |
//! |---|---|
//! | `UPDATER_FAILPOINT=kill PLACE#N` | dies when it comes to the place for the Nth time |
//! | `UPDATER_FAILPOINT=stop PLACE#N` | the process stops, as by SIGSTOP, until it gets SIGCONT |
//! | `UPDATER_FAILPOINT=wait PLACE#N` | the thread that comes there stands still for ever |
//! | `UPDATER_STATE_FORMAT=N` | it leaves its journal as a program of the future does that writes format N |
//! | `UPDATER_FAILPOINT_LOG=FILE` | every place it comes to is appended, one a line |
//!
//! A place is `EFFECT/NAME`: the effect that is at work, and what it has just done.

#[cfg(not(debug_assertions))]
use std::fmt::Arguments;

/// The process has come to the place `name` of the present effect.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_name: Arguments<'_>) {}

/// From here on, this effect is at work.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn enter(_effect: Arguments<'_>) {}

/// The format that the journal has after this program of the future has opened it.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn newer_format() -> Option<i64> {
    None
}

#[cfg(debug_assertions)]
pub use debug::{enter, newer_format, reach};

#[cfg(debug_assertions)]
mod debug {
    use std::collections::HashMap;
    use std::env;
    use std::fmt::Arguments;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use rustix::process::{Signal, getpid, kill_process};

    #[derive(Default)]
    struct Passed {
        effect: String,
        times: HashMap<String, usize>,
    }

    static PASSED: LazyLock<Mutex<Passed>> = LazyLock::new(Mutex::default);
    /// What to do, and where.
    static ORDER: LazyLock<Option<(String, String)>> = LazyLock::new(|| {
        let order = env::var("UPDATER_FAILPOINT").ok()?;
        order.split_once(' ').map(|(what, place)| (what.to_owned(), place.to_owned()))
    });
    static LOG: LazyLock<Option<PathBuf>> = LazyLock::new(|| env::var_os("UPDATER_FAILPOINT_LOG").map(Into::into));

    pub fn enter(effect: Arguments<'_>) {
        PASSED.lock().unwrap_or_else(PoisonError::into_inner).effect = effect.to_string();
    }

    pub fn newer_format() -> Option<i64> {
        env::var("UPDATER_STATE_FORMAT").ok()?.parse().ok()
    }

    pub fn reach(name: Arguments<'_>) {
        if ORDER.is_none() && LOG.is_none() {
            return;
        }
        let place = {
            let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
            let place = format!("{}/{name}", passed.effect);
            let times = passed.times.entry(place.clone()).or_default();
            *times += 1;
            format!("{place}#{times}")
        };
        if let Some(path) = &*LOG {
            let log = OpenOptions::new().create(true).append(true).open(path);
            // The test looks into it, and finds what is missing.
            let _ = log.and_then(|mut log| log.write_all(format!("{place}\n").as_bytes()));
        }
        let Some((what, _)) = ORDER.as_ref().filter(|(_, at)| *at == place) else { return };
        match what.as_str() {
            "kill" => {
                let _ = kill_process(getpid(), Signal::KILL);
                // The first process of a container cannot kill itself by a signal.
                std::process::abort();
            }
            "stop" => {
                let _ = kill_process(getpid(), Signal::STOP);
            }
            _ => loop {
                std::thread::park();
            },
        }
    }
}
