"""The page on the lock and the journal names the fields that are written, and no others."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from patchkit.apply import lock
from patchkit.apply.lock import Lock, LockedBase, LockedPatch, LockedShard, LockedTensor
from patchkit.tensors import journal
from patchkit.tensors.journal import JOURNAL, Finished, Journal
from patchkit.tensors.rewrite import LOCK

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "lock.md").read_text(encoding="utf-8")


def tables() -> list[list[str]]:
    """First cells of each table of the page, heads left out."""
    found = re.findall(r"^\| field \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, flags=re.M)
    return [re.findall(r"^\| `(\w+)`", table, flags=re.M) for table in found]


def names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def test_the_fields_are_those_of_the_code(tmp_path: Path) -> None:
    empty = Lock(LockedBase(None, None, None, ""), (), {}, {})
    made = Journal.begin(tmp_path, {"base": "x"})
    made.add("a", Finished())
    written = json.loads((tmp_path / JOURNAL).read_text())
    whole, base, patch, tensor, shard, running, finished = tables()
    assert sorted(whole) == sorted(json.loads(empty.to_json()))
    assert base == names(LockedBase)
    assert patch == names(LockedPatch)
    assert tensor == names(LockedTensor)
    assert shard == names(LockedShard)
    assert sorted(running) == sorted(written)
    assert finished == names(Finished)
    assert sorted(finished) == sorted(written["finished"]["a"])


@pytest.mark.parametrize("text", [LOCK, JOURNAL, lock.SCHEMA, journal.SCHEMA])
def test_files_and_schemas_have_their_names(text: str) -> None:
    assert f"`{text}`" in PAGE
