#!/usr/bin/env python3
"""Makes the recorded values of training in tests/golden/: what torch.optim, torch.nn.utils.clip_grad_norm_ and the
schedules of transformers compute. Run it again only when a case is added; the files are committed.

    scripts/make_training_golden.py [tests/golden]        needs torch 2.13 and transformers 4.57
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import get_scheduler

STEPS = 100
RECORDED = (1, 10, STEPS)
SHAPES = {"matrix": (5, 7), "bias": (6,), "rarely": (4, 3)}  # "rarely" has a gradient in every third step only

# Options of torch.optim's classes. "no_decay_bias" puts the parameters of one dimension into a group without decay.
OPTIMIZERS = {
    "adamw": dict(kind="adamw"),
    "adamw_betas_decay": dict(kind="adamw", betas=(0.9, 0.95), weight_decay=0.1, eps=1e-6),
    "adamw_no_decay_bias": dict(kind="adamw", weight_decay=0.5, no_decay_bias=True),
    "adam": dict(kind="adam"),
    "adam_decay": dict(kind="adam", betas=(0.8, 0.99), weight_decay=0.1),
    "adam_no_decay_bias": dict(kind="adam", weight_decay=0.1, no_decay_bias=True),
    "sgd": dict(kind="sgd"),
    "sgd_decay": dict(kind="sgd", weight_decay=0.1),
    "sgd_momentum": dict(kind="sgd", momentum=0.9),
    "sgd_nesterov": dict(kind="sgd", momentum=0.8, nesterov=True, weight_decay=0.05),
    "sgd_no_decay_bias": dict(kind="sgd", momentum=0.9, weight_decay=0.1, no_decay_bias=True),
    "rmsprop": dict(kind="rmsprop"),
    "rmsprop_alpha_decay": dict(kind="rmsprop", alpha=0.9, eps=1e-5, weight_decay=0.1),
    "rmsprop_centered": dict(kind="rmsprop", centered=True),
    "rmsprop_momentum": dict(kind="rmsprop", momentum=0.9, no_decay_bias=True, weight_decay=0.1),
    "rmsprop_centered_momentum": dict(kind="rmsprop", centered=True, momentum=0.7, weight_decay=0.05, alpha=0.95),
}
CLASSES = dict(adamw=torch.optim.AdamW, adam=torch.optim.Adam, sgd=torch.optim.SGD, rmsprop=torch.optim.RMSprop)

# lr 0.01, total 20 steps unless said; each value for the steps 0 to 29, beyond the end.
SCHEDULES = {
    "constant": dict(kind="constant", name="constant_with_warmup", warmup_steps=0),
    "constant_warmup": dict(kind="constant", name="constant_with_warmup", warmup_steps=7),
    "linear": dict(kind="linear", name="linear", warmup_steps=0),
    "linear_warmup": dict(kind="linear", name="linear", warmup_steps=6),
    "linear_warmup_only": dict(kind="linear", name="linear", warmup_steps=20),
    "linear_warmup_beyond": dict(kind="linear", name="linear", warmup_steps=25),
    "linear_min": dict(kind="linear", name="polynomial", warmup_steps=6, min_lr=0.001),
    "cosine": dict(kind="cosine", name="cosine", warmup_steps=0),
    "cosine_warmup": dict(kind="cosine", name="cosine", warmup_steps=6),
    "cosine_warmup_only": dict(kind="cosine", name="cosine", warmup_steps=20),
    "cosine_min": dict(kind="cosine", name="cosine_with_min_lr", warmup_steps=3, min_lr=0.001),
    "cosine_min_no_warmup": dict(kind="cosine", name="cosine_with_min_lr", warmup_steps=0, min_lr=0.004),
    "polynomial": dict(kind="polynomial", name="polynomial", warmup_steps=0, min_lr=0.0),
    "polynomial_end": dict(kind="polynomial", name="polynomial", warmup_steps=4, min_lr=1e-7),
    "polynomial_power": dict(kind="polynomial", name="polynomial", warmup_steps=5, min_lr=0.002, power=2.5),
    "polynomial_root": dict(kind="polynomial", name="polynomial", warmup_steps=0, min_lr=0.0, power=0.5),
    "one_step": dict(kind="linear", name="linear", warmup_steps=0, total_steps=1),
}


def run_optimizer(options, start, gradients, lrs, dtype):
    options = dict(options)
    kind, split = options.pop("kind"), options.pop("no_decay_bias", False)
    parameters = {name: value.to(dtype, copy=True).requires_grad_() for name, value in start.items()}
    groups = [{"params": [p for p in parameters.values() if p.dim() > 1]},
              {"params": [p for p in parameters.values() if p.dim() == 1]}]
    if split:
        groups[1]["weight_decay"] = 0.0
    optimizer = CLASSES[kind](groups, lr=1.0, foreach=False, **options)
    recorded = {}
    for step in range(STEPS):
        for name, parameter in parameters.items():
            there = name != "rarely" or step % 3 == 1
            parameter.grad = gradients[name][step].to(dtype) if there else None
        for group in optimizer.param_groups:
            group["lr"] = lrs[step].item()
        optimizer.step()
        if step + 1 in RECORDED:
            for name, parameter in parameters.items():
                recorded[f"{step + 1}.{name}"] = parameter.detach().clone()
    for name, parameter in parameters.items():
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, torch.Tensor) and not (key == "step" and kind in ("sgd", "rmsprop")):
                recorded[f"{key}/{name}"] = value.detach().clone()
    return recorded


def make_optimizers(path):
    torch.manual_seed(5)
    start = {name: torch.randn(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    # Rounded to float32, so that both precisions start from and see the same numbers.
    start = {name: value.float().double() for name, value in start.items()}
    gradients = {name: (torch.randn(STEPS, *shape) * torch.rand(STEPS, *([1] * len(shape)))) for name, shape in SHAPES.items()}
    lrs = 0.02 * (1 + torch.cos(torch.arange(STEPS, dtype=torch.float64) / 9)) / 2 + 1e-4
    tensors = {"lr": lrs}
    for name in SHAPES:
        tensors[f"start.{name}"] = start[name].float()
        tensors[f"gradient.{name}"] = gradients[name]
    for case, options in OPTIMIZERS.items():
        for dtype, short in ((torch.float32, "float32"), (torch.float64, "float64")):
            for key, value in run_optimizer(options, start, gradients, lrs, dtype).items():
                tensors[f"{case}.{short}.{key}"] = value
    for case, max_norm in (("clip", 0.7), ("keep", 1e6)):
        parameters = [torch.nn.Parameter(start[name].float()) for name in SHAPES]
        for name, parameter in zip(SHAPES, parameters):
            parameter.grad = gradients[name][0].clone()
        tensors[f"{case}.norm"] = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        tensors[f"{case}.max_norm"] = torch.tensor(max_norm, dtype=torch.float64)
        for name, parameter in zip(SHAPES, parameters):
            tensors[f"{case}.{name}"] = parameter.grad
    save_file(tensors, path, metadata={case: json.dumps(options) for case, options in OPTIMIZERS.items()})


def make_schedules(path):
    recorded = {}
    for case, options in SCHEDULES.items():
        options = {"lr": 0.01, "total_steps": 20, **options}
        name, kind = options.pop("name"), options["kind"]
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=options["lr"])
        extra = {}
        if name == "polynomial":
            extra = {"lr_end": options["min_lr"], "power": options.get("power", 1.0)}
        elif name == "cosine_with_min_lr":
            extra = {"min_lr": options["min_lr"]}
        scheduler = get_scheduler(name, optimizer, options["warmup_steps"], options["total_steps"],
                                  scheduler_specific_kwargs=extra)
        values = []
        for _ in range(30):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        recorded[case] = {"options": options, "lr": values}
    path.write_text(json.dumps(recorded, indent=1) + "\n")


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden")
    make_optimizers(root / "optimizers.safetensors")
    make_schedules(root / "schedules.json")


if __name__ == "__main__":
    main()
