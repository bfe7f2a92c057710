#!/usr/bin/env bash
# The end-to-end cases that depend on what an image's id is, once more on an engine that keeps its images in
# containerd's store: there an id is the digest of the manifest, on the classic store that of the config.
#
# The engine is a second one, in network and mount namespaces of its own, so that the first one's bridge and
# rules are not touched. Started by ./test, which has built everything.
set -euo pipefail

if [ "${1:-}" != inside ]; then
    exec unshare --net --mount "$0" inside
fi

folder=$(mktemp -d /var/tmp/updater-containerd.XXXXXX)
export DOCKER_HOST="unix://$folder/docker.sock"
engine=
finish() {
    [ -z "$engine" ] || { kill "$engine" 2>/dev/null || true; wait "$engine" 2>/dev/null || true; }
    # An engine that ends leaves some of its mounts behind; they are this namespace's own.
    awk -v folder="$folder/" 'index($2, folder) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r umount --lazy || true
    rm -rf "$folder" || echo "left behind: $folder" >&2
}
trap finish EXIT

ip link set lo up
cat >"$folder/daemon.json" <<JSON
{"features": {"containerd-snapshotter": true}, "hosts": ["$DOCKER_HOST"], "pidfile": "$folder/pid",
 "data-root": "$folder/data", "exec-root": "$folder/exec"}
JSON
dockerd --config-file "$folder/daemon.json" >"$folder/log" 2>&1 &
engine=$!
for _ in $(seq 300); do
    docker info >/dev/null 2>&1 && break
    kill -0 "$engine" 2>/dev/null || { tail -n 20 "$folder/log" >&2; echo "the second dockerd ended" >&2; exit 1; }
    sleep 0.2
done
docker info --format '{{json .DriverStatus}}' | grep -q io.containerd.snapshotter || {
    echo "this engine does not use containerd's store: $(docker info --format '{{json .DriverStatus}}')" >&2
    exit 1
}
cargo nextest run --locked --test real -E 'test(/good_release|moved_to_another|what_runs_already|crashes_at_the_start|local_tag_moves|dies_leaves_no_trace|killed_while_swapping$|the_folder_alone/)'
