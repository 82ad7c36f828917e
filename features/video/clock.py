"""Time stamps that rise: what a file says of its frames' times, its faults kept to themselves."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Generic, TypeVar

from feie.features.errors import VideoError

_T = TypeVar("_T")

_LOOK = 8  # frames held back where a time stamp looks wrong, and only there
_USUAL = 1.0  # s up to which a step forward needs no second look
_JUMP = 10.0  # s from which one step at either end is a fault, if it also is
_LARGER = 100.0  # times the largest other step


def rising(frames: Iterator[tuple[float, _T]], step: float) -> Iterator[tuple[float, _T]]:
    """Give frames strictly rising times, each its own where its time stamp can be true.

    A time stamp is true where it rises with most of those around it: the longest rising chain of
    the frame and the 7 behind it decides. One that is missing, stands twice, falls back or leaps
    ahead and back costs its own frame only, whose time is one `step` after the frame before or,
    where that is too late, shares the way to the next true one. At the ends, where nothing stands
    on the other side, a leap of more than 10 s and of 100 times the largest other step is taken
    for a fault. Where the clock begins anew and goes on from there, times go on from the last.

    Parameters
    ----------
    frames : iterator of (float, T)
        Time stamps, s, NaN where missing; in the order of display. May end with a VideoError,
        which is raised behind the last frame.
    step : float
        Nominal time from frame to frame, s.
    """
    return _Clock(frames, step).run()


class _Clock(Generic[_T]):
    def __init__(self, frames: Iterator[tuple[float, _T]], step: float) -> None:
        self._frames = frames
        self._step = step
        self._held: deque[tuple[float, _T]] = deque()
        self._ended = False
        self._error: VideoError | None = None
        self._offset = 0.0
        self._last = math.nan
        self._largest = 0.0

    def run(self) -> Iterator[tuple[float, _T]]:
        while self._fill(2):
            time = self._judged()
            if not math.isnan(self._last):
                self._largest = max(self._largest, time - self._last)
            self._last = time
            yield time, self._held.popleft()[1]
        if self._error is not None:
            raise self._error

    def _fill(self, count: int) -> int:
        """Hold so many frames, or all that are left; tell how many."""
        while len(self._held) < count and not self._ended:
            try:
                item = next(self._frames, None)
            except VideoError as error:
                item, self._error = None, error
            if item is None:
                self._ended = True
            else:
                self._held.append(item)
        return len(self._held)

    def _ahead(self) -> list[float]:
        return [stamp + self._offset for stamp, _ in self._held]

    def _judged(self) -> float:
        """Give the time of the first frame that is held."""
        now, *after = self._ahead()
        last, first = self._last, math.isnan(self._last)
        since = (after[0] - now if after else 0.0) if first else now - last
        # Written so that a missing time stamp fails.
        if since <= _USUAL and (first or since > 0) and not (after and after[0] < now):
            return now
        self._fill(_LOOK)
        return self._settled()

    def _settled(self) -> float:
        ahead = self._ahead()
        now, first = ahead[0], math.isnan(self._last)
        # A clock that had begun anew may find back.
        if self._offset and now - self._last > _USUAL:
            true = now - self._offset
            if 0 < true - self._last <= _USUAL:
                self._offset = 0.0
                return true
        if now <= self._last and self._begins_anew(ahead):
            self._offset += self._last + self._usual_step() - now
            return self._last + self._usual_step()
        chain = _chain(ahead, -math.inf if first else self._last, self._last, self._step)
        if chain and chain[0] == 0 and not self._is_leap([ahead[i] for i in chain]):
            return now
        chain = [i for i in chain if i]
        if not chain:
            return 0.0 if first else self._last + self._usual_step()
        to = chain[0]
        if first:
            return ahead[to] - to * self._usual_step()
        time = self._last + self._step
        if self._last + to * self._step < ahead[to]:
            return time
        return self._last + (ahead[to] - self._last) / (to + 1)

    def _begins_anew(self, ahead: Sequence[float]) -> bool:
        """Whether most of what is ahead rises again from the first of it, before the last time."""
        known = sum(not math.isnan(value) for value in ahead)
        chain = _chain(ahead, -math.inf, self._last, self._step)
        return chain[0] == 0 and 2 * sum(ahead[i] <= self._last for i in chain) > known

    def _is_leap(self, chain: Sequence[float]) -> bool:
        """Whether the first of these times leaps at an end of the video."""
        steps = [b - a for a, b in pairwise(chain)]
        if math.isnan(self._last):
            return len(steps) > 1 and steps[0] > max(_JUMP, _LARGER * max(steps[1:]))
        if len(self._held) > 1 or not self._largest:
            return False
        return chain[0] - self._last > max(_JUMP, _LARGER * self._largest)

    def _usual_step(self) -> float:
        """Nominal step, unless what was seen makes nonsense of it."""
        if self._largest and self._step > 4 * self._largest:
            return self._largest
        return self._step


def _chain(values: Sequence[float], above: float, last: float, step: float) -> list[int]:
    """Places of the longest strictly rising chain of values above a bound.

    Of several, the one closest to a steady clock.
    """
    start = values[0] if math.isnan(last) else last + step
    best: dict[int, tuple[int, float, list[int]]] = {}
    for i in reversed(range(len(values))):
        # Of two that are the same, the first is taken at its word.
        if not values[i] > above or values[i] in values[:i]:
            continue
        away = abs(values[i] - (start + i * step)) if start == start else 0.0
        tails = [best[j] for j in best if values[j] > values[i]]
        length, off, rest = min(tails, key=lambda t: (-t[0], t[1], t[2]), default=(0, 0.0, []))
        best[i] = length + 1, off + away, [i, *rest]
    return min(best.values(), key=lambda t: (-t[0], t[1], t[2]), default=(0, 0.0, []))[2]
