"""Memory and time of `apply_patches` on a synthetic checkpoint of Llama shapes.

    python -m benchmarks.apply --write benchmarks/results/apply.json

Makes a sharded bf16 checkpoint and random patches in a temporary folder, then measures, each in
its own process: seconds of applying, with half of the cores computing as on the command line,
beside those of `cp` of the rewritten shards, in turns and both with the base in the page cache
(apply waits for the disk, plain `cp` does not), and the processor time of both; the same with
digests of whole files; peak memory above that of a process that imported torch, also at the
highest rank for which 300 MB are promised; seconds of planning for an index of 200 shards; and
compares every byte outside the edited ranges. Ratios are of the fastest runs. Needs about three
times the checkpoint's size of disk.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.provenance import commit
from patchkit.apply.lock import read_lock
from patchkit.factors import Side
from patchkit.factors.rotation import Rotation
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import TensorDraft, build_patch
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.source import FileSource

CHUNK = 64 << 20
# The high-water mark of this process alone: getrusage's would include that of its parent.
PEAK = """
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
"""
BASELINE = f"{PEAK}\nimport torch\nprint(peak())"
APPLY = f"""{PEAK}
import json, sys, time, torch
from patchkit.apply import apply_patches
start, options = time.process_time(), json.loads(sys.argv[4])
report = apply_patches(sys.argv[1], [sys.argv[2]], sys.argv[3], **options)
print(json.dumps([report.seconds, time.process_time() - start, peak()]))
"""
PLAN = """
import sys, time
from patchkit.apply import plan_apply
start = time.monotonic()
plan_apply(sys.argv[1], [sys.argv[2]])
print(time.monotonic() - start)
"""
WIDEST = 256  # planes of a rotation that spans 512 dimensions
THREADS = max(1, (os.cpu_count() or 1) // 2)


def main() -> None:
    options = parse()
    folder = Path(tempfile.mkdtemp(prefix="patchkit-bench-", dir=options.folder))
    try:
        result = measure(folder, options)
    finally:
        shutil.rmtree(folder)
    show(result)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(json.dumps(result, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=8, help="decoder layers (8 make 4 GB)")
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--inner", type=int, default=14336)
    parser.add_argument("--vocabulary", type=int, default=64000)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--edited", type=int, default=2, help="down_proj matrices that are edited")
    parser.add_argument("--rank", type=int, default=64, help="planes of the rotation of each")
    parser.add_argument("--side", choices=("input", "output"), default="input")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--write", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def measure(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    base, patch, out = folder / "base", folder / "p.patch.safetensors", folder / "out"
    make_checkpoint(base, options)
    make_patch(base, patch, options.side, options.rank, options)
    baseline = int(run(BASELINE))
    runs = [one_run(base, patch, out, keep=i == options.repeat - 1) for i in range(options.repeat)]
    rewritten = rewritten_shards(out)
    differing = differing_outside(base, out)
    shutil.rmtree(out)
    peaks = {f"{options.side} {2 * options.rank}": max(r["peak"] for r in runs) - baseline}
    for side in ("input", "output"):
        make_patch(base, patch, side, WIDEST, options)
        peaks[f"{side} {2 * WIDEST}"] = apply_once(base, patch, out)[2] - baseline
        shutil.rmtree(out)
    best = {key: min(r[key] for r in runs) for key in TIMES}
    return {
        "testbed": f"llama shapes, d {options.hidden}, d_ff {options.inner}, "
        f"{options.layers} layers, {options.shards} shards, BF16",
        "checkpoint_bytes": size_of(base),
        "rewritten_shards_bytes": sum((base / name).stat().st_size for name in rewritten),
        "edited_tensors": options.edited,
        "side": options.side,
        "rank": options.rank,
        "peak_memory_above_torch_bytes": max(peaks.values()),
        "peaks_by_side_and_dimensions": peaks,
        "torch_imported_bytes": baseline,
        **{f"{key}_seconds": round(value, 3) for key, value in best.items()},
        "time_ratio": best["apply"] / best["cp"],
        "time_ratio_synced": best["apply"] / best["cp_synced"],
        "time_ratio_synced_with_file_digests": best["apply_digests"] / best["cp_synced"],
        "runs": [{key: round(value, 3) for key, value in r.items() if key in TIMES} for r in runs],
        "planning_200_shards_seconds": round(planning(folder, options), 3),
        "bytes_differing_outside_edited": differing,
        "load_average": os.getloadavg()[0],
        "repeats": options.repeat,
        "seed": options.seed,
        "threads": THREADS,
        "cores": os.cpu_count(),
        "device": platform.machine() + " CPU",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "commit": commit(),
    }


TIMES = ("apply", "apply_digests", "cp", "cp_synced", "apply_cpu", "cp_cpu")


def children_seconds() -> float:
    """Processor seconds of finished child processes."""
    times = os.times()
    return times.children_user + times.children_system


def one_run(base: Path, patch: Path, out: Path, *, keep: bool) -> dict[str, float]:
    """Time each from the same state: base in the page cache, nothing to write back."""
    copy = out.with_name("copy")
    edited = rewritten_by(base, patch)
    settle(base)
    copy.mkdir()
    start, busy = time.monotonic(), children_seconds()
    subprocess.run(["cp", *(str(base / name) for name in edited), str(copy)], check=True)
    copied, copying = time.monotonic() - start, children_seconds() - busy
    os.sync()
    synced = time.monotonic() - start
    shutil.rmtree(copy)
    settle(base)
    hashed, _, _ = apply_once(base, patch, out, file_digests=True)
    shutil.rmtree(out)
    settle(base)
    seconds, busy, peak = apply_once(base, patch, out)
    if not keep:
        shutil.rmtree(out)
    return {
        "apply": seconds,
        "apply_digests": hashed,
        "apply_cpu": busy,
        "peak": peak,
        "cp": copied,
        "cp_cpu": copying,
        "cp_synced": synced,
    }


def apply_once(base: Path, patch: Path, out: Path, **options: bool) -> tuple[float, float, int]:
    """Seconds, processor seconds and peak bytes of applying in a process of its own."""
    text = json.dumps({"threads": THREADS, **options})
    seconds, busy, peak = json.loads(run(APPLY, str(base), str(patch), str(out), text))
    return seconds, busy, peak


def planning(folder: Path, options: argparse.Namespace) -> float:
    """Seconds to plan for 200 shards, the tensors of which are holes in their files."""
    base, patch = folder / "many", folder / "many.patch.safetensors"
    base.mkdir()
    places: dict[str, str] = {}
    for shard in range(200):
        file = f"model-{shard + 1:05}-of-00200.safetensors"
        names = [f"model.layers.{shard}.{name}.weight" for name in ("mlp.down_proj", *"abcdefgh")]
        size = 2 * options.hidden * options.inner
        header = json.dumps({
            name: {
                "dtype": "BF16",
                "shape": [options.hidden, options.inner],
                "data_offsets": [index * size, (index + 1) * size],
            }
            for index, name in enumerate(names)
        }).encode()  # fmt: skip
        with open(base / file, "wb") as out:
            out.write(len(header).to_bytes(8, "little") + header)
            out.truncate(8 + len(header) + len(names) * size)
        places |= dict.fromkeys(names, file)
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (base / "config.json").write_text(json.dumps({"model_type": "llama"}))
    make_patch(base, patch, "input", 1, options)
    return min(float(run(PLAN, str(base), str(patch))) for _ in range(options.repeat))


def make_checkpoint(folder: Path, options: argparse.Namespace) -> None:
    """Random weights under the names and shapes of Llama, shards of equal numbers of layers."""
    d, inner, small = options.hidden, options.inner, options.hidden // 4
    shapes = {
        "self_attn.q_proj": (d, d), "self_attn.k_proj": (small, d), "self_attn.v_proj": (small, d),
        "self_attn.o_proj": (d, d), "mlp.gate_proj": (inner, d), "mlp.up_proj": (inner, d),
        "mlp.down_proj": (d, inner), "input_layernorm": (d,), "post_attention_layernorm": (d,),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(options.seed)
    folder.mkdir()
    places: dict[str, str] = {}
    for shard in range(options.shards):
        first = range(options.layers)[shard :: options.shards]
        names = {f"model.layers.{i}.{k}.weight": s for i in first for k, s in shapes.items()}
        if shard == 0:
            names |= {
                "model.embed_tokens.weight": (options.vocabulary, d),
                "model.norm.weight": (d,),
            }
        file = f"model-{shard + 1:05}-of-{options.shards:05}.safetensors"
        save_file({name: random(shape, generator) for name, shape in names.items()}, folder / file)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": size_of(folder)}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"model_type": "llama", "hidden_size": d, "intermediate_size": inner}
    (folder / "config.json").write_text(json.dumps(config))


def random(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Random weights that repeat: drawing each of billions would take longer than the rest."""
    size = math.prod(shape)
    values = torch.randn(min(size, 1 << 20), generator=generator).to(torch.bfloat16) / 50
    return values.repeat(-(-size // len(values)))[:size].reshape(shape)


def make_patch(base: Path, path: Path, side: Side, rank: int, options: argparse.Namespace) -> None:
    """Random rotations of the first matrices, neighbours of which lie in different shards."""
    checkpoint = Checkpoint.open(base)
    generator = torch.Generator().manual_seed(options.seed + 1)
    drafts = {}
    for layer in range(options.edited):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        info = checkpoint.tensor(name).info
        size = info.shape[1] if side == "input" else info.shape[0]
        x, y = torch.randn(2, size, rank, generator=generator) / size**0.5
        rotation = Rotation(side, x, y)
        shape = (info.shape[0], info.shape[1])
        digest = checkpoint.digest(name)
        drafts[name] = TensorDraft(shape, info.dtype, "linear", digest, [rotation])
    build_patch(BaseMeta(), drafts, None, {}, "random", {}).write(path)


def settle(base: Path) -> None:
    """Write back what is pending and bring the base into the page cache."""
    os.sync()
    for path in base.glob("*.safetensors"):
        source = FileSource(path)
        for start in range(0, source.size, CHUNK):
            source.read(start, min(start + CHUNK, source.size))


def differing_outside(base: Path, out: Path) -> int:
    """Bytes that differ outside the tensors which the lock names; every byte is compared."""
    checkpoint, lock = Checkpoint.open(base), read_lock(out)
    assert lock is not None
    differing = 0
    for shard in checkpoint.shards:
        ranges = sorted(
            (checkpoint.tensor(name).info.start, checkpoint.tensor(name).info.end)
            for name, tensor in lock.tensors.items()
            if tensor.shard == shard
        )
        before, after = FileSource(base / shard), FileSource(out / shard)
        differing += abs(before.size - after.size)
        position = 0
        for start, end in [*ranges, (before.size, before.size)]:
            differing += count_differences(before.read, after.read, position, start)
            position = end
    return differing


Read = Callable[[int, int], bytes]


def count_differences(one: Read, two: Read, start: int, end: int) -> int:
    total = 0
    for position in range(start, end, CHUNK):
        stop = min(position + CHUNK, end)
        a, b = one(position, stop), two(position, stop)
        if a != b:
            total += sum(x != y for x, y in zip(a, b, strict=True))
    return total


def rewritten_by(base: Path, patch: Path) -> set[str]:
    from patchkit.apply import plan_apply

    return set(plan_apply(base, [patch]).rewritten)


def rewritten_shards(out: Path) -> list[str]:
    lock = read_lock(out)
    assert lock is not None
    return [name for name, shard in lock.shards.items() if shard.state == "rewritten"]


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def show(result: dict[str, object]) -> None:
    for key, value in result.items():
        if isinstance(value, float):
            print(f"{key:34} {value:.3f}")
        elif isinstance(value, int):
            print(f"{key:34} {value:,}")
        elif isinstance(value, str):
            print(f"{key:34} {value}")


if __name__ == "__main__":
    main()
