#!/usr/bin/env python3
"""`optp convert` against transformers and torch: what it writes they load without a word, and it reads what they write.

    convert_test.py OPTP CASE
"""

import collections
import json
import logging
import pickle
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

from exact_torch import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, OPTConfig, OPTForCausalLM
from transformers.models.opt import modeling_opt

GOLDEN = Path(__file__).parent.parent / "golden"
SMALL = dict(vocab_size=45, hidden_size=12, num_hidden_layers=2, num_attention_heads=4, ffn_dim=20,
             max_position_embeddings=16, word_embed_proj_dim=12, dropout=0.0, init_std=0.3)
# transformers' own cannot initialise a layer norm without weights.
modeling_opt.OPTPreTrainedModel._init_weights = lambda self, module: None
transformers.utils.logging.disable_progress_bar()


def convert(optp: Path, source: Path, target: Path, *options) -> dict:
    command = [optp, "convert", "--from", source, "--to", target, "--format", "hf", "--json", f"{target}.json", *options]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return json.loads(Path(f"{target}.json").read_text())


def refusal(optp: Path, source: Path, target: Path, *options) -> str:
    """The one line on standard error of a conversion that must fail and leave nothing."""
    command = [optp, "convert", "--from", source, "--to", target, "--format", "hf", *options]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == "", result
    assert result.stderr.startswith("optp: ") and result.stderr.count("\n") == 1, result.stderr
    assert not target.exists() and not list(target.parent.glob(".*")), list(target.parent.iterdir())
    return result.stderr


def tensors_of(folder: Path) -> dict:
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        if not file.name.startswith("expected"):
            tensors.update(load_file(file))
    for file in sorted(folder.glob("*.bin")):
        tensors.update(torch.load(file, weights_only=True))
    return tensors


def full_name(name: str) -> str:
    return name if name.startswith(("model.", "lm_head.")) else "model." + name


def assert_same(actual: dict, expected: dict) -> None:
    assert actual.keys() == expected.keys(), actual.keys() ^ expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype and actual[name].shape == tensor.shape, name
        # As integers of the same size: bytes, not numbers, for which 0 is -0 and NaN is not NaN.
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
        assert torch.equal(actual[name].contiguous().view(bits), tensor.contiguous().view(bits)), name


class Silence(logging.Handler):
    """Nothing may be said while it is entered, by transformers' logger or as a Python warning."""

    def __enter__(self):
        self.said = []
        logging.getLogger("transformers").addHandler(self)
        self.catcher = warnings.catch_warnings(record=True)
        self.warned = self.catcher.__enter__()
        warnings.simplefilter("always")

    def emit(self, record):
        self.said.append(record.getMessage())

    def __exit__(self, *error):
        logging.getLogger("transformers").removeHandler(self)
        self.catcher.__exit__(*error)
        if error[0] is None:
            assert not self.said and not self.warned, (self.said, [str(warning.message) for warning in self.warned])


def every_switch(optp: Path, folder: Path) -> None:
    """Every configuration: the same bytes after a round trip, and transformers' logits from what was written."""
    for model in sorted(config.parent for config in GOLDEN.glob("*/config.json")):
        there, back = folder / model.name, folder / (model.name + "-back")
        result = convert(optp, model, there, "--max-shard-size", "6KB" if "sharded" in model.name else "5GB")
        convert(optp, there, back)
        original = {full_name(name): tensor for name, tensor in tensors_of(model).items()}
        config = json.loads((model / "config.json").read_text())
        if config.get("tie_word_embeddings", True):
            original.pop("lm_head.weight", None)
        assert_same(tensors_of(there), original)
        assert_same(tensors_of(back), original)
        assert result["parameters"] == sum(tensor.numel() for tensor in original.values())
        assert (there / "model.safetensors.index.json").exists() == ("sharded" in model.name)
        theirs, ours = (OPTConfig.from_pretrained(path).to_dict() for path in (model, there))
        for key in theirs.keys() - {"transformers_version", "_name_or_path"}:
            assert ours[key] == theirs[key], (model.name, key, ours[key], theirs[key])

        expected = load_file(model / "expected.safetensors")
        inputs = {key: expected[key] for key in ("input_ids", "attention_mask")}
        with Silence(), torch.no_grad():
            loaded = AutoModelForCausalLM.from_pretrained(there, attn_implementation="eager")
            logits = loaded(**inputs).logits
            loaded.generate(inputs["input_ids"][:1, :3], max_new_tokens=2, do_sample=False)
        real = inputs["attention_mask"].bool()
        difference = (logits - expected["logits"])[real].abs().max().item()
        assert difference < 1e-5, (model.name, difference)
        print(f"{model.name}: logits differ by {difference:.3g}", flush=True)


def types_and_shards(optp: Path, folder: Path) -> None:
    """--dtype rounds as torch does; files are cut and named as transformers cuts and names them."""
    torch.manual_seed(0)
    model = OPTForCausalLM(OPTConfig(**SMALL, torch_dtype="float32")).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    theirs = folder / "theirs"
    model.save_pretrained(theirs, max_shard_size="3KB")
    for name in ("float32", "float16", "bfloat16"):
        dtype = getattr(torch, name)
        ours = folder / name
        result = convert(optp, theirs, ours, "--dtype", name, "--max-shard-size", "3KB")
        expected = {key: value.to(dtype) for key, value in tensors_of(theirs).items()}
        assert_same(tensors_of(ours), expected)
        assert result["dtype"] == name
        with Silence():
            loaded = AutoModelForCausalLM.from_pretrained(ours, dtype="auto")
        assert loaded.dtype == dtype
        again = folder / (name + "-theirs")
        model.to(dtype).save_pretrained(again, max_shard_size="3KB")
        model.float()
        index = "model.safetensors.index.json"
        assert json.loads((ours / index).read_text()) == json.loads((again / index).read_text())
        assert {file.name for file in ours.iterdir()} == {file.name for file in again.iterdir()}
        # Without --dtype each stays as it is stored.
        convert(optp, ours, folder / (name + "-back"))
        assert_same(tensors_of(folder / (name + "-back")), expected)


