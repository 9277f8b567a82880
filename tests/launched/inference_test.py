#!/usr/bin/env python3
"""`optp generate` and `optp eval` against transformers.

    inference_test.py OPTP CASE
"""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import OPTConfig, OPTForCausalLM

SMALL = dict(vocab_size=400, hidden_size=48, num_attention_heads=6, num_hidden_layers=3, ffn_dim=128,
             max_position_embeddings=128, word_embed_proj_dim=48, init_std=0.2)


def run(*command, **options):
    print("+", *command, flush=True)
    return subprocess.run([str(part) for part in command], check=True, **options)


def random_opt(folder: Path, seed: int = 0, **switches) -> OPTForCausalLM:
    torch.manual_seed(seed)
    model = OPTForCausalLM(OPTConfig(**{**SMALL, **switches})).eval()
    with torch.no_grad():  # biases of 0 would hide mistakes
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return model


def greedy(optp: Path, folder: Path) -> None:
    """64 greedy tokens of 8 prompts of different lengths, as one batch, at degrees 1, 2 and 3."""
    for name, switches in {"pre": {}, "post": dict(do_layer_norm_before=False, word_embed_proj_dim=20),
                           "gelu": dict(activation_function="gelu", tie_word_embeddings=False)}.items():
        model = random_opt(folder / name, **switches)
        generator = torch.Generator().manual_seed(1)
        prompts = [[2] + torch.randint(4, 400, (length,), generator=generator).tolist()
                   for length in (1, 2, 3, 5, 8, 13, 21, 34)]
        expected = []
        for prompt in prompts:
            output = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                                    max_new_tokens=64, do_sample=False)
            expected.append(output[0, len(prompt):].tolist())
        assert len({tuple(ids) for ids in expected}) == 8
        for tp in (1, 2, 3):
            run(optp, "generate", "--model", folder / name, "--tp", tp, "--max-new-tokens", 64, "--json",
                folder / "out.json", "--prompt-ids", *(",".join(map(str, prompt)) for prompt in prompts),
                stdout=subprocess.DEVNULL)
            results = json.loads((folder / "out.json").read_text())["results"]
            assert [result["prompt_ids"] for result in results] == prompts
            for result, ids in zip(results, expected, strict=True):
                assert result["output_ids"] == ids, (name, tp, result["output_ids"], ids)
                assert result["finish"] == ("stop" if ids[-1] == 2 else "length")


def sampled(optp: Path, folder: Path) -> None:
    """A seed gives the same text at every degree and in every batch."""
    random_opt(folder / "model", init_std=0.1)
    options = ["--temperature", 0.9, "--top-k", 50, "--top-p", 0.95, "--repetition-penalty", 1.1, "--seed", 7,
               "--max-new-tokens", 24, "--json", folder / "out.json"]

    def outputs(tp, prompts, samples=1, seed=7):
        run(optp, "generate", "--model", folder / "model", "--tp", tp, *options[:9], seed, *options[10:], "--num-samples",
            samples, "--prompt-ids", *prompts, stdout=subprocess.DEVNULL)
        return [result["output_ids"] for result in json.loads((folder / "out.json").read_text())["results"]]

    alone = [outputs(1, [prompt], samples=2) for prompt in ("2,10,20", "2,77,5,6,7,8", "2,300")]
    flat = [ids for pair in alone for ids in pair]
    assert len({tuple(ids) for ids in flat}) == 6, "samples and prompts differ"
    for tp in (1, 2, 3):
        assert outputs(tp, ["2,10,20", "2,77,5,6,7,8", "2,300"], samples=2) == flat, tp
    assert outputs(1, ["2,10,20"], seed=8) != alone[0][:1]


