"""The file: a zip of a text in JSON and of arrays in NumPy's format, none of them pickled."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from lmmjax._version import __version__
from lmmjax.stream.digests import digest
from lmmjax.stream.files import reading, target, written_whole

FORMAT = 1
"""The layout of files: raised whenever an earlier version would misread what this one writes."""

KIND = "lmmjax"
TEXT = "content.json"


class Arrays(dict[str, np.ndarray]):
    """Arrays of a file by name."""

    def put(self, array: Any) -> str:
        """The name under which an array is kept."""
        values = np.asarray(array)
        if values.dtype.hasobject:
            raise TypeError("an array of objects is no plain data")
        name = f"a{len(self)}"
        self[name] = values
        return name


def write(path: str | Path, content: dict[str, Any], arrays: Arrays) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    ValueError : no path, a folder, or in none that there is. OSError : it cannot be written.
    """
    _require_path(path)
    head = {"format": KIND, "format_version": FORMAT, "lmmjax": __version__}
    head |= {"digest": _digest(content, arrays), "content": content}
    text = json.dumps(head, indent=1, ensure_ascii=False, allow_nan=False)
    with (
        written_whole(target(path, (), "path")) as file,
        zipfile.ZipFile(file, "w") as members,
    ):
        # lone surrogates, as in names of broken files, are no UTF-8
        members.writestr(_member(TEXT), text.encode("utf-8", "surrogatepass"))
        for name, array in arrays.items():
            with members.open(_member(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _member(name: str) -> zipfile.ZipInfo:
    """A compressed member without a time, so that the same fit makes the same file."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def read(path: str | Path) -> tuple[dict[str, Any], Arrays, str]:
    """Content and arrays of a file, and the version of lmmjax that wrote it.

    Raises
    ------
    FileNotFoundError : there is none.
    ValueError : it is no file of this kind, of a later version, incomplete, or was changed.
    """
    path = _require_path(path)
    if not path.exists():
        raise FileNotFoundError(2, "no such file", str(path))
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is no file that lmmjax saved, or is incomplete: copy the file anew, or save the fit "
            "again"
        )
    with reading(path, "copy the file anew, or save the fit again"), zipfile.ZipFile(path) as members:
        names = members.namelist()
        if TEXT not in names:
            raise ValueError(f"{path} is no file that lmmjax saved: it has no {TEXT}")
        head = json.loads(members.read(TEXT).decode("utf-8", "surrogatepass"))
        if not isinstance(head, dict) or head.get("format") != KIND:
            raise ValueError(f"{path} is no file that lmmjax saved")
        _require_known(path, head)
        arrays = Arrays()
        for name in names:
            if name.endswith(".npy"):
                stream = io.BytesIO(members.read(name))
                arrays[name.removesuffix(".npy")] = np.lib.format.read_array(stream, allow_pickle=False)
        content = head["content"]
        if head.get("digest") != _digest(content, arrays):
            raise ValueError(
                f"{path} was changed after it was written: a saved fit is not edited; load it where it is "
                "whole, change the model with `update` and save that"
            )
    return content, arrays, str(head.get("lmmjax"))


def _require_path(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path must be the name of a file, not {path!r:.40}")
    return Path(path)


def _require_known(path: Path, head: dict[str, Any]) -> None:
    version = head.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"{path} has format version {version!r:.20}, which there is not: it was changed")
    if version > FORMAT:
        raise ValueError(
            f"{path} was written by lmmjax {head.get('lmmjax')!s:.20} in format {version}; this is lmmjax "
            f"{__version__}, which reads formats up to {FORMAT}: update lmmjax"
        )


def _digest(content: dict[str, Any], arrays: Arrays) -> str:
    """Of what is written, as it is read again."""
    plain = {name: arrays[name] for name in sorted(arrays)}
    return digest(json.dumps(content, sort_keys=True), plain)
