"""Every verb on a large sharded checkpoint, beside `cp -r`, peft and mergekit.

    python -m benchmarks.scale --peer-python PEERS/bin/python --write benchmarks/results/scale.json

Makes a synthetic bf16 checkpoint of Llama-3-8B's shapes and rotations of five of its matrices, and
runs `patchkit apply`, `verify`, `diff` and `revert` on it, each as its own process: seconds, peak
memory of the process, bytes it wrote. Then, on the largest checkpoint of the same family that
fits in memory, `patchkit apply` once more beside the two usual ways to merge a change of the same
rank into the weights: peft's `merge_and_unload` with `save_pretrained`, and mergekit. Both are
looked for in `--peer-python`, an interpreter of an environment of their own; without it they are
left out. Two copies of a checkpoint exist at once, three while mergekit runs, which keeps a merged
model of its own; all are removed at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.provenance import commit

# This process stays small: a child's peak, as the kernel counts it, begins with its parent's.
BLOCK = 2 << 20
SHARD_BYTES = 5_000_000_000
LARGE = {"hidden": 4096, "inner": 14336, "heads": 32, "kv_heads": 8, "vocabulary": 128256}
SMALL = {"hidden": 512, "inner": 1792, "heads": 4, "kv_heads": 1, "vocabulary": 16032}
EDITED = 5
RANK = 64
FITS = 0.6  # of the memory that is free: all weights, and a shard of them once more to be saved

PATCH = """
import sys
from pathlib import Path
import torch
from patchkit.factors.rotation import Rotation
from patchkit.patch.drafts import TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import build_patch
from patchkit.tensors.checkpoint import Checkpoint

