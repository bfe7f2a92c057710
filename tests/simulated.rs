//! The whole machine against the simulated world, under a paused clock: every way a job can go.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "simulated/abort.rs"]
mod abort;
#[path = "simulated/bench.rs"]
mod bench;
#[path = "simulated/by_hand.rs"]
mod by_hand;
#[path = "simulated/commands.rs"]
mod commands;
#[path = "simulated/crew.rs"]
mod crew;
#[path = "simulated/data_beside.rs"]
mod data_beside;
#[path = "simulated/data_services.rs"]
mod data_services;
#[path = "simulated/death.rs"]
mod death;
#[path = "support/disk.rs"]
mod disk;
#[path = "simulated/doctor.rs"]
mod doctor;
#[path = "simulated/doctor_rows.rs"]
mod doctor_rows;
#[path = "simulated/explorer.rs"]
mod explorer;
#[path = "simulated/faults.rs"]
mod faults;
#[path = "simulated/forged.rs"]
mod forged;
#[path = "simulated/full_disk.rs"]
mod full_disk;
#[path = "simulated/gate.rs"]
mod gate;
#[path = "simulated/hostile.rs"]
mod hostile;
#[path = "simulated/identity.rs"]
mod identity;
#[path = "simulated/invariants.rs"]
mod invariants;
#[path = "simulated/journal.rs"]
mod journal;
#[path = "simulated/lost.rs"]
mod lost;
#[path = "simulated/meddling.rs"]
mod meddling;
#[path = "simulated/others.rs"]
mod others;
#[path = "simulated/outages.rs"]
mod outages;
#[path = "simulated/readers.rs"]
mod readers;
#[path = "simulated/settle.rs"]
mod settle;
#[path = "simulated/spellings.rs"]
mod spellings;
#[path = "simulated/stops.rs"]
mod stops;
#[path = "simulated/stories.rs"]
mod stories;
#[path = "simulated/two_updaters.rs"]
mod two_updaters;
#[path = "simulated/versions.rs"]
mod versions;
