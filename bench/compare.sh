#!/usr/bin/env bash
# compare.sh [LABEL...]: runs fsbench.py on `vdfs up`, tmpfs and GlusterFS in one go, so that the
# figures can be put side by side. Needs root, fio, and Debian's glusterfs-server for that row.
# Everything lies in RAM; GlusterFS runs on a host of its own (hosts.sh), the others on loopback.
# FSB_SIZE (1g) and FSB_N (3000) make it shorter; OUT keeps the raw tables.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$(mktemp -d)}
scratch=$(mktemp -d)
labels=("$@"); [ $# -gt 0 ] || labels=(tmpfs vdfs gluster)

cleanup() {
    [ -z "${up:-}" ] || { kill "$up"; wait "$up"; } 2>/dev/null || true
    umount -l "$scratch"/*.mnt "$scratch"/*.ram 2>/dev/null || true
    umount -l "$scratch/state/ram" 2>/dev/null || true
    [ -z "${gluster:-}" ] || { pkill -P "$gluster"; kill "$gluster"; } 2>/dev/null || true
    pkill -f "$scratch" 2>/dev/null || true
    [ -z "${hosts:-}" ] || "$here/hosts.sh" down || true
    rm -rf "$scratch"
}
trap cleanup EXIT

# Memory that a virtual machine touches for the first time costs more than any filesystem.
warm() { head -c 3G /dev/zero > /dev/shm/vdfs-warm; rm /dev/shm/vdfs-warm; }

bench() { python3 "$here/fsbench.py" "$2" "$1" | tee "$out/$1.txt"; }

run_tmpfs() {
    mkdir "$scratch/tmpfs.mnt"; mount -t tmpfs -o size=4g none "$scratch/tmpfs.mnt"
    bench tmpfs "$scratch/tmpfs.mnt"
}

run_vdfs() {
    cargo build --release --quiet --manifest-path "$here/../Cargo.toml"
    mkdir "$scratch/vdfs.mnt"
    "$here/../target/release/vdfs" up "$scratch/vdfs.mnt" --state "$scratch/state" --ram 4GiB \
        > "$scratch/ready" & up=$!
    for _ in $(seq 200); do grep -q ^ready "$scratch/ready" && break; sleep 0.1; done
    bench vdfs "$scratch/vdfs.mnt"
}

# glusterd refuses loopback addresses, so it gets a network namespace with an address.
run_gluster() {
    "$here/hosts.sh" up 1; hosts=1
    mkdir "$scratch/gluster.mnt" "$scratch/brick.ram"
    mount -t tmpfs -o size=4g none "$scratch/brick.ram"; mkdir "$scratch/brick.ram/brick"
    "$here/hosts.sh" run h1 glusterd --no-daemon --log-file="$scratch/glusterd.log" & gluster=$!
    in_h1() { "$here/hosts.sh" run h1 "$@"; }
    for _ in $(seq 100); do in_h1 gluster pool list >/dev/null 2>&1 && break; sleep 0.1; done
    in_h1 gluster --mode=script volume create bench "10.77.0.1:$scratch/brick.ram/brick" force
    in_h1 gluster --mode=script volume start bench
    in_h1 mount -t glusterfs 10.77.0.1:/bench "$scratch/gluster.mnt"
    bench gluster "$scratch/gluster.mnt"
    umount -l "$scratch/gluster.mnt"
    in_h1 gluster --mode=script volume stop bench force
    in_h1 gluster --mode=script volume delete bench
}

warm
for label in "${labels[@]}"; do "run_$label"; done

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
