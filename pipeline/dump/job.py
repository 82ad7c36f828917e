"""`feie dump`: the numbers of a store in the formats of others."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from feie.features.errors import StoreError, UsageError
from feie.features.formats.writing.format import Folder, OneFile, dump_format
from feie.features.formats.writing.plan import DumpPlan, choose_columns, planned_videos
from feie.features.formats.writing.rows import batches
from feie.features.store.reader import Store, open_store
from feie.pipeline.dump.files import Pace, dump_file, write_file
from feie.pipeline.dump.folder import dump_folder, sample_bytes
from feie.pipeline.dump.options import DumpOptions
from feie.pipeline.dump.sheet import data_sheet
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Result

__all__ = ["DumpOptions", "DumpResult", "run"]

_SAMPLE_ROWS = 20_000


class DumpResult(Result):
    """What `feie dump` did, or would do.

    Attributes
    ----------
    out : str
    videos, frames : int
        Of the dump.
    columns : list of str
    failed : int
        Videos of the store that have no numbers; the data sheet names them.
    written, kept, removed : int
        Videos written now; found there as they should be; deleted as the store has them no more.
    bytes : int
        Size of the numbers' files; an estimate from the first videos with ``dry_run``.
    free_bytes : int
        Free space where they go.
    dry_run : bool
    notes : list of str
        What the reader of this format should know.
    """

    store: str
    format: str
    out: str
    videos: int
    frames: int
    columns: list[str]
    failed: int
    written: int = 0
    kept: int = 0
    removed: int = 0
    bytes: int = 0
    free_bytes: int
    dry_run: bool = False
    notes: list[str] = []

    def lines(self) -> list[str]:
        """Say what was written, or would be, and what readers of the format should know."""
        what = (
            f"{self.videos} videos, {self.frames} frames, {len(self.columns)} columns as "
            f"{self.format}"
        )
        if self.dry_run:
            said = (
                f"{what}: about {self.bytes / 1e6:.1f} MB → {self.out} "
                f"({self.free_bytes / 1e9:.1f} GB free); nothing was written"
            )
        else:
            said = (
                f"{what}: {self.written} written, {self.kept} there before → {self.out} "
                f"({self.bytes / 1e6:.1f} MB)"
            )
        removed = f"{self.removed} files removed: the store has their videos no more"
        return [said, *([removed] if self.removed else []), *self.notes]


def run(options: DumpOptions, progress: ProgressCallback = silent) -> DumpResult:
    """Write the numbers of a store in another format, with a data sheet and their provenance.

    Memory holds a batch of rows, whatever the store's size. `dump_file` and `dump_folder` say
    what a kill leaves and how a second run goes on.

    Raises
    ------
    UsageError
        Options that do not fit the store or the format, or something else is at `out`.
    StoreError
        The store cannot be read, or `out` cannot be written.
    """
    store = open_store(options.store)
    known = dump_format(options.format)
    plan = _plan(store, options, known)
    result = DumpResult(
        store=store.path,
        format=options.format,
        out=str(options.out),
        videos=len(plan.videos),
        frames=plan.frames,
        columns=list(plan.schema.columns),
        failed=len(plan.failed),
        free_bytes=_free(options.out),
        dry_run=options.dry_run,
        notes=_notes(plan, known),
    )
    if options.dry_run:
        return result.model_copy(update={"bytes": _estimate(store, plan, known)})

    def tell(done: int, total: int, rate: float) -> None:
        progress(Progress("videos", done, total, {"frames/s": round(rate)}))

    pace = Pace(tell, len(plan.videos))
    if isinstance(known, Folder):
        found = dump_folder(store, plan, known, options.out, pace)
    else:
        found = dump_file(store, plan, known, options.out, pace)
    return result.model_copy(update=vars(found))


def _plan(store: Store, options: DumpOptions, known: OneFile | Folder) -> DumpPlan:
    schema, indices = choose_columns(store.schema, options.subset)
    ids = _chosen_ids(store, options)
    if not ids:
        raise StoreError(
            f"{store.path} holds no video that was extracted without failure"
            + (" among those chosen" if options.ids or options.match else "")
        )
    nul = next((video_id for video_id in ids if "\0" in video_id), None)
    if nul is not None:
        raise UsageError(f"the id {nul!r} has a NUL character, which no format can hold")
    if options.embedding and not store.has_embedding:
        raise UsageError(
            f"{store.path} keeps no embedding; `feie extract --embedding` makes a store that does"
        )
    if options.geometry and not known.geometry:
        raise UsageError(f"--geometry: files of format {known.name} have no room for it")
    if options.missing != "keep" and not known.missing:
        raise UsageError(
            f"--missing {options.missing}: in format {known.name}, frames without a face keep "
            "their row and are marked; --missing belongs to --format muse"
        )
    plan = DumpPlan(
        format=known.name,
        videos=planned_videos(store, ids),
        schema=schema,
        indices=indices,
        embedding=int(store.array("embedding").shape[1]) if options.embedding else 0,
        geometry=options.geometry,
        missing=options.missing,
        selection=_selection(options),
        store={
            "spec_version": store.attributes["spec_version"],
            "fingerprint": store.fingerprint,
            "provenance": dict(store.provenance),
        },
        failed=store.failures,
    )
    known.check(plan)
    return replace(plan, sheet=data_sheet(plan, known))


def _listed_ids(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--ids {path} cannot be read: {error}") from None
    ids = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not ids:
        raise UsageError(f"--ids {path} holds no id; it wants a video id a line")
    return ids


def _selection(options: DumpOptions) -> tuple[str, ...]:
    listed = () if options.ids is None else tuple(sorted(_listed_ids(options.ids)))
    return (*(f"match {pattern}" for pattern in options.match), *listed)


def _chosen_ids(store: Store, options: DumpOptions) -> Sequence[str]:
    chosen = store.select(*options.match).ids if options.match else store.ids
    if options.ids is None:
        return chosen
    known, fitting = {*store.ids, *store.failures}, set(chosen)
    listed = _listed_ids(options.ids)
    unknown = [video_id for video_id in listed if video_id not in known]
    if unknown:
        raise UsageError(
            f"{store.path} has no video {unknown[0]!r}, which --ids {options.ids} lists "
            f"({len(unknown)} of {len(listed)} ids are unknown; see `feie info`)"
        )
    return [video_id for video_id in listed if video_id in fitting]


def _notes(plan: DumpPlan, known: OneFile | Folder) -> list[str]:
    notes = []
    without = plan.frames - sum(video.with_face for video in plan.videos)
    if known.missing and plan.missing == "keep" and without:
        notes.append(
            f"{without} frames without a face are blank rows: MuSe's scripts make NaN of them; "
            "--missing drop, hold or zero is for those"
        )
    if plan.failed:
        notes.append(
            f"{len(plan.failed)} videos that failed are not in it; its provenance names them"
        )
    return notes


def _free(out: Path) -> int:
    folder = next((p for p in out.absolute().parents if p.is_dir()), Path(out.anchor or "."))
    return shutil.disk_usage(folder).free


def _estimate(store: Store, plan: DumpPlan, known: OneFile | Folder) -> int:
    """Estimate the size of a dump from that of its first videos."""
    rows, count = 0, 0
    while count < len(plan.videos) and rows < _SAMPLE_ROWS:
        rows += plan.videos[count].frames
        count += 1
    few = replace(plan, videos=plan.videos[:count])
    if isinstance(known, Folder):
        size = sample_bytes(batches(store, few, score=known.score), few, known)
    else:
        with tempfile.TemporaryDirectory(prefix="feie-dump-") as folder:
            path = Path(folder) / "sample"
            write_file(store, few, known, path, Pace(lambda *_: None, count))
            size = path.stat().st_size
    return size if count == len(plan.videos) else round(size * plan.frames / max(rows, 1))
