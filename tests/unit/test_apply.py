"""The output differs from the base in the edited tensors, and there it is the exact product."""

import errno
import json
import os
import shutil
import time
from math import ceil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from patchkit.apply import apply_patches, lock, plan_apply, shards
from patchkit.apply import weights as apply_weights
from patchkit.factors.action import Factor, dense
from patchkit.models import atlas_path
from patchkit.patch.drafts import TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import build_patch
from patchkit.tensors import checkpoint
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.digests import file_digest
from tests.unit.tensors.folders import (
    CONV,
    D_IN,
    D_OUT,
    LINEAR,
    additive,
    additive_dense,
    rotation,
    rotation_blocks,
    weights,
    write_folder,
    write_patch,
)

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
FACTORS: list[list[Factor]] = [
    [rotation("input", D_IN, 1)],
    [rotation("output", D_OUT, 2), additive(3), rotation("input", D_IN, 4)],
    [rotation_blocks("output", D_OUT, 5, 1), rotation_blocks("input", D_IN, 6, 4)],
    [rotation_blocks("input", D_IN, 7), additive_dense(8), rotation("output", D_OUT, 9)],
]


class Recorder:
    """Keeps what progress was told."""

    def __init__(self) -> None:
        self.totals: dict[str, int | None] = {}
        self.done: dict[str, int] = {}
        self.ended: list[str] = []

    def started(self, phase: str, total: int | None, unit: str) -> None:
        self.totals[phase] = total

    def advanced(self, phase: str, amount: int = 1) -> None:
        self.done[phase] = self.done.get(phase, 0) + amount

    def finished(self, phase: str) -> None:
        self.ended.append(phase)


