#!/usr/bin/env python3
"""A rank is lost at each moment of a training run of three; the others end soon, say whom they lost and where, and
leave nothing.

    lost_rank_test.py TRAINING_PROGRAM OPTP gloo|shm
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RANKS = 3
SOON = 10  # seconds
LONG = 60  # more than that, so that no time limit helps
PLACE = {"forward": r"all_reduce at \S*layers\.[01]\S* forward", "backward": r"all_reduce at \S*layers\.[01]\S* backward",
         "collective": r"all_reduce at \S*layers\.1\S* forward", "checkpoint": r"\w+ at checkpoint write",
         "exit": r"barrier at end"}


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def shared_memory() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if "optp" in name}


def is_listening(port: int) -> bool:
    sockets = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    return re.search(rf":{port:04X} [0-9A-F]+:0000 0A", sockets) is not None


class Run:
    """Ranks that nobody watches: each is started by itself, as other launchers do."""

    def __init__(self, program: str, comm: str, output: Path, victim: int, number: int, moment: str, seconds: int):
        self.port = free_port()
        world = {"WORLD_SIZE": str(RANKS), "LOCAL_WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(self.port)}
        command = [str(part) for part in (program, output, comm, seconds, victim, number, moment)]
        self.ranks = [subprocess.Popen(command, env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                      for rank in range(RANKS)]
        self.victim = self.ranks[victim]
        assert self.victim.stdout.readline() == "now\n", self.victim.communicate()[1]
        self.begin = time.monotonic()

    def errors(self, limit: float) -> list[str]:
        """What the others say, once they have ended within that many seconds."""
        errors = []
        for process in self.ranks:
            if process is not self.victim:
                errors.append(process.communicate(timeout=max(0.1, self.begin + limit - time.monotonic()))[1])
                assert process.returncode == 3, (process.returncode, errors[-1])
        return errors


def lost(program: str, comm: str, folder: Path, moment: str, victim: int) -> None:
    before = shared_memory()
    output = folder / f"{moment}-{victim}"
    run = Run(program, comm, output, victim, signal.SIGKILL, moment, LONG)
    errors = run.errors(SOON)
    print(f"{comm}, rank {victim}, {moment}: {time.monotonic() - run.begin:.1f} s: {errors[0].strip()}", flush=True)
    assert run.victim.wait(1) == -signal.SIGKILL
    for error in errors:
        assert error.count("\n") == 1, error  # one sentence
        assert re.search(rf"\brank {victim} \(process {run.victim.pid} on \S+\) has ended", error), error
        if moment in PLACE:
            # With rank 0 goes what all have shown.
            assert re.search(r", last seen at (the checkpoint of )?step [456]\b", error) or victim == 0, error
            assert re.match(rf"optp: {PLACE[moment]} failed on rank \d of 3 of the \w+ group: ", error), error
    assert shared_memory() == before, shared_memory() - before
    assert not is_listening(run.port)
    if moment in ("checkpoint", "exit"):
        left = sorted(path.name for path in (output / "checkpoints").iterdir())
        whole = ["step-00000004", "step-00000006"] if moment == "exit" else []
        assert left == whole, left


def stalled(program: str, comm: str, folder: Path) -> None:
    """A rank that is stopped is named after the time limit, with where everyone waits."""
    limit = 5
    run = Run(program, comm, folder / "stalled", 1, signal.SIGSTOP, "backward", limit)
    errors = run.errors(limit + SOON)
    seconds = time.monotonic() - run.begin
    print(f"{comm}, stopped: {seconds:.1f} s: {errors[0].strip()}", flush=True)
    assert seconds >= limit - 1, seconds
    run.victim.kill()
    run.victim.wait()
    for error in errors:
        assert re.search(rf"rank 1 \(process {run.victim.pid} on \S+\) has stopped or cannot be reached, last seen at "
                         r"step 4, [\d.]+ s after all_reduce at [^;]+", error), error
    # Whoever gives up first sees the other still wait.
    assert re.search(r"; rank [02] is at step 4, waiting for [\d.]+ s in all_reduce at \S*layers\.1\S* backward ",
                     "".join(errors)), errors


def launched(program: str, optp: str, comm: str, folder: Path) -> None:
    """Before it has met the others a rank is unknown to them: the launcher names it."""
    begin = time.monotonic()
    result = subprocess.run([optp, "launch", "--nproc-per-node", str(RANKS), "--", program, str(folder / "start"), comm,
                             str(LONG), "1", str(int(signal.SIGKILL)), "start"], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, timeout=60)
    print(f"{comm}, start: {time.monotonic() - begin:.1f} s: {result.stderr.strip()}", flush=True)
    assert time.monotonic() - begin < SOON + 5  # the start included
    assert result.returncode == 128 + signal.SIGKILL, result
    assert re.search(r"optp: rank 1 on host \S+ was killed by signal 9 \(Killed\)", result.stderr), result.stderr


if __name__ == "__main__":
    training_program, optp_program, backend = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        for when in ("connect", *PLACE):
            lost(training_program, backend, Path(temporary), when, victim=1)
        for when in ("collective", "checkpoint"):
            lost(training_program, backend, Path(temporary), when, victim=0)  # which serves the store
        stalled(training_program, backend, Path(temporary))
        launched(training_program, optp_program, backend, Path(temporary))
    print("ok")
