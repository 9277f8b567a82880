#!/usr/bin/env python3
"""`optp generate` and `optp eval` against transformers.

    inference_test.py OPTP CASE [TEXTS]
"""

import json
import math
import os
import pty
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from exact_torch import torch
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


def peak_bytes(*command) -> int:
    """The most memory that a command had at any time."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.005)
    assert process.returncode == 0
    return peak


def weights(optp: Path, folder: Path, texts: Path | None) -> None:
    """bfloat16 and int8: the perplexity of a trained model, the same text at every degree, less memory while loading."""
    text = (texts / "tinyshakespeare.txt" if texts else Path(__file__).parents[2] / "README.md").read_bytes()
    (folder / "train.txt").write_bytes(text[:60000])
    (folder / "test.txt").write_bytes(text[-8000:])
    random_opt(folder / "start", vocab_size=260, hidden_size=64, num_attention_heads=4, num_hidden_layers=2,
               word_embed_proj_dim=64, init_std=0.06, dropout=0.0)
    run(optp, "train", "--model", folder / "start", "--train-data", folder / "train.txt", "--tokenizer", "bytes",
        "--seq-len", 64, "--batch-size", 8, "--max-steps", 150, "--lr", 5e-3, "--warmup-steps", 10, "--threads", 1,
        "--output", folder / "run", "--quiet", stdout=subprocess.DEVNULL)
    model = ["--model", folder / "run" / "final", "--tokenizer", "bytes", "--threads", 1, "--json", folder / "out.json"]

    def perplexity(kind, *more):
        run(optp, "eval", *model, "--data", folder / "test.txt", "--weights", kind, "--quiet", *more,
            stdout=subprocess.DEVNULL)
        return json.loads((folder / "out.json").read_text())["perplexity"]

    whole, half, int8 = (perplexity(kind) for kind in ("float32", "bfloat16", "int8"))
    print(f"perplexity {whole:.5f}, bfloat16 {half / whole - 1:+.2e}, int8 {int8 / whole - 1:+.2e}", flush=True)
    assert whole < 18, "it has learnt more than how often each letter occurs"
    assert 0 < abs(half / whole - 1) < 0.005 and 0 < abs(int8 / whole - 1) < 0.02
    # Scales are those of whole channels, so the int8 numbers do not depend on the degree.
    assert abs(perplexity("int8", "--tp", 3) / int8 - 1) < 1e-5

    def continuations(tp):
        run(optp, "generate", *model, "--weights", "int8", "--tp", tp, "--max-new-tokens", 40, "--prompt", "The ",
            "What is", "O", stdout=subprocess.DEVNULL)
        return [result["output_ids"] for result in json.loads((folder / "out.json").read_text())["results"]]

    assert continuations(1) == continuations(2)

    # 29 million parameters: 114 MB in float32, of which the layers' matrices and the table are nearly all.
    large = [optp, "generate", "--model", "opt-tiny", "--hidden-size", 512, "--num-layers", 8, "--vocab-size", 6000,
             "--max-positions", 64, "--prompt-ids", "2,5", "--max-new-tokens", 2, "--quiet"]
    in_float32, in_bfloat16, in_int8 = (peak_bytes(*large, "--weights", kind) for kind in ("float32", "bfloat16", "int8"))
    print(f"peak {in_float32 / 1e6:.0f} MB, bfloat16 {in_bfloat16 / 1e6:.0f} MB, int8 {in_int8 / 1e6:.0f} MB", flush=True)
    assert in_float32 - in_bfloat16 > 35e6 and in_float32 - in_int8 > 55e6


def real_tokenizer(optp: Path, folder: Path, texts: Path | None) -> None:
    """Texts in, texts out, with OPT's own vocabulary: greedy continuations are those of transformers."""
    if texts is None:
        print("skipped: OPTP_SHARED_DATA names no folder of real texts")
        return
    from transformers import GPT2Tokenizer

    files = texts / "opt-tokenizer"
    tokenizer = GPT2Tokenizer(str(files / "vocab.json"), str(files / "merges.txt"), bos_token="</s>", eos_token="</s>",
                              unk_token="</s>", pad_token="<pad>", add_bos_token=True)
    model = random_opt(folder / "model", vocab_size=50272)
    prompts = ["A photo of a cat", "Once upon a time, in a land far away, there lived", "é", "  two  spaces\tand a tab",
               "日本語の文章 and 🦙🦙"]
    expected = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False,
                                suppress_tokens=list(range(50265, 50272)))[0]
        new = output[ids.shape[1]:].tolist()
        expected.append((ids[0].tolist(), new, tokenizer.decode(new, skip_special_tokens=True,
                                                                clean_up_tokenization_spaces=False)))
    assert expected[0][0] == [2, 250, 1345, 9, 10, 4758]
    for tp in (1, 2):
        run(optp, "generate", "--model", folder / "model", "--tokenizer", files, "--tp", tp, "--max-new-tokens", 24,
            "--json", folder / "out.json", "--prompt", *prompts, stdout=subprocess.DEVNULL)
        results = json.loads((folder / "out.json").read_text())["results"]
        for result, (ids, new, text) in zip(results, expected, strict=True):
            assert result["prompt_ids"] == ids and result["output_ids"] == new, (tp, result, ids, new)
            assert result["text"] == text, (tp, result["text"], text)


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, *command):
        print("+", *command, flush=True)
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.execv(str(command[0]), [str(part) for part in command])
        self.seen = b""

    def read(self) -> bool:
        try:
            piece = os.read(self.descriptor, 4096)
        except OSError:  # the program has ended
            piece = b""
        self.seen += piece
        return bool(piece)

    def wait_for(self, text: bytes, start: int = 0) -> int:
        """Reads until `text` is there, after `start`; returns where it ends."""
        while text not in self.seen[start:]:
            assert self.read(), self.seen
        return self.seen.index(text, start) + len(text)

    def type(self, text: bytes) -> None:
        os.write(self.descriptor, text)

    def end(self) -> int:
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def processes_with(mark: str) -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark in (process / "cmdline").read_text():
                found.append(int(process.name))
        except OSError:
            pass  # it has ended
    return found


