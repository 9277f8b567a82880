#!/usr/bin/env python3
"""Tokens a second of `optp generate` beside transformers' generate, in the same run.

    bench_generate.py [--optp build/release/optp] [--model FOLDER] [--rounds 5] [--threads 2]

Greedy, prompts of 32 tokens, 64 new ones, batch 1 and 8; reading the prompt counts, loading the model does not. Every
round measures each way once, one after another, so that a change of the machine's speed meets all of them; the table
has medians over the rounds, and for several ranks the share of the time that rank 0 spent in collectives. Without a
model: OPT-125M with random weights. Needs torch and transformers; let nothing else run meanwhile.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from transformers import OPTConfig, OPTForCausalLM

PROMPT, NEW = 32, 64
WAYS = {"float32": [], "bfloat16": ["--weights", "bfloat16"], "int8": ["--weights", "int8"], "float32, tp 2": ["--tp", 2],
        "int8, tp 2": ["--tp", 2, "--weights", "int8"]}


def prompts(batch: int) -> list[list[int]]:
    return [[4 + ((row * PROMPT + i) * 7919 + 13) % 50000 for i in range(PROMPT)] for row in range(batch)]


def transformers_way(model: OPTForCausalLM, batch: int) -> tuple[float, list[int]]:
    ids = torch.tensor(prompts(batch))
    begin = time.perf_counter()
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, min_new_tokens=NEW,
                            do_sample=False, suppress_tokens=list(range(50265, 50272)))
    return batch * NEW / (time.perf_counter() - begin), output[0, PROMPT:].tolist()


def optp_way(optp: str, model: Path, batch: int, threads: int, options: list, out: Path) -> dict:
    ranks = options[options.index("--tp") + 1] if "--tp" in options else 1
    command = [optp, "generate", "--model", model, "--max-new-tokens", NEW, "--threads", max(1, threads // ranks), "--quiet",
               "--json", out, *options, "--prompt-ids", *(",".join(map(str, prompt)) for prompt in prompts(batch))]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return json.loads(out.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optp", default="build/release/optp")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        if not arguments.model:
            torch.manual_seed(0)
            arguments.model = Path(temporary) / "opt-125m"
            OPTForCausalLM(OPTConfig()).save_pretrained(arguments.model)
        model = OPTForCausalLM.from_pretrained(arguments.model).eval()
        for batch in (1, 8):
            speeds = {"transformers": [], **{way: [] for way in WAYS}}
            shares = {way: [] for way in speeds}
            transformers_way(model, batch)  # warm
            for _ in range(arguments.rounds):
                speed, expected = transformers_way(model, batch)
                speeds["transformers"].append(speed)
                for way, options in WAYS.items():
                    result = optp_way(arguments.optp, arguments.model, batch, arguments.threads, options,
                                      Path(temporary) / "out.json")
                    speeds[way].append(result["tokens_per_second"])
                    shares[way].append(result["comm_fraction"])
                    first = result["results"][0]["output_ids"]
                    if way.startswith("float32") and first != expected[:len(first)]:
                        raise SystemExit(f"{way}, batch {batch}: other tokens than transformers': {first} {expected}")
            print(f"batch {batch:<10}   tokens/s    ratio   communication")
            base = statistics.median(speeds["transformers"])
            for way, values in speeds.items():
                speed = statistics.median(values)
                share = f"{statistics.median(shares[way]):14.1%}" if "tp" in way else ""
                print(f"{way:16} {speed:10.1f} {speed / base:8.2f}{share}", flush=True)


if __name__ == "__main__":
    main()
