#!/usr/bin/env python3
"""`optp train` against a PyTorch loop around transformers' OPTForCausalLM, and read by TensorBoard.

    train_test.py OPTP CASE [TEXTS]
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy
from exact_torch import torch
from safetensors.torch import load_file
from train_runs import SEQ_LEN, SMALL, metrics, run, token_file

BATCH, STEPS, WARMUP = 6, 20, 3


def small_model(folder: Path, **switches):
    from transformers import OPTConfig, OPTForCausalLM
    torch.manual_seed(0)
    sizes = dict(vocab_size=99, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, ffn_dim=96,
                 max_position_embeddings=64, word_embed_proj_dim=48, dropout=0.0, attention_dropout=0.0, init_std=0.1)
    model = OPTForCausalLM(OPTConfig(**(sizes | switches)))
    model.save_pretrained(folder)
    return model


def train_with_pytorch(model, windows, batch: int, steps: int, lr: float) -> list[float]:
    from transformers import get_linear_schedule_with_warmup
    model.train()
    optimizer = torch.optim.AdamW((weight for weight in model.parameters() if weight.requires_grad), lr=lr)
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, steps)
    losses = []
    for step in range(steps):
        rows = windows[step * batch:(step + 1) * batch]
        logits = model(input_ids=rows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def train_with_optp(optp: Path, model: Path, output: Path, lr: float, *options) -> list[dict]:
    result = run(
        optp, "train", "--model", model, "--train-data", model.parent / "ids.npy", "--output", output, "--seq-len",
        SEQ_LEN, "--batch-size", BATCH, "--max-steps", STEPS, "--no-shuffle", "--lr", lr, "--lr-schedule", "linear",
        "--warmup-steps", WARMUP, "--threads", 1, "--sample-tokens", 0, *options)
    if "--verify-first" in options:
        passed = [line for line in result.stderr.splitlines() if "PASS" in line]
        assert len(passed) == 3, result.stderr  # forward, backward, memory
    lines = metrics(output)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert lines[-1]["tokens"] == STEPS * BATCH * SEQ_LEN
    return lines


def largest_difference(lines: list[dict], losses: list[float]) -> float:
    return max(abs(line["loss"] - loss) for line, loss in zip(lines, losses, strict=True))


def typical_difference(losses: list[float], exact: list[float]) -> float:
    """Root of the mean square: the largest of a few roundings is one chance, and another on each kind of processor."""
    return (sum((a - b)**2 for a, b in zip(losses, exact, strict=True)) / len(exact))**0.5


def compare_weights(actual: dict, expected: dict, limit: float, lr: float, steps: int) -> None:
    for name, value in expected.items():
        if name == "lm_head.weight" and name not in actual:
            continue  # tied
        difference = (actual[name] - value).abs().max().item()
        # The gradient of k_proj.bias is rounding alone, which Adam turns into full-size steps.
        allowed = lr * steps if name.endswith("k_proj.bias") else limit
        assert difference <= allowed, f"{name} differs by {difference}"


def agrees_with_pytorch(optp: Path, folder: Path, _) -> None:
    """20 steps of AdamW: every loss and all final weights within 1e-4, at several meshes and ways to save memory."""
    from transformers import OPTForCausalLM
    windows = torch.from_numpy(token_file(folder / "ids.npy", 99, BATCH * STEPS))
    variants = [("--tp", 1), ("--tp", 2, "--sequence-parallel", "--micro-batch-size", 4),
                ("--tp", 3, "--activation-checkpointing"),
                ("--tp", 2, "--dp", 2, "--sequence-parallel", "--activation-checkpointing", "--micro-batch-size", 1,
                 "--verify-first"),
                ("--tp", 1, "--dp", 2, "--micro-batch-size", 2)]
    for activation, lr in (("gelu", 1e-3), ("relu", 1e-4)):
        model = small_model(folder / activation, activation_function=activation)
        losses = train_with_pytorch(model, windows, BATCH, STEPS, lr)
        weights = {name: value.detach() for name, value in model.state_dict().items()}
        for number, variant in enumerate(variants):
            output = folder / f"{activation}-{number}"
            difference = largest_difference(train_with_optp(optp, folder / activation, output, lr, *variant), losses)
            print(f"{activation} {variant}: losses differ by {difference:.3g}", flush=True)
            assert difference < 1e-4
            compare_weights(load_file(output / "final" / "model.safetensors"), weights, 1e-4, lr, STEPS)
        OPTForCausalLM.from_pretrained(output / "final")


def freezes(optp: Path, folder: Path, _) -> None:
    """--freeze with activation checkpointing, where the first layers have nothing to train: as PyTorch does it."""
    windows = torch.from_numpy(token_file(folder / "ids.npy", 99, BATCH * STEPS))
    model = small_model(folder / "model", activation_function="gelu")
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    frozen = [name for name in before if "embed_" in name or ".layers.0." in name]
    for name, weight in model.named_parameters():
        weight.requires_grad_(name not in frozen)
    losses = train_with_pytorch(model, windows, BATCH, STEPS, 1e-3)
    freeze = ("--freeze", "model.decoder.embed_*", "*.layers.0.*", "--activation-checkpointing")
    lines = train_with_optp(optp, folder / "model", folder / "run", 1e-3, *freeze, "--tp", 2, "--dp", 2)
    assert largest_difference(lines, losses) < 1e-4
    trained = load_file(folder / "run/final/model.safetensors")
    compare_weights(trained, {name: value.detach() for name, value in model.state_dict().items()}, 1e-4, 1e-3, STEPS)
    # In bfloat16 too they come out as they went in, in float32, though the arithmetic rounded them.
    train_with_optp(optp, folder / "model", folder / "rounded", 1e-3, *freeze, "--dtype", "bfloat16")
    rounded = load_file(folder / "rounded/final/model.safetensors")
    for name in frozen:
        if name in trained:
            assert torch.equal(trained[name], before[name]) and torch.equal(rounded[name], before[name]), name
    assert all(value.dtype == torch.float32 for value in rounded.values())


def bfloat16(optp: Path, folder: Path, _) -> None:
    """bfloat16 with float32 master weights: no further from float32 than PyTorch with autocast, at tp 2 as at tp 1."""
    windows = torch.from_numpy(token_file(folder / "ids.npy", 99, BATCH * STEPS))
    model = small_model(folder / "model", activation_function="gelu")
    exact = train_with_pytorch(model, windows, BATCH, STEPS, 1e-3)
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    start = load_file(folder / "model/model.safetensors")
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):  # weights change within
        theirs = small_model(folder / "model", activation_function="gelu")
        lost = typical_difference(train_with_pytorch(theirs, windows, BATCH, STEPS, 1e-3), exact)

    def distance(trained: dict) -> float:
        """How far the weights went another way, relative to the way that they went in float32."""
        names = [name for name in start if not name.endswith("k_proj.bias")]
        apart = sum((trained[name] - weights[name]).double().square().sum() for name in names)
        return (apart / sum((weights[name] - start[name]).double().square().sum() for name in names)).sqrt().item()

    their_distance = distance({name: value.detach() for name, value in theirs.state_dict().items()})
    for variant in (("--tp", 1), ("--tp", 2, "--sequence-parallel", "--micro-batch-size", 4, "--verify-first")):
        output = folder / "-".join(map(str, variant))
        lines = train_with_optp(optp, folder / "model", output, 1e-3, "--dtype", "bfloat16", *variant)
        trained = load_file(output / "final/model.safetensors")
        difference = typical_difference([line["loss"] for line in lines], exact)
        print(f"{variant}: losses differ by {difference:.3g}, autocast {lost:.3g}; weights by "
              f"{distance(trained):.3g}, autocast {their_distance:.3g}", flush=True)
        assert difference < 2 * lost and distance(trained) < 2 * their_distance


def read_by_tensorboard(optp: Path, folder: Path, _) -> None:
    """TensorBoard's own reader finds every scalar; a resumed run hides the steps that it takes anew."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    token_file(folder / "ids.npy", 99, 100)
    command = [optp, "train", *SMALL, "--train-data", folder / "ids.npy", "--val-split", 0.1, "--eval-every", 5,
               "--output", folder / "run"]
    run(*command, "--max-steps", 8, "--save-every", 5)
    shutil.rmtree(folder / "run/checkpoints/step-00000008")
    run(*command, "--max-steps", 12, "--save-every", 5, "--resume", "--json", folder / "result.json")
    events = EventAccumulator(str(folder / "run/tensorboard"))
    events.Reload()
    lines = metrics(folder / "run")
    for tag, key in (("train/loss", "loss"), ("train/learning_rate", "lr"), ("train/grad_norm", "grad_norm")):
        scalars = events.Scalars(tag)
        assert [scalar.step for scalar in scalars] == list(range(1, 13)), tag
        assert all(abs(scalar.value - line[key]) <= 1e-6 * abs(line[key]) for scalar, line in zip(scalars, lines))
    assert [scalar.step for scalar in events.Scalars("validation/loss")] == [5, 10, 12]
    result = json.loads((folder / "result.json").read_text())
    assert result["steps"] == 12 and result["loss"] == lines[-1]["loss"] and "val_perplexity" in result


