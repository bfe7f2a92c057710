//! processgit-updater: updates a Docker Compose application as one transaction over the image that
//! runs, the configuration that selects it (`.env`) and the data in its volumes.
//!
//! The map. Dependencies point one way: the domain (`update`) knows traits and plain types; adapters
//! implement the traits; [`daemon`] is the only place where real adapters are built.
//!
//! | room | holds |
//! |---|---|
//! | [`update`]   | the domain: job, plan, policy, transition (pure), run, recover, effects |
//! | [`release`]  | manifest (pure), where releases come from |
//! | [`trust`]    | is it genuine? signatures on manifest and image |
//! | [`engine`]   | our own view of Docker and Compose; real, and simulated |
//! | [`health`]   | does the application work? |
//! | [`snapshot`] | copies of the data, exact restore |
//! | [`envfile`]  | the `.env` editor |
//! | [`command`]  | commands that are printed, quoted for the shell |
//! | [`failpoint`] | where tests make a debug build die |
//! | [`helper`]   | work where the host's paths are true: in process, or in a one-shot container of our image |
//! | [`https`]    | HTTP clients: whom they believe, made when first used |
//! | [`platform`] | platforms: which images an engine runs (pure) |
//! | [`reference`] | names of images: one grammar, one normal form (pure) |
//! | [`registry`] | reading signatures from registries |
//! | [`store`]    | the journal on disk |
//! | [`retry`]    | asking again: pauses, `Retry-After`, one deadline |
//! | [`text`]     | text from outside, cleaned (pure) |
//! | [`settings`] | environment and flags, validated, all faults at once |
//! | [`api`]      | the HTTP contract |
//! | [`cli`]      | the commands: thin clients of the API, except `serve` |
//! | [`daemon`]   | composition root |
//! | [`doctor`]   | everything that would make an update fail, looked at beforehand |
//! | [`deputy`]   | the other one: the updater's own update |

pub mod api;
pub mod cli;
pub mod clock;
pub mod command;
pub mod daemon;
pub mod deputy;
pub mod doctor;
pub mod engine;
pub mod envfile;
pub mod failpoint;
pub mod health;
pub mod helper;
pub mod https;
pub mod platform;
pub mod reference;
pub mod registry;
pub mod release;
pub mod retry;
pub mod settings;
pub mod snapshot;
pub mod store;
pub mod text;
pub mod trust;
pub mod update;
