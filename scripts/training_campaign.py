#!/usr/bin/env -S python3 -B
"""Kills ranks of a training run, and its launcher, with SIGKILL again and again: at any moment, while they start, and
while they write a checkpoint. `optp launch --max-restarts` and `optp train --resume` must bring the run to its end with
the bits of a run that nothing happened to, no checkpoint lost or unreadable on the way, and nothing left behind. Then
the disk fills in the middle of a run, gets room, and the run goes on.

    training_campaign.py PROGRAM [--kills 50] [--seed 0] [--steps 200] [--folder DIR]

PROGRAM is build/release/optp. Exit status 1 and a line for every fault that was found.
"""

import argparse
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from launched_run import ALL, LaunchedRun, processes, wait_until
from run_checks import RunChecks

KEPT = 3
EVER = 1000
KILLS_OF_A_RUN = 10  # then it is left in peace, and the next run begins
MESHES = [(2, 1, "auto"), (2, 2, "auto"), (3, 1, "gloo"), (2, 2, "gloo")]  # tp, dp, comm
TRAIN = ["--model", "opt-tiny", "--vocab-size", "4000", "--tokenizer", "bytes", "--seq-len", "64", "--batch-size", "16",
         "--dropout", "0.1", "--threads", "1", "--sample-tokens", "0", "--save-every", "5", "--timeout", "30",
         "--resume"]


