"""Ready programs on disk, so that a process that has seen a kind of model traces and compiles nothing.

`names` says what a program depends on, `folder` where files lie and who may have written them, `files` reads
and writes them.
"""

from lmmjax.arrays.store.files import drop, load, read, save, write
from lmmjax.arrays.store.folder import LARGEST, clear, contents, directory, enabled, place
from lmmjax.arrays.store.names import SETTINGS, Unnamed, digest, name_of

__all__ = [
    "LARGEST",
    "SETTINGS",
    "Unnamed",
    "clear",
    "contents",
    "digest",
    "directory",
    "drop",
    "enabled",
    "load",
    "name_of",
    "place",
    "read",
    "save",
    "write",
]
