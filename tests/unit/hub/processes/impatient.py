"""A process that runs the command line in children of its own, in which no retry waits for long.

Reads lines of JSON `{"arguments", "environment", "folder", "disk", "endpoint", "xet"}` and answers
each with the child's process id. The child leaves `stdout`, `stderr` and, at its end, `code` in the
folder. `disk` is how many bytes a download may write before the disk is full, `xet` whether large
files travel in chunks.
"""

import errno
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub import constants

import patchkit.apply
import patchkit.export
import patchkit.hub
import patchkit.verify
from patchkit_cli.main import run

PRELOADED = (torch, patchkit.apply, patchkit.export, patchkit.hub, patchkit.verify)


class Limited:
    """A file that takes some bytes and then no more."""

    def __init__(self, file: Any, room: int) -> None:
        self._file = file
        self._room = room

    def write(self, data: bytes) -> int:
        if len(data) > self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._room -= len(data)
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "Limited":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def fill_the_disk(room: int) -> None:
    """Let what the client downloads have that much room."""
    opened = pathlib.Path.open

    def limited(self: pathlib.Path, *given: Any, **options: Any) -> Any:
        file = opened(self, *given, **options)
        return Limited(file, room) if self.name.endswith(".incomplete") else file

    setattr(pathlib.Path, "open", limited)  # noqa: B010


def hurry() -> None:
    """Shorten every wait."""
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.02))


def work(order: Mapping[str, Any]) -> int:
    """Run one command as the child that this process is now."""
    folder = pathlib.Path(order["folder"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder.parent)
    os.environ.update(order["environment"])
    constants.HF_HUB_DISABLE_XET = not order["xet"]
    if order["endpoint"]:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        constants.HUGGINGFACE_CO_URL_TEMPLATE = order["endpoint"] + template
        constants.ENDPOINT = order["endpoint"]
    if order["disk"] is not None:
        fill_the_disk(order["disk"])
    sys.argv = ["patchkit", *order["arguments"]]
    try:
        run()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def main() -> None:
    """Answer orders until there are no more."""
    hurry()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 99
            try:
                code = work(order)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                done = pathlib.Path(order["folder"], "code")
                done.with_name("code.new").write_text(str(int(code)))
                done.with_name("code.new").rename(done)
                os._exit(0)
        print(child, flush=True)


main()
