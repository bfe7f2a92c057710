# Sourced by ./test, ./demo and ./bench: what comes before and after each of them.
#
# Before: tools, the engine, the demonstration application. After, however it ends: leftovers are swept,
# and an engine that was not running before is stopped.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
engine_ran_before=yes

begin() {
    command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer" >&2; exit 1; }
    docker info >/dev/null 2>&1 || engine_ran_before=no
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    ci/lab.sh up
    LAB_DEMO_APP=$(ci/lab.sh app)
    export LAB_DEMO_APP
}

# The tests' runner, built from source where it is missing: some minutes, once.
nextest() {
    command -v cargo-nextest >/dev/null && return
    echo "installing cargo-nextest" >&2
    cargo install --quiet --locked cargo-nextest
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
}

finish() {
    trap '' INT TERM
    local sweep
    for sweep in "$CARGO_TARGET_DIR"/{debug,release,*/release}/sweep; do
        if [ -x "$sweep" ]; then "$sweep" || true; break; fi
    done
    [ "$engine_ran_before" = yes ] || ci/lab.sh down
}
