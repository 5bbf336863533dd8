"""Patches on the Hub: pushing, naming, pulling and checking them."""

from patchkit.hub.bases import FoundBase, find_base
from patchkit.hub.history import Change, Logged, log
from patchkit.hub.pulling import PullReport, pull
from patchkit.hub.pushing import PushReport, push
from patchkit.hub.refs import HubRef, parse_ref
from patchkit.hub.searching import Found, search
from patchkit.hub.updating import UpdatePlan, UpdateReport, plan_update, update
from patchkit.hub.yanking import YankReport, yank

__all__ = [
    "Change",
    "Found",
    "FoundBase",
    "HubRef",
    "Logged",
    "PullReport",
    "PushReport",
    "UpdatePlan",
    "UpdateReport",
    "YankReport",
    "find_base",
    "log",
    "parse_ref",
    "plan_update",
    "pull",
    "push",
    "search",
    "update",
    "yank",
]
