#!/usr/bin/env python3
"""optp tokenize against Hugging Face's tokenizers, and what it shows while it works.

    tokenizers_test.py OPTP TOKENIZER CASE [TEXT...]        TOKENIZER: a folder with vocab.json and merges.txt
"""

import fcntl
import json
import os
import pty
import random
import resource
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import numpy as np
from tokenizers import ByteLevelBPETokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from make_tokenizer_golden import text as random_text


def run(*command, **options):
    print("+", *command, flush=True)
    return subprocess.run([str(part) for part in command], check=True, text=True, **options)


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Case:
    def __init__(self, optp: Path, folder: Path, tokenizer: Path):
        self.optp, self.folder, self.tokenizer = optp, folder, tokenizer
        # No special token is known to it, so their spellings are plain text.
        self.reference = ByteLevelBPETokenizer(str(tokenizer / "vocab.json"), str(tokenizer / "merges.txt"))

    def tokenize(self, source: Path, *options) -> np.ndarray:
        target = self.folder / "ids.npy"
        run(self.optp, "tokenize", "--tokenizer", self.tokenizer, "--input", source, "--output", target, "--json",
            self.folder / "result.json", *options)
        return np.load(target)

    def check_decoding(self, content: bytes) -> None:
        run(self.optp, "tokenize", "--tokenizer", self.tokenizer, "--decode", "--input", self.folder / "ids.npy",
            "--output", self.folder / "back")
        assert (self.folder / "back").read_bytes() == content

    def check_documents(self, documents: list[str], separator: str) -> None:
        source = self.folder / "documents"
        source.write_bytes(separator.join(documents).encode())
        ids = self.tokenize(source, "--document-separator", separator)
        found = np.split(ids, np.flatnonzero(ids == 2) + 1)
        assert len(found) == len(documents) + 1 and len(found[-1]) == 0, (len(found), len(documents))
        for document, got in zip(documents, found):
            expected = self.reference.encode(document).ids + [2]
            assert got.tolist() == expected, (document, got, expected)

    def real_texts(self, *texts: str) -> None:
        """Whole texts: the same ids, in no more processor time than one thread of tokenizers takes, and back."""
        for text in map(Path, texts):
            before = children_seconds()
            ids = self.tokenize(text)
            own = children_seconds() - before
            content = text.read_bytes()
            before = time.process_time()
            expected = self.reference.encode(content.decode()).ids
            theirs = time.process_time() - before
            print(f"{text.name}: {len(ids)} tokens; processor seconds: optp {own:.2f}, tokenizers {theirs:.2f}")
            assert ids.dtype == np.uint16 and np.array_equal(ids, expected)
            assert own <= theirs
            result = json.loads((self.folder / "result.json").read_text())
            assert result["tokens"] == len(ids) and result["bytes"] == len(content) and result["seconds"] > 0
            self.check_decoding(content)

    def random_texts(self) -> None:
        """Thousands of texts of all planes, white space, contractions, digits and spellings of special tokens."""
        rng = random.Random(1)
        documents = [random_text(rng, rng.choice((1, 3, 10, 30, 100))) for _ in range(8000)]
        self.check_documents([one or "x" for one in documents], "\x02between\x03")

    def code_points(self) -> None:
        """Every code point of the planes that have characters, beside a letter, a digit, a symbol and a space."""
        points = [*range(0xD800), *range(0xE000, 0x40000), *range(0x40000, 0xE0000, 211), *range(0xE0000, 0xF0000),
                  *range(0xF0000, 0x110000, 211)]
        text = "\n".join(f"a{c}1{c}!{c} {c}" for c in map(chr, points))
        source = self.folder / "text"
        source.write_bytes(text.encode())
        got = self.tokenize(source)
        expected = self.reference.encode(text).ids
        assert np.array_equal(got, expected)

    def bounded_memory(self) -> None:
        """A text twenty times as long takes no more memory, be it one of words or a single word."""
        words = b"".join(b"%x the License\n" % (i * i) for i in range(50000))
        peaks = []
        for content in (words, 20 * words, bytes(2_000_000), bytes(20_000_000), b"\n" * 20_000_000):
            source = self.folder / "text"
            source.write_bytes(content)
            # A process of its own, so that its peak alone is measured.
            program = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
                       "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
            result = run(sys.executable, "-c", program, self.optp, "tokenize", "--tokenizer", self.tokenizer, "--input",
                         source, "--output", self.folder / "ids.npy", stdout=subprocess.PIPE)
            peaks.append(int(result.stdout.split()[-1]) / 1024)
            print(f"{len(content)} bytes: {peaks[-1]:.0f} MiB", flush=True)
        assert peaks[1] < peaks[0] + 8 and max(peaks[3:]) < peaks[2] + 8, peaks

    def progress(self) -> None:
        """A bar on a terminal, plain lines elsewhere, nothing with --quiet."""
        terminal, terminal_end = pty.openpty()
        fcntl.ioctl(terminal_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        on_terminal, stdout = self.watch(terminal, terminal_end, lambda shown: shown.count("/s") >= 3)
        drawn = [line for line in on_terminal.split("\r\x1b[K") if line.startswith("tokenize stdin: ")]
        assert len(drawn) >= 3 and all("/s" in line and len(line) < 60 for line in drawn), on_terminal
        assert on_terminal.split("\r\x1b[K")[-1].startswith(str(self.folder)), on_terminal  # the bar is gone
        assert stdout.count("\n") == 1 and " tokens, " in stdout

        begin = time.monotonic()
        in_pipe, _ = self.watch(*os.pipe(), lambda shown: "/s\n" in shown)
        assert in_pipe.startswith("tokenize stdin: ") and "\x1b" not in in_pipe and "\r" not in in_pipe, in_pipe
        needed = time.monotonic() - begin

        begin = time.monotonic()
        assert self.watch(*os.pipe(), lambda shown: time.monotonic() - begin > 1.5 * needed, "--quiet")[0] == ""

    def watch(self, read_end: int, write_end: int, enough, *options) -> tuple[str, str]:
        """Feeds a text to optp until what it shows on standard error is enough; returns that and standard output."""
        command = [self.optp, "tokenize", "--tokenizer", self.tokenizer, "--input", "/dev/stdin", "--output",
                   self.folder / "ids.npy", *options]
        os.set_blocking(read_end, False)
        shown = b""
        with subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=write_end,
                              env={**os.environ, "TERM": "xterm"}) as process:
            os.close(write_end)
            deadline = time.monotonic() + 60
            while process.stdin and not process.stdin.closed:
                if enough(shown.decode()) or time.monotonic() > deadline:
                    process.stdin.close()
                else:
                    process.stdin.write(b"the License\n" * 1000)
                    process.stdin.flush()
                    time.sleep(0.02)
                shown += self.read_all(read_end)
            stdout = process.stdout.read().decode()
        shown += self.read_all(read_end)
        os.close(read_end)
        assert process.returncode == 0, shown
        return shown.decode(), stdout

    @staticmethod
    def read_all(descriptor: int) -> bytes:
        """What is there now; a terminal whose other end is closed gives an error in place of the end."""
        content = b""
        try:
            while piece := os.read(descriptor, 65536):
                content += piece
        except OSError:
            pass
        return content


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        case = Case(Path(sys.argv[1]).resolve(), Path(temporary), Path(sys.argv[2]))
        getattr(case, sys.argv[3])(*sys.argv[4:])
    print("ok")
