"""Stage one's engine, built from the options of `feie extract` in the process that is to run it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from feie.features.extractors.load import load_extractor
from feie.features.faces.detectors import Detector, load_detector
from feie.features.faces.stream import FaceOptions
from feie.features.video.sources import Source
from feie.pipeline.engine.detector import likely_detector, search_of
from feie.pipeline.engine.options import ExtractOptions, cores
from feie.pipeline.engine.protocol import Finished, Provenance
from feie.pipeline.engine.threads import Announce, StageOne
from feie.pipeline.provenance import library_versions


class LocalEngine:
    """The engine in this very process; see `results.Engine`.

    Parameters
    ----------
    options : ExtractOptions
    announce : callable, optional
        See `StageOne`.

    Raises
    ------
    FeieError
        Weights or a device that are not there.
    """

    def __init__(self, options: ExtractOptions, announce: Announce | None = None) -> None:
        extractor = load_extractor(
            options.extractor,
            options.device,
            options.precision,
            options.compiled,
            options.weights,
        )
        self.provenance = Provenance(
            schema=extractor.schema,
            extractor={"name": extractor.name, "sha256": extractor.sha256, **extractor.extra},
            embedding_dim=extractor.embedding_dim if options.embedding else 0,
            device=extractor.device,
            versions=library_versions(),
            detector=likely_detector(options),
        )
        self.stage = StageOne(
            extractor,
            FaceOptions(
                faces=options.faces,
                fps=options.fps,
                folder_fps=options.image_fps,
                stride=options.stride,
                batch=options.detect_batch,
                all_faces=options.all_faces,
                smooth=options.smooth,
                crop=extractor.crop,
            ),
            _Detectors(options, extractor.device).load,
            threads=options.threads or cores(),
            batch_size=options.batch_size,
            embedding=options.embedding,
            announce=announce,
        )

    @property
    def detector(self) -> dict[str, Any] | None:
        """What the detector says of itself, once a video has needed one."""
        found = self.stage.detector
        if found is None:
            return None
        return {"name": found.name, "sha256": found.sha256, **found.options}

    @property
    def frames(self) -> int:
        """Frames seen so far."""
        return self.stage.frames

    def records(self, sources: Iterable[Source]) -> Iterator[Finished | None]:
        """Work through the sources; see `StageOne.records`."""
        return self.stage.records(sources)

    def close(self) -> None:
        """Nothing is left running."""


class _Detectors:
    """Loads the detector when a video first needs one, or at once if it was asked for by name."""

    def __init__(self, options: ExtractOptions, device: str) -> None:
        self._spec = options.detector
        self._search = search_of(options)
        self._device = device
        asked = options.detector is not None or options.faces == "detect"
        self._loaded = self._load() if asked and options.faces != "aligned" else None

    def load(self) -> Detector:
        return self._loaded if self._loaded is not None else self._load()

    def _load(self) -> Detector:
        return load_detector(self._spec, self._search, device=self._device)
