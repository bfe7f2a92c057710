//! Removes what dead runs of the laboratory left on the engine and in the temporary folder.

fn main() {
    lab::run::sweep(&lab::engine::Engine::connect());
}
