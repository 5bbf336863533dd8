"""Size of undo sidecars, and memory and time of `revert`, on synthetic weights.

    python -m benchmarks.undo --write benchmarks/results/undo.json

For each storage type, number of planes r and angle θ: bits a weight of the sidecar of one rotation
by r planes of θ radians each, on a matrix of normal weights; beside it the entropy that such
corrections have, the share of weights that differ at all after taking the rotation back in fp64,
and what general compressors of the standard library need for the same corrections. Then, on a
sharded checkpoint, each in its own process: peak memory of `revert` from base and from sidecar
above that of a process that imported torch, and seconds beside those of `cp` of the same shards.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import platform
import shutil
import subprocess
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.apply import BASELINE, PEAK, commit, make_checkpoint, run, settle, size_of
from patchkit.apply import apply_patches
from patchkit.factors import Side
from patchkit.factors.action import dense
from patchkit.factors.rotation import Rotation
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import TensorDraft, build_patch
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.undo.blocks import encode_block, folded, order_of
from patchkit.undo.coding import Unsigned

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
PLANES = (8, 32, 64)
ANGLES = (0.1, 0.5, 1.5)
REVERT = f"""{PEAK}
import json, sys, torch
from patchkit.revert import revert
report = revert(sys.argv[1])
print(json.dumps([report.seconds, peak(), report.source]))
"""


def main() -> None:
    options = parse()
    sizes = [
        one_size(name, planes, angle, options)
        for name in TYPES
        for planes in PLANES
        for angle in ANGLES
    ]
    result = {
        "matrix": [options.d_out, options.d_in],
        "sizes": sizes,
        "revert": reverts(options),
        "seed": options.seed,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "device": platform.machine() + " CPU",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "commit": commit(),
    }
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["revert"], indent=2))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--d-out", type=int, default=1024)
    parser.add_argument("--d-in", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=4, help="of the checkpoint (4 make 2 GB)")
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--inner", type=int, default=14336)
    parser.add_argument("--vocabulary", type=int, default=16000)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--edited", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--write", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def rotation(size: int, planes: int, angle: float, side: Side, seed: int) -> Rotation:
    """Random orthogonal planes, each turned by the same angle."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(size, 2 * planes, generator=generator))
    return Rotation(side, angle * q[:, :planes], q[:, planes:])


def one_size(
    name: str, planes: int, angle: float, options: argparse.Namespace
) -> dict[str, object]:
    generator = torch.Generator().manual_seed(options.seed)
    base = (torch.randn(options.d_out, options.d_in, generator=generator) / 50).to(TYPES[name])
    turn = rotation(options.d_in, planes, angle, "input", options.seed + 1)
    moved = dense(base, [turn], "linear").to(base.dtype)
    predicted = dense(moved, [turn.inverse()], "linear")
    change = corrections(base, predicted)
    bits = 8 * len(encode_block(base, moved, predicted)) / base.numel()
    row = {
        "dtype": name,
        "planes": planes,
        "angle": angle,
        "bits": round(bits, 4),
        "entropy": round(entropy(change), 4),
        "differing": round(float(np.count_nonzero(change)) / change.size, 4),
        **{key: round(8 * size / base.numel(), 4) for key, size in rivals(change).items()},
    }
    print(row, flush=True)
    return row


def corrections(base: Tensor, predicted: Tensor) -> Unsigned:
    return folded(order_of(base) - order_of(predicted.to(base.dtype)))


def entropy(values: Unsigned) -> float:
    """Bits a value, if each were coded by itself."""
    shares = np.unique(values, return_counts=True)[1] / values.size
    return float(-(shares * np.log2(shares)).sum())


def rivals(values: Unsigned) -> dict[str, int]:
    """Bytes that general compressors need, each byte of the corrections in a plane of its own."""
    planes = values.view(np.uint8).reshape(values.size, -1)
    parts = [planes[:, i].tobytes() for i in range(planes.shape[1])]
    return {
        "zlib": sum(len(zlib.compress(part, 6)) for part in parts),
        "lzma": sum(len(lzma.compress(part, preset=1)) for part in parts),
    }


def reverts(options: argparse.Namespace) -> dict[str, object]:
    folder = Path(tempfile.mkdtemp(prefix="patchkit-bench-", dir=options.folder))
    try:
        return measure_reverts(folder, options)
    finally:
        shutil.rmtree(folder)


def measure_reverts(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    base, patch, out = folder / "base", folder / "p.patch.safetensors", folder / "out"
    make_checkpoint(base, options)
    make_patch(base, patch, options)
    start = time.monotonic()
    report = apply_patches(base, [patch], out, undo=True)
    applied = time.monotonic() - start
    wanted = {path.name: path.read_bytes() for path in sorted(base.glob("*.safetensors"))}
    shards = [path for path in sorted(out.glob("*.safetensors"))]
    settle(base)
    start = time.monotonic()
    subprocess.run(["cp", *map(str, shards), str(folder)], check=True)
    os.sync()
    copied = time.monotonic() - start
    for path in shards:
        (folder / path.name).unlink()
    baseline = int(run(BASELINE))
    result: dict[str, object] = {
        "checkpoint_bytes": size_of(base),
        "edited_bytes": report.bytes_changed,
        "undo_bytes": report.undo_bytes,
        "bits_per_weight": round(16 * (report.undo_bytes or 0) / report.bytes_changed, 4),
        "apply_undo_seconds": round(applied, 2),
        "cp_synced_seconds": round(copied, 2),
        "torch_imported_bytes": baseline,
    }
    for source in ("base", "undo"):
        copy = folder / "copy"
        shutil.copytree(out, copy)
        if source == "undo":
            base.rename(folder / "lost")
        os.sync()
        seconds, peak, found = json.loads(run(REVERT, str(copy)))
        assert found == source
        same = all((copy / name).read_bytes() == data for name, data in wanted.items())
        result[source] = {
            "seconds": round(seconds, 2),
            "peak_memory_above_torch_bytes": peak - baseline,
            "bit_exact": same,
        }
        shutil.rmtree(copy)
    return result


def make_patch(base: Path, path: Path, options: argparse.Namespace) -> None:
    """Rotations by 64 planes of 0.5 radians: input side, then output side, in turns."""
    checkpoint = Checkpoint.open(base)
    drafts = {}
    for layer in range(options.edited):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        info = checkpoint.tensor(name).info
        side: Side = "output" if layer % 2 else "input"
        turn = rotation(info.shape[side == "input"], 64, 0.5, side, layer)
        shape = (info.shape[0], info.shape[1])
        drafts[name] = TensorDraft(shape, info.dtype, "linear", checkpoint.digest(name), [turn])
    build_patch(BaseMeta(), drafts, None, {}, "random", {}).write(path)


if __name__ == "__main__":
    main()
