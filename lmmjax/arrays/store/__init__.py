"""Ready programs on disk, so that a process that has seen a kind of model traces and compiles nothing.

`names` says what a program depends on, `folder` where files lie and who may have written them, `files` reads
and writes them.
"""

from lmmjax.arrays.store.files import load, save
from lmmjax.arrays.store.folder import clear, contents, enabled, folder
from lmmjax.arrays.store.names import SETTINGS, Unnamed, canonical, digest, name_of

__all__ = [
    "SETTINGS",
    "Unnamed",
    "canonical",
    "clear",
    "contents",
    "digest",
    "enabled",
    "folder",
    "load",
    "name_of",
    "save",
]
