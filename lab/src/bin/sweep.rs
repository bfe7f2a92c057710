//! Removes what dead runs of the laboratory left on the engine and in the temporary folder, and what the script
//! that starts it has shared among its programs.

fn main() {
    lab::run::sweep_at_the_end(&lab::engine::Engine::connect());
}
