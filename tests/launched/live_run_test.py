#!/usr/bin/env python3
"""What can be seen of a training run while it goes on: its sockets, its answers to SIGUSR1, its files.

    live_run_test.py OPTP CASE
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from train_runs import SMALL, descendants, metrics, ranks_below, token_file, variables_of

LOOPBACK = {"0100007F", "00000000000000000000000001000000"}


@contextlib.contextmanager
def training(optp: Path, folder: Path, *options, launcher: tuple = ()) -> Iterator[subprocess.Popen]:
    """A run of two ranks that has taken some steps and goes on for long."""
    token_file(folder / "ids.npy", 99, 100)
    output = folder / f"run{len(list(folder.iterdir()))}"
    command = [*launcher, optp, "train", *SMALL, "--tp", 2, "--train-data", folder / "ids.npy", "--max-steps", 10**6,
               "--save-every", 20, "--output", output, *options]
    with (folder / "errors").open("w") as errors, subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=errors) as process:
        process.output, process.errors = output, folder / "errors"
        try:
            while not (output / "metrics.jsonl").exists() or len(metrics(output)) < 25:
                assert process.poll() is None, (folder / "errors").read_text()
                time.sleep(0.02)
            yield process
        finally:
            ranks = descendants(process.pid) if process.poll() is None else []
            process.terminate()
            try:
                process.wait(30)
            finally:
                process.kill()
                for pid in ranks:  # one of them may have been left stopped
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def local_addresses(pids: list[int]) -> tuple[set[str], set[str]]:
    """The addresses at which these processes listen, and those at which they are connected, as the kernel writes them."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    listening, connected = set(), set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                (listening if fields[3] in ("0A", "07") else connected).add(fields[1].split(":")[0])
    return listening, connected


def listens_on_loopback_alone(optp: Path, folder: Path) -> None:
    for launcher in ((), (optp, "launch", "--nproc-per-node", 2, "--")):
        for comm in ("gloo", "shm"):
            with training(optp, folder, "--comm", comm, launcher=launcher) as process:
                listening, connected = local_addresses([process.pid, *descendants(process.pid)])
            print(comm, listening, connected)
            assert listening and listening <= LOOPBACK, listening  # the store at least
            assert {address[-8:] for address in connected} == {"0100007F"}, connected


def tells_what_it_does(optp: Path, folder: Path) -> None:
    """Asked by SIGUSR1, all ranks say their step and, while one is stopped, for whom they wait."""
    for launcher in ((), (optp, "launch", "--nproc-per-node", 2, "--")):
        with training(optp, folder, "--comm", "gloo", launcher=launcher) as process:
            ranks = ranks_below(process.pid)
            assert sorted(ranks) == [0, 1], ranks

            def answers(text: str) -> None:
                deadline = time.monotonic() + 20
                while re.search(text, process.errors.read_text()) is None:
                    assert time.monotonic() < deadline, (text, process.errors.read_text())
                    time.sleep(0.05)

            process.send_signal(signal.SIGUSR1)
            for rank in (0, 1):
                answers(rf"rank {rank} of 2 \(process {ranks[rank]}\): (step|the checkpoint of step) \d+, .* in \w+ at|"
                        rf"rank {rank} of 2 \(process {ranks[rank]}\): (step|the checkpoint of step) \d+, .* after \w+ at")
            os.kill(ranks[1], signal.SIGSTOP)
            time.sleep(4)
            os.kill(ranks[0], signal.SIGUSR1)
            answers(rf"rank 0 of 2 \(process {ranks[0]}\): .* waiting for [\d.]+ s in \w+ at .* group\) for rank 1\n")
            os.kill(ranks[1], signal.SIGCONT)
            reached = len(metrics(process.output))
            time.sleep(1)
            assert process.poll() is None and len(metrics(process.output)) > reached  # nothing else has happened


def keeps_runs_apart(optp: Path, folder: Path) -> None:
    """Ranks of another run that were given the same port are told so."""
    with training(optp, folder) as process:
        variables = variables_of(ranks_below(process.pid)[1])
        assert re.fullmatch(rb"[0-9a-f]{32}", variables[b"OPTP_RUN_TOKEN"])
        stranger = subprocess.run([str(part) for part in (
            optp, "train", *SMALL, "--tp", 2, "--train-data", folder / "ids.npy", "--output", folder / "other")],
            env=variables | {b"OPTP_RUN_TOKEN": b"0" * 32}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=60)
        assert stranger.returncode == 3, stranger
        assert "found the store of another run at 127.0.0.1" in stranger.stderr, stranger.stderr
        assert stranger.stderr.count("\n") == 1, stranger.stderr
        reached = len(metrics(process.output))
        time.sleep(1)
        assert process.poll() is None and len(metrics(process.output)) > reached


def is_for_the_user_alone(optp: Path, folder: Path) -> None:
    """Nobody else can read what holds state, whatever the umask allows."""
    os.umask(0)
    (folder / "text.txt").write_text("To be, or not to be. " * 200)
    byte_model = [*SMALL[:2], "--vocab-size", 260, *SMALL[4:]]
    subprocess.run([str(part) for part in (
        optp, "launch", "--nproc-per-node", 2, "--log-dir", folder / "logs", optp, "train", *byte_model, "--tp", 2,
        "--train-data", folder / "text.txt", "--max-steps", 4, "--save-every", 2, "--output", folder / "run")],
        check=True, timeout=120, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    holders = [folder / "run/metrics.jsonl", *(folder / "run/checkpoints").rglob("*"), *(folder / "logs").rglob("*")]
    assert len(holders) > 8, holders
    for path in holders:
        inside = any((above.stat().st_mode & 0o077) == 0 for above in path.parents if above.is_relative_to(folder))
        assert inside or (path.stat().st_mode & 0o077) == 0 or path.is_dir(), path
    entries = list((Path(os.environ["XDG_CACHE_HOME"]) / "optp/tokens").iterdir())
    assert entries and all(entry.stat().st_mode & 0o777 == 0o700 for entry in entries), entries


if __name__ == "__main__":
    cases = {case.__name__: case for case in (listens_on_loopback_alone, tells_what_it_does, keeps_runs_apart,
                                              is_for_the_user_alone)}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")  # nothing stays in the user's
        work = Path(temporary) / "work"
        work.mkdir()
        cases[sys.argv[2]](Path(sys.argv[1]).resolve(), work)
    print("ok")
