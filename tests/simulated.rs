//! The whole machine against the simulated world, under a paused clock: every way a job can go.

#[path = "simulated/bench.rs"]
mod bench;
#[path = "simulated/death.rs"]
mod death;
#[path = "simulated/faults.rs"]
mod faults;
#[path = "simulated/stories.rs"]
mod stories;
