//! The adapters on a real Docker engine with a real Compose and a real registry (`ci/lab.sh up`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod children;
mod compose;
mod compose_variables;
mod docker;
mod lab;
