//! What happens to the calls that a test lets fail.

use super::{Failure, World};

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Fate {
    #[default]
    Go,
    /// Fails without having done anything.
    Fail(String),
    /// The same, as a kind.
    FailAs(Failure),
    /// Works, but reports a failure.
    Lose(String),
    /// The engine is away for this call.
    Away,
    /// No answer; the caller's own deadline ends it.
    Hang,
    /// Works, and no answer comes.
    HangAfter,
    /// The caller's task panics.
    Panic,
    /// The process dies before it.
    DieBefore,
    /// The process dies after it.
    DieAfter,
}

/// Decides the fate of calls. `name` is `engine.pull`, `compose.up/remove`, `env.write`, `data.cold` …
pub trait Faults: Send + Sync {
    fn fate(&self, name: &str) -> Fate;

    /// What somebody else does to the world just before the call.
    fn meanwhile(&self, _name: &str, _world: &mut World) {}

    /// The call has changed the world, perhaps.
    fn done(&self, _name: &str, _world: &World) {}
}

/// Everything goes well.
pub struct NoFaults;

impl Faults for NoFaults {
    fn fate(&self, _: &str) -> Fate {
        Fate::Go
    }
}
