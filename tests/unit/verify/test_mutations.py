"""One changed byte anywhere makes a check fail, and the check names the tensor it belongs to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import pytest
import torch

from patchkit.apply import apply_patches
from patchkit.patch.reader import read_info
from patchkit.report import Report
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.verify import verify_folder, verify_patch
from tests.unit.tensors.folders import (
    LINEAR,
    additive,
    rotation,
    rotation_blocks,
    weights,
    write_folder,
    write_patch,
)

MUTATIONS = 300


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of two shards, a patch of three tensors, and the folder it was applied to."""
    folder = tmp_path_factory.mktemp("mutations")
    base = write_folder(folder / "base", weights(torch.bfloat16), shards=2)
    factors = {
        LINEAR[0]: [rotation("input", 20, 1)],
        LINEAR[1]: [rotation("output", 12, 2), additive(3)],
        LINEAR[2]: [rotation_blocks("input", 20, 4)],
    }
    write_patch(folder / "p", base, factors)
    apply_patches(base, [folder / "p"], folder / "out", undo=True)
    assert verify_folder(folder / "out").ok
    return folder


def mutated(data: bytes, random: Random, low: int = 0) -> tuple[int, bytes]:
    position = random.randrange(low, len(data))
    value = (data[position] + random.randrange(1, 256)) % 256
    return position, data[:position] + bytes([value]) + data[position + 1 :]


def named(report: Report) -> set[str]:
    """Tensors that failed checks name; a part of a patch stands for its tensor."""
    assert not report.ok
    return {re.sub(r"/\d+$", "", check.tensor) for check in report.failed if check.tensor}


@pytest.mark.parametrize("seed", range(3))
def test_a_patch(place: Path, seed: int) -> None:
    data = (place / "p").read_bytes()
    info, random = read_info(data), Random(seed)
    honest = {check.name for check in verify_patch(data).failed}
    for _ in range(MUTATIONS // 3):
        position, changed = mutated(data, random)
        report = verify_patch(changed)
        inside = [
            part for part in info.header.tensors.values() if part.start <= position < part.end
        ]
        if inside:
            assert inside[0].name.rsplit("/", 2)[0] in named(report), position
        assert {check.name for check in report.failed} - honest & {"format", "digest"}, position


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shard", [0, 1])
def test_a_shard(place: Path, shard: int, seed: int) -> None:
    out = Checkpoint.open(place / "out")
    path = place / "out" / sorted(out.shards)[shard]
    header, data, random = out.shards[path.name], path.read_bytes(), Random(seed)
    spans = header_spans(data[8 : header.size].decode(), list(header.tensors))
    try:
        for _ in range(MUTATIONS // 6):
            position, changed = mutated(data, random)
            path.write_bytes(changed)
            report = verify_folder(place / "out")
            tensors = [t.name for t in header.tensors.values() if t.start <= position < t.end]
            tensors += [name for name, (a, b) in spans.items() if a <= position - 8 < b]
            if tensors:
                assert tensors[0] in named(report), position
            assert any(path.name in check.detail or check.tensor for check in report.failed)
    finally:
        path.write_bytes(data)


def header_spans(text: str, names: list[str]) -> dict[str, tuple[int, int]]:
    """Where a header describes each tensor."""
    spans = {}
    for name in names:
        start = text.index(json.dumps(name))
        spans[name] = start, text.index("}", start) + 1
    return spans


@pytest.mark.parametrize("seed", range(3))
def test_a_lock(place: Path, seed: int) -> None:
    path = place / "out" / "patchkit.lock.json"
    data, random = path.read_bytes(), Random(seed)
    text = data.decode()
    assert text.isascii()
    spans = {}
    for name in json.loads(text)["tensors"]:
        start = text.index(f"    {json.dumps(name)}: {{") + 4
        spans[name] = start, text.index("}", start)
    try:
        for _ in range(MUTATIONS // 3):
            position, changed = mutated(data, random)
            path.write_bytes(changed)
            report = verify_folder(place / "out")
            assert [check.name for check in report.failed] == ["lock"], position
            inside = [name for name, (a, b) in spans.items() if a <= position < b]
            if inside and text[position] not in " \n":
                assert named(report) == set(inside), (
                    position,
                    changed[position - 20 : position + 20],
                )
    finally:
        path.write_bytes(data)


@pytest.mark.parametrize("seed", range(3))
def test_a_sidecar(place: Path, seed: int) -> None:
    path = place / "out" / "patchkit.undo"
    data, random = path.read_bytes(), Random(seed)
    try:
        for _ in range(MUTATIONS // 6):
            position, changed = mutated(data, random)
            path.write_bytes(changed)
            assert [check.name for check in verify_folder(place / "out").failed] == ["undo"], (
                position
            )
    finally:
        path.write_bytes(data)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_honest_outputs_pass(tmp_path: Path, dtype: torch.dtype) -> None:
    for seed in range(6):
        base = write_folder(tmp_path / f"base{seed}", weights(dtype, seed=seed), shards=2)
        factors = [rotation("input", 20, seed), rotation("output", 12, seed + 1)]
        patch = tmp_path / f"p{seed}"
        write_patch(patch, base, {name: factors for name in LINEAR})
        apply_patches(base, [patch], tmp_path / f"out{seed}")
        assert verify_folder(tmp_path / f"out{seed}").ok
        assert verify_patch(patch, base).ok
