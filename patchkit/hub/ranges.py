"""A file on the Hub read by range: headers of weights, without the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import hf_raise_for_status, http_stream_backoff

from patchkit.errors import FormatError
from patchkit.hub.failures import translated
from patchkit.hub.refs import HubRef
from patchkit.hub.wire import Remote, quiet
from patchkit.tensors.header import Header, read_header

_AHEAD = 128 << 10  # what one request brings; most headers are shorter


@dataclass(slots=True)
class RangeSource:
    """A file of one commit as a ByteSource; what was read ahead is read once."""

    api: HfApi
    ref: HubRef
    size: int
    _start: int = 0
    _data: bytes = field(default=b"", repr=False)

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return self.ref.path or ""

    def read(self, start: int, end: int) -> bytes:
        """Bytes [start, end); FormatError for other bytes than asked for, HubError as `look`."""
        if not 0 <= start <= end <= self.size:
            raise FormatError(f"{self.name} has {self.size} bytes; {start} to {end} were asked for")
        if not self._start <= start <= end <= self._start + len(self._data):
            stop = min(max(end, start + _AHEAD), self.size)
            self._start, self._data = start, self._request(start, stop)
        return self._data[start - self._start : end - self._start]

    def _request(self, start: int, end: int) -> bytes:
        url = hf_hub_url(
            self.ref.repo,
            self.name,
            revision=self.ref.revision,
            endpoint=self.api.endpoint,
        )
        # Compressed bytes would not be those of the range.
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        headers |= build_hf_headers(library_name="patchkit")
        data = bytearray()
        with (
            translated(self.ref, "reading"),
            quiet(),
            http_stream_backoff("GET", url, headers=headers, follow_redirects=True) as response,
        ):
            hf_raise_for_status(response)
            # A server that knows no ranges sends all of it.
            if response.status_code == 206 or start == 0:
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) >= end - start:
                        break
        if len(data) < end - start:
            raise FormatError(f"{self.name}: {len(data)} of {end - start} bytes came")
        return bytes(data[: end - start])


def remote_header(api: HfApi, remote: Remote, path: str) -> tuple[Header, bytes]:
    """Read and check the header of a safetensors file of a commit; its parsed form and its bytes.

    Raises FormatError for what is no such file, HubError as `look`.
    """
    source = RangeSource(api, HubRef(remote.ref.repo, remote.commit, path), remote.files[path].size)
    header = read_header(source)
    return header, source.read(0, header.size)


def write_outline(target: Path, head: bytes, size: int) -> None:
    """Write a file of this size that has its first bytes and a hole for the rest."""
    with open(target, "xb") as file:
        file.write(head)
        file.truncate(size)
