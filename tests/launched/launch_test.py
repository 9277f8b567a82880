#!/usr/bin/env python3
"""`optp launch` beside torchrun, with Python programs, and with training that goes on after a rank was killed.

    launch_test.py OPTP CASE
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from train_runs import SMALL, checkpoints, metrics, ranks_below, run, token_file

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


def environment(optp: Path, folder: Path) -> None:
    """Each rank gets the variables that torchrun sets, with the same values."""
    program = folder / "program"
    name = f"'{folder}/' + os.environ['WHO'] + os.environ['RANK']"
    program.write_text(f"#!{sys.executable}\nimport json, os\njson.dump(dict(os.environ), open({name}, 'w'))\n")
    program.chmod(0o755)
    options = ("--nproc_per_node", 3, "--rdzv_id", "me", "--max-restarts", 2, "--no-python")
    here = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    run(*TORCHRUN, "--standalone", *options, program, env=here | {"WHO": "torchrun"})
    run(optp, "launch", *options, program, env=here | {"WHO": "optp"})
    for rank in range(3):
        theirs, ours = (json.loads((folder / f"{who}{rank}").read_text()) for who in ("torchrun", "optp"))
        added, added_here = theirs.keys() - here.keys(), ours.keys() - here.keys()
        # What torchrun sets besides serves its own watchdog, its own error files, and NCCL.
        assert added_here - {"OPTP_RUN_TOKEN"} == added - {"TORCHELASTIC_ERROR_FILE", "TORCH_NCCL_ASYNC_ERROR_HANDLING",
                                                          "TORCHELASTIC_SIGNALS_TO_HANDLE"}, added ^ added_here
        assert len(ours["OPTP_RUN_TOKEN"]) == 32
        # --standalone chooses the name of the run and the port, and the host's own name.
        differ = {name for name in added_here & added if ours[name] != theirs[name]}
        assert differ <= {"WHO", "TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS"}, differ
        assert ours["TORCHELASTIC_RUN_ID"] == "me" and ours["MASTER_ADDR"] == "127.0.0.1"
        assert int(ours["OMP_NUM_THREADS"]) == max(1, len(os.sched_getaffinity(0)) // 3)
    run(optp, "launch", "--nproc-per-node", 2, program, env=here | {"WHO": "set", "OMP_NUM_THREADS": "5"})
    assert json.loads((folder / "set1").read_text())["OMP_NUM_THREADS"] == "5"


SCRIPT = """
import os, sys, torch, torch.distributed as dist
dist.init_process_group("gloo", init_method="env://")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
print(f"attempt {attempt} sum {total.item():.0f}", flush=True)
dist.barrier()
if attempt == "0" and dist.get_rank() == 1:
    os.kill(os.getpid(), 9)
dist.barrier()
dist.destroy_process_group()
"""


def torch_distributed(optp: Path, folder: Path) -> None:
    """A Python program meets in the launcher's store, again after a restart, on one host and two."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    launch = (optp, "launch", "--max-restarts", 1)
    result = run(*launch, "--nproc-per-node", 2, "--", sys.executable, script)
    lines = [f"[rank {rank}] attempt {attempt} sum 3" for attempt in (0, 1) for rank in (0, 1)]
    assert sorted(result.stdout.splitlines()) == sorted(lines), result.stdout
    assert re.search(r"^optp: rank 1 on host \S+ was killed by signal 9 \(Killed\); starting all ranks again, "
                     r"restart 1 of 1$", result.stderr, re.MULTILINE), result.stderr

    port = 20000 + os.getpid() % 10000
    nodes = [subprocess.Popen([str(part) for part in (*launch, "--nnodes", 2, "--node-rank", node, "--rdzv-endpoint",
                                                      f"127.0.0.1:{port}", "--", sys.executable, script)],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for node in (1, 0)]
    out = "".join(node.communicate(timeout=60)[0] for node in nodes)
    assert [node.returncode for node in nodes] == [0, 0]
    assert sorted(out.splitlines()) == sorted(lines), out


def training_goes_on(optp: Path, folder: Path) -> None:
    """Training whose ranks are killed in the middle ends with the bits of a run that nothing happened to."""
    token_file(folder / "ids.npy", 99, 100)
    train = [optp, "train", *SMALL, "--train-data", folder / "ids.npy", "--dropout", 0.1, "--max-steps", 200,
             "--save-every", 20, "--tp", 2, "--resume", "--timeout", 30, "--output"]
    launch = [optp, "launch", "--nproc-per-node", 2, "--max-restarts", 2, "--"]
    run(*launch, *train, folder / "straight")
    output = folder / "killed"
    with (folder / "errors").open("w") as errors, subprocess.Popen(
            [str(part) for part in (*launch, *train, output)], stdout=subprocess.DEVNULL, stderr=errors) as process:
        for victim, step in ((1, 50), (0, 110)):
            deadline = time.monotonic() + 60
            while not (output / "metrics.jsonl").exists() or len(metrics(output)) < step:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            os.kill(ranks_below(process.pid)[victim], signal.SIGKILL)
        assert process.wait(120) == 0, (folder / "errors").read_text()
    text = (folder / "errors").read_text()
    assert text.count("was killed by signal 9 (Killed); starting all ranks again") == 2, text
    assert checkpoints(output) == checkpoints(folder / "straight")
    for name in ("final/model.safetensors", "checkpoints/step-00000200/optimizer_state-00001-of-00002.safetensors"):
        assert (output / name).read_bytes() == (folder / "straight" / name).read_bytes(), name
    assert [line["loss"] for line in metrics(output)] == [line["loss"] for line in metrics(folder / "straight")]


if __name__ == "__main__":
    cases = {case.__name__: case for case in (environment, torch_distributed, training_goes_on)}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")  # nothing stays in the user's
        cases[sys.argv[2]](Path(sys.argv[1]).resolve(), Path(temporary))
    print("ok")
