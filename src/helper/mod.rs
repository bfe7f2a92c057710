//! Work that can only be done elsewhere: where the host's paths are true, and where the application's data
//! can be seen. On the host that is this very process; in a container it is a **helper**, a one-shot
//! container of our own image that sees what the work needs and nothing else.
//!
//! ```text
//!  the updater's container                         the engine's host
//!  ┌───────────────────────────────┐    creates   ┌──────────────────────────────────────┐
//!  │ compose.rs  env.rs  data.rs   │ ───────────▶ │ helper (deployment): the project's    │
//!  │   the domain's traits:        │   unix       │   folders at their own paths, engine  │
//!  │   in process, or by a call ───┼── socket in ─▶ helper (data): the application's mounts │
//!  │ session.rs  paths.rs  own.rs  │   the state  │   under /data, the state folder       │
//!  └───────────────────────────────┘   folder     │ serve.rs                              │
//!                                                 └──────────────────────────────────────┘
//! ```
//! The engine owns a helper, so a dead updater leaves no half-done swap: a helper whose updater is gone
//! ends what cannot be left in the middle (`compose up`), drops the rest, and vanishes. A helper lives as
//! long as it is in use: while the application is down no container has to be started first.
//!
//! | file | holds |
//! |---|---|
//! | [`own`]     | which container this process runs in, and what is mounted there |
//! | [`place`]   | may a job run here at all? waiting for what an earlier life began |
//! | [`paths`]   | which of the host's files the work needs (pure) |
//! | [`session`] | a helper: made, called, ended |
//! | [`deputy`]  | a container that updates the updater itself |
//! | [`wire`]    | what is said between the two |
//! | [`serve`]   | the helper's side |
//! | [`compose`], [`env`], [`data`] | the domain's traits, here or by a helper |

pub mod compose;
pub mod data;
pub mod deputy;
pub mod env;
pub mod own;
pub mod paths;
pub mod place;
pub mod serve;
pub mod session;
pub mod wire;