def load(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def outside(folder: Path, names: list[str]) -> dict[str, bytes]:
    """Bytes of each shard with the edited ranges blanked."""
    opened = Checkpoint.open(folder)
    shards = {shard: bytearray((folder / shard).read_bytes()) for shard in opened.shards}
    for name in names:
        entry = opened.tensor(name)
        shards[entry.shard][entry.info.start : entry.info.end] = bytes(entry.info.nbytes)
    return {shard: bytes(data) for shard, data in shards.items()}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shards", [1, 3], ids=["single", "sharded"])
@pytest.mark.parametrize(
    ("layout", "pair"),
    [
        ("linear", FACTORS[:2]),
        ("linear", FACTORS[2:]),
        ("conv1d", FACTORS[:2]),
        ("conv1d", FACTORS[2:]),
    ],
    ids=["linear", "linear blocks", "conv1d", "conv1d blocks"],
)
def test_the_output_is_the_product_rounded_once(
    tmp_path: Path,
    dtype: torch.dtype,
    shards: int,
    layout: str,
    pair: list[list[Factor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apply_weights, "_BLOCK", 500)  # three rows at a time
    conv = layout == "conv1d"
    before, names = weights(dtype, conv=conv), (CONV if conv else LINEAR)[:2]
    base = write_folder(tmp_path / "base", before, shards=shards)
    factors = dict(zip(names, pair, strict=True))
    digest = write_patch(tmp_path / "p", base, factors)
    untouched = contents(base)

    report = apply_patches(base, [tmp_path / "p"], tmp_path / "out")

    after = load(tmp_path / "out")
    for name, tensor in before.items():
        expected = tensor
        if name in factors:
            expected = dense(tensor, factors[name], layout).to(dtype)  # type: ignore[arg-type]
            assert not torch.equal(expected, tensor)
        torch.testing.assert_close(after[name], expected, rtol=0, atol=0)
    assert outside(tmp_path / "out", names) == outside(base, names)
    assert contents(base) == untouched
    assert (report.tensors_changed, report.tensors_total) == (2, len(before))
    assert report.patches == (digest,)
    assert report.bytes_changed == sum(before[name].nbytes for name in names)
    assert sum(report.shards.values()) == shards


def test_small_files_come_along_and_other_weights_do_not(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.float32))
    (base / "tokenizer").mkdir()
    (base / "tokenizer" / "vocab.txt").write_text("a b")
    for name in ("training_args.bin", "model.gguf", "adapter.safetensors", ".cache"):
        (base / name).write_bytes(b"x")
    write_patch(tmp_path / "p", base, {LINEAR[0]: FACTORS[0]})
    report = apply_patches(base, [tmp_path / "p"], tmp_path / "out")
    assert report.left_out == ("adapter.safetensors", "model.gguf", "training_args.bin")
    assert (tmp_path / "out" / "tokenizer" / "vocab.txt").read_text() == "a b"
    expected = {"config.json", "model.safetensors", "patchkit.lock.json", "tokenizer"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected | {"tokenizer.json"}


def test_files_are_copies_and_never_links(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.float32), shards=3)
    shard = base / "model-00001-of-00003.safetensors"
    shard.rename(tmp_path / "blob")
    shard.symlink_to(tmp_path / "blob")
    write_patch(tmp_path / "p", base, {LINEAR[0]: FACTORS[0]})
    apply_patches(base, [tmp_path / "p"], tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert not path.is_symlink()
        assert os.stat(path).st_nlink == 1


def test_progress_reaches_its_totals(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.float32))
    write_patch(tmp_path / "p", base, {LINEAR[0]: FACTORS[1]})
    recorder = Recorder()
    apply_patches(base, [tmp_path / "p"], tmp_path / "out", progress=recorder)
    size = D_IN * D_OUT * 4
    assert recorder.done["checking base"] == recorder.totals["checking base"] == size
    assert recorder.done["rewriting"] == recorder.totals["rewriting"] == size
    assert recorder.ended == ["checking base", "rewriting", "copying"]


def test_two_patches_are_rounded_once_from_the_base(tmp_path: Path) -> None:
    before = weights(torch.bfloat16)
    base = write_folder(tmp_path / "base", before)
    first = write_patch(tmp_path / "a", base, {LINEAR[0]: FACTORS[0]})
    write_patch(tmp_path / "b", base, {LINEAR[0]: FACTORS[1], LINEAR[1]: FACTORS[1]}, after=[first])
    apply_patches(base, [tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    apply_patches(base, [tmp_path / "a"], tmp_path / "one")
    apply_patches(tmp_path / "one", [tmp_path / "b"], tmp_path / "then")
    together = load(tmp_path / "both")
    expected = dense(before[LINEAR[0]], FACTORS[0] + FACTORS[1], "linear").to(torch.bfloat16)
    assert torch.equal(together[LINEAR[0]], expected)
    assert contents(tmp_path / "both") == contents(tmp_path / "then")


def test_a_patched_folder_can_be_replaced_by_itself_with_one_more(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.float32))
    write_patch(tmp_path / "a", base, {LINEAR[0]: FACTORS[0]})
    write_patch(tmp_path / "b", base, {LINEAR[1]: FACTORS[1]})
    apply_patches(base, [tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    apply_patches(base, [tmp_path / "a"], tmp_path / "out")
    apply_patches(tmp_path / "out", [tmp_path / "b"], tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "both")


def test_the_lock_says_all_and_depends_on_nothing_else(tmp_path: Path) -> None:
    locks = []
    for place in ("here", "there"):
        base = write_folder(tmp_path / place / "base", weights(torch.float32), shards=2)
        digest = write_patch(tmp_path / place / "p", base, {LINEAR[1]: FACTORS[0]})
        apply_patches(base, [tmp_path / place / "p"], tmp_path / place / "out")
        locks.append((tmp_path / place / "out" / "patchkit.lock.json").read_bytes())
    assert locks[0] == locks[1]
    found = json.loads(locks[0])
    base, out = Checkpoint.open(base), Checkpoint.open(tmp_path / place / "out")
    assert found["schema"] == "patchkit.lock/1"
    assert found["base"]["path"] == "../base"
    assert found["patches"] == [{"digest": digest, "path": "../p"}]
    tensor = found["tensors"][LINEAR[1]]
    assert tensor["before"] == base.digest(LINEAR[1])
    assert tensor["after"] == out.digest(LINEAR[1])
    nothing = {"before": None, "after": None}
    shard = out.tensor(LINEAR[1]).shard
    assert found["shards"].pop(shard) == {"state": "rewritten", **nothing}
    assert list(found["shards"].values()) == [{"state": "unchanged", **nothing}]


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("edited", [LINEAR[:1], LINEAR[::2], LINEAR])
def test_digests_of_whole_files_are_those_of_the_files(
    tmp_path: Path, edited: list[str], shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shares:  # as a file system with reflinks does

        def cloned(source: Path, target: Path) -> bool:
            target.write_bytes(source.read_bytes())
            return True

        monkeypatch.setattr(shards, "create", cloned)
    base = write_folder(tmp_path / "base", weights(torch.float32), shards=2)
    write_patch(tmp_path / "p", base, dict.fromkeys(edited, FACTORS[1]))
    apply_patches(base, [tmp_path / "p"], tmp_path / "plain")
    apply_patches(base, [tmp_path / "p"], tmp_path / "out", file_digests=True)
    found = lock.read_lock(tmp_path / "out")
    assert found is not None
    for name, shard in found.shards.items():
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
        if shard.state == "rewritten":
            assert shard.before == file_digest(base / name)
            assert shard.after == file_digest(tmp_path / "out" / name) != shard.before


def test_a_moved_pair_of_folders_still_belongs_together(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "one" / "base", weights(torch.float32))
    write_patch(tmp_path / "one" / "a", base, {LINEAR[0]: FACTORS[0]})
    write_patch(tmp_path / "one" / "b", base, {LINEAR[1]: FACTORS[0]})
    apply_patches(base, [tmp_path / "one" / "a"], tmp_path / "one" / "out")
    shutil.move(tmp_path / "one", tmp_path / "two")
    place = tmp_path / "two"
    report = apply_patches(place / "out", [place / "b"], place / "more")
    assert len(report.patches) == 2


def test_a_plan_reads_headers_and_says_what_will_happen(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.float32), shards=3)
    write_patch(tmp_path / "p", base, {LINEAR[1]: FACTORS[1]})
    plan = plan_apply(base, [tmp_path / "p"])
    shard = Checkpoint.open(base).tensor(LINEAR[1]).shard
    assert plan.rewritten == (shard,)
    assert len(plan.cloned) == 2
    assert plan.others == ("config.json", "model.safetensors.index.json", "tokenizer.json")
    assert plan.bytes_changed == D_IN * D_OUT * 4
    assert plan.bytes_total == sum(path.stat().st_size for path in base.iterdir())
    assert plan.memory_bytes == 300_000_000
    assert plan.tensors[0].dimensions == 4 + 2 + 4
    write_patch(tmp_path / "q", base, {LINEAR[1]: FACTORS[2], LINEAR[2]: FACTORS[3][:2]})
    blocks, added = plan_apply(base, [tmp_path / "q"]).tensors
    whole, parts = 11 * D_OUT**2, D_IN * 5 + 10 * 5**2
    assert blocks.dimensions == ceil(whole / D_IN) + ceil(parts / D_IN) + D_OUT
    assert added.dimensions == ceil((D_IN * 10 + 10 * 10**2) / D_IN) + D_OUT // 2
    write_patch(tmp_path / "r", base, {LINEAR[1]: [FACTORS[3][1]]})
    both = plan_apply(base, [tmp_path / "r", tmp_path / "q"]).tensors[0]
    assert both.dimensions == blocks.dimensions + D_OUT // 2 + D_OUT
    report = apply_patches(base, [tmp_path / "p"], tmp_path / "out")
    assert report.shards["rewritten"] == len(plan.rewritten)


def test_the_embedded_model_is_named_and_not_located(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_folder(tmp_path / "base", weights(torch.float32))
    assert Checkpoint.open(base).repo is None
    for module in (checkpoint, lock):
        monkeypatch.setattr(module, "atlas_path", lambda: base)
    write_patch(tmp_path / "a", base, {LINEAR[0]: FACTORS[0]})
    write_patch(tmp_path / "b", base, {LINEAR[1]: FACTORS[0]})
    apply_patches(base, [tmp_path / "a"], tmp_path / "out")
    found = lock.read_lock(tmp_path / "out")
    assert found is not None
    assert (found.base.repo, found.base.path) == ("atlas", None)
    assert len(apply_patches(tmp_path / "out", [tmp_path / "b"], tmp_path / "more").patches) == 2
    assert atlas_path().name == "atlas"


def test_applying_twice_gives_the_same_files(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.float16), shards=2)
    write_patch(tmp_path / "p", base, {LINEAR[0]: FACTORS[1]})
    for out in ("x", "y"):
        apply_patches(base, [tmp_path / "p"], tmp_path / out)
    assert contents(tmp_path / "x") == contents(tmp_path / "y")
    assert file_digest(tmp_path / "x" / "patchkit.lock.json").startswith("sha256:")


def test_only_untouched_shards_are_linked_and_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path) -> None:
        assert os.stat(path).st_nlink == 1, "the base was opened for writing"

    monkeypatch.setattr(shards, "sync_file", opened)
    base = write_folder(tmp_path / "base", weights(torch.float32), shards=3)
    write_patch(tmp_path / "p", base, {LINEAR[0]: FACTORS[0]})
    before = contents(base)
    apply_patches(base, [tmp_path / "p"], tmp_path / "copied")
    report = apply_patches(base, [tmp_path / "p"], tmp_path / "out", link=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "copied")
    edited = Checkpoint.open(base).tensor(LINEAR[0]).shard
    linked = {path.name for path in (tmp_path / "out").iterdir() if os.stat(path).st_nlink > 1}
    assert linked == {path.name for path in base.glob("*.safetensors")} - {edited}
    assert report.shards == {"rewritten": 1, "cloned": 2, "copied": 0}
    assert contents(base) == before
    assert all(os.stat(path).st_nlink == 1 for path in (tmp_path / "copied").iterdir())


def test_a_disk_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    base = write_folder(tmp_path / "base", weights(torch.float32), shards=3)
    write_patch(tmp_path / "p", base, {LINEAR[0]: FACTORS[0]})
    report = apply_patches(base, [tmp_path / "p"], tmp_path / "out", link=True)
    assert report.shards == {"rewritten": 1, "cloned": 0, "copied": 2}
    assert {os.stat(path).st_nlink for path in (tmp_path / "out").iterdir()} == {1}


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("kind", ["symlinks", "hard links"])
def test_a_base_made_of_links_is_never_shared_by_what_is_rewritten(
    tmp_path: Path, kind: str, link: bool
) -> None:
    base = write_folder(tmp_path / "base", weights(torch.float32), shards=3)
    write_patch(tmp_path / "p", base, {LINEAR[0]: FACTORS[0]})
    cache = tmp_path / "models--a--b"
    snapshot = cache / "snapshots" / "0e9e"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for path in base.iterdir():
        blob = cache / "blobs" / file_digest(path).removeprefix("sha256:")
        path.rename(blob)
        if kind == "symlinks":
            (snapshot / path.name).symlink_to(Path("..", "..", "blobs", blob.name))
        else:
            os.link(blob, snapshot / path.name)
    before = contents(cache / "blobs")
    apply_patches(snapshot, [tmp_path / "p"], tmp_path / "out", link=link)
    edited = tmp_path / "out" / Checkpoint.open(snapshot).tensor(LINEAR[0]).shard
    blobs = {os.stat(path).st_ino for path in (cache / "blobs").iterdir()}
    assert os.stat(edited).st_ino not in blobs
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert contents(cache / "blobs") == before
    assert names(cache) == {"blobs", "snapshots"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_planning_reads_headers_only(tmp_path: Path) -> None:
    shards = 200
    base = tmp_path / "base"
    base.mkdir()
    places: dict[str, str] = {}
    for index in range(shards):  # 400 GB that take no place: what is not written is a hole
        file = f"model-{index + 1:05}-of-{shards:05}.safetensors"
        tensors = {
            f"model.layers.{index}.{name}.weight": {
                "dtype": "BF16",
                "shape": [8192, 13 * 1024],
                "data_offsets": [part * 8192 * 26 * 1024, (part + 1) * 8192 * 26 * 1024],
            }
            for part, name in enumerate(["mlp.down_proj", *map(str, range(8))])
        }
        header = json.dumps(tensors).encode()
        with open(base / file, "wb") as out:
            out.write(len(header).to_bytes(8, "little") + header)
            out.truncate(8 + len(header) + 9 * 8192 * 26 * 1024)
        places |= dict.fromkeys(tensors, file)
    (base / "config.json").write_text('{"model_type": "llama"}')
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    edited = f"model.layers.{shards // 2}.mlp.down_proj.weight"
    turn = rotation("input", 13 * 1024, 1)
    draft = TensorDraft((8192, 13 * 1024), "BF16", "linear", "sha256:" + 64 * "0", [turn])
    build_patch(BaseMeta(), {edited: draft}, None, {}, "test", {}).write(tmp_path / "p")

    begun = time.process_time()
    plan = plan_apply(base, [tmp_path / "p"])
    seconds = time.process_time() - begun

    assert (len(plan.rewritten), len(plan.cloned)) == (1, shards - 1)
    assert plan.bytes_total > 300e9
    assert seconds < 1
