#!/usr/bin/env python3
"""What --activation-checkpointing saves of a process's memory, against what `optp plan` says.

The tensors that sequence parallelism saves are counted in tests/modules/activation_memory_test.cpp; the resident memory of
a process does not fall by them, since its collectives over Gloo take as much.

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
SWITCHES = {"plain": [], "checkpointed": ["--activation-checkpointing"]}
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
    # What libraries take is the same in both, so the difference tells.
    plan, fact = planned["plain"] - planned["checkpointed"], measured["plain"] - measured["checkpointed"]
    print(f"saves {fact / MIB:.1f} MiB of a peak of {measured['plain'] / MIB:.1f}, planned {plan / MIB:.1f}")
    assert plan > 0 and abs(fact - plan) < 0.2 * plan


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")  # nothing stays in the user's
        main(Path(sys.argv[1]).resolve(), Path(temporary))
    print("ok")
