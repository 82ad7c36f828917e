"""An engine in a process of its own, watched: a video that crashes or hangs it costs one video."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any

from feie.features.errors import EngineError, VideoError
from feie.features.video.sources import Source, fingerprint
from feie.pipeline.engine.link import ChildExitError, ChildProcess
from feie.pipeline.engine.messages import At, Beat, Broke, Done, Over, Ready
from feie.pipeline.engine.options import ExtractOptions, cores
from feie.pipeline.engine.protocol import Finished, Provenance, failure

_AHEAD = 64  # sources that may be under way beyond the first unfinished one
_TICK = 1.0  # seconds after which a waiting caller gets a word
_MOST_EXITS = 2  # a video that kills its engine so often is recorded as failed
_MOST_IDLE_EXITS = 3  # an engine that dies so often while no video is read will never work


class _Work:
    """Which sources are to be done, in what company, and which are done; keeps their order."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._fresh = enumerate(sources)
        self._next = next(self._fresh, None)
        self._upcoming = 0
        self.again: deque[tuple[int, Source]] = deque()  # interrupted by another one
        self.alone: deque[tuple[int, Source]] = deque()  # suspected of a crash
        self.done: dict[int, Finished] = {}
        self.exits: Counter[int] = Counter()

    @property
    def over(self) -> bool:
        return self._next is None and not self.again and not self.alone

    def take(self, window: int) -> tuple[int, Source] | None:
        """Give the next source to be done in company; None where it has to wait, or at the end."""
        if self.again:
            return self.again.popleft()
        if (given := self._next) is None or given[0] >= self._upcoming + window:
            return None
        self._next = next(self._fresh, None)
        return given

    @property
    def exhausted(self) -> bool:
        """Whether `take` will never again give one, as things are."""
        return self._next is None and not self.again

    def in_order(self) -> Iterator[Finished]:
        """Give what is done and waits for no earlier one."""
        while self._upcoming in self.done:
            yield self.done.pop(self._upcoming)
            self._upcoming += 1


class _Session:
    """Sources given to one child, up to the end of its session or of its life."""

    def __init__(self) -> None:
        self.given: list[tuple[int, Source]] = []
        self.finished = 0
        self.working: set[int] = set()
        self.beat = Beat({}, {}, 0)
        self.closed = False

    @property
    def unfinished(self) -> dict[int, tuple[int, Source]]:
        return dict(list(enumerate(self.given))[self.finished :])


