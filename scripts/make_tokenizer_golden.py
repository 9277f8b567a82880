#!/usr/bin/env python3
"""Makes tests/golden/tokenizer/: a small byte-level BPE, trained by `tokenizers`, and what `tokenizers` makes of texts.

cases.json is a list of texts (UTF-8, as hexadecimal digits) with their ids. The texts look for the places where two
tokenizers part: contractions, runs of white space of every kind, digits and letters of many scripts, unassigned and
control characters, the spellings of special tokens. Run it again only when cases are added; the files are committed.

    scripts/make_tokenizer_golden.py [tests/golden/tokenizer]        needs tokenizers 0.22
"""

import json
import random
import sys
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer

SPACES = [9, 10, 11, 12, 13, 0x20, 0x85, 0xA0, 0x1680, 0x2000, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
NOT_SPACES = [0, 1, 0x1C, 0x1F, 0x7F, 0xAD, 0x180E, 0x200B, 0x2060, 0xFEFF, 0xFFFD]
PIECES = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'", "''", "\u2019s", "</s>", "<pad>", "<s>",
          "<mask>", "<|endoftext|>", " the", "License", "ing", "123", "4.5", "!!!", "...", "\r\n", "\n\n", "  ",
          "    ", "\t\t", "\u00e9", "e\u0301", "\U0001F600", "\u4e2d\u6587", "\u0660\u0661", "\u00bd", "\u2167",
          "\u3007", "a" * 70, "_", "__", "\u0903", "\u200d"]


def character(rng: random.Random) -> str:
    """ASCII, white space, the planes: each often enough."""
    kind = rng.random()
    if kind < 0.25:
        return chr(rng.randrange(128))
    if kind < 0.4:
        return chr(rng.choice(SPACES + NOT_SPACES))
    last = 0x800 if kind < 0.55 else 0x10000 if kind < 0.8 else 0x20000 if kind < 0.95 else 0x110000
    point = rng.randrange(last)
    return "\u00df" if 0xD800 <= point < 0xE000 else chr(point)


def text(rng: random.Random, longest: int) -> str:
    return "".join(rng.choice(PIECES) if rng.random() < 0.4 else character(rng) for _ in range(rng.randint(1, longest)))


def main() -> None:
    project = Path(__file__).resolve().parent.parent
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else project / "tests/golden/tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    licence = (project / "LICENSE").read_text()
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([licence] + [text(rng, 30) for _ in range(300)], vocab_size=700, show_progress=False,
                                special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    trained.save_model(str(folder))
    # Opened again, so that no spelling of a special token is taken for one.
    tokenizer = ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))

    texts = ["", *PIECES, *(chr(point) for point in SPACES + NOT_SPACES), *(text(rng, 12) for _ in range(300)),
             licence[:1500]]
    cases = [[one.encode().hex(), tokenizer.encode(one).ids] for one in texts]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (folder / "cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
