"""A process that applies patches in children of its own, which kill themselves when told to.

Reads lines `base, patch, out, event, delay` separated by tabs: the child is killed `delay` seconds
after it touched the file system for the `event`-th time, never if that is 0. Answers each with
the child's exit code and how often it touched the file system (0 if it was killed).
"""

import os
import signal
import sys
import threading
import time
import traceback

from patchkit.apply import apply_patches, weights  # with torch, before any child begins

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


class Bomb:
    """Counts events, and kills this process a while after one of them."""

    def __init__(self, event: int, delay: float) -> None:
        self.event = event
        self.delay = delay
        self.seen = 0

    def __call__(self, event: str, _: object) -> None:
        if event not in EVENTS:
            return
        self.seen += 1
        if self.seen == self.event and self.delay:
            threading.Thread(target=self.burn, daemon=True).start()
        elif self.seen == self.event:
            self.burn()

    def burn(self) -> None:
        time.sleep(self.delay)
        os.kill(os.getpid(), signal.SIGKILL)


def child(base: str, patch: str, out: str, bomb: Bomb) -> int:
    assert weights
    sys.addaudithook(bomb)
    try:
        apply_patches(base, [patch], out, overwrite=True, resume=True)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    for line in sys.stdin:
        base, patch, out, event, delay = line.rstrip("\n").split("\t")
        reader, writer = os.pipe()
        number = os.fork()
        if not number:
            bomb = Bomb(int(event), float(delay))
            code = child(base, patch, out, bomb)
            os.write(writer, str(bomb.seen).encode())
            os._exit(code)
        os.close(writer)
        seen = os.read(reader, 20).decode() or "0"
        os.close(reader)
        print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), seen, flush=True)
    os._exit(0)  # torch takes long to take down


if __name__ == "__main__":
    main()
