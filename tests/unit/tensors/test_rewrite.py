"""Folders appear whole or not at all; copies differ only where they are overwritten."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchkit.errors import FormatError, OutputError
from patchkit.tensors import clone, rewrite
from patchkit.tensors.rewrite import JOURNAL, RangeWriter, staged_folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def no_kernel_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_a_filled_and_overwritten_copy_differs_only_there(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("copy")
    points = sorted(min(cut, len(data)) for cut in cuts)
    ranges = list(zip(points[::2], points[1::2], strict=False))
    (folder / "a").write_bytes(data)
    expected = bytearray(data)
    for start, end in ranges:
        expected[start:end] = b"#" * (end - start)
    shared = clone.create(folder / "a", folder / "b")
    with RangeWriter(folder / "b") as writer:
        for start, end in ranges:
            writer.write(start, b"#" * (end - start))
    if not shared:
        copied = clone.fill(folder / "a", folder / "b", leave_out=ranges)
        assert copied == len(data) - sum(end - start for start, end in ranges)
    assert (folder / "b").read_bytes() == expected
    assert (folder / "a").read_bytes() == data
    assert os.stat(folder / "a").st_ino != os.stat(folder / "b").st_ino


@pytest.mark.usefixtures("no_kernel_copy")
def test_copying_works_without_help_of_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 50)
    clone.create(tmp_path / "a", tmp_path / "b")
    clone.fill(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()


def test_a_reflink_is_tried_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    calls = []

    def ioctl(target: int, request: int, source: int) -> int:
        calls.append(request)
        os.write(target, os.read(source, 100))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.setattr(clone.sys, "platform", "linux")
    (tmp_path / "a").write_bytes(b"shared")
    assert clone.create(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"shared"
    assert clone.can_reflink(tmp_path / "a", tmp_path)
    assert calls == [0x40049409] * 2
    assert names(tmp_path) == {"a", "b"}


def test_a_source_that_shrinks_while_copied_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clone, "_in_kernel", lambda *_: 0)
    monkeypatch.setattr(clone, "_by_hand", lambda *_: 0)
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(OSError, match="ended at byte 0"):
        clone.fill(tmp_path / "a", tmp_path / "b")


def test_a_missing_source_is_no_fault_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="a is not a file"):
        clone.create(tmp_path / "a", tmp_path / "b")


def test_copying_can_be_stopped(tmp_path: Path) -> None:
    def stop() -> None:
        raise InterruptedError

    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(InterruptedError):
        clone.fill(tmp_path / "a", tmp_path / "b", check=stop)


def test_a_folder_appears_at_the_end_without_its_journal(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "out") as folder:
        assert names(tmp_path) == {"out.partial"}
        assert names(folder) == {JOURNAL}
        (folder / "file").write_text("x")
    assert names(tmp_path) == {"out"}
    assert names(tmp_path / "out") == {"file"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_inside_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def work() -> None:
        with staged_folder(tmp_path / "out") as folder:
            (folder / "file").write_text("x")
            raise error

    with pytest.raises(error):
        work()
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space is left"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "input/output"),
    ],
)
def test_a_disk_error_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, code: int, words: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    with (
        pytest.raises(OutputError, match=words),
        staged_folder(tmp_path / "out", overwrite=True),
    ):
        raise OSError(code, os.strerror(code))
    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out" / "config.json").read_text() == "{}"


def test_an_existing_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="out exists") as caught, staged_folder(tmp_path / "out"):
        pytest.fail("should not begin")
    assert "--yes" in (caught.value.hint or "")


def test_an_existing_model_is_replaced_when_asked(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("old")
    with staged_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "config.json").write_text("new")
        assert (tmp_path / "out" / "config.json").read_text() == "old"
    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out" / "config.json").read_text() == "new"


def test_a_failed_swap_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("old")
    rename = os.rename

    def fail_for_partial(source: Path, target: Path) -> None:
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(rewrite.os, "rename", fail_for_partial)
    with pytest.raises(OutputError), staged_folder(tmp_path / "out", overwrite=True):
        pass
    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out" / "config.json").read_text() == "old"


def test_a_folder_that_holds_no_model_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with (
        pytest.raises(OutputError, match="holds no model"),
        staged_folder(tmp_path / "out", overwrite=True),
    ):
        pytest.fail("should not begin")


def test_a_file_is_never_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with (
        pytest.raises(OutputError, match="not a folder"),
        staged_folder(tmp_path / "out", overwrite=True),
    ):
        pytest.fail("should not begin")


@pytest.mark.parametrize("place", ["missing/out", "file/out"])
def test_an_output_needs_a_folder_to_be_in(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is not a folder"), staged_folder(tmp_path / place):
        pytest.fail("should not begin")


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / JOURNAL).write_text("{}")
    (tmp_path / "out.partial" / "half").write_text("x")
    with staged_folder(tmp_path / "out") as folder:
        assert names(folder) == {JOURNAL}


def test_a_folder_of_somebody_else_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    with pytest.raises(OutputError, match="in the way"), staged_folder(tmp_path / "out"):
        pytest.fail("should not begin")
    assert names(tmp_path) == {"out.partial"}


def test_an_unwritable_place_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="permission denied"), staged_folder(tmp_path / "out"):
        pytest.fail("should not begin")


@pytest.mark.parametrize("repository", ["models--a--b", "datasets--a--b", "spaces--a--b"])
@pytest.mark.parametrize("folder", ["snapshots/0e9e", "blobs", "new"])
def test_a_download_cache_is_never_written_to(tmp_path: Path, repository: str, folder: str) -> None:
    inside = tmp_path / "hub" / repository / folder
    inside.mkdir(parents=True)
    (tmp_path / "link").symlink_to(inside)
    for out in (inside / "out", tmp_path / "link" / "out", inside):
        with (
            pytest.raises(OutputError, match="download cache of the Hub") as caught,
            staged_folder(out, overwrite=True),
        ):
            pytest.fail("should not begin")
        assert "-o" in (caught.value.hint or "")
    assert names(inside) == set()
    assert names(inside.parent) == {inside.name}
