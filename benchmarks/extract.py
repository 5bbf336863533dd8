"""How much of a change a rotation explains, and what finding it takes.

    python -m benchmarks.extract --write benchmarks/results/extract.json

Makes a bf16 matrix with the shape of an MLP output of Llama 3 8B, and three changes of it: a
rotation of 64 planes, a sum of rank 32, and noise of full rank. `patchkit.extract` runs on each in
a process of its own: share explained, planes, seconds, and peak memory above that of an interpreter
with the same imports. A last table compares, on a small matrix, spaces of growing dimension with
the nearest of all rotations.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.apply import PEAK
from benchmarks.provenance import commit
from patchkit.factors.action import dense
from patchkit.factors.rotation import Rotation

D_OUT, D_IN = 4096, 14336
NAME = "model.layers.0.mlp.down_proj.weight"
CONFIG = {"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32}
RUN = f"""{PEAK}
import json, sys, time
from patchkit.base import outline
from patchkit.extract import extract
before, begun, used = peak(), time.monotonic(), time.process_time()
made = extract(sys.argv[1], sys.argv[2], tensors=["*"])
(found,) = made.report.tensors
print(json.dumps({{
    "seconds": round(time.monotonic() - begun, 1),
    "processor_seconds": round(time.process_time() - used, 1),
    "memory_bytes": peak() - before,
    "side": found.side, "planes": found.planes, "directions": found.directions,
    "change": found.change, "explained": found.explained, "rounding": found.rounding,
}}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--write", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        large = measured(Path(place))
    result = {
        "matrix": [D_OUT, D_IN],
        "dtype": "BF16",
        "large": large,
        "spaces": spaces(),
        "device": platform.machine() + " CPU",
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
        "commit": commit(),
    }
    print(json.dumps(result, indent=2))
    if options.write:
        options.write.write_text(json.dumps(result, indent=2) + "\n")


def measured(place: Path) -> dict[str, object]:
    """Each change in a process of its own."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    weight = (normal(D_OUT, D_IN) * 0.02).bfloat16()
    write(place / "base", weight)
    x, y = (normal(D_IN, 64) / D_IN**0.5 / 4 for _ in "xy")
    changed = {
        "rotation of 64 planes": lambda: dense(weight, [Rotation("input", x, y)], "linear"),
        "sum of rank 32": lambda: weight + 2e-4 * normal(D_OUT, 32) @ normal(32, D_IN),
        "noise of full rank": lambda: weight + 5e-4 * normal(D_OUT, D_IN),
    }
    rows = {}
    for what, make in changed.items():
        write(place / "edited", make().bfloat16())
        command = [sys.executable, "-c", RUN, str(place / "base"), str(place / "edited")]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows[what] = json.loads(done.stdout)
    return rows


def write(folder: Path, weight: torch.Tensor) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file({NAME: weight}, folder / "model.safetensors")


def spaces() -> dict[str, object]:
    """Shares that (AᵀA)ʲ [Q, AᵀP] explain of a sum of rank 8, whole and at 16 planes."""
    from patchkit.extract.directions import extended
    from patchkit.extract.nearest import Nearest, truncated

    generator = torch.Generator().manual_seed(0)
    weight, tall, wide = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((256, 256), (256, 8), (8, 256))
    )
    delta = tall @ wide
    delta *= 0.1 * weight.norm() / delta.norm()
    left, _, right = torch.linalg.svd(delta)
    block = torch.cat([right[:8].T, weight.T @ left[:, :8]], dim=1)
    basis, rows = block[:, :0], []
    for power in (0, 1, 2, 3, None):
        basis = (
            torch.eye(256, dtype=torch.float64) if power is None else extended(basis, block, 256)
        )
        seen = weight @ basis
        nearest = Nearest.of(basis, seen.T @ seen, seen.T @ delta @ basis, 0.0)
        rotation = nearest.rotation("input")
        kept = truncated(rotation, nearest.gains(rotation), 16, 1.0)
        total = float(delta.square().sum())
        rows.append({
            "power": power,
            "directions": basis.shape[1],
            "explained": nearest.gain / total,
            "explained_at_16_planes": float(nearest.gains(kept).sum()) / total,
        })  # fmt: skip
        block = weight.T @ (weight @ block)
    return {"matrix": [256, 256], "rank": 8, "rows": rows}


if __name__ == "__main__":
    main()
