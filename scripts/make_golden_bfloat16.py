#!/usr/bin/env python3
"""Makes tests/golden/*/expected_bfloat16.safetensors: what transformers computes from models of tests/golden in bfloat16.

The weights are rounded to bfloat16. `bfloat16.*` is what transformers then computes in bfloat16, `exact.*` what it
computes in float32 from the same rounded weights, so that the error of bfloat16 arithmetic itself is known.

    scripts/make_golden_bfloat16.py [tests/golden]        needs transformers 4.57
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import OPTForCausalLM

MODELS = ["base", "opt-350m", "gelu", "no-bias"]


def run(folder: Path, prefix: str, dtype: torch.dtype, store: torch.dtype) -> dict:
    given = load_file(folder / "expected.safetensors")
    model = OPTForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager").to(dtype).eval()
    output = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"], labels=given["labels"])
    output.loss.backward()
    values = {"logits": output.logits.detach(), "loss": output.loss.detach()}
    values |= {"gradient." + name: parameter.grad for name, parameter in model.named_parameters()}
    return {f"{prefix}.{name}": value.to(store).contiguous() for name, value in values.items()}


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden")
    for name in MODELS:
        expected = run(root / name, "bfloat16", torch.bfloat16, torch.float32)
        expected |= run(root / name, "exact", torch.float32, torch.float32)
        save_file(expected, root / name / "expected_bfloat16.safetensors")
        print(root / name)


if __name__ == "__main__":
    main()
