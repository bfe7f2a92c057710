//! Copies of the data, and the exact way back. A blocking library that knows folders, not Docker; only
//! [`host`] knows what an update asks of it.
//!
//! A [`Generation`] is a complete, readable tree in a [`Repository`]; what did not change since the
//! generation before is one more name of the same inode there, and a manifest records every attribute.
//!
//! ```text
//! let repository = Repository::open(folder)?;
//! repository.preflight(&sources, &mut Quiet)?.verdict()?;         // before anything is stopped
//! let mut pass = repository.begin(sources.clone(), label)?;
//! pass.hot(&mut Quiet)?;                                          // the application runs
//! let generation = pass.cold(&mut Quiet)?;                        // it is stopped, and stays so until this is done
//! // … the new version fails …
//! if !repository.equals(&generation, &sources, &mut Quiet)? {
//!     repository.keep_present_state(sources.clone(), "failed-job", label, &mut Quiet)?;
//!     repository.restore(&generation, &sources, &mut Quiet)?;     // verified; can be run again after a crash
//! }
//! ```
//!
//! | room | holds |
//! |---|---|
//! | `repository` | the folder of generations: layout, lock, what is done to finished ones |
//! | `pass`       | hot pass, cold pass, finishing |
//! | `mirror`     | one pass over one source |
//! | `restore`, `verify`, `changes` | back in place; is it as recorded; how far is it off |
//! | `preflight`, `retention`, `export` | is there room; what is too old; one file for elsewhere (`tar`) |
//! | `manifest`, [`entry`] | the record: its format, and what it says of an entry |
//! | `root`, [`mounted`], [`look`] | a source's root, opened as it was noted; volumes that are mounted only while they are used; what a container sees |
//! | `walk`, `trail`, `beneath` | through trees by descriptors: no link followed, no mount crossed |
//! | [`host`], `off` | as the update uses it: in process on the host; or not at all |
//! | `limits` | how large a tree may be |
//! | `attributes`, `content`, `links`, `node`, `inspect` | metadata, bytes and holes, hard links, making and removing, comparing |
//!
//! What it needs: root, or the capabilities CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP and MKNOD (and
//! SYS_ADMIN for `trusted.*` attributes), and `/proc`.
//!
//! What it does not hold: access and birth times, inode flags (`chattr`), names of an inode outside of
//! its source, and the room that `fallocate` reserved.

mod attributes;
mod beneath;
mod changes;
pub mod content;
pub mod entry;
mod error;
mod export;
pub mod host;
mod inspect;
mod limits;
mod links;
pub mod look;
pub mod manifest;
mod mirror;
pub mod mounted;
mod node;
mod off;
mod pass;
mod preflight;
mod progress;
mod repository;
mod restore;
mod retention;
mod root;
mod tar;
mod trail;
mod verify;
mod walk;

pub use changes::Changes;
pub use error::{Difference, Error};
pub use export::ExportReport;
pub use limits::{HELD, Limits};
pub use off::NoSnapshots;
pub use pass::Pass;
pub use preflight::Preflight;
pub use progress::{Counts, Progress, Quiet};
pub use repository::{Generation, Label, Meta, Repository, SourceMeta, list};
pub use restore::RestoreReport;
pub use retention::Keep;
pub use root::{Identity, Source};
