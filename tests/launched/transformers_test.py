#!/usr/bin/env python3
"""optp against transformers, at the full size of OPT-125M, and under the real torchrun.

    transformers_test.py OPTP CASE
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from exact_torch import torch
from safetensors.torch import load_file, save_file
from transformers import OPTConfig, OPTForCausalLM


def run(*command, **options):
    print("+", *command, flush=True)
    return subprocess.run([str(part) for part in command], check=True, **options)


def random_opt(folder: Path, **switches) -> OPTForCausalLM:
    torch.manual_seed(0)
    model = OPTForCausalLM(OPTConfig(**switches)).eval()
    model.save_pretrained(folder)
    return model


def forward_at_full_size(optp: Path, folder: Path) -> None:
    """OPT-125M with random weights: logits within 1e-5 and the loss, at degrees 1, 2 and 3, padding included."""
    model = random_opt(folder / "model")
    input_ids = torch.randint(4, 50265, (3, 32), generator=torch.Generator().manual_seed(1))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, :7] = 0
    attention_mask[2, 25:] = 0
    labels = input_ids.masked_fill(attention_mask == 0, -100)
    with torch.no_grad():
        expected = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
    save_file({"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}, folder / "in.safetensors")
    for tp in (1, 2, 3):
        run(optp, "forward", "--model", folder / "model", "--input", folder / "in.safetensors", "--output",
            folder / "out.safetensors", "--tp", tp)
        output = load_file(folder / "out.safetensors")
        real = attention_mask.bool()
        difference = (output["logits"] - expected.logits)[real].abs().max().item()
        loss = abs(output["loss"].item() - expected.loss.item())
        print(f"tp {tp}: logits differ by {difference:.3g}, loss by {loss:.3g}", flush=True)
        assert output["logits"].dtype == torch.float32 and output["logits"].isfinite().all()
        assert difference < 1e-5 and loss < 1e-5


def verify_their_weights(optp: Path, folder: Path) -> None:
    """`optp verify --model DIR` on weights that transformers drew: layer norms before and after, projections, GELU, no
    biases, an untied head, no final layer norm, many layers, large weights."""
    small = dict(num_hidden_layers=2, hidden_size=64, num_attention_heads=4, ffn_dim=256, vocab_size=999,
                 max_position_embeddings=64)
    shapes = {
        "pre": (2, dict(small, num_hidden_layers=3, hidden_size=96, num_attention_heads=6)),
        "post": (3, dict(small, word_embed_proj_dim=32, do_layer_norm_before=False)),
        "deep": (2, dict(small, word_embed_proj_dim=32, do_layer_norm_before=False, num_hidden_layers=8)),
        "gelu without biases": (2, dict(small, activation_function="gelu", enable_bias=False)),
        "untied": (2, dict(small, tie_word_embeddings=False)),
        "no final layer norm": (2, dict(small, _remove_final_layer_norm=True)),
        "large weights": (2, dict(small, init_std=0.1)),
    }
    for name, (tp, switches) in shapes.items():
        random_opt(folder / name, **switches)
        checks = "all" if name in ("pre", "post") else "forward,backward,stability,end-to-end"
        run(optp, "verify", "--model", folder / name, "--tp", tp, "--checks", checks, "--report", folder / "report.txt",
            "--json", folder / "result.json", "--quiet", stdout=subprocess.DEVNULL)
        result = json.loads((folder / "result.json").read_text())
        assert result["verdict"] == "pass" and len(result["checks"]) == (7 if checks == "all" else 4), name
    # Their text, and short sequences, one at a time.
    text = folder / "text.txt"
    text.write_text("It is a truth universally acknowledged, that a single man in possession of a good fortune. " * 9)
    for options in (["--text", text], ["--seq-len", 3, "--batch-size", 1]):
        run(optp, "verify", "--model", folder / "post", "--tp", 2, "--checks", "stability", "--report",
            folder / "report.txt", "--quiet", *options, stdout=subprocess.DEVNULL)


def bench(optp: Path, folder: Path) -> None:
    """The check values of `optp bench` are transformers' own, at every degree, and its lines are whole."""
    model = random_opt(folder / "model", vocab_size=999, hidden_size=64, num_attention_heads=4, num_hidden_layers=2,
                       ffn_dim=256, max_position_embeddings=128, word_embed_proj_dim=64, init_std=0.1, dropout=0.0)
    ids = torch.tensor([[4 + ((row * 24 + i) * 7919 + 13) % 995 for i in range(24)] for row in range(3)])
    with torch.no_grad():
        logits = model(ids).logits.abs().mean().item()
        new = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)[0, 24:].tolist()
    losses, optimizer = [], torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    for _ in range(2):
        loss = model(ids, labels=ids).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for tp in (1, 2):
        output = run(optp, "bench", "--model", folder / "model", "--tp", tp, "--iterations", 2, "--batch-size", 3,
                     "--seq-len", 24, stdout=subprocess.PIPE, text=True).stdout
        lines = [json.loads(line) for line in output.splitlines()]
        work = {line["workload"]: line for line in lines}
        assert [line["workload"] for line in lines if line["workload"] != "comm"] == ["forward", "train", "decode"]
        for line in lines:
            if line["workload"] == "comm":
                assert line["ranks"] == 2 and line["microseconds"] > 0 and line["backend"] and line["operation"]
            else:
                assert line["ranks"] == tp and line["batch_size"] == 3 and line["peak_rss_bytes"] > 10e6
                assert 0 < line["milliseconds_min"] <= line["milliseconds"] <= line["milliseconds_max"]
                assert (0 < line["comm_fraction"] < 1) == (tp > 1)
        assert abs(work["forward"]["check"][0] - logits) < 1e-5 * logits
        assert all(abs(a - b) < 1e-5 for a, b in zip(work["train"]["check"], losses, strict=True)), losses
        assert work["decode"]["check"] == new
        assert ("comm" in work) == (tp > 1)


def torchrun(optp: Path, folder: Path) -> None:
    """torchrun starts the ranks; rank 0 alone prints."""
    result = run(sys.executable, "-m", "torch.distributed.run", "--no-python", "--standalone", "--nproc-per-node", 2, optp,
                 "verify", "--model", "opt-tiny", "--vocab-size", 500, "--seq-len", 16, "--checks",
                 "forward,backward", "--report", folder / "report.txt", "--quiet", stdout=subprocess.PIPE, text=True)
    assert result.stdout.count("Verdict: PASS") == 1, result.stdout
    assert (folder / "report.txt").read_text() == result.stdout


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        {"forward_at_full_size": forward_at_full_size, "verify_their_weights": verify_their_weights, "bench": bench,
         "torchrun": torchrun}[sys.argv[2]](Path(sys.argv[1]).resolve(), Path(temporary))
    print("ok")