class Campaign:
    def __init__(self, program: str, folder: Path, steps: int, seed: int):
        self.folder, self.seed, self.attempts = folder, seed, 0
        self.checks = RunChecks(folder / "tmp")
        letters = random.Random(1).choices("abcdefghijklmnopqrstuvwxyz     ", k=100_000)
        (folder / "text.txt").write_text("".join(letters))
        (folder / "tmp").mkdir()
        self.environment = {"XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder / "tmp")}
        self.command = [program, "train", *TRAIN, "--train-data", folder / "text.txt", "--max-steps", str(steps)]

    def run_of(self, name: str, tp: int, dp: int, comm: str, kept: int) -> LaunchedRun:
        command = [*self.command, "--tp", str(tp), "--dp", str(dp), "--comm", comm]
        return LaunchedRun(self.folder / name, command, tp * dp, kept, self.environment)

    def undisturbed(self, tp: int, dp: int, comm: str) -> LaunchedRun:
        run = self.run_of(f"undisturbed-{tp}x{dp}-{comm}", tp, dp, comm, ALL)
        if not run.output.exists():
            begin = time.monotonic()
            run.start(max_restarts=0)
            if run.launcher.wait(300) != 0:
                raise RuntimeError(f"the undisturbed run failed: {run.said()}")
            print(f"tp {tp} x dp {dp}, comm {comm}, undisturbed: {time.monotonic() - begin:.1f} s", flush=True)
        return run

    def kill_ranks(self, kills: int) -> None:
        for number, mesh in enumerate(itertools.cycle(MESHES), 1):
            left = kills - self.checks.count["kills"]
            if left <= 0:
                break
            reference, run = self.undisturbed(*mesh), self.run_of(f"killed-{number}", *mesh, KEPT)
            where = f"run {number}, tp {mesh[0]} x dp {mesh[1]}, comm {mesh[2]}"
            run.start(max_restarts=EVER)
            for _ in range(min(left, KILLS_OF_A_RUN)):
                if not self.kill(run, reference, where):
                    break
            self.checks.conclude(run, reference, where)

    def kill(self, run: LaunchedRun, reference: LaunchedRun, where: str) -> bool:
        """Kills something and looks at what that leaves; false if the run has come to its end before."""
        # An attempt's own, so that seed and number say what it is, however many ranks the run before had.
        self.chance = random.Random(f"{self.seed} {self.attempts}")
        self.attempts += 1
        moment = self.chance.choices(["any moment", "start-up", "a checkpoint write", "a file's replacement"],
                                     [8, 3, 8, 2])[0]
        whom = self.chance.choices(["one", "several", "launcher"], [6, 2, 2])[0]
        several, delay = self.chance.randint(2, run.ranks), self.chance.random()
        victims = sorted(self.chance.sample(range(run.ranks), several if whom == "several" else 1))
        if moment == "a file's replacement":
            whom, victims = "one", [0]  # which alone writes those files
        wait_until(lambda: run.ended() or len(run.pids()) == run.ranks, 30)
        attempt = len(run.attempts())
        pids = run.pids()
        self.wait_for(moment, run, delay)
        if run.ended() or run.pids() != pids or len(pids) < run.ranks:
            return False
        trained = run.trains()
        begin = time.monotonic()
        for pid in [run.launcher.pid] if whom == "launcher" else [pids[victim] for victim in victims]:
            os.kill(pid, signal.SIGKILL)
        cut = run.being_written() if trained else []
        wait_until(lambda: run.ended() or len(run.attempts()) > attempt, 60)
        seconds = time.monotonic() - begin
        if run.ended() and run.launcher.returncode == 0:
            return False  # all had been done
        self.checks.count["kills"] += 1
        self.checks.count["kills during a checkpoint write"] += bool(cut)
        killed = "the launcher" if whom == "launcher" else f"rank {', '.join(map(str, victims))}"
        what = f"{self.checks.count['kills']}: {where}, {killed} killed at {moment}{', ' + cut[0] if cut else ''}"
        if whom == "launcher":
            print(f"{what}; it had said: {run.said().splitlines()[-1:]}", flush=True)
        else:
            self.check_words(run, victims, f"{what}; {seconds:.1f} s later")
        if seconds > 15:
            self.checks.fault(what, f"the other ranks took {seconds:.0f} s to end")
        self.go_on(run, reference, -signal.SIGKILL if whom == "launcher" else 128 + signal.SIGKILL, what)
        return True

    def check_words(self, run: LaunchedRun, victims: list[int], what: str) -> None:
        words = [line for line in run.said().splitlines() if line.startswith("optp: ")] or ["nothing"]
        print(f"{what}: {words[-1]}", flush=True)
        named = rf"optp: rank ({'|'.join(map(str, victims))}) on host \S+ was killed by signal 9 \(Killed\)"
        if not re.match(named, words[-1]):
            self.checks.fault(what, f"the launcher said: {words[-1]}")

    def go_on(self, run: LaunchedRun, reference: LaunchedRun, status: int, what: str) -> None:
        """Looks at what a kill has left, and starts a launcher should the last one have ended, with that status."""
        ended = run.ended()
        self.checks.inspect(run, reference, what)
        self.checks.count[f"restarts by the {'script' if ended else 'launcher'}"] += 1
        if not ended:
            return
        if run.launcher.returncode != status:
            self.checks.fault(what, f"the launcher's exit status is {run.launcher.returncode}")
        if not wait_until(lambda: not processes(), 10):
            self.checks.fault(what, f"processes {processes()} outlive the launcher")
        run.start(max_restarts=self.chance.choice([1, EVER]))  # 1: so that some come to their last words

    def wait_for(self, moment: str, run: LaunchedRun, delay: float) -> None:
        """`delay` is from 0 to 1."""
        if moment == "any moment":
            time.sleep(0.5 + 3.5 * delay)
        elif moment == "start-up":
            time.sleep(0.7 * delay)
        elif moment == "a file's replacement":
            before = run.being_replaced()
            wait_until(lambda: run.ended() or run.being_replaced() - before, 60, pause=0.0002)
        else:
            wait_until(lambda: run.ended() or run.trains(), 60)
            time.sleep(2 * delay)
            wait_until(lambda: run.ended() or not run.being_written(), 60, pause=0.0005)
            wait_until(lambda: run.ended() or run.being_written(), 60, pause=0.0005)
            time.sleep(0.01 * delay)

    def fill_disk(self) -> None:
        """A few checkpoints fit, and no more until the disk has grown."""
        reference, run = self.undisturbed(*MESHES[0]), self.run_of("full", *MESHES[0], ALL)
        size = 4 * sum(path.stat().st_size for path in (reference.checkpoints / reference.names()[0]).iterdir())
        run.output.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", run.output], check=False,
                          stderr=subprocess.DEVNULL).returncode != 0:
            print("a full disk: left out, mounting a small one is not allowed here")
            return
        try:
            run.start(max_restarts=0)
            status = run.launcher.wait(120)
            sentences = sorted(set(re.findall(r"^\[rank \d+\] (optp: .*)", run.said(), re.MULTILINE)))
            print(f"a full disk: status {status}, {sentences}, left {run.names()}", flush=True)
            if status != 2 or len(sentences) != 1 or "No space left on device" not in sentences[0]:
                self.checks.fault("a full disk", f"status {status}, {run.said().splitlines()[-20:]}")
            if len(run.names()) < 2 or run.names() != run.kept_checkpoints():
                self.checks.fault("a full disk", f"left {run.names()}, not {run.kept_checkpoints()}")
            self.checks.inspect(run, reference, "a full disk")
            subprocess.run(["mount", "-o", "remount,size=90%", run.output], check=True)
            run.start(max_restarts=0)
            self.checks.conclude(run, reference, "a full disk that got room")
        finally:
            subprocess.run(["umount", run.output], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("program")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200, help="of each run")
    parser.add_argument("--folder", type=Path, help="where the runs go (a temporary folder)")
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        campaign = Campaign(options.program, Path(temporary), options.steps, options.seed)
        try:
            campaign.kill_ranks(options.kills)
            campaign.fill_disk()
        finally:
            for pid in processes():
                os.kill(int(pid), signal.SIGKILL)
    for name in ("kills", "kills during a checkpoint write", "restarts by the launcher", "restarts by the script",
                 "lost checkpoints", "unreadable checkpoints", "runs", "runs with the weights of an undisturbed run"):
        print(f"{name}: {campaign.checks.count[name]}")
    print(f"duration: {time.monotonic() - begin:.0f} s")
    print(f"{len(campaign.checks.faults)} faults")
    return 1 if campaign.checks.faults else 0


sys.exit(main())
