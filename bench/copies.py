#!/usr/bin/env python3
"""copies.py [--bin DIR] [--mib MIB] [--out DIR] [speed] [recovery] [wire]

What copies cost, and how fast they come back. Master, three volumes and a mount, each on a host of its own
(network namespaces, hosts.sh). All data lies in RAM. Needs root and fio, and about 10 GiB.
  speed     sequential writes (in place) and reads of files with one and with two copies, in turns, on one
            cluster, at MTU 1500 and 9000: the figures are medians, the cost is the median of the pairs.
  recovery  kill -9 of a volume that holds 1 GiB: until all chains are whole again, with a graph of the
            bytes that have one copy only.
  wire      hosts that send at most 2 Gbit/s: how much of that re-protection uses, alone and beside a
            reader, and what the reader keeps.
"""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
HOSTS = os.path.join(HERE, "hosts.sh")
VOLUMES = [2, 3, 4]
MOUNT = 5
WIRE = "2gbit"
WIRE_BYTES = 2e9 / 8


class Cluster:
    """Master on h1, volumes on h2 to h4, a mount on h5."""

    def __init__(self, programs, mtu, rate="", volume_ram="4GiB"):
        self.programs, self.mtu, self.rate, self.volume_ram = programs, mtu, rate, volume_ram
        self.state = tempfile.mkdtemp(prefix="vdfs-copies-")
        self.running = {}

    def path(self, name):
        return os.path.join(self.state, name)

    def on(self, host, *command, **options):
        return subprocess.run([HOSTS, "run", f"h{host}", *command], check=True, **options)

    def begin(self, host, name, *command):
        out = open(self.path(name + ".out"), "w")
        self.running[host] = subprocess.Popen([HOSTS, "run", f"h{host}", *command], stdout=out, stderr=out)
        wait_until(lambda: "\nready" in "\n" + open(out.name).read(), f"{name} is ready")

    def program(self, name):
        return os.path.join(self.programs, name)

    def issue(self, role, name):
        command = [self.program("vdfs"), "cert", "issue", "--ca", self.path("master")]
        command += ["--role", role, "--name", name, "--out", self.path("id-" + name)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return self.path("id-" + name)

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        up = [HOSTS, "up", "5", str(self.mtu)] + ([self.rate] if self.rate else [])
        subprocess.run(up, check=True)
        self.begin(1, "master", self.program("vdfs-master"), "--state", self.path("master"),
                   "--listen", "10.77.0.1:7400")
        for volume in VOLUMES:
            name = f"v{volume}"
            self.begin(volume, name, self.program("vdfs-volume"), "--state", self.path(name),
                       "--identity", self.issue("volume", name), "--name", name, "--master", "10.77.0.1:7400",
                       "--listen", f"10.77.0.{volume}:7401", "--ram", self.volume_ram)
        os.mkdir(self.path("mnt"))
        options = f"identity={self.issue('client', 'm1')},log={self.path('mount.log')}"
        self.on(MOUNT, self.program("mount-vdfs"), "10.77.0.1:7400", self.path("mnt"), "-o", options)
        for copies in (1, 2):
            os.mkdir(self.dir(copies))
            os.setxattr(self.dir(copies), "user.vdfs.replicas", str(copies).encode())

    def dir(self, copies):
        return self.path(f"mnt/{copies}")

    def status(self):
        command = [self.program("vdfs"), "status", "--state", self.path("master"), "--json"]
        return json.loads(self.on(1, *command, stdout=subprocess.PIPE).stdout)

    def kill(self, volume):
        self.running.pop(volume).send_signal(signal.SIGKILL)

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.path("mnt")], check=False)
        for process in self.running.values():
            process.kill()
            process.wait()
        for volume in VOLUMES:
            subprocess.run(["umount", "-l", self.path(f"v{volume}/ram")], check=False)
        subprocess.run([HOSTS, "down"], check=False)
        shutil.rmtree(self.state, ignore_errors=True)


def wait_until(holds, what, within=60):
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"copies.py: gave up waiting until {what}")
        time.sleep(0.05)


