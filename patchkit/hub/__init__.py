"""Patches on the Hub: pushing, naming, pulling and checking them."""

from patchkit.hub.bases import FoundBase, find_base
from patchkit.hub.pulling import PullReport, pull
from patchkit.hub.pushing import PushReport, push
from patchkit.hub.refs import HubRef, parse_ref
from patchkit.hub.yanking import YankReport, yank

__all__ = [
    "FoundBase",
    "HubRef",
    "PullReport",
    "PushReport",
    "YankReport",
    "find_base",
    "parse_ref",
    "pull",
    "push",
    "yank",
]
