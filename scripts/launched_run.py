"""A training run below `optp launch`: its processes, what they said, and its checkpoints. For training_campaign.py."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

ALL = 1_000_000
MARK = ("OPTP_LAUNCHED_RUN", str(os.getpid()))  # in the environment of every process of these runs


def wait_until(condition, seconds: float, pause: float = 0.01) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def processes() -> list[str]:
    """Of all runs, whatever became of their parents."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if "=".join(MARK).encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:  # it has ended, or is another user's
            pass
    return found


class LaunchedRun:
    """A run in a folder, and the launchers that were started for it, one after the other. Of its checkpoints the
    newest `kept` stay."""

    def __init__(self, output: Path, command: list, ranks: int, kept: int, environment: dict):
        self.output, self.ranks, self.kept = output, ranks, kept
        self.environment = os.environ | environment | dict([MARK])
        self.command = [*command, "--output", output, "--keep-last", str(0 if kept == ALL else kept)]
        self.checkpoints = output / "checkpoints"
        self.logs: list[Path] = []

    def start(self, max_restarts: int) -> None:
        self.logs.append(Path(f"{self.output}-{len(self.logs)}.log"))
        with self.logs[-1].open("w") as log:
            self.launcher = subprocess.Popen(
                [self.command[0], "launch", "--nproc-per-node", str(self.ranks), "--max-restarts", str(max_restarts),
                 "--", *self.command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=self.environment)

    def ended(self) -> bool:
        return self.launcher.poll() is not None

    def pids(self) -> list[int]:
        """Of the ranks, in their order: they are below the launcher's guard."""
        def children(pid: int) -> list[int]:
            try:
                return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            except OSError:  # it has ended
                return []
        return [rank for guard in children(self.launcher.pid) for rank in children(guard)]

    def said(self) -> str:
        """By the newest launcher and its ranks."""
        return self.logs[-1].read_text()

    def attempts(self) -> list[str]:
        """The same, cut where the ranks were started again."""
        return re.split(r"(?<=; starting all ranks again).*\n", self.said())

    def trains(self) -> bool:
        """Whether the newest attempt does. What killed ones left has gone by then."""
        return re.search(r"resuming after| step 1/", self.attempts()[-1]) is not None

    def all_said(self) -> str:
        return "".join(log.read_text() for log in self.logs)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.checkpoints.iterdir()) if self.checkpoints.exists() else []

    def being_written(self) -> list[str]:
        """Checkpoints that are not whole yet."""
        return [name for name in self.names() if re.fullmatch(r"\.step-\d+\.partial", name)]

    def being_replaced(self) -> set[str]:
        """Temporary files with all that each is to hold, about to take the place of another."""
        found = set()
        for path in self.output.glob(".*.tmp"):
            try:
                if path.stat().st_size > 0:
                    found.add(path.name)
            except FileNotFoundError:  # it has taken it
                pass
        return found

    def kept_checkpoints(self) -> list[str]:
        """The names of those that must be there: the newest that were reported, or have their name already."""
        reported = re.findall(r"^\[rank 0\] checkpoint written to \S*(step-\d+)", self.all_said(), re.MULTILINE)
        whole = [name for name in self.names() if name.startswith("step-")]
        return sorted({*reported, *whole})[-self.kept:]

    def setbacks(self) -> list[str]:
        """Attempts that did not go on from the newest checkpoint, and failures that no kill explains."""
        newest, found = 0, []
        for line in self.all_said().splitlines():
            begun = re.match(r"\[rank 0\] (?:resuming after step (\d+)|step 1/)", line)
            if written := re.match(r"\[rank 0\] checkpoint written to \S*step-(\d+)", line):
                newest = int(written[1])
            elif begun and int(begun[1] or 0) < newest:
                found.append(f"'{line}', but step {newest} had been written")
            elif "; starting all ranks again" in line and "was killed by signal 9 (Killed);" not in line:
                found.append(line)
        return found

    def losses(self) -> list[tuple[int, float]]:
        lines = [json.loads(line) for line in (self.output / "metrics.jsonl").read_text().splitlines()]
        return [(line["step"], line["loss"]) for line in lines]
