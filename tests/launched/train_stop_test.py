#!/usr/bin/env python3
"""How `optp train` ends before its end, and goes on: signals, bad input, a full disk, numbers that are not finite.

    train_stop_test.py OPTP CASE
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
from train_runs import SMALL, checkpoints, metrics, replaced, run, token_file


def curve(output: Path) -> list[dict]:
    return [{key: line.get(key) for key in ("step", "loss", "lr", "grad_norm", "tokens", "val_loss")}
            for line in metrics(output)]


def stop(command, output: Path, steps: int, sent: signal.Signals, to_all: bool) -> int:
    """Starts a run and sends a signal once it has taken `steps` steps: to the program that was started or, as a
    terminal does, to all of its ranks. Returns the steps that it has taken in the end."""
    with subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          start_new_session=True) as process:
        deadline = time.monotonic() + 120
        path = output / "metrics.jsonl"
        while time.monotonic() < deadline and process.poll() is None:
            if path.exists() and path.read_text().count("\n") >= steps:
                break
            time.sleep(0.005)
        (os.killpg if to_all else os.kill)(process.pid, sent)
        assert process.wait(60) == 128 + sent
    taken = len(metrics(output))
    assert taken >= steps and not (output / "final").exists()
    return taken


def stopped_and_resumed(optp: Path, folder: Path) -> None:
    """SIGTERM and Ctrl-C write a checkpoint; going on gives the bits of a run without a stop, with dropout on."""
    token_file(folder / "ids.npy", 99, 200)
    command = [optp, "train", *SMALL, "--train-data", folder / "ids.npy", "--val-split", 0.1, "--dropout", 0.1,
               "--attention-dropout", 0.1, "--max-steps", 60, "--eval-every", 20, "--save-every", 25, "--keep-last", 1]
    for dtype, mesh, sent, to_all in (("float32", ["--tp", 2, "--dp", 2], signal.SIGTERM, False),
                                      ("bfloat16", ["--tp", 2], signal.SIGINT, True)):
        straight, stopped = folder / f"{dtype}-straight", folder / f"{dtype}-stopped"
        run(*command, *mesh, "--dtype", dtype, "--output", straight)
        assert checkpoints(straight) == ["step-00000060"]
        taken = stop([*command, *mesh, "--dtype", dtype, "--output", stopped], stopped, 8, sent, to_all)
        assert taken < 60 and checkpoints(stopped) == [f"step-{taken:08}"], taken
        run(optp, "train", "--config", stopped / "run.json", "--resume")
        assert curve(stopped) == curve(straight)
        final = "final/model.safetensors"
        assert (stopped / final).read_bytes() == (straight / final).read_bytes()

    # The same run repeated from run.json, and gone on with at another degree.
    run(optp, "train", "--config", folder / "float32-stopped/run.json", "--output", folder / "again", "--max-steps", 20,
        "--tp", 1, "--dp", 1, "--lr-schedule", "constant")
    run(optp, "train", "--config", folder / "again/run.json", "--resume", "--max-steps", 30, "--tp", 3)
    run(optp, "train", "--config", folder / "again/run.json", "--output", folder / "one", "--max-steps", 30)
    for first, second in zip(curve(folder / "again"), curve(folder / "one"), strict=True):
        assert abs(first["loss"] - second["loss"]) < 1e-4, (first, second)


def refused(part: str, *command) -> None:
    """One sentence that holds `part`, exit 2, all ranks gone."""
    result = run(*command, status=2)
    errors = [line for line in result.stderr.splitlines() if line.startswith("optp: ")]
    assert len(errors) == 1 and errors[0] == result.stderr.splitlines()[-1] and part in errors[0], result.stderr


def refuses_bad_input(optp: Path, folder: Path) -> None:
    token_file(folder / "ids.npy", 99, 40)
    numpy.save(folder / "large.npy", numpy.full(1000, 99, dtype=numpy.uint16))
    numpy.save(folder / "short.npy", numpy.arange(5, dtype=numpy.uint16))
    (folder / "empty.txt").write_text("")
    (folder / "file").write_text("")
    base = [optp, "train", *SMALL]
    data, done = ["--train-data", folder / "ids.npy"], ["--output", folder / "done"]
    run(*base, *data, *done, "--max-steps", 4, "--save-every", 2)

    train = [*base, *data, "--output", folder / "fresh"]
    for part, options in (
            ("empty.txt has 0 tokens", {"--train-data": folder / "empty.txt"}),
            ("short.npy has 5 tokens", {"--train-data": folder / "short.npy", "--tp": 2}),
            ("large.npy holds the id 99", {"--train-data": folder / "large.npy", "--dp": 2}),
            ("none.txt", {"--train-data": folder / "none.txt"}),
            ("--epochs 1 and --max-steps 3", {"--epochs": 1, "--max-steps": 3}),
            ("--val-data and --val-split", {"--val-split": 0.1, "--val-data": folder / "ids.npy"}),
            ("fewer than a batch", {"--batch-size": 1000}),
            ("cannot be shared by 3 copies", {"--batch-size": 2, "--dp": 3}),
            ("no parameter is called like", {"--freeze": "model.encoder*", "--tp": 2}),
            ("exceeds the model's 64 positions", {"--seq-len": 65}),
            ("momentum", {"--momentum": 0.9}),
            ("heads", {"--tp": 7})):
        refused(part, *replaced(train, options))
        assert not (folder / "fresh/metrics.jsonl").exists()
    refused("Nesterov", *train, "--optimizer", "sgd", "--nesterov")
    refused("holds a run already", *base, *data, *done)
    resume = [*base, *data, *done, "--resume"]
    for part, options in (("another model: its ffn_dim is 96, not 64", {"--ffn-dim": 64, "--tp": 2}),
                          ("its batch size is 4, not 2", {"--batch-size": 2}),
                          ("its seed is 0, not 1", {"--seed": 1}),
                          ("has taken 4 steps, more than the 3", {"--max-steps": 3})):
        refused(part, *replaced(resume, options))
    token_file(folder / "ids.npy", 98, 40)
    refused("its training data is", *resume, "--tp", 2)
    assert checkpoints(folder / "done") == ["step-00000002", "step-00000004"]
    refused("Not a directory", *base, *data, "--output", folder / "file/run")
    refused("cannot make", *base, *data, "--output", "/proc/optp-run")


def full_disk(optp: Path, folder: Path) -> None:
    """Nothing is half-written, the checkpoints stay, and with more room the run goes on from the last."""
    token_file(folder / "ids.npy", 99, 80)
    command = [optp, "train", *SMALL, "--train-data", folder / "ids.npy", "--max-steps", 8, "--save-every", 2,
               "--tp", 2, "--output"]
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1600k", "tmpfs", disk], check=False,
                             stderr=subprocess.DEVNULL).returncode == 0
    if not mounted:  # not root: a limit on the size of files, which lets no checkpoint through
        refused("cannot write", "bash", "-c", 'trap "" XFSZ; ulimit -f 40; exec "$@"', "bash", *command, disk)
        assert not list((disk / "checkpoints").iterdir())
        return
    try:
        refused("No space left on device", *command, disk)
        kept = checkpoints(disk)
        assert kept and kept == [f"step-{step:08}" for step in range(2, 2 * len(kept) + 1, 2)], kept
        refused("No space left on device", *command, disk, "--resume")
        assert checkpoints(disk) == kept and not (disk / "final").exists()
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        run(*command, disk, "--resume")
        run(*command, folder / "straight")
        assert curve(disk) == curve(folder / "straight")
        assert (disk / "final/model.safetensors").read_bytes() == \
            (folder / "straight/final/model.safetensors").read_bytes()
    finally:
        subprocess.run(["umount", disk], check=True)


def gives_up(optp: Path, folder: Path) -> None:
    """Steps that are not finite are skipped, counted and recorded; after enough of them in a row the run ends."""
    token_file(folder / "ids.npy", 99, 40)
    result = run(optp, "train", *SMALL, "--train-data", folder / "ids.npy", "--output", folder / "run", "--optimizer",
                 "sgd", "--lr", 1e25, "--grad-clip", 0, "--max-skipped-steps", 3, "--tp", 2, status=3)
    lines = metrics(folder / "run")
    assert [line.get("skipped", False) for line in lines][-4:] == [False, True, True, True], lines
    assert result.stderr.count("not finite in 3 steps in a row") == 1 and result.stderr.count("was skipped") == 3
    page = (folder / "run/report.html").read_text()
    assert "3 steps were skipped" in page and "training has diverged" in page


if __name__ == "__main__":
    cases = {case.__name__: case for case in (stopped_and_resumed, refuses_bad_input, full_disk, gives_up)}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")  # nothing stays in the user's
        cases[sys.argv[2]](Path(sys.argv[1]).resolve(), Path(temporary))
    print("ok")
