"""`feie models`: weights of others, listed with their terms, and fetched only when asked for."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from pydantic import BaseModel, ConfigDict

from feie.features.errors import UsageError
from feie.pipeline.model_catalogue import CATALOGUE, Model
from feie.pipeline.progress import Progress, ProgressCallback, silent

_TIMEOUT = 30.0  # seconds without an answer
_BLOCK = 1 << 20
_LARGEST = 4 << 30  # bytes of one file; nothing in the catalogue is a quarter of that


class ModelsOptions(BaseModel):
    """What to do.

    Attributes
    ----------
    action : {"list", "fetch"}
    name : str, optional
        Of the catalogue; what to fetch.
    yes : bool
        Accept terms that forbid commercial use.
    mirror : str, optional
        Take the file from this address, a folder, instead of where its makers publish it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["list", "fetch"] = "list"
    name: str | None = None
    yes: bool = False
    mirror: str | None = None


class File(BaseModel):
    """A file on this machine.

    Attributes
    ----------
    pinned : bool or None
        Whether its hash is the one that is known; None where none is known.
    """

    path: str
    sha256: str
    pinned: bool | None


class Entry(BaseModel):
    """A model and what is there of it."""

    name: str
    use: str
    licence: str
    commercial: bool
    url: str
    folder: str
    files: list[File]


class ModelsResult(BaseModel):
    """The catalogue, or the one model that was fetched."""

    models: list[Entry]
    fetched: bool = False

    @property
    def sound(self) -> bool:
        """Whether no file on disk is another than it should be."""
        return all(file.pinned is not False for entry in self.models for file in entry.files)


def run(options: ModelsOptions, progress: ProgressCallback = silent) -> ModelsResult:
    """List the catalogue, or download one model of it to where feie looks for it.

    Raises
    ------
    UsageError
        An unknown name, terms that were not accepted, no network, or a file that is not the one
        that is known.
    """
    if options.action == "list":
        names = [options.name] if options.name else list(CATALOGUE)
        return ModelsResult(models=[_entry(_model(name)) for name in names])
    if not options.name:
        raise UsageError(f"say which model to fetch: {', '.join(CATALOGUE)}")
    model = _model(options.name)
    if not model.commercial and not options.yes:
        raise UsageError(f"{model.name}: {model.licence}; say --yes if your use is allowed by that")
    _fetch(model, options.mirror, progress)
    return ModelsResult(models=[_entry(model)], fetched=True)


def _model(name: str) -> Model:
    if name not in CATALOGUE:
        raise UsageError(f"no model {name!r}; there are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def _entry(model: Model) -> Entry:
    files = []
    for path in model.on_disk():
        digest, known = file_sha256(path), model.sha256.get(path.name)
        pinned = None if known is None else digest == known
        files.append(File(path=str(path), sha256=digest, pinned=pinned))
    return Entry(
        name=model.name,
        use=model.use,
        licence=model.licence,
        commercial=model.commercial,
        url=model.url,
        folder=str(model.folder.expanduser()),
        files=files,
    )


def file_sha256(path: Path) -> str:
    """Give the hexadecimal hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(model: Model, mirror: str | None, progress: ProgressCallback) -> None:
    folder = model.folder.expanduser()
    url = f"{mirror.rstrip('/')}/{model.file}" if mirror else model.url
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"{url} is no http address; copy the file to {folder} instead")
    with _scratch(folder.parent) as scratch:
        archive = scratch / model.file
        try:
            _download(url, archive, progress)
        except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
            raise UsageError(_by_hand(model, url, error)) from error
        unpacked = scratch / "files"
        unpacked.mkdir()
        if model.is_archive:
            _unpack(archive, unpacked)
        else:
            archive.replace(unpacked / model.file)
        for name, known in model.sha256.items():
            if not (unpacked / name).is_file():
                raise UsageError(f"{url} holds no {name}; nothing was kept")
            if (found := file_sha256(unpacked / name)) != known:
                raise UsageError(
                    f"{name} of {url} has sha256 {found}, known is {known}: it was altered or "
                    "replaced, and nothing was kept"
                )
        folder.mkdir(parents=True, exist_ok=True)
        for path in unpacked.iterdir():
            path.replace(folder / path.name)


def _by_hand(model: Model, url: str, error: Exception) -> str:
    reason = f"{error.code} {error.reason}" if isinstance(error, HTTPError) else str(error)
    verb = "unpack it into" if model.is_archive else "copy it to"
    return (
        f"{url} cannot be fetched ({reason}); on a machine with a network, download {model.url} "
        f"and {verb} {model.folder.expanduser()} here"
    )


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """Give a folder on the same disk that is gone afterwards, so that files arrive whole or not."""
    parent.mkdir(parents=True, exist_ok=True)
    scratch = parent / f".feie-{uuid.uuid4().hex}"
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _download(url: str, target: Path, progress: ProgressCallback) -> None:
    with urlopen(url, timeout=_TIMEOUT) as answer, target.open("wb") as file:
        size = int(answer.headers.get("Content-Length") or 0)
        done = 0
        while block := answer.read(_BLOCK):
            file.write(block)
            done += len(block)
            if done > _LARGEST:
                raise UsageError(f"{url} is larger than any model; nothing was kept")
            progress(Progress("MB", done // _BLOCK, (size // _BLOCK) or None))
        file.flush()
        os.fsync(file.fileno())
    if size and done < size:
        raise URLError(f"it ended after {done} of {size} bytes")


def _unpack(archive: Path, folder: Path) -> None:
    """Take the ONNX files out of an archive, under their bare names."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                name = PurePosixPath(member.filename).name
                if name.endswith(".onnx") and not member.is_dir() and member.file_size < _LARGEST:
                    with opened.open(member) as source, (folder / name).open("wb") as target:
                        shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"{archive.name} is no archive: {error}; nothing was kept") from error
    if not any(folder.iterdir()):
        raise UsageError(f"{archive.name} holds no ONNX file; nothing was kept")
