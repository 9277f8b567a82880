"""What the tests of `optp train` share: runs of the program, small models and token files."""

import json
import subprocess
from pathlib import Path

import numpy

SEQ_LEN = 16


def run(*command, status=0, **options):
    """Runs a command to its end, which must be that exit status."""
    print("+", *command, flush=True)
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            **options)
    assert result.returncode == status, f"exit {result.returncode}, not {status}: {result.stderr}"
    return result


def token_file(path: Path, vocabulary: int, windows: int, length: int = SEQ_LEN) -> numpy.ndarray:
    """Random ids, and the windows that `--no-shuffle` makes of them."""
    ids = numpy.random.default_rng(1).integers(4, vocabulary, windows * length + 1)
    numpy.save(path, ids.astype(numpy.uint16))
    return numpy.stack([ids[first:first + length + 1] for first in range(0, windows * length, length)])


def metrics(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def descendants(pid: int) -> list[int]:
    """All processes below that one."""
    children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir()
                for child in (task / "children").read_text().split()]
    return [process for child in children for process in (child, *descendants(child))]


def variables_of(pid: int) -> dict[bytes, bytes]:
    """The environment with which a process was started."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(entry.split(b"=", 1) for entry in entries if entry)


def ranks_below(pid: int) -> dict[int, int]:
    """Rank -> process, of those below a launcher."""
    variables = {process: variables_of(process) for process in descendants(pid)}
    return {int(given[b"RANK"]): process for process, given in variables.items() if b"RANK" in given}


def checkpoints(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "checkpoints").iterdir())


def replaced(command: list, options: dict) -> list:
    """The command with other values of some options, or with these options if it has them not."""
    command = list(command)
    for name, value in options.items():
        if name in command:
            command[command.index(name) + 1] = value
        else:
            command += [name, value]
    return command


# A model of 2 layers that every degree up to 4 can share, fresh from its seed.
SMALL = ["--model", "opt-tiny", "--vocab-size", 99, "--hidden-size", 48, "--num-heads", 6, "--ffn-dim", 96,
         "--max-positions", 64, "--seq-len", SEQ_LEN, "--batch-size", 4, "--threads", 1, "--sample-tokens", 0]
