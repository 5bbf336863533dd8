"""What is fuzzed: readers of everything that comes from outside, and what they may raise.

A target takes bytes. It returns, or raises one of its errors; anything else is a defect, and so is
a result that breaks what the reader promises.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import get_args

import torch

from patchkit.apply import apply_patches
from patchkit.apply.lock import read_lock, root_of
from patchkit.errors import FactsError, FormatError, HubError, PatchkitError
from patchkit.facts.jsonl import parse_jsonl, to_jsonl
from patchkit.facts.reading import Format, parse_facts
from patchkit.hub.card import CARD, Subject, card_text
from patchkit.hub.index import Listed, read_index, write_index
from patchkit.hub.refs import parse_ref
from patchkit.hub.sound import sound
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import Patch
from patchkit.patch.reader import read_info
from patchkit.revert import plan_revert
from patchkit.signing import check_signature, sign, signature_path
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.header import read_header
from patchkit.tensors.source import BytesSource
from patchkit.undo.sidecar import MAGIC, Corrections, read_undo, to_json
from patchkit.verify import verify_patch
from tests.fuzz import mutations
from tests.fuzz.mutations import Mutation
from tests.unit.facts import samples as data_sets
from tests.unit.patch.samples import FACTS, sample
from tests.unit.tensors.folders import D_IN, LINEAR, rotation, weights, write_folder, write_patch

ZERO = "sha256:" + "0" * 64
_LISTED = Listed("a.patch.safetensors", ZERO, 9, BaseMeta("org/base", "main", ZERO), (ZERO,), 2)
_FORMATS: tuple[Format, ...] = get_args(Format)
_REFS = (
    "org/name", "hf://org/name@main/a.patch.safetensors", "o/n@refs/pr/1/x/y.patch.safetensors",
    "org/name@feature%2Fone", f"org/name@{'a' * 40}",
)  # fmt: skip
_CARDS = (
    "---\nlicense: mit\ntags: [a, b]\nbase_model: org/base\n---\n# Mine\n\ntext\n",
    "---\na: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nlicense: *c\n---\n",
    "# no metadata\n",
)


@dataclass(frozen=True)
class Target:
    """One reader: how inputs for it are made, and which errors are its answer to bad ones."""

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    mutations: tuple[Mutation, ...]
    errors: tuple[type[Exception], ...] = ()


def targets(folder: Path) -> dict[str, Target]:
    """All targets by name; `folder` is theirs to write in."""
    base = write_folder(folder / "base", weights(torch.float32), shards=2)
    write_patch(folder / "p", base, {LINEAR[0]: [rotation("input", D_IN, 1)]})
    apply_patches(base, [folder / "p"], folder / "out", undo=True)
    patches = (sample().to_bytes(), sample("bfloat16", additive=False).to_bytes())
    fitting = ((folder / "p").read_bytes(),)
    card = Subject("ada/caps", [_LISTED], {_LISTED.path: sound(patches[1], name="a")})
    binary = (mutations.damaged, mutations.as_file, mutations.as_patch, mutations.as_patch)
    text = (mutations.damaged, mutations.as_json, mutations.as_json)
    sealed = (mutations.damaged, mutations.as_json, mutations.as_sealed, mutations.as_sealed)
    shard = (folder / "base" / "model-00001-of-00002.safetensors").read_bytes()
    index = (folder / "base" / "model.safetensors.index.json").read_bytes()
    lock = (folder / "out" / "patchkit.lock.json").read_bytes()
    undo = (folder / "out" / "patchkit.undo").read_bytes()
    made = {
        "reader": Target(_reader, patches, binary, (FormatError,)),
        "verify": Target(_verify, (*patches, *fitting), binary, ()),
        "verify-base": Target(partial(_verify, base=base), (*patches, *fitting), binary, ()),
        "push": Target(_push, patches, binary, (PatchkitError,)),
        "header": Target(_shard, (shard, *patches), binary[:2], (FormatError,)),
        "checkpoint": Target(partial(_checkpoint, base), (index,), text, (PatchkitError,)),
        "lock": Target(partial(_lock, folder / "out"), (lock,), sealed, (PatchkitError,)),
        "undo": Target(partial(_undo, folder / "out"), (undo,), (_as_undo,), (FormatError,)),
        "index": Target(_index, (write_index([_LISTED]),), text, (FormatError, HubError)),
        "facts": Target(_facts, _fact_files(), (*text, mutations.as_lines), (FactsError,)),
        "refs": Target(_ref, tuple(r.encode() for r in _REFS), (mutations.as_text,), (HubError,)),
        "card": Target(
            partial(_card, card), tuple(c.encode() for c in _CARDS),
            (mutations.damaged, mutations.as_text), (FormatError,),
        ),
        "terminal": Target(partial(_terminal, folder), patches, binary, ()),
    }  # fmt: skip
    return made | _signature_target(folder) if find_spec("model_signing") else made


def _signature_target(folder: Path) -> dict[str, Target]:
    """A signature file beside a patch; signed by another key it is refused, whatever it says."""
    from tests.unit.test_signing import write_keys

    path = folder / "signed.patch.safetensors"
    path.write_bytes(sample().to_bytes())
    write_keys(folder)
    bundle = sign(path, folder / "ada.pem").read_bytes()

    def run(data: bytes) -> None:
        signature_path(path).write_bytes(data)
        assert check_signature(path, folder / "ada.pub").ok or data != bundle
        assert not check_signature(path, folder / "eve.pub").ok

    text = (mutations.damaged, mutations.as_json, mutations.as_json)
    return {"signature": Target(run, (bundle,), text)}


def _reader(data: bytes) -> None:
    info = read_info(data)
    assert info.bytes == len(data)
    assert info.metadata.to_json() == info.header.metadata["patchkit"].encode()


def _verify(data: bytes, base: Path | None = None) -> None:
    """Checks are always complete; what passes all of them reads back as the same bytes."""
    report = verify_patch(data, base=base)
    assert len(report.checks) == 11
    if report.ok:
        assert Patch.read(data).to_bytes() == data


def _push(data: bytes) -> None:
    """What a push takes has a card, and the card is the same the next time."""
    checked = sound(data, name="a.patch.safetensors")
    listed = Listed.of("a.patch.safetensors", checked.info)
    subject = Subject("ada/caps", [listed], {listed.path: checked})
    text = card_text(None, subject)
    assert text == card_text(text, subject)
    assert all(c.isprintable() or c == "\n" for c in text)


def _shard(data: bytes) -> None:
    header = read_header(BytesSource("shard", data))
    assert header.size + sum(info.nbytes for info in header.tensors.values()) == len(data)


def _checkpoint(base: Path, data: bytes) -> None:
    place = base / "model.safetensors.index.json"
    place.write_bytes(data)
    found = Checkpoint.open(base)
    assert all((base / entry.shard).parent == base for entry in found.tensors.values())


def _lock(out: Path, data: bytes) -> None:
    """A lock that is read is the one that is written, and leads to no shard elsewhere."""
    (out / "patchkit.lock.json").write_bytes(data)
    lock = read_lock(out)
    assert lock is not None
    assert lock.to_json() == data
    plan = plan_revert(out)
    assert all((out / shard).is_file() and "/" not in shard for shard in plan.shards)
    root_of(out)


def _undo(out: Path, data: bytes) -> None:
    (out / "patchkit.undo").write_bytes(data)
    undo = read_undo(out)
    assert undo is not None
    assert list(undo.damaged()) in ([], list(undo.tensors)) or len(undo.tensors) > 1


def _as_undo(random: Random, data: bytes) -> bytes:
    """A sidecar whose description is changed, digested and of the length it says."""
    length = int.from_bytes(data[-8:], "little")
    if random.random() < 0.4 or length > len(data):
        return mutations.damaged(random, data)
    end = len(data) - 8 - length
    try:
        found = mutations.changed_json(random, json.loads(data[end:-8]))
        tensors = {name: Corrections(**each) for name, each in found["tensors"].items()}
        text = to_json(tuple(found["patches"]), tensors)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return mutations.damaged(random, data)
    return (data[:end] or MAGIC) + text + len(text).to_bytes(8, "little")


def _index(data: bytes) -> None:
    listed = read_index(data)
    assert read_index(write_index(listed)) == listed
    assert not any(".." in each.path.split("/") for each in listed)


def _fact_files() -> tuple[bytes, ...]:
    records = (
        data_sets.KNOWEDIT_ZSRE, data_sets.WIKIBIO, data_sets.CONCEPT, data_sets.MQUAKE,
        data_sets.leme(data_sets.KNOWEDIT_ZSRE),
    )  # fmt: skip
    return (
        FACTS,
        *(json.dumps([record]).encode() for record in records),
        json.dumps(data_sets.ripples()).encode(),
    )


def _facts(data: bytes) -> None:
    """Facts that are read can be written, and are the same when they are read again."""
    for format in ("auto", _FORMATS[len(data) % len(_FORMATS)]):
        facts = parse_facts(data, format).facts
        assert parse_jsonl(to_jsonl(facts)).facts == facts


def _ref(data: bytes) -> None:
    ref = parse_ref(data.decode(errors="replace"))
    for part in (
        *ref.repo.split("/"),
        *(ref.revision or "a").split("/"),
        *(ref.path or "a").split("/"),
    ):
        assert part not in ("", ".", "..")
    if "%" not in str(data) and "/" not in (ref.revision or ""):
        assert parse_ref(str(ref)) == ref


def _card(subject: Subject, data: bytes) -> None:
    """Bringing a card up to date a second time changes nothing."""
    text = card_text(data.decode(errors="replace"), subject)
    assert card_text(text, subject) == text, CARD


def _terminal(folder: Path, data: bytes) -> None:
    """Whatever a patch holds, only printable characters reach the terminal."""
    from tests.cli.helpers import run

    path = folder / "hostile.patch.safetensors"
    path.write_bytes(data)
    for command in (("inspect", "--all"), ("facts", "--all")):
        ran = run(command[0], path, *command[1:])
        assert ran.code in (0, 1)
        assert all(c.isprintable() or c == "\n" for c in ran.stdout + ran.stderr)
    read_info_again = run("inspect", path, "--json")
    assert read_info_again.data["schema"] in ("patchkit.inspect/1", "patchkit.error/1")