base, out, edited, rank = Checkpoint.open(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
generator, drafts = torch.Generator().manual_seed(0), {}
for layer in range(edited):
    name = f"model.layers.{layer}.mlp.down_proj.weight"
    d_out, d_in = base.tensor(name).info.shape
    x, y = torch.randn(2, d_in, rank, generator=generator) / d_in**0.5 / 4
    turn = Rotation("input", x, y)
    drafts[name] = TensorDraft((d_out, d_in), "BF16", "linear", base.digest(name), [turn])
origin = BaseMeta(config_digest=base.config_digest)
build_patch(origin, drafts, None, {}, "random", {}).write(Path(out))
"""
PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
"""
VERSIONS = """
import importlib.metadata, json
names = ("torch", "transformers", "peft", "mergekit")
found = {}
for name in names:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Row:
    """One process: what it did to which checkpoint, and what that took. Failed: `error` says how.

    `written_bytes` is what the process handed to the file system; memory is of the whole process.
    """

    what: str
    tool: str
    checkpoint_bytes: int
    seconds: float
    seconds_synced: float
    peak_memory_bytes: int
    written_bytes: int
    error: str | None = None


def main() -> None:
    options = parse()
    folder = Path(tempfile.mkdtemp(prefix="patchkit-scale-", dir=options.folder))
    try:
        result = measure(folder, options)
    finally:
        shutil.rmtree(folder)
    show(result["rows"])
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(json.dumps(result, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=16.0, help="of the large checkpoint")
    parser.add_argument("--peer-gigabytes", type=float, help="by default what fits in memory")
    parser.add_argument("--peer-python", type=Path, help="interpreter that has peft and mergekit")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--write", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def measure(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    rows = [baseline(folder), *verbs(folder, options.gigabytes)]
    if options.peer_python:
        fits = min(options.gigabytes, FITS * free_memory() / 1e9)
        rows += peers(folder, options.peer_gigabytes or fits, options.peer_python)
    return {
        "testbed": "llama-3-8b shapes, BF16, shards of at most 5 GB",
        "edited_tensors": EDITED,
        "side": "input",
        "rank": RANK,
        "rows": [asdict(row) for row in rows],
        "load_average": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "device": platform.machine() + " CPU",
        "python": platform.python_version(),
        "versions": versions(Path(sys.executable)),
        "peer_versions": versions(options.peer_python) if options.peer_python else None,
        "commit": commit(),
    }


def baseline(folder: Path) -> Row:
    """What an interpreter that imports torch takes: the part of the memory that is no one's."""
    return timed("import torch", "python", folder, [sys.executable, "-c", "import torch"])


def verbs(folder: Path, gigabytes: float) -> Iterator[Row]:
    """Every verb on one checkpoint; at most the base and one copy of it exist."""
    base, patch, out = folder / "base", folder / "p.patch.safetensors", folder / "out"
    make_checkpoint(base, gigabytes)
    make_patch(base, patch)
    yield timed("copy", "cp -r", base, ["cp", "-r", str(base), str(out)])
    shutil.rmtree(out)
    yield timed("apply", "patchkit", base, patchkit("apply", base, patch, "-o", out))
    yield timed("verify", "patchkit", base, patchkit("verify", out))
    yield timed("diff", "patchkit", base, patchkit("diff", base, out))
    yield timed("revert", "patchkit", base, patchkit("revert", out))
    yield compared(base, out)
    shutil.rmtree(out)
    shutil.rmtree(base)


def peers(folder: Path, gigabytes: float, python: Path) -> Iterator[Row]:
    """Three ways to the same weights, on a checkpoint that all of them can hold."""
    base, patch, out = folder / "base", folder / "p.patch.safetensors", folder / "out"
    adapter, recipe = folder / "adapter", folder / "recipe.yml"
    make_checkpoint(base, gigabytes)
    make_patch(base, patch)
    export = patchkit("export", patch, "--base", base, "-o", adapter, "--storage", "bfloat16")
    subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
    model = f"{base}+{adapter}"
    recipe.write_text(f"merge_method: passthrough\nmodels:\n  - model: {model}\ndtype: bfloat16\n")
    merge = [str(python.with_name("mergekit-yaml")), str(recipe), str(out), "--no-copy-tokenizer"]
    cache = folder / "merged"
    for row in (
        ("copy", "cp -r", ["cp", "-r", str(base), str(out)]),
        ("apply", "patchkit", patchkit("apply", base, patch, "-o", out)),
        ("apply", "peft", [str(python), "-c", PEFT, str(base), str(adapter), str(out)]),
        ("apply", "mergekit", [*merge, "--lora-merge-cache", str(cache)]),
    ):
        what, tool, command = row
        yield timed(what, tool, base, command)
        for left in (out, cache):
            shutil.rmtree(left, ignore_errors=True)
    shutil.rmtree(base)


def compared(base: Path, out: Path) -> Row:
    """Whether the reverted shards are the base's, byte by byte, as one more row."""
    script = 'for f in "$0"/*.safetensors; do cmp "$f" "$1/${f##*/}" || exit 1; done'
    return timed("compare", "cmp", base, ["sh", "-c", script, str(base), str(out)])


def timed(what: str, tool: str, base: Path, command: list[str]) -> Row:
    """Run a process from the same state: nothing to write back, the checkpoint read once."""
    os.sync()
    for path in sorted(base.glob("*.safetensors")):
        subprocess.run(["cat", str(path)], stdout=subprocess.DEVNULL, check=True)
    with tempfile.TemporaryFile() as output:
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment())
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        os.sync()
        output.seek(0)
        text = output.read().decode(errors="replace").strip()
    return Row(
        what=what,
        tool=tool,
        checkpoint_bytes=size_of(base),
        seconds=round(seconds, 3),
        seconds_synced=round(time.monotonic() - begun, 3),
        peak_memory_bytes=usage.ru_maxrss * 1024,
        written_bytes=usage.ru_oublock * 512,
        error=None if process.returncode == 0 else f"exit {process.returncode}: {text[-400:]}",
    )


