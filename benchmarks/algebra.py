"""Time, size and exactness of composing 10,000 one-plane rotations of one side.

    python -m benchmarks.algebra --write benchmarks/results/algebra.json

Makes that many patches with one random rotation each, composes them with compression, writes the
result, reads it again, and measures: seconds and peak memory of the composition, bytes of the
file, ‖RᵀR − I‖₂ of the rotation as it is stored, and its distance from the product of all
rotations multiplied one after another as whole matrices in fp64, beside the bound that the
composition states.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.apply import commit, show
from patchkit.compose import Composition, compose
from patchkit.factors.algebra import in_order, product
from patchkit.factors.rotation import Rotation
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import Patch, TensorDraft, build_patch
from patchkit.tensors.digests import bytes_digest

NAME = "model.layers.0.mlp.down_proj.weight"
ROWS = 256


def main() -> None:
    options = parse()
    result = measure(options)
    show(result)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(json.dumps(result, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rotations", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=1024, help="length of the side")
    parser.add_argument("--angle", type=float, default=1.0, help="largest angle in radians")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="smallest angle kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, object]:
    rotations = make_rotations(options)
    patches = [as_patch(rotation) for rotation in rotations]
    before = peak_bytes()
    start, busy = time.monotonic(), time.process_time()
    made = compose(patches, compress=options.tolerance)
    seconds, busy = time.monotonic() - start, time.process_time() - busy
    peak = peak_bytes() - before
    with tempfile.TemporaryDirectory(prefix="patchkit-bench-") as folder:
        path = Path(folder, "composed.patch.safetensors")
        made.patch.write(path)
        size, again = path.stat().st_size, Patch.read(path)
    stored = whole(again)
    eye = torch.eye(options.size, dtype=torch.float64)
    return {
        "rotations": options.rotations,
        "size": options.size,
        "side": "input",
        "largest_angle_rad": options.angle,
        "tolerance_rad": options.tolerance,
        "compose_seconds": seconds,
        "compose_cpu_seconds": busy,
        "peak_memory_above_inputs_bytes": peak,
        "file_bytes": size,
        "metadata_bytes": len(again.metadata.to_json()),
        **describe(made),
        "orthogonality_defect": norm(stored.T @ stored - eye),
        "distance_from_dense_product": norm(stored - dense_product(rotations, options.size)),
        "bound": made.report.bound,
        "load_average": os.getloadavg()[0],
        "seed": options.seed,
        "threads": torch.get_num_threads(),
        "device": platform.machine() + " CPU",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "commit": commit(),
    }


def make_rotations(options: argparse.Namespace) -> list[Rotation]:
    """Random planes at random angles up to the largest one, stored in fp32."""
    random = torch.Generator().manual_seed(options.seed)
    found = []
    for _ in range(options.rotations):
        plane = torch.randn(options.size, 2, generator=random, dtype=torch.float64)
        plane = torch.linalg.qr(plane)[0]
        angle = options.angle * float(torch.rand(1, generator=random))
        found.append(Rotation("input", angle * plane[:, :1], plane[:, 1:]))
    return found


def as_patch(rotation: Rotation) -> Patch:
    digest = bytes_digest(b"no weights")
    draft = TensorDraft((ROWS, rotation.size), "F32", "linear", digest, [rotation])
    return build_patch(BaseMeta(), {NAME: draft}, None, {}, "random", {})


def describe(made: Composition) -> dict[str, object]:
    (factor,) = made.patch.factors[NAME]
    return {
        "kind": factor.kind,
        "planes": factor.rank,
        "commutator_of_neighbours": made.report.tensors[0].commutator,
    }


def whole(patch: Patch) -> Tensor:
    """The stored rotation as a matrix (d, d)."""
    basis, q = product(in_order(patch.factors[NAME]))
    return torch.eye(len(basis), dtype=q.dtype) + basis @ (q - torch.eye(len(q))) @ basis.T


def dense_product(rotations: list[Rotation], size: int) -> Tensor:
    """All rotations, as they are stored, multiplied one after another into one matrix."""
    total = torch.eye(size, dtype=torch.float64)
    for rotation in rotations:
        core = Rotation("input", rotation.x.float(), rotation.y.float()).core()
        total += ((total @ core.basis) @ core.turn) @ core.basis.T
    return total


def norm(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix, ord=2))


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return 1024 * int(kilobytes)


if __name__ == "__main__":
    main()
