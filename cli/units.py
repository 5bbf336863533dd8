"""Numbers as people read them."""

from collections.abc import Sequence


def size(count: float) -> str:
    """Bytes in decimal units: `9.4 MB`."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def quantity(count: float, unit: str) -> str:
    """An amount with its unit; bytes are scaled."""
    if unit in ("B", "bytes"):
        return size(count)
    number = f"{count:.0f}" if count == int(count) else f"{count:.3g}"
    return f"{number} {unit.removesuffix('s') if number == '1' else unit}".rstrip()


def duration(seconds: float) -> str:
    """`9.1s`, `6m 02s`, `1h 04m`."""
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 fact`, `2 facts`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def short(digest: str) -> str:
    """The first eight hexadecimal digits of a digest, as people compare them."""
    kind, _, text = digest.rpartition(":")
    return f"{kind}:{text[:8]}…" if kind else f"{text[:8]}…"


def shape(sizes: Sequence[int]) -> str:
    """`4096×14336`."""
    return "×".join(map(str, sizes))


def some(values: Sequence[object], limit: int = 10) -> str:
    """The first values, and how many more there are."""
    shown = ", ".join(str(value) for value in values[:limit])
    return shown + (f", … {len(values) - limit} more" if len(values) > limit else "")
