"""Whether a disturbed run is the undisturbed one all the same: its checkpoints on the way, and what it leaves.
For training_campaign.py."""

import collections
import json
import lzma
import os
import re
import signal
import time
import zlib
from pathlib import Path

from launched_run import LaunchedRun, processes, wait_until


def has_crc64(data: bytes, expected: str) -> bool:
    """Python's library computes no CRC-64, but liblzma checks that of an .xz file: here of one that stores the data."""
    def with_crc32(part: bytes) -> bytes:
        return part + zlib.crc32(part).to_bytes(4, "little")
    stream_header = b"\xfd7zXZ\0" + with_crc32(bytes([0, lzma.CHECK_CRC64]))
    block_header = with_crc32(bytes.fromhex("0200 2101 00 000000"))  # LZMA2 alone, with the smallest dictionary
    chunks = [data[at:at + 65536] for at in range(0, len(data), 65536)]
    # 1 in front of the first chunk, which resets the dictionary, 2 in front of the others, 0 at the end.
    block = b"".join((b"\2" if at else b"\1") + (len(chunk) - 1).to_bytes(2, "big") + chunk
                     for at, chunk in enumerate(chunks)) + b"\0"
    try:
        lzma.LZMADecompressor().decompress(stream_header + block_header + block + bytes(-len(block) % 4) +
                                           bytes.fromhex(expected)[::-1])
    except lzma.LZMAError:
        return False
    return True


def damage(checkpoint: Path) -> str:
    """What keeps a checkpoint from being read, or nothing."""
    text = (checkpoint / "checkpoint.json").read_bytes()
    try:
        manifest = json.loads(text)
        if not has_crc64(text[:text.rindex(b',\n  "crc64"')], manifest["crc64"]):
            return "checkpoint.json has another checksum"
        for file in manifest["files"]:
            data = (checkpoint / file["name"]).read_bytes()
            if len(data) != file["size"] or not has_crc64(data, file["crc64"]):
                return f"{file['name']} has another size or checksum"
    except (KeyError, ValueError) as error:
        return f"checkpoint.json cannot be read: {error}"
    return ""


def difference(folder: Path, other: Path) -> str:
    """The first file of tensors that is not the same in both, or nothing."""
    names = sorted({path.name for each in (folder, other) for path in each.glob("*.safetensors")})
    for name in names:
        if (folder / name).read_bytes() != (other / name).read_bytes():
            return f"{name} is not that of the undisturbed run"
    return "" if names else "there are no tensors"


class RunChecks:
    """Counts, and collects the faults that it finds."""

    def __init__(self, temporary_files: Path):
        self.temporary_files = temporary_files
        self.shared_memory = set(os.listdir("/dev/shm"))
        self.count: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []

    def fault(self, where: str, what: str) -> None:
        self.faults.append(f"{where}: {what}")
        print(f"FAULT {self.faults[-1]}", flush=True)

    def inspect(self, run: LaunchedRun, reference: LaunchedRun, what: str) -> None:
        """All checkpoints that must be there are, and are whole. The ranks may write others meanwhile."""
        strange = [name for name in run.names() if not re.fullmatch(r"step-\d{8}|\.step-\d{8}(\.old)?\.partial", name)]
        if strange:
            self.fault(what, f"{strange} should not be there")
        for name in run.kept_checkpoints():
            try:
                damaged = damage(run.checkpoints / name)
                self.count["unreadable checkpoints"] += bool(damaged)
                different = damaged or difference(run.checkpoints / name, reference.checkpoints / name)
                if different:
                    self.fault(what, f"{name}: {different}")
            except FileNotFoundError as error:
                if name in run.kept_checkpoints():  # and not removed on purpose since
                    self.count["lost checkpoints"] += 1
                    self.fault(what, f"{name} was written and is lost: {error}")

    def conclude(self, run: LaunchedRun, reference: LaunchedRun, where: str) -> None:
        """Lets a run come to its end, which must be that of the undisturbed run."""
        if not wait_until(run.ended, 300):
            run.launcher.send_signal(signal.SIGUSR1)  # what does each rank do?
            time.sleep(2)
            run.launcher.kill()
        if run.launcher.wait() != 0:
            self.fault(where, f"ended with {run.launcher.returncode}: {run.said().splitlines()[-20:]}")
        else:
            final = difference(run.output / "final", reference.output / "final")
            self.count["runs"] += 1
            self.count["runs with the weights of an undisturbed run"] += not final
            if final:
                self.fault(where, f"final/{final}")
            if run.losses() != reference.losses():
                self.fault(where, "the losses are not those of the undisturbed run")
        self.inspect(run, reference, where)
        for setback in run.setbacks():
            self.fault(where, setback)
        if run.names() != reference.names()[-run.kept:]:
            self.fault(where, f"the checkpoints in the end are {run.names()}")
        left = [str(path) for path in (*run.output.rglob(".*"), *self.temporary_files.iterdir())]
        if left:
            self.fault(where, f"left behind: {left}")
        if not wait_until(lambda: not processes(), 10):
            self.fault(where, f"processes {processes()} are left")
        if not wait_until(lambda: set(os.listdir("/dev/shm")) <= self.shared_memory, 10):
            self.fault(where, f"/dev/shm holds {set(os.listdir('/dev/shm')) - self.shared_memory}")
        print(f"{where}: all is as undisturbed" if not self.faults else f"{where}: done", flush=True)
