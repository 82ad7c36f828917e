"""`feie models`: weights of others, listed with their terms, and fetched only when asked for."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from os.path import expanduser
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from pydantic import BaseModel

from feie.features.catalogue import CATALOGUE, Model, find_model
from feie.features.errors import TermsError, UsageError
from feie.features.files import file_sha256, new_file
from feie.pipeline.machine.options import ModelsOptions
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Result

__all__ = ["Entry", "File", "ModelsOptions", "ModelsResult", "file_sha256", "run"]

_TIMEOUT = 30.0  # seconds without an answer
_BLOCK = 1 << 20
_LARGEST = 4 << 30  # bytes of one file; nothing in the catalogue is a quarter of that


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


class ModelsResult(Result):
    """The catalogue, or the one model that was fetched or added."""

    models: list[Entry]
    fetched: bool = False

    @property
    def sound(self) -> bool:
        """Whether no file on disk is another than it should be."""
        return all(file.pinned is not False for entry in self.models for file in entry.files)

    @property
    def exit_code(self) -> int:
        """1 where a file is another than it should be."""
        return 0 if self.sound else 1

    def lines(self) -> list[str]:
        """Name each model with its terms, its files below it."""
        known = {True: "as known", False: "NOT the known file", None: "its sha256 is not known"}
        said = []
        for entry in self.models:
            said.append(f"{entry.name}  ({entry.use})  {entry.licence}")
            said += [f"    {f.path}  sha256 {f.sha256}  {known[f.pinned]}" for f in entry.files]
            if not entry.files:
                said.append(f"    not here: {entry.url} → {entry.folder}")
        return said


def run(options: ModelsOptions, progress: ProgressCallback = silent) -> ModelsResult:
    """List the catalogue, or put one model of it where feie looks for it.

    Raises
    ------
    UsageError
        An unknown name, terms that were not accepted, no network, no file, or a file that is not
        the one that is known.
    """
    if options.action == "list":
        names = [options.name] if options.name else list(CATALOGUE)
        return ModelsResult(models=[_entry(_model(name)) for name in names])
    if not options.name:
        raise UsageError(f"say which model to {options.action}: {', '.join(CATALOGUE)}")
    model = _model(options.name)
    if not model.commercial and not options.yes:
        raise TermsError(
            f"{model.name}: {model.licence}; say --yes if your use is allowed by that",
            question=f"{model.name}: {model.licence}. Is your use allowed by that?",
            option="yes",
        )
    if options.action == "fetch":
        _fetch(model, options.mirror, progress)
    elif options.file is not None:
        _add(model, options.file)
    else:
        raise UsageError(f"say which file to add: feie models add {options.name} FILE")
    return ModelsResult(models=[_entry(model)], fetched=True)


def _model(name: str) -> Model:
    if (model := find_model(name)) is None:
        raise UsageError(f"no model {name!r}; there are {', '.join(CATALOGUE)}")
    return model


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
        folder=str(Path(expanduser(model.folder))),
        files=files,
    )


def _folder(model: Model) -> Path:
    """Give the folder where a model belongs."""
    folder = Path(expanduser(model.folder))
    if folder.parts[0] == "~":
        raise UsageError(
            f"{model.name} belongs into {folder}, and no home folder is known: set HOME"
        )
    return folder


def _fetch(model: Model, mirror: str | None, progress: ProgressCallback) -> None:
    folder = _folder(model)
    url = f"{mirror.rstrip('/')}/{model.file}" if mirror else model.url
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"{url} is no http address; copy the file to {folder} instead")
    with _scratch(folder.parent) as scratch:
        archive = scratch / model.file
        try:
            _download(url, archive, progress)
        except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
            raise UsageError(_by_hand(model, url, error)) from error
        _keep(model, archive, url)


def _add(model: Model, file: Path) -> None:
    """Copy a file that is here already to where it belongs."""
    if not file.is_file():
        raise UsageError(f"there is no file {file}")
    with _scratch(_folder(model).parent) as scratch:
        _keep(model, Path(shutil.copyfile(file, scratch / model.file)), str(file))


def _keep(model: Model, archive: Path, origin: str) -> None:
    """Unpack and check what arrived in a scratch folder, then move it where it belongs."""
    unpacked = archive.parent / "files"
    unpacked.mkdir()
    if model.is_archive:
        _unpack(archive, unpacked)
    else:
        archive.replace(unpacked / model.file)
    for name, known in model.sha256.items():
        if not (unpacked / name).is_file():
            raise UsageError(f"{origin} holds no {name}; nothing was kept")
        if (found := file_sha256(unpacked / name)) != known:
            raise UsageError(
                f"{name} of {origin} has sha256 {found}, known is {known}: it was altered or "
                "replaced, and nothing was kept"
            )
    folder = _folder(model)
    folder.mkdir(parents=True, exist_ok=True)
    for path in unpacked.iterdir():
        path.replace(folder / path.name)


def _by_hand(model: Model, url: str, error: Exception) -> str:
    reason = f"{error.code} {error.reason}" if isinstance(error, HTTPError) else str(error)
    verb = "unpack it into" if model.is_archive else "copy it to"
    return (
        f"{url} cannot be fetched ({reason}); on a machine with a network, download {model.url} "
        f"and {verb} {Path(expanduser(model.folder))} here, or: feie models add {model.name} FILE"
    )


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """Give a folder on the same disk that is gone afterwards: files arrive whole or not."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".feie-") as name:
        yield Path(name)


def _download(url: str, target: Path, progress: ProgressCallback) -> None:
    with urlopen(url, timeout=_TIMEOUT) as answer, new_file(target) as file:
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
                    with opened.open(member) as source, new_file(folder / name) as target:
                        shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"{archive.name} is no archive: {error}; nothing was kept") from error
    if not any(folder.iterdir()):
        raise UsageError(f"{archive.name} holds no ONNX file; nothing was kept")
