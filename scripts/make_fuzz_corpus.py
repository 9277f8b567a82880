#!/usr/bin/env python3
"""Makes tests/fuzz/corpus/: small sound files, from which the fuzzers start.

    scripts/make_fuzz_corpus.py [tests/fuzz/corpus]        needs torch and safetensors
"""

import collections
import json
import shutil
import sys
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fuzz/corpus")
    golden = Path(__file__).parent.parent / "tests/golden"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("safetensors", "index", "config", "pickle", "torch_file"):
        (root / name).mkdir(parents=True)

    types = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool)
    save_file({str(dtype): torch.ones(2, 1).to(dtype) for dtype in types}, root / "safetensors/types",
              metadata={"format": "pt"})
    save_file({"empty": torch.ones(0, 3), "number": torch.ones(())}, root / "safetensors/empty")

    (root / "index/two").write_text(json.dumps({
        "metadata": {"total_size": 16},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}))

    for name in ("base", "galactica", "opt-350m"):
        shutil.copy(golden / name / "config.json", root / "config" / name)

    weight = torch.ones(2, 3)
    states = {
        "plain": {"a": weight, "b": weight.half()},
        "module": torch.nn.Linear(2, 1).state_dict(),
        "parameter": collections.OrderedDict(p=torch.nn.Parameter(weight), q=weight.t()),
    }
    for name, state in states.items():
        for protocol in (2, 4):
            file = root / "torch_file" / f"{name}-{protocol}"
            torch.save(state, file, pickle_protocol=protocol)
            with zipfile.ZipFile(file) as archive:
                pickle = next(entry for entry in archive.namelist() if entry.endswith("data.pkl"))
                (root / "pickle" / file.name).write_bytes(archive.read(pickle))


if __name__ == "__main__":
    main()
