#!/usr/bin/env python3
"""Makes tests/golden/: small OPT models of transformers with what transformers computes from them.

Each folder is a model directory as `save_pretrained` writes it, and expected.safetensors: the input (with padding on both
sides), logits, loss and every gradient. Run it again only when a configuration is added; the files are committed.

    scripts/make_golden.py [tests/golden]        needs transformers 4.57
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import OPTConfig, OPTForCausalLM
from transformers.models.opt import modeling_opt

SMALL = dict(vocab_size=45, hidden_size=12, num_hidden_layers=2, num_attention_heads=4, ffn_dim=19,
             max_position_embeddings=16, word_embed_proj_dim=12, dropout=0.0, attention_dropout=0.0, init_std=0.3)

CONFIGURATIONS = {
    "base": {},
    "post-layer-norm": dict(do_layer_norm_before=False),
    "projections": dict(word_embed_proj_dim=7),
    "opt-350m": dict(do_layer_norm_before=False, word_embed_proj_dim=7),
    "no-final-layer-norm": dict(_remove_final_layer_norm=True),
    "no-bias": dict(enable_bias=False),
    "no-affine-layer-norm": dict(layer_norm_elementwise_affine=False),
    "gelu": dict(activation_function="gelu"),
    "galactica": dict(enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu"),
    "untied": dict(tie_word_embeddings=False),
    "sharded": {},
    "pytorch-model-bin": {},
    "pytorch-model-bin-sharded": dict(word_embed_proj_dim=7),
}


def init_weights(self, module):
    """transformers' own cannot initialise a layer norm without weights, and leaves biases 0, which would hide mistakes."""
    for parameter in module.parameters(recurse=False):
        torch.nn.init.normal_(parameter, std=self.config.init_std)
    if isinstance(module, torch.nn.LayerNorm) and module.weight is not None:
        with torch.no_grad():
            module.weight.add_(1)


def make(folder: Path, name: str, switches: dict, seed: int) -> None:
    torch.manual_seed(seed)
    config = OPTConfig(**{**SMALL, **switches})
    config._attn_implementation = "eager"
    model = OPTForCausalLM(config).eval()
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size="6KB" if "sharded" in name else "5GB",
                          safe_serialization="bin" not in name)
    (folder / "generation_config.json").unlink(missing_ok=True)

    if name == "opt-350m":  # as published: without the prefix, the head left out
        tensors = {key.removeprefix("model."): value for key, value in load_file(folder / "model.safetensors").items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    input_ids = torch.randint(4, config.vocab_size, (3, 8))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, :3] = 0
    attention_mask[2, 5:] = 0
    input_ids[attention_mask == 0] = 1
    labels = input_ids.masked_fill(attention_mask == 0, -100)
    labels[1, 3] = -100  # the first real token after padding: nothing predicts it
    output = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
    output.loss.backward()
    expected = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels,
                "logits": output.logits.detach().contiguous(), "loss": output.loss.detach()}
    for key, parameter in model.named_parameters():
        expected["gradient." + key] = parameter.grad
    save_file(expected, folder / "expected.safetensors")
    config_file = folder / "config.json"
    config_file.write_text(json.dumps(json.loads(config_file.read_text()), indent=2, sort_keys=True) + "\n")


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden")
    modeling_opt.OPTPreTrainedModel._init_weights = init_weights
    for seed, (name, switches) in enumerate(CONFIGURATIONS.items()):
        make(root / name, name, switches, seed)
        print(root / name)


if __name__ == "__main__":
    main()