def environment() -> Mapping[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PATCHKIT_NO_PROGRESS": "1"}


def patchkit(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "patchkit_cli", *map(str, arguments)]


def make_patch(base: Path, path: Path) -> None:
    """Random rotations of the same planes in the first matrices."""
    command = [sys.executable, "-c", PATCH, str(base), str(path), str(EDITED), str(RANK)]
    subprocess.run(command, check=True)


def make_checkpoint(folder: Path, gigabytes: float) -> None:
    """Random weights under the names and shapes of Llama 3, in shards as large as the Hub's."""
    sizes = LARGE if gigabytes >= 4 else SMALL
    folder.mkdir()
    shapes = dict(llama(sizes, layers_for(sizes, gigabytes)))
    places: dict[str, str] = {}
    groups = list(in_shards(shapes))
    for index, names in enumerate(groups):
        file = f"model-{index + 1:05}-of-{len(groups):05}.safetensors"
        write_shard(folder / file, {name: shapes[name] for name in names}, seed=index)
        places |= dict.fromkeys(names, file)
    total = sum(2 * math.prod(shape) for shape in shapes.values())
    index_file = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_file))
    (folder / "config.json").write_text(json.dumps(config(sizes, gigabytes)))


def layers_for(sizes: Mapping[str, int], gigabytes: float) -> int:
    """Decoder layers that come nearest to the size, as many as are edited at least."""
    layer = 2 * sum(math.prod(shape) for shape in layer_shapes(sizes).values())
    rest = 4 * sizes["vocabulary"] * sizes["hidden"]
    return max(EDITED, round((gigabytes * 1e9 - rest) / layer))


def layer_shapes(sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    d, inner = sizes["hidden"], sizes["inner"]
    small = d * sizes["kv_heads"] // sizes["heads"]
    return {
        "input_layernorm": (d,), "mlp.down_proj": (d, inner), "mlp.gate_proj": (inner, d),
        "mlp.up_proj": (inner, d), "post_attention_layernorm": (d,), "self_attn.k_proj": (small, d),
        "self_attn.o_proj": (d, d), "self_attn.q_proj": (d, d), "self_attn.v_proj": (small, d),
    }  # fmt: skip


def llama(sizes: Mapping[str, int], layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order of the model."""
    table = (sizes["vocabulary"], sizes["hidden"])
    yield "model.embed_tokens.weight", table
    for layer in range(layers):
        for name, shape in layer_shapes(sizes).items():
            yield f"model.layers.{layer}.{name}.weight", shape
    yield "model.norm.weight", (sizes["hidden"],)
    yield "lm_head.weight", table


def in_shards(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    names: list[str] = []
    held = 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        if names and held + size > SHARD_BYTES:
            yield names
            names, held = [], 0
        names.append(name)
        held += size
    yield names


def random_weights(seed: int) -> bytes:
    """A block of bf16 numbers of either sign between 2⁻⁷ and 2⁻⁵."""
    data = bytearray(random.Random(seed).randbytes(BLOCK))
    # Of the upper byte the sign is kept; the rest of it is most of the exponent.
    data[1::2] = data[1::2].translate(bytes(byte & 0x80 | 0x3C for byte in range(256)))
    return bytes(data)


def write_shard(path: Path, shapes: Mapping[str, tuple[int, ...]], seed: int) -> None:
    """Write tensor after tensor from one block of random weights: drawing all would take long."""
    block = random_weights(seed)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        offsets = [position, position + size]
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": offsets}
        position += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, position, len(block)):
            file.write(block[: position - start])


def config(sizes: Mapping[str, int], gigabytes: float) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": sizes["hidden"],
        "intermediate_size": sizes["inner"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"],
        "num_hidden_layers": layers_for(sizes, gigabytes),
        "vocab_size": sizes["vocabulary"],
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }


def free_memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def versions(python: Path) -> dict[str, str]:
    done = subprocess.run([str(python), "-c", VERSIONS], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def show(rows: object) -> None:
    """The table, as Markdown."""
    print("| | by | checkpoint GB | seconds | on the disk after | peak MB | GB written |")
    print("|---|---|---|---|---|---|---|")
    assert isinstance(rows, list)
    for row in rows:
        print(
            f"| {row['what']} | {row['tool']} | {row['checkpoint_bytes'] / 1e9:.2f} "
            f"| {row['seconds']:.1f} | {row['seconds_synced']:.1f} "
            f"| {row['peak_memory_bytes'] / 1e6:.0f} | {row['written_bytes'] / 1e9:.2f} |"
        )
        if row["error"]:
            print(f"  failed: {row['error']}", file=sys.stderr)


if __name__ == "__main__":
    main()