def learns_shakespeare(optp: Path, folder: Path, texts: Path) -> None:
    """tinyshakespeare, bytes: the curves of tp 1, tp 2 and dp 2 agree, validation falls as it does in PyTorch, and the
    page shows that and a text."""
    steps, batch, length = 40, 8, 64
    model = small_model(folder / "model", vocab_size=260, hidden_size=64, num_attention_heads=4, ffn_dim=128,
                        word_embed_proj_dim=64, activation_function="gelu", init_std=0.02)
    text = torch.from_numpy(numpy.fromfile(texts / "tinyshakespeare.txt", numpy.uint8)).long() + 4
    windows = text.unfold(0, length + 1, length)
    (folder / "val.txt").write_bytes(bytes((text[-20 * length - 1:] - 4).tolist()))
    held_out = text[-20 * length - 1:].unfold(0, length + 1, length)
    train_with_pytorch(model, windows, batch, steps, 1e-3)
    with torch.no_grad():
        logits = model.eval()(input_ids=held_out[:, :-1]).logits
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), held_out[:, 1:].flatten()).item()
    curves, pages = [], []
    for mesh in (("--tp", 1), ("--tp", 2), ("--dp", 2)):
        output = folder / "-".join(map(str, mesh))
        run(optp, "train", "--model", folder / "model", "--train-data", texts / "tinyshakespeare.txt", "--val-data",
            folder / "val.txt", "--tokenizer", "bytes", "--seq-len", length, "--batch-size", batch, "--max-steps",
            steps, "--no-shuffle", "--lr", 1e-3, "--lr-schedule", "linear", "--warmup-steps", WARMUP, "--eval-every",
            20, "--sample-tokens", 24, "--output", output, *mesh)
        lines = metrics(output)
        curves.append([line["loss"] for line in lines])
        difference = abs(lines[-1]["val_loss"] - expected)
        print(f"{mesh}: validation loss {lines[-1]['val_loss']:.4f}, PyTorch {expected:.4f}", flush=True)
        assert difference < 1e-3 and lines[-1]["val_loss"] < lines[19]["val_loss"] - 0.2
        pages.append((output / "report.html").read_text())
        assert "Validation perplexity" in pages[-1] and "<mark>" in pages[-1]
    assert all(abs(a - b) < 1e-3 for curve in curves[1:] for a, b in zip(curves[0], curve, strict=True))
    samples = {page.partition("<mark>")[2].partition("</pre>")[0] for page in pages}
    assert len(samples) == 1, samples


if __name__ == "__main__":
    cases = {case.__name__: case for case in (agrees_with_pytorch, freezes, bfloat16, read_by_tensorboard,
                                              learns_shakespeare)}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")  # nothing stays in the user's
        cases[sys.argv[2]](Path(sys.argv[1]).resolve(), Path(temporary), Path(sys.argv[3]) if sys.argv[3:] else None)
    print("ok")
