"""Patches on the Hub: pushing, naming, pulling and checking them."""

from patchkit.hub.pulling import PullReport, pull
from patchkit.hub.pushing import PushFile, PushReport, push
from patchkit.hub.refs import HubRef, parse_ref

__all__ = ["HubRef", "PullReport", "PushFile", "PushReport", "parse_ref", "pull", "push"]
