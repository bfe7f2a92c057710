//! Copies of the data, exact restore. (map to come)

mod attributes;
mod beneath;
mod changes;
pub mod content;
pub mod entry;
mod error;
mod inspect;
mod links;
pub mod manifest;
mod mirror;
mod node;
mod pass;
mod progress;
mod repository;
mod restore;
mod retention;
mod trail;
mod verify;
mod walk;

pub use changes::Changes;
pub use error::{Difference, Error};
pub use pass::Pass;
pub use progress::{Counts, Progress, Quiet};
pub use repository::{Generation, Label, Meta, Repository, Source, SourceMeta, list};
pub use restore::RestoreReport;
