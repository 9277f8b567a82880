#!/usr/bin/env python3
"""Training checkpoints read by other programs: the `safetensors` package puts the whole tensors together from nothing
but the files' metadata, and liblzma computes the checksums.

    checkpoint_test.py CHECKPOINT_PROGRAM
"""

import json
import lzma
import subprocess
import sys
import tempfile
from pathlib import Path

from exact_torch import torch
from safetensors import safe_open
from safetensors.torch import load_file


def crc64(data: bytes) -> str:
    """CRC-64/XZ, taken out of the .xz file that liblzma makes of `data`: it stands just before the index."""
    packed = lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=0)
    index_size = 4 * (int.from_bytes(packed[-8:-4], "little") + 1)
    end = len(packed) - 12 - index_size
    return packed[end - 8:end][::-1].hex()


def reassemble(folder: Path) -> dict[str, torch.Tensor]:
    manifest = json.loads((folder / "checkpoint.json").read_text())
    assert manifest["format"] == "optp-training-checkpoint" and manifest["version"] == 1
    text = (folder / "checkpoint.json").read_bytes()
    body = text[:text.rindex(b',\n  "crc64"')]
    assert manifest["crc64"] == crc64(body)
    assert {entry["name"] for entry in manifest["files"]} | {"checkpoint.json"} == {p.name for p in folder.iterdir()}
    whole, times = {}, {}
    for entry in manifest["files"]:
        path = folder / entry["name"]
        assert path.stat().st_size == entry["size"] and crc64(path.read_bytes()) == entry["crc64"], path
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            assert metadata["part"] == entry["part"] and int(metadata["rank"]) == entry["rank"]
            assert int(metadata["tp"]) == manifest["mesh"]["tp"]
            boxes = json.loads(metadata["tensors"])
            assert set(boxes) == set(file.keys())
            for name, box in boxes.items():
                tensor = file.get_tensor(name)
                assert list(tensor.shape) == box["size"]
                key = f"{entry['part']}/{name}"
                if key not in whole:
                    whole[key] = torch.zeros(box["shape"], dtype=tensor.dtype)
                    times[key] = torch.zeros(box["shape"], dtype=torch.int)
                part = tuple(slice(start, start + size) for start, size in zip(box["start"], box["size"]))
                whole[key][part] = tensor
                times[key][part] += 1
    assert all(bool((count == 1).all()) for count in times.values())
    return whole


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def main() -> None:
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run([program, "whole", folder / "whole.safetensors", "7"], check=True)
        expected = load_file(folder / "whole.safetensors")
        for tp, dp in ((1, 1), (3, 1), (2, 2)):
            run = folder / f"{tp}x{dp}"
            subprocess.run([str(part) for part in (program, "write", run, tp, dp, 7, 7, 1001)], check=True)
            whole = reassemble(run / "step-00000007")
            ballast = whole.pop("parameters/ballast")
            assert ballast.equal(torch.arange(1001, dtype=torch.float32) + 7000)
            assert whole.keys() == expected.keys()
            for name, tensor in expected.items():
                assert tensor.dtype == whole[name].dtype and tensor.shape == whole[name].shape, name
                assert bits(tensor) == bits(whole[name]), name
            print(f"tp {tp} x dp {dp}: {len(whole)} tensors are whole", flush=True)


main()
