"""Where stage one runs: in a watched child process, in this one, or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from feie.pipeline.engine.options import ExtractOptions
from feie.pipeline.engine.protocol import Engine
from feie.pipeline.progress import ProgressCallback, silent


@contextmanager
def running_engine(
    options: ExtractOptions, progress: ProgressCallback = silent
) -> Iterator[Engine]:
    """Start what the options ask for, and end it at once when the block ends.

    Raises
    ------
    FeieError
        Weights, a device or a cluster that are not there.
    """
    engine = _start(options, progress)
    try:
        yield engine
    finally:
        engine.close()


def _start(options: ExtractOptions, progress: ProgressCallback) -> Engine:
    if options.scheduler or options.workers or options.gpus:
        from feie.pipeline.engine.cluster import ClusterEngine

        return ClusterEngine(options, progress)
    if options.isolate:
        from feie.pipeline.engine.isolated import IsolatedEngine

        return IsolatedEngine(options)
    from feie.pipeline.engine.local import LocalEngine

    return LocalEngine(options)
