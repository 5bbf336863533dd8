"""Patches on the Hub: pushing, naming, pulling and checking them."""

from patchkit.hub.bases import FoundBase, find_base
from patchkit.hub.pulling import PullReport, pull
from patchkit.hub.pushing import PushFile, PushReport, push
from patchkit.hub.refs import HubRef, parse_ref

__all__ = [
    "FoundBase",
    "HubRef",
    "PullReport",
    "PushFile",
    "PushReport",
    "find_base",
    "parse_ref",
    "pull",
    "push",
]
