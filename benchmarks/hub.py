"""What a patch of 1 GB costs to push and to pull over loopback, beside the Hub's client alone.

    python -m benchmarks.hub --write benchmarks/results/hub.json

The hub is that of the tests, in a process of its own. Every step is a process of its own too:
`peak_bytes` is the most that was resident at once, `peak_own_bytes` without the pages of library
files, which the system shares between processes and can drop. `client_…` sends and fetches the same
file with huggingface_hub and nothing else, once in an interpreter of its own, once in one that has
imported torch, which patchkit verifies with. `amounts_shown` counts what a terminal showed of the
progress.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.provenance import commit

SIDE, RANK = 4096, 128
NAME = "large.patch.safetensors"
_MAKE = f"""
import sys, torch
from patchkit.factors.rotation import Rotation
from patchkit.patch.drafts import TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import build_patch

random = torch.Generator().manual_seed(0)
def factor():
    return Rotation("input", *(torch.randn({SIDE}, {RANK}, generator=random) / 300 for _ in "xy"))
drafts = {{
    f"model.layers.{{i}}.mlp.down_proj.weight":
    TensorDraft((1024, {SIDE}), "BF16", "linear", "sha256:" + "0" * 64, (factor(),))
    for i in range(int(sys.argv[2]))
}}
build_patch(BaseMeta(), drafts, None, {{}}, "rotation", {{}}).write(sys.argv[1])
"""
_SEND = """
import sys
from huggingface_hub import CommitOperationAdd, HfApi
api = HfApi()
api.create_repo(sys.argv[2])
name = sys.argv[1].rsplit("/", 1)[1]
add = CommitOperationAdd(name, sys.argv[1])
api.create_commit(sys.argv[2], [add], commit_message="a")
"""
_FETCH = """
import sys
from huggingface_hub import HfApi
HfApi().hf_hub_download(sys.argv[2], sys.argv[1], local_dir=sys.argv[3])
"""
_HUB = """
import sys
from tests.testhub import TestHub
with TestHub() as hub:
    print(hub.endpoint, hub.state.user("ada"), flush=True)
    sys.stdin.read()
"""


def measured(command: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    """Run a command on a terminal; seconds, peak memory in bytes, and what the terminal showed."""
    ours, theirs = pty.openpty()
    shown = bytearray()
    began = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=theirs, stderr=theirs)
    os.close(theirs)
    own: list[int] = [0]
    threads = [
        threading.Thread(target=_drain, args=(ours, shown)),
        threading.Thread(target=_watch, args=(process.pid, own)),
    ]
    for thread in threads:
        thread.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    for thread in threads:
        thread.join()
    text = shown.decode(errors="replace")
    if status:
        raise SystemExit(f"{command} failed:\n{text[-3000:]}")
    amounts = re.findall(r"[\d.]+ [kMG]?B of [\d.]+ [kMG]?B", text)
    return {
        "seconds": round(seconds, 2),
        "peak_bytes": usage.ru_maxrss << 10,
        "peak_own_bytes": max(own),
        "amounts_shown": len(set(amounts)),
    }


def _drain(handle: int, into: bytearray) -> None:
    while True:
        try:
            data = os.read(handle, 65536)
        except OSError:  # how a terminal says that nobody writes any more
            return
        into += data


def _watch(process: int, own: list[int]) -> None:
    """Memory of a process that is its own, and no page of a library's file, every 20 ms."""
    status = Path(f"/proc/{process}/status")
    while True:
        try:
            text = status.read_text(encoding="ascii", errors="replace")
        except OSError:
            return
        found = re.search(r"RssAnon:\s+(\d+) kB", text)
        if found is None:  # it has ended and nobody has waited for it yet
            return
        own.append(int(found[1]) << 10)
        time.sleep(0.02)


def environment(folder: Path, endpoint: str, token: str) -> dict[str, str]:
    """A login of its own, a cache of its own, and the way of transfer that the test hub speaks."""
    return {
        "PATH": os.environ["PATH"], "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "HOME": str(folder), "HF_HOME": str(folder / "hf"), "HF_ENDPOINT": endpoint,
        "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "TERM": "xterm", "COLUMNS": "120", "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }  # fmt: skip


def steps(folder: Path, size: float, endpoint: str, token: str) -> dict[str, Any]:
    """Make the patch and run every step on it."""
    python, env = [sys.executable, "-c"], environment(folder, endpoint, token)
    patchkit = [sys.executable, "-m", "patchkit_cli"]
    patch = folder / NAME
    tensors = str(max(1, round(size * 1e9 / (2 * 4 * SIDE * RANK))))
    subprocess.run([*python, _MAKE, str(patch), tensors], check=True, env=env)
    found = {
        "torch": measured([*python, "import torch"], env),
        "client_push": measured([*python, _SEND, str(patch), "ada/plain"], env),
        "client_pull": measured([*python, _FETCH, NAME, "ada/plain", str(folder / "down")], env),
        "client_push_with_torch": measured(
            [*python, f"import torch{_SEND}", str(patch), "ada/again"], env
        ),
        "client_pull_with_torch": measured(
            [*python, f"import torch{_FETCH}", NAME, "ada/plain", str(folder / "too")], env
        ),
        "push": measured([*patchkit, "push", str(patch), "ada/large"], env),
        "push_again": measured([*patchkit, "push", str(patch), "ada/large"], env),
        "pull": measured([*patchkit, "pull", "ada/large"], env),
        "pull_again": measured([*patchkit, "pull", "ada/large"], env),
    }
    return {"bytes": patch.stat().st_size, **found}


def report(found: dict[str, Any]) -> dict[str, Any]:
    """The figures, and how much more memory patchkit takes than the client."""
    from importlib.metadata import version

    def above(step: str, client: str) -> dict[str, int]:
        kinds = ("peak_bytes", "peak_own_bytes")
        return {kind: found[step][kind] - found[client][kind] for kind in kinds}

    return {
        **found,
        "push_above_client": above("push", "client_push"),
        "pull_above_client": above("pull", "client_pull"),
        "push_above_client_with_torch": above("push", "client_push_with_torch"),
        "pull_above_client_with_torch": above("pull", "client_pull_with_torch"),
        "transfer": "LFS",
        "huggingface_hub": version("huggingface_hub"),
        "python": sys.version.split()[0],
        "processors": os.cpu_count(),
        "commit": commit(),
    }


def main() -> None:
    """Start the hub, run the steps, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=1.0, help="gigabytes")
    parser.add_argument("--folder", type=Path, help="where to work; needs four times the size")
    parser.add_argument("--write", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as name,
        subprocess.Popen(
            [sys.executable, "-c", _HUB], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as hub,
    ):
        assert hub.stdin is not None
        assert hub.stdout is not None
        endpoint, token = hub.stdout.readline().split()
        try:
            found = report(steps(Path(name), options.size, endpoint, token))
        finally:
            hub.stdin.close()
    text = json.dumps(found, indent=1) + "\n"
    sys.stdout.write(text)
    if options.write is not None:
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
