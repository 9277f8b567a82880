#!/usr/bin/env python3
"""Makes tests/fuzz/corpus/: small sound files, from which the fuzzers start.

    scripts/make_fuzz_corpus.py [tests/fuzz/corpus]        needs torch, safetensors and numpy
"""

import collections
import io
import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file

GOLDEN = Path(__file__).parent.parent / "tests/golden"
NAMES = ("safetensors", "index", "config", "pickle", "torch_file", "script_pickle", "script_file",
         "utf8", "words", "bpe", "token_file", "tokenize", "choices",
         "options", "metrics", "trainer_state", "manifest", "shard_file",
         "launch_env", "rank_status", "node_store")


def lines(*objects) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in objects)


def nested(key: str, depth: int = 4000) -> str:
    """What a reader that calls itself for every level does not survive."""
    return '{"%s": %s%s}' % (key, "[" * depth, "]" * depth)


def pickle_of(file: Path) -> bytes:
    with zipfile.ZipFile(file) as archive:
        return archive.read(next(entry for entry in archive.namelist() if entry.endswith("data.pkl")))


def make_weights(root: Path) -> None:
    types = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool)
    save_file({str(dtype): torch.ones(2, 1).to(dtype) for dtype in types}, root / "safetensors/types",
              metadata={"format": "pt"})
    save_file({"empty": torch.ones(0, 3), "number": torch.ones(())}, root / "safetensors/empty")

    (root / "index/two").write_text(json.dumps({
        "metadata": {"total_size": 16},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}))

    for name in ("base", "galactica", "opt-350m"):
        shutil.copy(GOLDEN / name / "config.json", root / "config" / name)
    (root / "config/nested").write_text(nested("vocab_size"))

    weight = torch.ones(2, 3)
    states = {
        "plain": {"a": weight, "b": weight.half()},
        "module": torch.nn.Linear(2, 1).state_dict(),
        "parameter": collections.OrderedDict(p=torch.nn.Parameter(weight), q=weight.t()),
    }
    for name, state in states.items():
        for protocol in (2, 4):
            file = root / "torch_file" / f"{name}-{protocol}"
            torch.save(state, file, pickle_protocol=protocol)
            (root / "pickle" / file.name).write_bytes(pickle_of(file))


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 3))
        self.bias = torch.nn.Parameter(torch.ones(2).half())

    def forward(self, x):
        return x


class Outer(torch.nn.Module):
    """Has the attributes of optp's exports (src/checkpoint/pickled_module.h)."""

    def __init__(self):
        super().__init__()
        self.format = "optp-torchscript"
        self.version = 1
        self.config = (GOLDEN / "base/config.json").read_text()
        self.model = torch.nn.ModuleDict({"0": Inner(), "1": Inner()})
        self.register_buffer("tied", self.model["0"].weight.detach())

    def forward(self, x):
        return x


def make_torchscript(root: Path) -> None:
    for name, module in (("nested", Outer()), ("foreign", Inner())):
        file = root / "script_file" / name
        torch.jit.save(torch.jit.script(module), file)
        (root / "script_pickle" / name).write_bytes(pickle_of(file))