def fio(path, mib, kind):
    """MB/s."""
    if kind == "read":
        os.sync()
        open("/proc/sys/vm/drop_caches", "w").write("3")
    more = ["--end_fsync=1"] if kind == "write" else ["--invalidate=1"]
    command = ["fio", "--name=x", "--output-format=json", "--ioengine=psync", "--refill_buffers=0",
               "--filename=" + path, f"--size={mib}m", "--rw=" + kind, "--bs=1M", *more]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    return job[kind]["bw_bytes"] / 1e6


def speed(programs, mib, _):
    print("| MTU | | one copy (MB/s) | two copies (MB/s) | cost |\n|---|---|---|---|---|")
    for mtu in (1500, 9000):
        with Cluster(programs, mtu) as cluster:
            rates = {(copies, kind): [] for copies in (1, 2) for kind in ("write", "read")}
            for turn in range(9):
                order = (1, 2) if turn % 2 else (2, 1)
                for kind in ("write", "read"):
                    for copies in order:
                        rate = fio(cluster.dir(copies) + "/big", mib, kind)
                        # The first turn makes the files: RAM that a virtual machine touches for the first
                        # time costs more than any filesystem.
                        if turn:
                            rates[copies, kind].append(rate)
            for kind in ("write", "read"):
                one, two = rates[1, kind], rates[2, kind]
                cost = 1 - statistics.median(b / a for a, b in zip(one, two))
                print(f"| {mtu} | {kind} | {statistics.median(one):.0f} | {statistics.median(two):.0f} "
                      f"| {cost:.0%} |", flush=True)


def fill(cluster, mib):
    """Files of two copies; gives what a volume holds of them, in bytes."""
    for number in range(mib // 256):
        fio(f"{cluster.dir(2)}/{number}", 256, "write")
    return 2 * mib * 2**20 / len(VOLUMES)


class WarmRam:
    """As much RAM in use as the recovery is about to take, until it begins: what a virtual machine touches
    for the first time costs more than any filesystem."""

    def __init__(self, size):
        self.path = f"/dev/shm/vdfs-copies-{os.getpid()}"
        with open(self.path, "wb") as file:
            for _ in range(int(size) >> 20):
                file.write(bytes(2**20))

    def release(self):
        if os.path.exists(self.path):
            os.unlink(self.path)


def watch_recovery(cluster, begun, held, on_short):
    """(seconds, bytes that have one copy only), from a kill at `begun` until all chains are whole again."""
    total = cluster.status()["chains"]["total"]
    samples = []
    while True:
        chains = cluster.status()["chains"]
        at = time.monotonic() - begun
        short = total - chains["whole"]
        # The killed one had two thirds of the chains.
        samples.append((at, short * held / (total * 2 / 3)))
        if short:
            on_short()
        if short == 0 and any(of for _, of in samples):
            return samples
        if at > 120:
            sys.exit("copies.py: the chains stay short")
        # To ask takes some of the two processors.
        time.sleep(0.3)


def kill_and_watch(cluster, held, on_short=lambda: None):
    warm = WarmRam(held)

    def went_short():
        warm.release()
        on_short()

    try:
        begun = time.monotonic()
        cluster.kill(VOLUMES[0])
        return watch_recovery(cluster, begun, held, went_short)
    finally:
        warm.release()


def detected(samples):
    return next(at for at, short in samples if short)


def recovery(programs, _, out):
    for mtu in (1500, 9000):
        with Cluster(programs, mtu) as cluster:
            held = fill(cluster, 1536)
            samples = kill_and_watch(cluster, held)
            print(f"MTU {mtu}: {held / 2**30:.2f} GiB short after {detected(samples):.1f} s, "
                  f"whole again {samples[-1][0]:.1f} s after the kill", flush=True)
            graph(samples, f"{out}/recovery-{mtu}.svg", f"kill -9 of a volume that holds 1 GiB, MTU {mtu}")


def graph(samples, path, title):
    width, height, left, bottom = 640, 240, 60, 40
    end, top = samples[-1][0] * 1.05, max(short for _, short in samples) * 1.1

    def place(at, short):
        x = left + at / end * (width - left - 10)
        return f"{x:.1f},{height - bottom - short / top * (height - bottom - 30):.1f}"

    line = [place(0, 0)]
    for (before, short), (at, _) in zip(samples, samples[1:] + [samples[-1]]):
        line += [place(before, short), place(at, short)]
    marks = "".join(f'<text x="{place(s, 0).split(",")[0]}" y="{height - 22}">{s} s</text>'
                    for s in range(0, int(end) + 1))
    marks += "".join(f'<text x="4" y="{place(0, part * 2**28).split(",")[1]}">{part * 256} MiB</text>'
                     for part in range(0, int(top / 2**28) + 1))
    with open(path, "w") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
                   f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
                   f'<text x="{left}" y="16">Bytes with one copy only: {title}</text>{marks}'
                   f'<polyline fill="none" stroke="#06c" stroke-width="2" points="{" ".join(line)}"/></svg>\n')


