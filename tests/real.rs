//! The product against a real engine, a real registry, the real cosign and a GitHub that misbehaves.
//!
//! Every test is one row: what runs, what is offered, how the job must end and what it must say. What is
//! checked besides, in every one of them, stands in [`case`].

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that finds the world broken should panic")]

#[path = "real/advice.rs"]
mod advice;
#[path = "real/again.rs"]
mod again;
#[path = "real/case.rs"]
mod case;
#[path = "real/commits.rs"]
mod commits;
#[path = "real/compose.rs"]
mod compose;
#[path = "real/configuration.rs"]
mod configuration;
#[path = "real/container.rs"]
mod container;
#[path = "real/crew.rs"]
mod crew;
#[path = "real/data.rs"]
mod data;
#[path = "real/data_beside.rs"]
mod data_beside;
#[path = "real/databases.rs"]
mod databases;
#[path = "real/death.rs"]
mod death;
#[path = "support/disk.rs"]
mod disk;
#[path = "real/doctor.rs"]
mod doctor;
#[path = "real/drift.rs"]
mod drift;
#[path = "real/examples.rs"]
mod examples;
#[path = "real/kills.rs"]
mod kills;
#[path = "real/lost.rs"]
mod lost;
#[path = "real/one_shot.rs"]
mod one_shot;
#[path = "real/order.rs"]
mod order;
#[path = "real/planned.rs"]
mod planned;
#[path = "real/postgres.rs"]
mod postgres;
#[path = "real/power_cut.rs"]
mod power_cut;
#[path = "real/refuses.rs"]
mod refuses;
#[path = "real/remedies.rs"]
mod remedies;
#[path = "real/restarts.rs"]
mod restarts;
#[path = "real/rolls_back.rs"]
mod rolls_back;
#[path = "real/self_update.rs"]
mod self_update;
#[path = "real/settle.rs"]
mod settle;
#[path = "real/shapes.rs"]
mod shapes;
#[path = "real/sources.rs"]
mod sources;
#[path = "real/volumes.rs"]
mod volumes;
