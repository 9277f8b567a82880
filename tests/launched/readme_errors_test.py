"""The messages in README.md, "When something goes wrong", are those of the sources."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def sources():
    """The text of all sources, with the pieces of string literals joined and their quotes unescaped."""
    files = [file for folder in ("src", "modules", "parallel") for file in sorted((ROOT / folder).rglob("*.cpp"))]
    text = "\n".join(file.read_text() for file in files)
    return re.sub(r'"\s*\n\s*"', "", text).replace('\\"', '"')


def fragments(readme):
    section = readme.split("\n## When something goes wrong\n")[1].split("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| ") and not line.startswith(("| message |", "| --- |")):
            yield from re.findall(r"`([^`]+)`", line.split(" | ")[0])


def main():
    text = sources()
    checked = 0
    stale = []
    for fragment in fragments((ROOT / "README.md").read_text()):
        checked += 1
        pieces = [piece for piece in fragment.split("…") if piece.strip(" :.,;()")]
        stale += [f"{fragment!r}: {piece!r}" for piece in pieces if piece not in text]
    print(f"{checked} messages, {len(stale)} that no source has", *stale, sep="\n")
    return 1 if stale or checked < 100 else 0


if __name__ == "__main__":
    sys.exit(main())
