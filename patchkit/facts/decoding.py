"""JSON from outside: UTF-8 or a sentence why not, no repeated keys, no surprising exceptions."""

from __future__ import annotations

import json
from collections import Counter
from typing import NoReturn

from patchkit.errors import FactsError
from patchkit.facts.fact import Problem, invalid

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def without_bom(data: bytes, name: str) -> bytes:
    """`data` without a UTF-8 byte order mark; refuses UTF-16."""
    if data.startswith(_UTF16):
        raise FactsError(
            f"{name} is UTF-16, facts are read as UTF-8",
            hint=f"iconv -f UTF-16 -t UTF-8 {name} > facts.utf8.jsonl",
        )
    return data.removeprefix(_BOM)


def decode_json(data: bytes) -> object:
    """The JSON value in `data`; raises `FactsError` with one problem that says where it breaks."""
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte 0x{data[error.start]:02x} at byte {error.start + 1}"
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        message = f"not JSON: {error.msg} at {line}character {error.colno}"
    except RecursionError:
        message = "JSON nested too deeply"
    except ValueError:  # an integer of thousands of digits
        message = "a number has too many digits"
    raise invalid(Problem(None, None, message))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = next(item for item in Counter(key for key, _ in pairs).items() if item[1] > 1)
        raise invalid(Problem(None, twice, f'the key "{twice}" stands twice', "keep one"))
    return found


def _no_constant(name: str) -> NoReturn:
    raise invalid(Problem(None, None, f"not JSON: {name} is no JSON value"))