def perplexity_of(model: OPTForCausalLM, ids: list[int], window: int, stride: int) -> tuple[int, float]:
    """The protocol of `optp eval`, on transformers."""
    total, count, seen, start = 0.0, 0, 0, 0
    with torch.no_grad():
        while seen < len(ids):
            end = min(start + window, len(ids))
            logits = model(torch.tensor([ids[start:end]])).logits[0].double()
            for position in range(max(seen, start + 1), end):
                total -= logits[position - start - 1].log_softmax(-1)[ids[position]].item()
                count += 1
            seen, start = end, start + stride
    return count, total / count


def evaluation(optp: Path, folder: Path) -> None:
    """Windows and strides, at several degrees and with copies, within 1e-4 relative."""
    model = random_opt(folder / "model")
    text = "How much wood would a woodchuck chuck, if a woodchuck could chuck wood? " * 7
    (folder / "text.txt").write_text(text)
    ids = [2] + [4 + byte for byte in text.encode()]
    for window, stride, more in ((128, 128, []), (100, 37, ["--tp", 2]), (64, 64, ["--tp", 3, "--batch-size", 3]),
                                 (50, 50, ["--tp", 2, "--dp", 2, "--batch-size", 2]), (120, 1, ["--batch-size", 16])):
        run(optp, "eval", "--model", folder / "model", "--tokenizer", "bytes", "--data", folder / "text.txt", "--window",
            window, "--stride", stride, "--json", folder / "out.json", *more, stdout=subprocess.DEVNULL)
        result = json.loads((folder / "out.json").read_text())
        tokens, loss = perplexity_of(model, ids, window, stride)
        print(window, stride, result, loss, flush=True)
        assert result["tokens"] == tokens
        assert abs(result["loss"] / loss - 1) < 1e-4 and abs(result["perplexity"] / math.exp(loss) - 1) < 1e-4


def choices(optp: Path, folder: Path) -> None:
    """Multiple choice by summed and by length-normalised log-likelihood."""
    model = random_opt(folder / "model")
    generator = torch.Generator().manual_seed(5)

    def words(count):
        letters = torch.randint(97, 123, (count, 5), generator=generator).tolist()
        return " ".join("".join(map(chr, word)) for word in letters)

    items, right, normalized = [], 0, 0
    for index in range(24):
        context = "" if index == 5 else words(3) + (" " if index % 3 == 0 else "")
        options = [words(1 + (index + choice) % 3) + ("é" if choice == 1 else "") for choice in range(3 + index % 2)]
        scores = []
        for option in options:
            whole = context + ("" if not context or context.endswith(" ") else " ") + option
            ids = [4 + byte for byte in whole.encode()]
            first = len(context.rstrip().encode())
            if not context:
                ids, first = [2] + ids, 1
            with torch.no_grad():
                log_p = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            scores.append(sum(log_p[i - 1, ids[i]].item() for i in range(first, len(ids))))
        answer = index % len(options)
        right += max(range(len(options)), key=scores.__getitem__) == answer
        by_length = [score / len(option) for score, option in zip(scores, options)]
        normalized += max(range(len(options)), key=by_length.__getitem__) == answer
        items.append(json.dumps({"context": context, "choices": options, "answer": answer}))
    assert right != normalized
    (folder / "items.jsonl").write_text("\n".join(items) + "\n")
    for more in ([], ["--tp", 2], ["--dp", 2]):
        run(optp, "eval", "--model", folder / "model", "--tokenizer", "bytes", "--choices", folder / "items.jsonl",
            "--json", folder / "out.json", *more, stdout=subprocess.DEVNULL)
        result = json.loads((folder / "out.json").read_text())
        print(result, right, normalized, flush=True)
        assert result["items"] == 24
        assert abs(result["accuracy"] - right / 24) < 1e-9
        assert abs(result["accuracy_normalized"] - normalized / 24) < 1e-9


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        {case.__name__: case for case in (greedy, sampled, evaluation, choices)}[sys.argv[2]](
            Path(sys.argv[1]).resolve(), Path(temporary))
    print("ok")
