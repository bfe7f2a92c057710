#!/usr/bin/env bash
# What must not happen to the shared engine, or not on its store: once more on a second one.
#
# It keeps its images in containerd's store, where an image's id is the digest of the manifest (on the classic
# store it is that of the config), and it may be killed: it is started again at once, as systemd does it. It
# lives in network and mount namespaces of its own, so that the first one's bridge and rules are not touched.
# Started by ./test, which has built everything.
set -euo pipefail

if [ "${1:-}" != inside ]; then
    exec unshare --net --mount "$0" inside
fi

folder=$(mktemp -d /var/tmp/updater-engine.XXXXXX)
export DOCKER_HOST="unix://$folder/docker.sock"
# Whoever ends the process in this file gets another one.
export UPDATER_LAB_ENGINE_PID="$folder/pid"
engine=
finish() {
    touch "$folder/over"
    [ ! -f "$folder/pid" ] || kill "$(cat "$folder/pid")" 2>/dev/null || true
    [ -z "$engine" ] || wait "$engine" 2>/dev/null || true
    # An engine that was killed leaves its containerd and some mounts behind; they are this namespace's own.
    [ ! -f "$folder/exec/containerd/containerd.pid" ] || kill "$(cat "$folder/exec/containerd/containerd.pid")" 2>/dev/null || true
    awk -v folder="$folder/" 'index($2, folder) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r umount --lazy || true
    rm -rf "$folder" || echo "left behind: $folder" >&2
}
trap finish EXIT

ip link set lo up
cat >"$folder/daemon.json" <<JSON
{"features": {"containerd-snapshotter": true}, "hosts": ["$DOCKER_HOST"], "pidfile": "$folder/pid",
 "data-root": "$folder/data", "exec-root": "$folder/exec"}
JSON
while [ ! -e "$folder/over" ]; do
    dockerd --config-file "$folder/daemon.json" >>"$folder/log" 2>&1 || sleep 0.1
done &
engine=$!
for _ in $(seq 300); do
    docker info >/dev/null 2>&1 && break
    sleep 0.2
done
docker info --format '{{json .DriverStatus}}' | grep -q io.containerd.snapshotter || {
    tail -n 20 "$folder/log" >&2
    echo "this engine does not use containerd's store: $(docker info --format '{{json .DriverStatus}}')" >&2
    exit 1
}
status=0
cargo nextest run --locked --test real -E 'test(/good_release|moved_to_another|what_runs_already|crashes_at_the_start|local_tag_moves|dies_leaves_no_trace|killed_while_swapping$|the_folder_alone/)' || status=1
# One after the other: they restart the engine.
cargo nextest run --locked --test real --run-ignored only --test-threads 1 -E 'test(/^restarts::/)' || status=1
exit $status
