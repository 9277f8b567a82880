#!/usr/bin/env python3
"""Times a training step of optp beside the same step in PyTorch: transformers' OPTForCausalLM, AdamW, clipping.

    python scripts/benchmark_training.py build/release/optp [--model opt-125m] [--steps 6] [--rounds 3]

Both start from the same weights and take the same batches in one process with the same number of threads. They run one
after the other in each round, in the other order in every second round, so that a change of the machine's speed meets
both. The first two steps of a run warm it up and are left out. Needs torch, transformers and numpy.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# layers, hidden size, heads, vocabulary
SIZES = {"opt-125m": (12, 768, 12, 50272), "small": (2, 128, 4, 1024)}
WARMUP, LR = 2, 1e-4


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optp", type=Path)
    parser.add_argument("--model", choices=SIZES, default="opt-125m")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--pytorch-in", type=Path, help=argparse.SUPPRESS)  # this process is the PyTorch run
    return parser.parse_args()


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """The weights, and random ids for every step."""
    import numpy
    import torch
    from transformers import OPTConfig, OPTForCausalLM
    layers, hidden, heads, vocabulary = SIZES[options.model]
    torch.manual_seed(0)
    config = OPTConfig(vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
                       ffn_dim=4 * hidden, max_position_embeddings=2048, word_embed_proj_dim=hidden, dropout=0.0,
                       attention_dropout=0.0)
    OPTForCausalLM(config).save_pretrained(folder / "model")
    count = (options.steps + WARMUP) * options.batch_size * options.seq_len + 1
    numpy.save(folder / "ids.npy", numpy.random.default_rng(0).integers(4, vocabulary, count).astype(numpy.uint16))


def run_pytorch(options: argparse.Namespace, folder: Path) -> None:
    """Prints the seconds and the loss of each step as JSON."""
    import numpy
    import torch
    from transformers import OPTForCausalLM
    torch.set_num_threads(options.threads)
    model = OPTForCausalLM.from_pretrained(folder / "model").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    ids = torch.from_numpy(numpy.load(folder / "ids.npy").astype(numpy.int64))
    windows = ids.unfold(0, options.seq_len + 1, options.seq_len)
    seconds, losses = [], []
    for step in range(options.steps + WARMUP):
        begin = time.perf_counter()
        rows = windows[step * options.batch_size:(step + 1) * options.batch_size]
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"seconds": seconds, "losses": losses}))


def time_pytorch(options: argparse.Namespace, folder: Path) -> tuple[list[float], list[float]]:
    result = subprocess.run([sys.executable, *sys.argv, "--pytorch-in", folder], check=True, stdout=subprocess.PIPE)
    run = json.loads(result.stdout.splitlines()[-1])
    return run["seconds"], run["losses"]


def time_optp(options: argparse.Namespace, folder: Path) -> tuple[list[float], list[float]]:
    with tempfile.TemporaryDirectory(dir=folder) as output:
        subprocess.run([str(part) for part in (
            options.optp.resolve(), "train", "--model", folder / "model", "--train-data", folder / "ids.npy",
            "--output", Path(output) / "run", "--no-shuffle", "--seq-len", options.seq_len, "--batch-size",
            options.batch_size, "--max-steps", options.steps + WARMUP, "--lr", LR, "--lr-schedule", "constant",
            "--save-every", 0, "--sample-tokens", 0, "--threads", options.threads, "--quiet")],
            check=True, stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in (Path(output) / "run/metrics.jsonl").read_text().splitlines()]
    return [line["step_seconds"] for line in lines], [line["loss"] for line in lines]


def main() -> None:
    options = arguments()
    if options.pytorch_in:
        run_pytorch(options, options.pytorch_in)
        return
    tokens = options.batch_size * options.seq_len
    medians = {"optp": [], "pytorch": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(options, folder)
        for number in range(options.rounds):
            runs = [("optp", time_optp), ("pytorch", time_pytorch)]
            losses = {}
            for name, timed in runs if number % 2 == 0 else reversed(runs):
                seconds, losses[name] = timed(options, folder)
                medians[name].append(statistics.median(seconds[WARMUP:]))
            apart = max(abs(a - b) for a, b in zip(losses["optp"], losses["pytorch"], strict=True))
            assert apart < 0.01, f"the losses differ by {apart}: the two do not train alike"
            print(f"round {number + 1}: " + ", ".join(f"{name} {medians[name][-1]:.3f} s a step" for name in medians) +
                  f", losses apart by {apart:.1g}", flush=True)
    ratios = [theirs / ours for ours, theirs in zip(medians["optp"], medians["pytorch"])]
    print(f"{options.model}, {options.batch_size} x {options.seq_len} tokens, {options.threads} threads:")
    for name, seconds in medians.items():
        print(f"  {name:8} {statistics.median(seconds):.3f} s a step ({min(seconds):.3f} to {max(seconds):.3f}), "
              f"{tokens / statistics.median(seconds):.0f} tokens/s")
    print(f"  optp is {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")
    if options.json:
        options.json.write_text(json.dumps({"model": options.model, "batch_size": options.batch_size,
                                            "seq_len": options.seq_len, "threads": options.threads,
                                            "step_seconds": medians, "ratios": ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()
