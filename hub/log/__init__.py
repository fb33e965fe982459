"""The durable log: transactions appended by tasks, kept in files of our own, followed by readers.

`Log` is the whole of it; docs/log.md has the format and the promises.
"""

from hub.log.follower import Follower
from hub.log.fs import FS, OsFS
from hub.log.large import LargeTransaction
from hub.log.log import Log
from hub.log.options import DURABILITY_TEXT, LogOptions, Retention
from hub.log.reader import LostData, Reader
from hub.log.replay import Gap
from hub.log.transaction import Committed, Item, Schema, Transaction

__all__ = [
    "DURABILITY_TEXT",
    "FS",
    "Committed",
    "Follower",
    "Gap",
    "Item",
    "LargeTransaction",
    "Log",
    "LogOptions",
    "LostData",
    "OsFS",
    "Reader",
    "Retention",
    "Schema",
    "Transaction",
]
