#!/usr/bin/env python3
"""Kills ranks with SIGKILL at random moments while they write training checkpoints, again and again, and looks at what
is left: every checkpoint that was reported as written and not removed since is there, whole, and loads at another
degree; nothing else is there but temporary folders of writers that were killed whole. Then fills a small disk.

    checkpoint_campaign.py PROGRAM [--kills 200] [--megabytes 24] [--seed 0] [--folder DIR]

PROGRAM is build/release/tests/checkpoint_program. Exit status 1 and a line for every fault that was found.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEPT = 2  # as checkpoint_program does


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Campaign:
    def __init__(self, program: str, folder: Path, megabytes: int, chance: random.Random):
        self.program, self.folder, self.chance = program, folder, chance
        self.elements = megabytes * (1 << 20) // 4
        self.newest = 0  # step of the newest checkpoint that a writer reported
        self.faults: list[str] = []

    def command(self, what: str, tp: int, dp: int, *arguments: int) -> list[str]:
        return [str(part) for part in (self.program, what, self.folder, tp, dp, *arguments)]

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []

    def kill_one(self) -> str:
        """Starts ranks, kills some at a random moment, and waits until all are gone. Says what was done."""
        tp, dp = self.chance.choice([(1, 1), (2, 1), (2, 2), (3, 1)])
        everyone = tp * dp == 1 or self.chance.random() < 0.3
        started = subprocess.Popen(self.command("write", tp, dp, self.newest + 1, 1_000_000, self.elements),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        assert started.stdout
        first = started.stdout.readline()  # "writing N"
        if not first.startswith("writing"):
            raise RuntimeError(f"the writer did not start: {started.communicate()[1]}")
        time.sleep(self.chance.random() * 0.6)
        ranks = children_of(started.pid) if tp * dp > 1 else [started.pid]
        begin = time.monotonic()
        if everyone:
            os.killpg(started.pid, signal.SIGKILL)
        else:
            os.kill(self.chance.choice(ranks), signal.SIGKILL)
        output, errors = started.communicate(timeout=60)
        seconds = time.monotonic() - begin
        written = [int(step) for step in re.findall(r"written (\d+)", output)]
        self.newest = max([self.newest, *written])
        what = f"tp {tp} x dp {dp}, {'all' if everyone else 'one'} killed at step {self.newest + 1}"
        if seconds > 10:
            self.faults.append(f"{what}: the other ranks took {seconds:.0f} s to end")
        partial = [name for name in self.names() if name.endswith(".partial")]
        if partial and not everyone:
            self.faults.append(f"{what}: the surviving ranks left {partial}; {errors.strip()}")
        return what

    def inspect(self, what: str) -> None:
        tp = self.chance.choice([1, 2, 3])
        checked = subprocess.run(self.command("check", tp, 1), capture_output=True, text=True, timeout=120)
        whole = [int(step) for step in re.findall(r"step-(\d+) is whole", checked.stdout)]
        if checked.returncode != 0:
            self.faults.append(f"{what}: {checked.stdout.strip()} {checked.stderr.strip()}")
        # The newest may be one more than reported: renamed, and killed before it could say so.
        if self.newest and self.newest not in whole:
            self.faults.append(f"{what}: step {self.newest} was written and is lost; {self.names()}")
        strange = [name for name in self.names()
                   if not re.fullmatch(r"step-\d{8}|\.step-\d{8}(\.old)?\.partial", name)]
        if strange:
            self.faults.append(f"{what}: {strange} should not be there")
        self.newest = max([self.newest, *whole])

    def clear_up(self) -> None:
        """What the next run does first; it writes one more."""
        self.newest += 1
        subprocess.run(self.command("write", 1, 1, self.newest, self.newest, self.elements), check=True,
                       capture_output=True, timeout=120)
        partial = [name for name in self.names() if name.endswith(".partial")]
        if partial:
            self.faults.append(f"the next run left {partial}")

    def fill_disk(self, megabytes: int) -> None:
        """Two checkpoints fit on the disk, a third does not."""
        mount = ["unshare", "--mount", "sh", "-c",
                 f"mount -t tmpfs -o size={KEPT * megabytes + megabytes // 2}m none '{self.folder}' && "
                 '"$@"; echo "status $?"; ls -A ' + f"'{self.folder}'; exec {self.program} check '{self.folder}' 3 1",
                 "sh"]
        self.folder.mkdir()
        result = subprocess.run([*mount, *self.command("write", 2, 1, 1, 9, self.elements)], capture_output=True,
                                text=True, timeout=120)
        if "mount" in result.stderr or "unshare" in result.stderr:
            print("a full disk: left out, mounting a small one is not allowed here")
            return
        if "status 2" not in result.stdout or "No space left on device" not in result.stderr:
            self.faults.append(f"a full disk: {result.stdout} {result.stderr}")
        if "partial" in result.stdout or "step-00000001 is whole" not in result.stdout:
            self.faults.append(f"a full disk left {result.stdout}")
        print(f"a full disk: {result.stderr.strip()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("program")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--megabytes", type=int, default=24, help="size of a checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the checkpoints go (a temporary folder)")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        campaign = Campaign(options.program, Path(temporary) / "run", options.megabytes, chance)
        during_write = 0
        for kill in range(1, options.kills + 1):
            before = campaign.newest
            what = campaign.kill_one()
            during_write += any(name.endswith(".partial") for name in campaign.names())
            campaign.inspect(what)
            if chance.random() < 0.3:
                campaign.clear_up()
            print(f"{kill}: {what}; {campaign.newest - before} more are whole", flush=True)
        print(f"{options.kills} kills, {campaign.newest} checkpoints written, {during_write} times a temporary folder was left")
        full = Campaign(options.program, Path(temporary) / "full", options.megabytes, chance)
        full.fill_disk(options.megabytes)
    faults = campaign.faults + full.faults
    for fault in faults:
        print(f"FAULT {fault}")
    print(f"{len(faults)} faults")
    return 1 if faults else 0


sys.exit(main())