def pickled_weights(optp: Path, folder: Path) -> None:
    """pytorch_model.bin in every form that torch.save gives a state dict."""
    torch.manual_seed(0)
    model = OPTForCausalLM(OPTConfig(**SMALL))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    state = model.state_dict()
    source = folder / "source"
    model.config.save_pretrained(source)
    (source / "vocab.json").write_text("{}")
    expected = {name: tensor for name, tensor in state.items() if name != "lm_head.weight"}
    whole = torch.cat([tensor.flatten() for tensor in state.values()])
    sizes = [tensor.numel() for tensor in state.values()]
    forms = {
        "state_dict": state,
        "parameters": collections.OrderedDict(model.named_parameters()),
        "plain dict": dict(state),
        "half": {name: tensor.half() for name, tensor in state.items()},
        "bfloat16": {name: tensor.bfloat16() for name, tensor in state.items()},
        "double": {name: tensor.double() for name, tensor in state.items()},
        "without model.": {name.removeprefix("model."): tensor for name, tensor in state.items()},
        "without model.decoder.": {name.removeprefix("model.decoder."): tensor for name, tensor in state.items()},
        "transposed": {name: tensor.t().contiguous().t() if name.endswith("fc1.weight") else tensor
                       for name, tensor in state.items()},
        "views of one storage": {name: part.view(tensor.shape)
                                 for (name, tensor), part in zip(state.items(), whole.split(sizes))},
    }
    for form, content in forms.items():
        torch.save(content, source / "pytorch_model.bin")
        target = folder / form.replace(" ", "-")
        # The folder and the file in it mean the same.
        convert(optp, source if form != "half" else source / "pytorch_model.bin", target)
        dtype = getattr(torch, form if form in ("half", "bfloat16", "double") else "float32")
        assert_same(tensors_of(target), {name: tensor.to(dtype) for name, tensor in expected.items()})
        assert (target / "vocab.json").read_text() == "{}"
        print(form, flush=True)
    for protocol in (3, 4, 5):
        torch.save(state, source / "pytorch_model.bin", pickle_protocol=protocol)
        convert(optp, source, folder / f"protocol-{protocol}")
        assert_same(tensors_of(folder / f"protocol-{protocol}"), expected)


class Shell:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os
        return os.system, (self.command,)


def hostile_pickles(optp: Path, folder: Path) -> None:
    """Pickles that would run code when loaded, and other files that are no weights: refused by name, nothing is run."""
    source, target, touched = folder / "source", folder / "target", folder / "touched"
    OPTConfig(**SMALL).save_pretrained(source)
    file = source / "pytorch_model.bin"
    state = {"a": torch.ones(2)}

    for protocol in (2, 4):
        torch.save({**state, "b": Shell(f"touch {touched}")}, file, pickle_protocol=protocol)
        assert '"posix.system", which is neither a tensor nor a plain container' in refusal(optp, source, target)
    torch.save(OPTForCausalLM(OPTConfig(**SMALL)), file)
    assert '"transformers.models.opt.modeling_opt.OPTForCausalLM"' in refusal(optp, source, target)
    torch.save({**state, "lr": 0.1}, file)
    assert 'its entry "lr" is a number, not a tensor' in refusal(optp, source, target)
    torch.save({"model": state}, file)
    assert 'its entry "model" is a dict, not a tensor' in refusal(optp, source, target)
    torch.save(state, file)
    assert "holds no OPT model" in refusal(optp, source, target)
    torch.save(state, file, _use_new_zipfile_serialization=False)
    assert "before PyTorch 1.6" in refusal(optp, source, target)
    file.write_bytes(pickle.dumps(Shell(f"touch {touched}")))
    assert "does not begin like a zip archive" in refusal(optp, source, target)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    assert "it is a TorchScript file, not one of weights alone" in refusal(optp, source, target)
    torch.save(state, folder / "stored.bin")
    with zipfile.ZipFile(folder / "stored.bin") as stored, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in stored.namelist():
            packed.writestr(entry, stored.read(entry))
    assert "is compressed" in refusal(optp, source, target)
    assert not touched.exists()

    shutil.copytree(GOLDEN / "pytorch-model-bin", folder / "good")
    shutil.move(folder / "good" / "config.json", folder / "config.json")
    assert "config.json does not exist" in refusal(optp, folder / "good" / "pytorch_model.bin", target)
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("mine")
    command = [optp, "convert", "--from", GOLDEN / "base", "--to", folder / "full", "--format", "hf"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and "full: it exists and is not empty; choose another name" in result.stderr
    assert [entry.name for entry in (folder / "full").iterdir()] == ["mine.txt"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        {"every_switch": every_switch, "types_and_shards": types_and_shards, "pickled_weights": pickled_weights,
         "hostile_pickles": hostile_pickles}[sys.argv[2]](Path(sys.argv[1]).resolve(), Path(temporary))
    print("ok")
