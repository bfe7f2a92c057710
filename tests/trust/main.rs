//! Is it genuine? Against the real cosign, a real registry, and a private Sigstore made on the spot.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod authorities;
mod forgery;
mod key;
mod keyless;
mod keyless_image;
mod lab;
mod mutation;
mod refresh;
mod registry;
mod signed;
mod sigstore;
mod whereabouts;
