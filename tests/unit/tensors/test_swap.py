"""Whatever fails or is killed between two renames, one whole folder stands at its name."""

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from patchkit.tensors import swap as swapping
from patchkit.tensors.swap import exchange, recover, swap


class Killed(BaseException):
    """Ends the work at once, as far as the disk can tell."""


@pytest.fixture(params=["one step", "two steps"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchange names as Linux can, or not."""
    if request.param == "two steps":
        monkeypatch.setattr(swapping, "exchange", lambda *_: False)


def folders(place: Path) -> tuple[Path, Path]:
    out, finished = place / "out", place / "out.partial"
    for folder, text in ((out, "old"), (finished, "new")):
        folder.mkdir()
        (folder / "text").write_text(text)
    (finished / "journal").write_text("")
    return out, finished


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def fail_at(monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> None:
    """Let the `call`-th rename raise, and after a kill everything that follows."""
    calls: list[object] = []

    def rename(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == call or (len(calls) > call and isinstance(error, Killed)):
            raise error
        real_rename(source, target)

    def remove(folder: Path, *, ignore_errors: bool = False) -> None:
        if len(calls) < call or not isinstance(error, Killed):
            real_remove(folder, ignore_errors=ignore_errors)

    real_rename, real_remove = os.rename, swapping.shutil.rmtree
    monkeypatch.setattr(swapping.os, "rename", rename)
    monkeypatch.setattr(swapping.shutil, "rmtree", remove)


@pytest.mark.usefixtures("steps")
def test_the_new_folder_stands_without_what_is_dropped(tmp_path: Path) -> None:
    out, finished = folders(tmp_path)
    swap(finished, out, drop="journal")
    assert names(tmp_path) == {"out"}
    assert (names(out), (out / "text").read_text()) == ({"text"}, "new")


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_error_leaves_the_old_folder_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    out, finished = folders(tmp_path)
    with monkeypatch.context() as patched:
        fail_at(patched, call, OSError(errno.EIO, "broken"))
        try:
            swap(finished, out, drop="journal")
            expected = "new"
        except OSError:
            expected = "old"
    assert (out / "text").read_text() == expected
    assert names(tmp_path) <= {"out", "out.partial"}


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_after_a_kill_the_next_run_finds_a_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    out, finished = folders(tmp_path)
    with monkeypatch.context() as patched:
        fail_at(patched, call, Killed())
        with suppress(Killed):
            swap(finished, out, drop="journal")
    recover(out)
    assert (out / "text").read_text() in ("old", "new")
    assert names(tmp_path) <= {"out", "out.partial"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a call of Linux")
def test_names_are_exchanged_or_left(tmp_path: Path) -> None:
    out, finished = folders(tmp_path)
    assert exchange(finished, out)
    assert (out / "text").read_text() == "new"
    assert (finished / "text").read_text() == "old"
    assert not exchange(tmp_path / "missing", out)
    assert (out / "text").read_text() == "new"
