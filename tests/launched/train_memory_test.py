#!/usr/bin/env python3
"""What --activation-checkpointing and --sequence-parallel save of a process's memory, against what `optp plan` says.

    train_memory_test.py OPTP
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from train_runs import metrics, run, token_file

# Many tokens and layers, few weights: activations are what memory goes to.
MODEL = ["--model", "opt-tiny", "--vocab-size", 260, "--num-layers", 10, "--hidden-size", 64, "--num-heads", 4,
         "--ffn-dim", 256, "--seq-len", 256, "--batch-size", 16, "--tp", 2]
SWITCHES = {"plain": [], "sequence-parallel": ["--sequence-parallel"],
            "checkpointed": ["--activation-checkpointing"],
            "both": ["--sequence-parallel", "--activation-checkpointing"]}
MIB = 1 << 20


def main(optp: Path, folder: Path) -> None:
    token_file(folder / "ids.npy", 260, 32, 256)
    planned, measured = {}, {}
    for name, switches in SWITCHES.items():
        run(optp, "plan", *MODEL, *switches, "--json", folder / "plan.json")
        plan = json.loads((folder / "plan.json").read_text())
        planned[name] = max(rank["peak_bytes"] for rank in plan["ranks"])
        output = folder / name
        run(optp, "train", *MODEL, *switches, "--train-data", folder / "ids.npy", "--output", output, "--max-steps", 2,
            "--save-every", 0, "--sample-tokens", 0, "--threads", 1, "--dropout", 0)
        measured[name] = metrics(output)[-1]["peak_rss_bytes"]
    # What libraries take is the same in all four, so differences tell.
    for name in list(SWITCHES)[1:]:
        plan, fact = planned["plain"] - planned[name], measured["plain"] - measured[name]
        print(f"{name} saves {fact / MIB:.1f} MiB of a peak of {measured['plain'] / MIB:.1f}, planned {plan / MIB:.1f}",
              flush=True)
        assert plan > 0 and abs(fact - plan) < 0.2 * plan, name


if __name__ == "__main__":
    # A tensor has memory of its own, which is given back with it: no gaps of a heap are measured.
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.mmap_threshold=131072"
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")  # nothing stays in the user's
        main(Path(sys.argv[1]).resolve(), Path(temporary))
    print("ok")