def terminal(optp: Path, folder: Path) -> None:
    """Prompts line by line without loading again; characters come whole, one after another; Ctrl-C ends all ranks."""
    random_opt(folder / "model", vocab_size=260, max_position_embeddings=4096)
    model = [optp, "generate", "--model", folder / "model", "--tokenizer", "bytes"]
    options = ["--temperature", 1, "--quiet"]

    def alone(prompt):
        result = run(*model, *options, "--max-new-tokens", 30, "--prompt", prompt, stdout=subprocess.PIPE)
        return result.stdout.decode().splitlines()[0].encode()

    session = Terminal(*model, *options, "--max-new-tokens", 30, "--interactive", "--tp", 2)
    at = session.wait_for(b"> ")
    for prompt in ("wood", "é", "wood"):
        session.type(prompt.encode() + b"\n")
        at = session.wait_for(alone(prompt), at)
        at = session.wait_for(b"> ", at)
    session.type(b"\xff\n")
    at = session.wait_for(b"not valid UTF-8", at)  # and it goes on
    at = session.wait_for(b"> ", at)
    session.type(b"\x04")
    assert session.end() == 0

    # Every byte is a token, and random bytes are seldom a character: what is shown decodes nevertheless, piece by piece.
    stream = subprocess.Popen([str(part) for part in [*model, *options, "--max-new-tokens", 300, "--prompt", "é",
                                                      "--stream"]], stdout=subprocess.PIPE)
    pieces = []
    while piece := os.read(stream.stdout.fileno(), 65536):
        pieces.append(piece.decode())  # raises where a character is cut
    assert stream.wait() == 0 and len(pieces) > 20, "it comes as it is made"

    for tp in (1, 2):
        long = Terminal(*model, "--max-new-tokens", 4000, "--prompt", "é", "--tp", tp, "--temperature", 1)
        while len(long.seen) < 50:
            assert long.read()
        assert len(processes_with(str(folder))) == (1 if tp == 1 else 3)  # with the one that started the ranks
        begin = time.monotonic()
        long.type(b"\x03")
        status = long.end()
        assert status in (130, -2), status  # a shell calls the end by signal 2 130 as well
        assert time.monotonic() - begin < 5 and not processes_with(str(folder)), tp


def bad_input(optp: Path, folder: Path) -> None:
    """One clear sentence on standard error and exit status 2, whatever is wrong."""
    random_opt(folder / "model")  # 400 words, 128 positions, no tokenizer
    (folder / "empty.txt").write_text("")
    (folder / "latin1.txt").write_bytes(b"caf\xe9\n")
    texts = ["--tokenizer", "bytes"]
    for part, options in [
            ("has no vocab.json and merges.txt", ["--prompt", "x"]),
            ("a prompt is empty", [*texts, "--prompt", ""]),
            ("empty.txt is empty", [*texts, "--prompt-file", folder / "empty.txt"]),
            ("there is no prompt", texts),
            ("a prompt is not valid UTF-8", [*texts, "--prompt-file", folder / "latin1.txt"]),
            ("a prompt of 128 tokens fills the model's 128 positions", [*texts, "--prompt", "x" * 127]),
            ("temperature -0.5 makes no sense", [*texts, "--prompt", "x", "--temperature", -0.5]),
            ("id 400, outside the vocabulary of 400", ["--prompt-ids", "2,400"]),
            ('"-3" is no id', ["--prompt-ids=2,-3"]),
            ("--weights int8 goes with float32", ["--prompt-ids", "2", "--weights", "int8", "--dtype", "float64"])]:
        result = subprocess.run([str(word) for word in [optp, "generate", "--model", folder / "model", *options]],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert result.returncode == 2 and result.stdout == "", (options, result)
        assert part in result.stderr and result.stderr.startswith("optp: ") and result.stderr.count("\n") == 1, result


if __name__ == "__main__":
    cases = {case.__name__: case for case in (greedy, sampled, evaluation, choices, terminal, bad_input)}
    with_texts = {case.__name__: case for case in (weights, real_tokenizer)}
    name, given = sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")  # nothing stays in the user's
        optp, folder = Path(sys.argv[1]).resolve(), Path(temporary)
        if name in cases:
            cases[name](optp, folder)
        else:
            with_texts[name](optp, folder, Path(given) if given else None)
    print("ok")