class LinkMeter:
    """What the volumes that are left have sent, in bytes, over time."""

    def __init__(self, cluster):
        self.pids = [cluster.running[volume].pid for volume in VOLUMES[1:]]
        self.samples, self.stop = [(time.monotonic(), self.sent())], False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def sent(self):
        lines = [line for pid in self.pids for line in open(f"/proc/{pid}/net/dev")]
        return sum(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("e0:"))

    def run(self):
        while not self.stop:
            time.sleep(0.05)
            self.samples.append((time.monotonic(), self.sent()))

    def middle_seconds(self):
        """For the middle nine tenths of the bytes."""
        self.stop = True
        self.thread.join()
        first, last = self.samples[0][1], self.samples[-1][1]

        def passed(part):
            return next(at for at, sent in self.samples if sent >= first + part * (last - first))

        return passed(0.95) - passed(0.05)


class Reader:
    """Reads files over and over; counts the bytes."""

    def __init__(self, paths):
        self.paths, self.bytes, self.stop = paths, 0, False
        self.marks = []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def mark(self):
        self.marks.append((time.monotonic(), self.bytes))

    def run(self):
        buffer = memoryview(bytearray(2**20))
        while not self.stop:
            for path in self.paths:
                # No cache: every byte comes over the wire.
                file = os.open(path, os.O_RDONLY)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                with open(file, "rb", buffering=0) as opened:
                    while not self.stop and (got := opened.readinto(buffer)):
                        self.bytes += got

    def rate(self, seconds):
        before, begun = self.bytes, time.monotonic()
        time.sleep(seconds)
        return (self.bytes - before) / (time.monotonic() - begun)

    def end(self):
        self.stop = True
        # A read that nobody answers holds up no clean-up.
        self.thread.join(timeout=5)


def wire(programs, _, __):
    for mtu in (1500, 9000):
        with Cluster(programs, mtu, WIRE) as cluster:
            held = fill(cluster, 3072)
            meter = LinkMeter(cluster)
            samples = kill_and_watch(cluster, held)
            rate = 0.9 * held / meter.middle_seconds()
            # Each of the two that are left gives the other half of it.
            print(f"MTU {mtu}, {WIRE}: {held / 2**30:.1f} GiB re-protected in "
                  f"{samples[-1][0] - detected(samples):.1f} s; the middle nine tenths at {rate / 1e6:.0f} MB/s: "
                  f"{rate / 2 / WIRE_BYTES:.0%} of each link", flush=True)
        with Cluster(programs, mtu, WIRE) as cluster:
            held = fill(cluster, 3072)
            reader = Reader([f"{cluster.dir(2)}/{number}" for number in range(12)])
            alone = reader.rate(6)
            kill_and_watch(cluster, held, reader.mark)
            reader.mark()
            reader.end()
            (begun, before), (ended, after) = reader.marks[0], reader.marks[-1]
            took = ended - begun
            beside = (after - before) / took
            print(f"MTU {mtu}, {WIRE}, beside a reader: it keeps {beside / alone:.0%} of {alone / 1e6:.0f} MB/s; "
                  f"re-protection gets {held / 2 / took / WIRE_BYTES:.0%} of each link ({took:.1f} s)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(HERE, "../target/release"), help="the programs")
    parser.add_argument("--mib", type=int, default=512, help="size of the files of `speed`")
    parser.add_argument("--out", default=".", help="where the graphs go")
    parser.add_argument("parts", nargs="*", metavar="PART", help="speed, recovery, wire; all if none is named")
    asked = parser.parse_args()
    known = {"speed": speed, "recovery": recovery, "wire": wire}
    unknown = set(asked.parts) - set(known)
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    os.makedirs(asked.out, exist_ok=True)
    for part in asked.parts or known:
        known[part](os.path.abspath(asked.bin), asked.mib, asked.out)


if __name__ == "__main__":
    main()
