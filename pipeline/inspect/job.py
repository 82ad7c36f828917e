"""`feie inspect`: pictures of videos, or one page about all videos of a store."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from feie import __version__
from feie.features.errors import UsageError
from feie.features.files import write_whole
from feie.features.store.layout import FAILED
from feie.features.store.reader import Store, open_store
from feie.pipeline.inspect.cells import cells_of
from feie.pipeline.inspect.options import InspectOptions
from feie.pipeline.inspect.words import made_by
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Result, failures

__all__ = ["InspectOptions", "InspectResult", "run"]

_KINDS = ("png", "pdf", "svg")
_NAMED = 20  # pictures that are named one by one


class Picture(BaseModel):
    """One picture that was written.

    Attributes
    ----------
    faces : int
        Faces in it.
    frames : int
        Frames that it shows.
    frames_a_cell : int
        Most of them side by side in one place; 1 where each has its own.
    note : str
        Why there are no faces; empty where there are.
    """

    video: str
    file: Path
    frames: int
    frames_a_cell: int
    faces: int
    note: str = ""


class InspectResult(Result):
    """What was written.

    Attributes
    ----------
    failed : dict of str to str
        Videos of a pattern that have no frames to show, and why.
    html : Path or None
    videos : int
        On the page.
    """

    store: str
    pictures: list[Picture] = []
    failed: dict[str, str] = {}
    html: Path | None = None
    videos: int = 0

    @property
    def exit_code(self) -> int:
        """3 where a video of a pattern has nothing to show."""
        return 3 if self.failed else 0

    def lines(self) -> list[str]:
        """Name the files that were written, and the videos that have nothing to show."""
        said = [] if self.html is None else [f"{self.videos} videos → {self.html}"]
        for picture in self.pictures[:_NAMED]:
            shown = f"{picture.faces} of them" if picture.faces else f"none of them: {picture.note}"
            said.append(f"{picture.file}  {picture.frames} frames; faces shown of {shown}")
        if len(self.pictures) > _NAMED:
            said.append(f"… {len(self.pictures)} pictures in all")
        return [*said, *failures(self.failed)]


def run(options: InspectOptions, progress: ProgressCallback = silent) -> InspectResult:
    """Draw videos of a store, or write the page about them.

    Raises
    ------
    UsageError
        No such video, nothing in the window, or a file of a kind that is not known.
    StoreError
        The store cannot be read.
    """
    _check(options)
    store = open_store(options.store)
    result = InspectResult(store=store.path)
    if (page := options.page) is not None:
        from feie.pipeline.inspect.page import write_page

        names = _chosen(store, options.videos) if options.videos else store.videos.index.to_list()
        write_page(page, store, names, progress)
        return result.model_copy(update={"html": page, "videos": len(names)})
    names = _chosen(store, options.videos)
    files = _files(names, options)
    for done, name in enumerate(names, 1):
        if store.videos.loc[name, "status"] == FAILED:
            if options.videos == (name,):
                store[name]  # says why there is nothing to show
            result.failed[name] = store.failures[name]
        else:
            result.pictures.append(_draw(store, name, files[name], options))
        progress(Progress("pictures", done, len(names)))
    return result


def _check(options: InspectOptions) -> None:
    if not options.videos and options.page is None:
        raise UsageError("name a video, as `feie inspect STORE VIDEO_ID`, or give --out FILE.html")
    if options.source is not None and not options.source.exists():
        raise UsageError(f"{options.source} does not exist; --source wants the videos' folder")
    low, high = options.start, options.stop
    if not (np.isfinite(low or 0) and np.isfinite(high or 0)):
        raise UsageError("--from and --to want seconds")
    if low is not None and high is not None and low >= high:
        raise UsageError(f"--from {low:g} is not before --to {high:g}")


def _chosen(store: Store, wanted: tuple[str, ...]) -> list[str]:
    """Ids that are named or match, each once, in the order asked for."""
    known: list[str] = store.videos.index.to_list()
    found: dict[str, None] = {}
    for name in wanted:
        if name in store.videos.index:
            found[name] = None
            continue
        matching = fnmatch.filter(known, name)
        if not matching:
            few = ", ".join(known[:3]) + (" …" if len(known) > 3 else "")
            raise UsageError(f"{store.path} has no video {name!r}; it has {few or 'none at all'}")
        found |= dict.fromkeys(matching)
    return list(found)


def _files(names: list[str], options: InspectOptions) -> dict[str, Path]:
    out = options.out
    if out is not None and out.suffix and not out.is_dir():
        if out.suffix[1:].lower() not in _KINDS:
            raise UsageError(f"{out}: pictures are .png, .pdf or .svg")
        if len(names) > 1:
            raise UsageError(f"{len(names)} videos do not fit into {out}; --out wants a folder")
        return {names[0]: out}
    if out is None and len(names) == 1 and options.videos == (names[0],):
        return {names[0]: Path(_plain(names[0]).replace("/", "-") + ".png")}
    folder = out or Path("pictures")
    return {name: folder / f"{_plain(name)}.png" for name in names}


def _plain(name: str) -> str:
    """Id as a path below a folder, whatever it holds; different ids stay different."""
    parts = [
        re.sub(r'[<>:"|?*\\%\x00-\x1f\x7f]', lambda m: f"%{ord(m[0]):02X}", part)
        for part in name.split("/")
    ]
    return "/".join(p if p.strip(".") else p.replace(".", "%2E") or "%" for p in parts)


def _draw(store: Store, name: str, file: Path, options: InspectOptions) -> Picture:
    from feie.pipeline.inspect.panels import panels_of
    from feie.pipeline.inspect.picture import draw, encode
    from feie.pipeline.inspect.source import faces_of

    video = store[name]
    time, valid = video.time, video.valid
    shown = _window(name, time, options)
    affect = video.affect[shown]
    fps = video.fps
    cells = cells_of(time[shown], valid[shown], affect, fps)
    faces, note = faces_of(store, video, shown, options.source)
    figure = draw(
        name,
        _about(valid[shown], cells.right[-1] - cells.left[0], fps, len(time)),
        _origin(store, cells.frames),
        cells,
        panels_of(store.schema, affect),
        faces,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, encode(figure, file.suffix[1:].lower()))
    return Picture(
        video=name, file=file, frames=len(affect), frames_a_cell=cells.frames, faces=len(faces),
        note=note,
    )  # fmt: skip


def _window(name: str, time: np.ndarray, options: InspectOptions) -> slice:
    if not len(time):
        raise UsageError(f"video {name!r} has no frames")
    low = -np.inf if options.start is None else options.start
    high = np.inf if options.stop is None else options.stop
    rows = slice(int(np.searchsorted(time, low)), int(np.searchsorted(time, high, "right")))
    if rows.start >= rows.stop:
        raise UsageError(
            f"video {name!r} has frames from {time[0]:.2f} to {time[-1]:.2f} s, and none from "
            f"--from {low:g} to --to {high:g}"
        )
    return rows


def _about(valid: np.ndarray, seconds: float, fps: float, frames: int) -> str:
    count = len(valid)
    shown = f"{count} of {frames} frames" if count < frames else f"{count} frames"
    if frames == 1:
        shown = "1 frame"
    rate = f"{fps:.4g} frames/s" if np.isfinite(fps) and fps > 0 else "rate unknown"
    return f"{shown}, {seconds:.2f} s, {rate}, face in {valid.mean():.1%}"


def _origin(store: Store, frames_a_cell: int) -> str:
    """Say what made the numbers, and what is drawn of many frames that share a place."""
    made = store.provenance
    parts = [made_by(made[part]) for part in ("extractor", "detector") if made.get(part)]
    if not made.get("detector") and "import_format" not in made["options"]:
        parts.append("faces given aligned")
    parts.append(f"drawn by feie {__version__}")
    text = "  ·  ".join(parts)
    if frames_a_cell > 1:
        text += (
            f"\nup to {frames_a_cell} frames share a place: lines show their mean, and least to "
            "most shaded; areas their mean; maps the most"
        )
    return text