class IsolatedEngine:
    """An engine in a child process; see `protocol.Engine`.

    After a crash, the videos that threads were reading are suspects: each is tried again alone,
    and one that crashes its process twice is recorded as failed. A video whose reading does not
    move for ``options.timeout`` seconds is recorded as failed at once. All others that were
    under way are simply done again.

    Parameters
    ----------
    options : ExtractOptions

    Raises
    ------
    FeieError
        What the engine needs is not there.
    """

    def __init__(self, options: ExtractOptions) -> None:
        self._options = options
        self._window = _AHEAD + 4 * (options.threads or cores())
        self._process: ChildProcess | None = None
        self._idle_exits = 0
        self._frames_before = 0
        self.detector: dict[str, Any] | None = None
        self.frames = 0
        try:
            while (provenance := self._start()) is None:
                pass
        except BaseException:
            self.close()
            raise
        self.provenance: Provenance = provenance

    @property
    def pid(self) -> int | None:
        """Id of the child, None while there is none."""
        return self._process.pid if self._process else None

    def _start(self) -> Provenance | None:
        """Start a child; None where it died before it was ready."""
        self._frames_before = self.frames
        self._process = ChildProcess(self._options)
        try:
            while (message := self._process.receive(_TICK)) is None:
                pass
        except ChildExitError:
            self._count_idle_exit(self._process.exit_reason())
            return None
        if isinstance(message, Broke):
            raise message.error
        assert isinstance(message, Ready)
        return message.provenance

    def _count_idle_exit(self, how: str) -> None:
        self._process = None
        self._idle_exits += 1
        if self._idle_exits >= _MOST_IDLE_EXITS:
            raise EngineError(
                f"the process that extracts died {self._idle_exits} times ({how}) while it read no "
                "video: is the memory enough for this --batch-size, does --device work?"
            )

    def close(self) -> None:
        """Kill the child."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def records(self, sources: Iterable[Source]) -> Iterator[Finished | None]:
        """Work through the sources.

        Yields
        ------
        Finished or None
            One a source, in their order. None where a second has passed without one.

        Raises
        ------
        FeieError
            Something that no other video would survive either.
        """
        work = _Work(sources)
        while not work.over:
            if self._process is None and self._start() is None:
                continue
            session = _Session()
            try:
                yield from self._converse(work, session)
            except ChildExitError as ended:
                self._after_exit(work, session, ended.silent)
            yield from work.in_order()

    def _converse(self, work: _Work, session: _Session) -> Iterator[Finished | None]:
        """Feed a child and take its results, until the session is over."""
        assert self._process is not None
        suspect = work.alone.popleft() if work.alone else None
        silent = 0.0
        while True:
            self._feed(work, session, suspect)
            message = self._process.receive(_TICK)
            silent = silent + _TICK if message is None else 0.0
            match message:
                case None:
                    # Counted in ticks for the reason given in `Child._beat`.
                    if silent > self._options.timeout + 5 * _TICK:
                        self._process.kill()
                        raise ChildExitError(silent=True)
                    yield None
                case At(number, working):
                    (session.working.add if working else session.working.discard)(number)
                case Beat():
                    session.beat = message
                    self.frames = self._frames_before + message.frames
                    if any(idle > self._options.timeout for idle in message.idle.values()):
                        self._after_hang(work, session)
                        return
                    yield None
                case Done():
                    self._idle_exits = 0
                    self.detector = message.detector or self.detector
                    number, _ = session.given[session.finished]
                    session.finished += 1
                    work.done[number] = message.finished
                    yield from work.in_order()
                case Broke(error):
                    raise error
                case Over():
                    return

    def _feed(self, work: _Work, session: _Session, suspect: tuple[int, Source] | None) -> None:
        assert self._process is not None
        if session.closed:
            return
        if suspect:
            if not session.given:
                session.given.append(suspect)
                self._process.send(suspect[1])
        else:
            while self._process.takes and (item := work.take(self._window)) is not None:
                session.given.append(item)
                self._process.send(item[1])
        if suspect or work.exhausted:
            self._process.send(None)
            session.closed = True

    def _after_exit(self, work: _Work, session: _Session, silent: bool) -> None:
        """Sort what was under way into suspects and those merely interrupted."""
        assert self._process is not None
        how = self._process.exit_reason()
        suspects = session.working & session.unfinished.keys()
        if not suspects:
            self._count_idle_exit(how)
        self._process = None
        interrupted = []
        for place, (number, source) in session.unfinished.items():
            if place not in suspects:
                interrupted.append((number, source))
                continue
            work.exits[number] += 1
            if work.exits[number] < _MOST_EXITS:
                work.alone.append((number, source))
            else:
                error = VideoError(
                    "timeout" if silent else "crash",
                    f"the process that read {source.relative} gave no sign of life, twice"
                    if silent
                    else f"{source.relative} ended the process that read it, twice ({how})",
                )
                # A hang may come from the disk: what is not known yet is not read now.
                known = session.beat.hashes.get(place, "") if silent else _hash(source)
                work.done[number] = failure(source, error, known)
        work.again.extendleft(reversed(interrupted))

    def _after_hang(self, work: _Work, session: _Session) -> None:
        """Give up the videos that stand still; the child cannot be talked out of them."""
        self.close()
        interrupted = []
        for place, (number, source) in session.unfinished.items():
            if session.beat.idle.get(place, 0.0) <= self._options.timeout:
                interrupted.append((number, source))
                continue
            told = (
                f"reading {source.relative} did not move for {self._options.timeout:g} s "
                "(--timeout)"
            )
            known = session.beat.hashes.get(place, "")
            work.done[number] = failure(source, VideoError("timeout", told), known)
        work.again.extendleft(reversed(interrupted))


def _hash(source: Source) -> str:
    """Fingerprint of a source that crashes its reader, so that no later run tries it unasked."""
    try:
        return fingerprint(source)
    except (VideoError, OSError):
        return ""
