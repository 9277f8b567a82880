#!/usr/bin/env python3
"""Records what transformers' logits processors make of a few rows of scores: tests/golden/sampling.safetensors.

    python scripts/make_golden_sampling.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper,
                          TopPLogitsWarper)

ROWS, VOCABULARY, CONTEXT = 4, 400, 30

# name: repetition penalty, temperature, top-k, top-p
CASES = {
    "temperature": (1.0, 0.7, 0, 1.0),
    "top_k": (1.0, 1.0, 5, 1.0),
    "top_p": (1.0, 1.0, 0, 0.9),
    "top_p_small": (1.0, 1.3, 0, 0.05),
    "top_p_nearly_all": (1.0, 2.0, 0, 0.999),
    "penalty": (1.5, 1.0, 0, 1.0),
    "all": (1.2, 0.8, 50, 0.8),
}

if __name__ == "__main__":
    generator = torch.Generator().manual_seed(0)
    # From nearly flat to sharply peaked. The fifth score comes twice: top-k keeps what ties with the last one. (Which of
    # several equal scores top-p keeps is not defined: torch.sort may give them in any order.)
    scores = torch.randn(ROWS, VOCABULARY, generator=generator) * torch.tensor([[0.3], [1.0], [3.0], [8.0]])
    fifth = scores.topk(5).values[:, 4]
    scores[torch.arange(ROWS), scores.argmin(1)] = fifth
    context = torch.randint(VOCABULARY, (ROWS, CONTEXT), generator=generator)
    tensors = {"scores": scores, "context": context}
    for name, (penalty, temperature, top_k, top_p) in CASES.items():
        result = scores.clone()
        if penalty != 1:
            result = RepetitionPenaltyLogitsProcessor(penalty)(context, result)
        if temperature != 1:
            result = TemperatureLogitsWarper(temperature)(context, result)
        if top_k:
            result = TopKLogitsWarper(top_k)(context, result)
        if top_p < 1:
            result = TopPLogitsWarper(top_p)(context, result)
        tensors[name] = result
        tensors[name + ".options"] = torch.tensor([penalty, temperature, top_k, top_p], dtype=torch.float64)
    save_file(tensors, Path(__file__).parent.parent / "tests/golden/sampling.safetensors")