def byte_spellings() -> list[str]:
    """GPT-2's printable character for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def bpe_input(vocabulary: list[str], merges: list[str], text: bytes) -> bytes:
    ids = {token: number for number, token in enumerate(vocabulary)}
    parts = json.dumps(ids, ensure_ascii=False, separators=(",", ":")), "#version: 0.2\n" + "\n".join(merges) + "\n"
    return b"\0".join([*(part.encode() for part in parts), text])


def make_texts(root: Path) -> None:
    characters = "aé中😀\u0301\u00a0\u2028\ud7ff\ue000\uffff\U00010000\U0010ffff".encode()
    wrong = b"\xc0\xaf \xe0\x80\x80 \xed\xa0\x80 \xf4\x90\x80\x80 \xe4\xb8 \xf0\x9f\x98 \xff\x80"
    (root / "utf8/right").write_bytes(characters)
    (root / "utf8/wrong").write_bytes(wrong + characters[:-1])
    (root / "words/english").write_text("It's 12 o'clock,  they'll  say;\n\n we'd've left.\tEnd \n")
    (root / "words/scripts").write_text("déjà vu ３４५ Ⅷ中文\u3000\u00a0 x²½ \u200d👩\u200d🚀!! \u1680\u180e\u0085ß")

    merges = ["Ġ a", "a a", "aa aa", "a b", "ab ab", "Ã ©", "Ġ Ġ", "ĠĠ a", "ð Ł"]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *byte_spellings(), *(merge.replace(" ", "") for merge in merges), "中"]
    text = b" aaaaab abab  a\n\xc3\xa9\xf0\x9f\x98\x80 a'll 12!" + wrong
    (root / "bpe/all-bytes").write_bytes(bpe_input(tokens, merges, text))
    (root / "bpe/few").write_bytes(bpe_input(["a", "b", "ab", "aba", "bab"], ["ab a", "a b", "b ab"], b"abababbaab"))

    for name, ids in (("narrow", numpy.arange(5, dtype="<u2")), ("wide", numpy.array([2, 70000], dtype="<u4")),
                      ("none", numpy.zeros(0, dtype="<u2"))):
        file = io.BytesIO()
        numpy.lib.format.write_array(file, ids, version=(2 if name == "wide" else 1, 0))
        (root / "token_file" / name).write_bytes(file.getvalue())

    # The separator's length, the pieces' size less one, the separator, the text.
    (root / "tokenize/one").write_bytes(b"\0\6" + text)
    (root / "tokenize/documents").write_bytes(b"\3\4<|>" + b"one<|>two \xe2\x80\x99<|><||> three<|>")
    (root / "tokenize/lines").write_bytes(b"\1\0\n" + b" a\n\n  b\n")

    question = {"context": "Water is", "choices": ["wet", " dry", "é"], "answer": 1}
    (root / "choices/two").write_text(lines(question, {"context": "", "choices": ["a", "b"], "answer": 0}) + "\n")
    (root / "choices/nested").write_text(nested("choices"))
    (root / "choices/nested-choice").write_text('{"context": "", "choices": ["a", %s%s]}' % ("[" * 4000, "]" * 4000))


def metrics(step: int, **others) -> dict:
    return {"step": step, "loss": 10 / 3, "lr": 6e-4, "grad_norm": None, "tokens": 4096 * step,
            "tokens_per_second": 1234.5, "step_seconds": 3.3, "comm_seconds": 0.5, "peak_rss_bytes": 5 << 30, **others}


def make_runs(root: Path) -> None:
    options = {"text": "a b", "list": ["1", 2, "é"], "number": 2.5e-3, "count": 12, "flag": True, "given": "x"}
    (root / "options/bare").write_text(json.dumps(options))
    (root / "options/run").write_text(json.dumps({"format": "optp-run", "command": "train", "options": options}))
    (root / "options/absent").write_text(json.dumps({"flag": False, "text": None, "list": ["one"], "count": 0}))
    (root / "options/brackets").write_text(json.dumps({"list": "[]", "text": "[a,b]"}))
    (root / "options/nested").write_text(nested("text"))

    steps = lines(metrics(1), metrics(2, val_loss=3.5, val_perplexity=33.1), metrics(3, skipped=True), metrics(4))
    (root / "metrics/whole").write_text(steps)
    (root / "metrics/torn").write_text(steps[:-9])

    state = {"step": 7, "tokens": 28672, "skipped_steps": 1, "skipped_in_a_row": 0, "seconds": 12.5,
             "identity": {"seed": "1", "training data": "0123456789abcdef"}}
    (root / "trainer_state/plain").write_text(json.dumps(state))
    state["to_evaluate"] = json.dumps(metrics(7))
    (root / "trainer_state/to_evaluate").write_text(json.dumps(state))

    config = json.loads((GOLDEN / "base/config.json").read_text())
    for name, tp, parts in (("plain", 1, ["parameters"]), ("sharded", 2, ["parameters", "optimizer_state"])):
        files = [{"name": f"{part}-{rank:05}-of-{tp:05}.safetensors", "part": part, "rank": rank, "size": 96,
                  "crc64": "0123456789abcdef"} for part in parts for rank in range(tp)]
        (root / "manifest" / name).write_text(json.dumps({
            "format": "optp-training-checkpoint", "version": 1, "written_by": "optp 0.1.0",
            "mesh": {"tp": tp, "dp": 2}, "model_config": config if tp == 1 else None,
            "trainer_state": state if tp == 2 else None, "files": files}, indent=2)[:-2])

    (root / "shard_file/whole").write_text(boxes(0, 1))
    (root / "shard_file/halves").write_text(boxes(0, 2) + "\0" + boxes(1, 2))


def boxes(rank: int, tp: int) -> str:
    """Where the tensors of tests/fuzz/shard_file_fuzzer.cpp are when rank after rank holds rows of the wholes."""
    shapes = {"matrix": [2, 3], "vector": [4], "half": [1, 2], "empty": [0, 2], "number": []}
    if rank > 0:
        del shapes["number"]
    return json.dumps({name: {"shape": [tp * rows for rows in shape[:1]] + shape[1:],
                              "start": [rank * rows for rows in shape[:1]] + [0] * len(shape[1:]),
                              "size": shape} for name, shape in shapes.items()})


def make_ranks(root: Path) -> None:
    master = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    environments = {
        "torchrun": {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", **master,
                     "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "1",
                     "TORCHELASTIC_RUN_ID": "run"},
        "loopback": {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1",
                     "OPTP_RUN_TOKEN": "token"},
        "open-mpi": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                     "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": "name", **master},
        "slurm": {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "11", "SLURM_PROCID": "8",
                  "SLURM_NODEID": "2", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3", **master},
    }
    for name, variables in environments.items():
        (root / "launch_env" / name).write_text("\0".join(f"{key}={value}" for key, value in variables.items()))

    # The fields of RankStatus::text(), parallel/rank_status.cpp.
    place = [41, "node1", "boot pid:[1] 0", "step 12"]
    (root / "rank_status/waiting").write_text(fields(7, 0, *place, "", 1, "all_reduce", "fc2", 1, 3200, 5, 40, 2))
    (root / "rank_status/unknown-phase").write_text(fields(7, 3, *place, "", 0, "", "", 0, 0, 0, 0, 0))
    (root / "rank_status/failed").write_text(fields(9, 1, *place, "rank 1 has ended", 0, "", "", 0, 0, 0, 0, 0))

    world = {"hosts": ["node1", "node2"], "ranks": [4, 3], "id": "run", "token": "0123", "restarts": 1}
    outcomes = [{"status": status, "explains": True, "sentence": "rank 4 failed", "last_lines": ["a", "b"]}
                for status in (0, 3)]
    told = [json.dumps(text) for text in ({"nodes": 2, "id": "run"}, world, 1, *outcomes, {"signal": 15, "node": 0})]
    (root / "node_store/all").write_text("\0".join(told))


def fields(*values) -> str:
    return "\n".join(map(str, values))


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fuzz/corpus")
    torch.manual_seed(0)
    shutil.rmtree(root, ignore_errors=True)
    for name in NAMES:
        (root / name).mkdir(parents=True)
    make_weights(root)
    make_torchscript(root)
    make_texts(root)
    make_runs(root)
    make_ranks(root)


if __name__ == "__main__":
    main()
