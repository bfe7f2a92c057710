//! Pure tables: what the domain decides, without any I/O.

mod advice;
mod beside;
mod data_beside;
pub mod drift;
mod errors;
mod hosts;
mod job;
mod named;
mod observe;
mod one_shot;
mod plan;
mod policy;
mod recovery;
mod refusal;
mod running;
mod sources;
mod transition;
mod unset;
mod version_changes;
mod volumes;
