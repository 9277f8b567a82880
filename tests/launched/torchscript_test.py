#!/usr/bin/env python3
"""Exported TorchScript files without optp: Python's torch.jit.load and a C++ host program, against transformers.

    torchscript_test.py OPTP HOST
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from exact_torch import torch
from transformers import OPTConfig, OPTForCausalLM
from transformers.models.opt import modeling_opt

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import make_golden

SMALL = dict(vocab_size=300, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, ffn_dim=130,
             max_position_embeddings=96, word_embed_proj_dim=64, dropout=0.0, attention_dropout=0.0, init_std=0.1)

# Every switch of the golden models, at this size; how their files are laid out does not matter here.
CONFIGURATIONS = {name: dict(switches, **({"word_embed_proj_dim": 40} if "word_embed_proj_dim" in switches else {}))
                  for name, switches in make_golden.CONFIGURATIONS.items()
                  if "sharded" not in name and "bin" not in name}
CONFIGURATIONS["vocabulary"] = dict(vocab_size=257)
NEW_TOKENS = 40


def convert(optp: Path, source: Path, target: Path, *options: object) -> torch.jit.ScriptModule:
    command = [optp, "convert", "--from", source, "--to", target, "--format", "torchscript", "--quiet", *options]
    subprocess.run([str(part) for part in command], check=True)
    return torch.jit.load(target)


def decode(module: torch.jit.ScriptModule, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Greedy continuation, one step at a time."""
    past, chosen = [], []
    for _ in range(NEW_TOKENS):
        logits, past = module.forward_step(ids, past, mask)
        ids = logits[:, -1].argmax(-1, keepdim=True)
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
        chosen.append(ids)
    return torch.cat(chosen, 1)


def left_padded(prompts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.ones(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt):] = prompt
        mask[row, longest - len(prompt):] = 1
    return ids, mask


def check(optp: Path, host: Path, folder: Path, name: str, switches: dict) -> None:
    torch.manual_seed(0)
    model = OPTForCausalLM(OPTConfig(**{**SMALL, **switches})).eval()
    model.save_pretrained(folder / name)
    file = folder / f"{name}.pt"
    module = convert(optp, folder / name, file)

    ids = torch.randint(4, model.config.vocab_size, (4, 20))
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    mask[2, 12:] = 0
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).logits
    difference = (module(ids, mask) - expected)[mask.bool()].abs().max().item()
    unmasked = (module(ids) - model(input_ids=ids).logits).abs().max().item()

    prompts = [ids[0], ids[1, :5], ids[2, :13]]
    padded, present = left_padded(prompts)
    generated = model.generate(input_ids=padded, attention_mask=present, max_new_tokens=NEW_TOKENS, do_sample=False,
                               eos_token_id=None, pad_token_id=1)[:, padded.size(1):]
    assert torch.equal(decode(module, padded, present), generated), name

    # The same from C++, which has LibTorch and the file.
    command = [host, file, folder / "logits.pt", NEW_TOKENS, *[",".join(map(str, p.tolist())) for p in prompts]]
    lines = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    from_host = torch.tensor([[int(token) for token in line.split(",")] for line in lines.splitlines()])
    assert torch.equal(from_host, generated), name
    with torch.no_grad():
        expected = model(input_ids=padded, attention_mask=present).logits
    host_difference = (torch.load(folder / "logits.pt") - expected)[present.bool()].abs().max().item()

    print(f"{name}: logits differ by {difference:.3g}, {unmasked:.3g} unmasked, {host_difference:.3g} in C++", flush=True)
    assert max(difference, unmasked, host_difference) < 1e-5, name


def check_half(optp: Path, folder: Path) -> None:
    """--dtype: the file holds those very numbers, and runs."""
    weights = torch.load(folder / "base.pt.weights")
    for dtype in (torch.float16, torch.bfloat16):
        text = str(dtype).removeprefix("torch.")
        module = convert(optp, folder / "base", folder / f"{text}.pt", "--dtype", text)
        parameters = dict(module.named_parameters())
        assert parameters.keys() == weights.keys()
        assert all(torch.equal(parameters[key], value.to(dtype)) for key, value in weights.items())
        assert module(torch.tensor([[2, 31, 7]])).dtype == dtype


def check_errors(module: torch.jit.ScriptModule) -> None:
    for arguments, sentence in [((torch.zeros(1, 97, dtype=torch.long),), "97 tokens a sequence and the model 96 positions"),
                                ((torch.zeros(4, dtype=torch.long),), "input_ids have the shape [4]"),
                                ((torch.tensor([[300]]),), "use ids from 0 to 299"),
                                ((torch.tensor([[3, 4]]), torch.ones(1, 3)), "attention_mask has the shape [1, 3]")]:
        try:
            module(*arguments)
        except Exception as error:  # torch.jit.Error is no class of its own
            assert sentence in str(error), error
        else:
            raise AssertionError(sentence)


def main() -> None:
    optp, host = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    modeling_opt.OPTPreTrainedModel._init_weights = make_golden.init_weights
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, switches in CONFIGURATIONS.items():
            check(optp, host, folder, name, switches)
        base = torch.jit.load(folder / "base.pt")
        torch.save(dict(base.named_parameters()), folder / "base.pt.weights")
        check_half(optp, folder)
        check_errors(base)
    print("ok")


if __name__ == "__main__":
    main()
