#!/usr/bin/env bash
# The laboratory: a real Docker engine, Compose, a registry and cosign on a bare Debian 12 machine.
#
#   ci/lab.sh install   install what is missing (apt; needs root)
#   ci/lab.sh up        install, then start the engine if none answers
#   ci/lab.sh down      stop the engine, but only one that `up` started
#   ci/lab.sh app       build the applications, static; prints where the first of them is
#   ci/lab.sh databases FOLDER [NAME…]   make the database servers that tests put beside the application
#
# Debian 12's own engine (20.10) and Compose (1.29) are too old; the packages of the newer
# suite need nothing but a libc that bookworm has, so they are taken from there, pinned low
# so that nothing else is upgraded by accident.
set -euo pipefail

run_dir=${UPDATER_LAB_DIR:-/run/processgit-updater-lab}

say() { printf '%s\n' "lab: $*" >&2; }
die() { say "$*"; exit 1; }

# Every program that tests, demonstration and measurements start.
programs=(dockerd containerd runc docker cosign docker-registry iptables busybox openssl curl jq cc rsync zstd mkfs.ext4 mkfs.xfs mkfs.btrfs ip strace)

installed() {
    local program
    for program in "${programs[@]}"; do command -v "$program" >/dev/null || return 1; done
    docker compose version >/dev/null 2>&1
}

# The suite with packages that are new enough, beside the machine's own.
newer_suite() {
    [ ! -s /etc/apt/preferences.d/processgit-updater-lab ] || return 0
    local mirror
    mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n1)
    [ -n "$mirror" ] || mirror=$(awk '$1=="deb"{for(i=2;i<=NF;i++)if($i~/^http/){print $i;exit}}' /etc/apt/sources.list)
    [ -n "$mirror" ] || die "no Debian mirror found in /etc/apt"
    cat >/etc/apt/sources.list.d/processgit-updater-lab.sources <<SOURCES
Types: deb
URIs: $mirror
Suites: forky
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
    printf 'Package: *\nPin: release n=forky\nPin-Priority: 50\n' >/etc/apt/preferences.d/processgit-updater-lab
}

install_packages() {
    installed && return 0
    [ "$(id -u)" = 0 ] || die "installing needs root; needed are: ${programs[*]} and docker compose"
    command -v apt-get >/dev/null || die "this machine has no apt-get; install by hand: ${programs[*]} and docker compose"
    export DEBIAN_FRONTEND=noninteractive
    say "installing docker, compose, docker-registry and cosign"
    newer_suite
    apt-get -qq update >&2
    apt-get -qq install -y --no-install-recommends \
        docker.io/forky docker-cli/forky docker-compose/forky docker-buildx/forky \
        containerd/forky cosign/forky runc iptables docker-registry busybox-static openssl jq curl \
        rsync zstd strace e2fsprogs xfsprogs btrfs-progs iproute2 \
        gcc libc6-dev ca-certificates >&2
    installed || die "the packages are installed, but not all of these answer: ${programs[*]} and docker compose"
}

engine_up() {
    docker info >/dev/null 2>&1 && return 0
    [ "$(id -u)" = 0 ] || die "no Docker engine answers, and starting one needs root"
    mkdir -p "$run_dir"
    say "starting dockerd (log: $run_dir/dockerd.log)"
    rm -f /var/run/docker.pid
    setsid dockerd >"$run_dir/dockerd.log" 2>&1 </dev/null &
    echo $! >"$run_dir/dockerd.pid"
    for _ in $(seq 1 300); do
        docker info >/dev/null 2>&1 && return 0
        kill -0 "$(cat "$run_dir/dockerd.pid")" 2>/dev/null || { tail -n 20 "$run_dir/dockerd.log" >&2; die "dockerd ended"; }
        sleep 0.2
    done
    tail -n 20 "$run_dir/dockerd.log" >&2
    die "dockerd did not answer within 60 s"
}

engine_down() {
    [ -f "$run_dir/dockerd.pid" ] || return 0
    say "stopping dockerd"
    local pid; pid=$(cat "$run_dir/dockerd.pid")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 1 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
    rm -f "$run_dir/dockerd.pid"
}

# Static, so that they run in images FROM scratch.
build_app() {
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    local target
    target=$(rustc -vV | sed -n 's/^host: //p')
    RUSTFLAGS="-C target-feature=+crt-static" \
        cargo build --quiet --locked --release --package demo-app --target "$target" >&2
    echo "${CARGO_TARGET_DIR:-$PWD/target}/$target/release/demo-app"
}

build_databases() {
    [ "$(id -u)" = 0 ] || die "adding Debian's newer suite needs root"
    local folder=${1:?FOLDER}
    shift
    [ $# -gt 0 ] || set -- postgres15 postgres18 mariadb valkey
    newer_suite
    "$(dirname "${BASH_SOURCE[0]}")/databases/build" "$folder" "$@"
}

case "${1:-}" in
    install) install_packages ;;
    up) install_packages; engine_up ;;
    down) engine_down ;;
    app) build_app ;;
    databases) shift; build_databases "$@" ;;
    *) sed -n '2,9p' "$0"; exit 2 ;;
esac
