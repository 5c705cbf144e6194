#!/usr/bin/env bash
# compare.sh [LABEL...]: runs fsbench.py on several filesystems in one go, so that the figures can be
# put side by side. Labels: tmpfs, up (`vdfs up`, one process on loopback), vdfs (master, volume and
# mount, each on a host of its own), gluster (brick and mount on two hosts), moose (master, chunkserver
# and mount on three). Default: tmpfs vdfs gluster moose.
# The hosts are network namespaces (hosts.sh) joined at MTU (1500). All data lies in RAM.
# Needs root, fio, and Debian's glusterfs-server, moosefs-{master,chunkserver,client} for their rows.
# FSB_SIZE (1g) and FSB_N (3000) make it shorter; OUT keeps the raw tables.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=$here/../target/release
out=${OUT:-$(mktemp -d)}
scratch=$(mktemp -d)
labels=("$@"); [ $# -gt 0 ] || labels=(tmpfs vdfs gluster moose)
started=()

on() { local host=$1; shift; "$here/hosts.sh" run "$host" "$@"; }

# spawn HOST COMMAND...: in the background, ended by `stop_all`.
spawn() { local host=$1; shift; on "$host" "$@" & started+=($!); }

wait_for() {
    for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
    echo "compare.sh: gave up waiting for: $*" >&2; return 1
}

stop_all() {
    umount -l "$scratch"/*.mnt 2>/dev/null || true
    for pid in "${started[@]}"; do
        pkill -P "$pid" 2>/dev/null || true
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    started=()
    umount -l "$scratch"/*.ram "$scratch"/*/ram 2>/dev/null || true
}

cleanup() {
    stop_all
    pkill -f "$scratch" 2>/dev/null || true
    "$here/hosts.sh" down || true
    rm -rf "$scratch"
}
trap cleanup EXIT

# Memory that a virtual machine touches for the first time costs more than any filesystem.
warm() { head -c 4G /dev/zero > /dev/shm/vdfs-warm; rm /dev/shm/vdfs-warm; }

# A tmpfs for what a peer would keep on its disks.
ram() { mkdir "$scratch/$1.ram"; mount -t tmpfs -o size=4g none "$scratch/$1.ram"; }

bench() { python3 "$here/fsbench.py" "$2" "$1" | tee "$out/$1.txt"; }

run_tmpfs() {
    mkdir "$scratch/tmpfs.mnt"; mount -t tmpfs -o size=4g none "$scratch/tmpfs.mnt"
    bench tmpfs "$scratch/tmpfs.mnt"
}

run_up() {
    mkdir "$scratch/up.mnt"
    "$target/vdfs" up "$scratch/up.mnt" --state "$scratch/up" --ram 4GiB > "$scratch/up.ready" & started+=($!)
    wait_for grep -q ^ready "$scratch/up.ready"
    bench up "$scratch/up.mnt"
}

run_vdfs() {
    mkdir "$scratch/vdfs.mnt"
    spawn h1 "$target/vdfs-master" --state "$scratch/master" --listen 10.77.0.1:7400 > "$scratch/master.ready"
    wait_for grep -q ^ready "$scratch/master.ready"
    "$target/vdfs" cert issue --ca "$scratch/master" --role volume --name v1 --out "$scratch/v1"
    "$target/vdfs" cert issue --ca "$scratch/master" --role client --name m1 --out "$scratch/m1"
    spawn h2 "$target/vdfs-volume" --state "$scratch/volume" --identity "$scratch/v1" --name v1 \
        --master 10.77.0.1:7400 --listen 10.77.0.2:7401 --ram 4GiB > "$scratch/volume.ready"
    wait_for grep -q ^ready "$scratch/volume.ready"
    on h3 "$target/mount-vdfs" 10.77.0.1:7400 "$scratch/vdfs.mnt" -o "identity=$scratch/m1,log=$scratch/mount.log"
    bench vdfs "$scratch/vdfs.mnt"
}

run_gluster() {
    ram brick; mkdir "$scratch/gluster.mnt" "$scratch/brick.ram/brick"
    spawn h1 glusterd --no-daemon --log-file="$scratch/glusterd.log"
    wait_for on h1 gluster pool list
    on h1 gluster --mode=script volume create bench "10.77.0.1:$scratch/brick.ram/brick" force
    on h1 gluster --mode=script volume start bench
    on h2 mount -t glusterfs 10.77.0.1:/bench "$scratch/gluster.mnt"
    bench gluster "$scratch/gluster.mnt"
    umount -l "$scratch/gluster.mnt"
    on h1 gluster --mode=script volume stop bench force
    on h1 gluster --mode=script volume delete bench
}

run_moose() {
    ram moose; mkdir "$scratch/moose.mnt" "$scratch/moose.ram"/{meta,chunkserver,disk}
    local base="$scratch/moose.ram"
    cp /var/lib/mfs/metadata.mfs.empty "$base/meta/metadata.mfs"
    echo '* / rw,alldirs,admin,maproot=0:0' > "$base/exports.cfg"
    cat > "$base/master.cfg" <<CFG
WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = $base/meta
EXPORTS_FILENAME = $base/exports.cfg
CFG
    echo "$base/disk" > "$base/hdd.cfg"
    cat > "$base/chunkserver.cfg" <<CFG
WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = $base/chunkserver
HDD_CONF_FILENAME = $base/hdd.cfg
MASTER_HOST = 10.77.0.1
HDD_LEAVE_SPACE_DEFAULT = 16MiB
CFG
    chown -R mfs "$base" 2>/dev/null || true
    spawn h1 mfsmaster -f -c "$base/master.cfg" start 2> "$scratch/mfsmaster.log"
    spawn h2 mfschunkserver -f -c "$base/chunkserver.cfg" start 2> "$scratch/mfschunkserver.log"
    wait_for on h3 mfsmount "$scratch/moose.mnt" -H 10.77.0.1
    wait_for sh -c "echo probe > '$scratch/moose.mnt/probe' && rm '$scratch/moose.mnt/probe'"
    on h3 mfssetgoal 1 "$scratch/moose.mnt" >/dev/null
    bench moose "$scratch/moose.mnt"
}

cargo build --release --quiet --workspace --bins --manifest-path "$here/../Cargo.toml"
"$here/hosts.sh" up 3 "${MTU:-1500}"
warm
for label in "${labels[@]}"; do "run_$label"; stop_all; done

python3 - "$out" "${labels[@]}" <<'PY'
import json, sys
out, labels = sys.argv[1], sys.argv[2:]
rows = {}
for label in labels:
    line = [l for l in open(f"{out}/{label}.txt") if l.startswith("JSON ")][-1]
    for row, figures in json.loads(line[5:])[label].items():
        value = None
        if figures:
            by_rate = row.startswith("seq")
            value = figures.get("MBps") if by_rate else figures.get("iops", figures.get("ops"))
        rows.setdefault(row, {})[label] = value
print("\n| row | " + " | ".join(labels) + " |\n|---|" + "---|" * len(labels))
for row, values in rows.items():
    unit = "MB/s" if row.startswith("seq") else "/s"
    print(f"| {row} ({unit}) | " + " | ".join(str(values.get(l)) for l in labels) + " |")
PY
