"""Decoded pictures as 8-bit RGB: by the matrix that the stream names, HDR brought to SDR."""

from __future__ import annotations

from functools import cache
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

Image = NDArray[np.uint8]

_PQ, _HLG = 16, 18  # ITU-T H.273, table 3
_HDR = {_PQ: "PQ", _HLG: "HLG"}
_BT709 = 1  # primaries, ITU-T H.273, table 2
_UNSPECIFIED = 2
_WHITE = 203.0
"""cd/m2 of a white page in HDR (BT.2408-7, table 1): 1 in what follows."""
_KNEE = 0.7
_GAMMA = 2.4  # BT.1886: how an SDR screen answers
_HLG_PEAK, _HLG_GAMMA = 1000.0, 1.2  # BT.2100-3, table 5: of the nominal display
_LINEAR_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)
"""RGB of BT.2020 to that of BT.709, linear light (BT.2407, section 2)."""
_STEPS = 1 << 14

TONE_MAPPED = (
    "HDR ({}) tone-mapped to SDR: BT.2100 to linear light, BT.2020 to BT.709, white 203 cd/m2, "
    "rolled off above 0.7 of white, gamma 2.4"
)


class Painter:
    """Turns the decoded frames of one video into RGB; keeps what is to be said of them.

    HDR pictures (transfer PQ or HLG) are tone-mapped, since detectors and extractors have learnt
    from SDR: `tone_mapped` says how. A colour matrix that FFmpeg's scaler refuses is taken for its
    default, BT.601's.

    Parameters
    ----------
    notes : list of str
        Where to write what was done to the colours, once.
    """

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes
        # One for all frames: each brings threads and tables of its own, which die late.
        self._reformatter = VideoReformatter()
        self._bare = False
        self._matrix: Colorspace | None = None

    def rgb(self, frame: av.VideoFrame, width: int) -> Image:
        """Give a frame as (h, width, 3) uint8 RGB, before it is turned for display."""
        name = _HDR.get(frame.color_trc)
        if name is None:
            return np.asarray(self._scaled(frame, width, "rgb24"), np.uint8)
        self._note(TONE_MAPPED.format(name))
        wide = frame.color_primaries != _BT709
        transfer = frame.color_trc
        return tone_mapped(self._scaled(frame, width, "rgb48le"), transfer, wide)

    def _scaled(self, frame: av.VideoFrame, width: int, pixels: str) -> NDArray[Any]:
        while True:
            try:
                rgb: NDArray[Any] = self._reformat(frame, width, pixels).to_ndarray()
                return rgb
            except (av.FFmpegError, ValueError):
                if not self._yield_one(frame):
                    raise
                self._reformatter = VideoReformatter()

    def _reformat(self, frame: av.VideoFrame, width: int, pixels: str) -> av.VideoFrame:
        if self._bare:
            frame.color_trc = frame.color_primaries = _UNSPECIFIED
        return self._reformatter.reformat(
            frame, width=width, format=pixels, src_colorspace=self._matrix, threads=1
        )

    def _yield_one(self, frame: av.VideoFrame) -> bool:
        """Give up one thing that the scaler may have refused; False where nothing is left."""
        if not self._bare:  # PyAV 17 hands the scaler transfers that it then does not use
            self._bare = True
        elif self._matrix is None:
            self._matrix = Colorspace.ITU601
            self._note(
                f"colour matrix {frame.colorspace} of ITU-T H.273 is not known to FFmpeg's scaler: "
                "read as BT.601, its default"
            )
        else:
            return False
        return True

    def _note(self, words: str) -> None:
        if words not in self._notes:
            self._notes.append(words)


def tone_mapped(rgb: NDArray[np.unsignedinteger], transfer: int, wide: bool = True) -> Image:
    """Bring an HDR picture to SDR.

    1. To light: BT.2100's EOTF of PQ; of HLG its inverse OETF and the OOTF of a display of
       1,000 cd/m2. 203 cd/m2 become 1.
    2. From BT.2020's primaries to BT.709's.
    3. A roll-off of each channel: x up to the knee k = 0.7, and k + (1 - k) u / (1 + u) above it,
       u = (x - k) / (1 - k): smooth, and below 1 however bright.
    4. To the signal of an SDR screen: x^(1 / 2.4) (the inverse of BT.1886).

    Parameters
    ----------
    rgb : (h, w, 3) uint16 array
        R'G'B' of full range.
    transfer : {16, 18}
        PQ or HLG, by ITU-T H.273.
    wide : bool
        Whether the primaries are BT.2020's; else they are BT.709's already.

    Returns
    -------
    (h, w, 3) uint8 array
    """
    light = _to_light(transfer)[rgb]
    if transfer == _HLG:
        luminance = cv2.transform(light, np.array([[0.2627, 0.6780, 0.0593]], np.float32))
        gain = np.power(luminance, np.float32(_HLG_GAMMA - 1)) * np.float32(_HLG_PEAK / _WHITE)
        light *= gain[..., None]
    if wide:
        light = cv2.transform(light, _LINEAR_709)
    table, brightest = _to_signal()
    scale = np.float32((_STEPS - 1) / np.sqrt(brightest))
    place = np.sqrt(np.clip(light, 0, brightest)) * scale + np.float32(0.5)
    return np.asarray(table[place.astype(np.uint16)], np.uint8)


@cache
def _to_light(transfer: int) -> NDArray[np.float32]:
    """Light of each 16-bit code: of PQ in whites, of HLG the scene's in [0, 1]."""
    code = np.arange(1 << 16) / np.float64((1 << 16) - 1)
    if transfer == _PQ:  # BT.2100-3, table 4
        m1, m2 = 2610 / 16384, 2523 / 4096 * 128
        c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
        p = code ** (1 / m2)
        light = 10000 * (np.maximum(p - c1, 0) / (c2 - c3 * p)) ** (1 / m1) / _WHITE
    else:  # table 5
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    return light.astype(np.float32)


@cache
def _to_signal() -> tuple[Image, float]:
    """Give the SDR code of each step of the root of light, and the light of the last step."""
    brightest = 10000 / _WHITE
    light = np.linspace(0, np.sqrt(brightest), _STEPS) ** 2
    u = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    rolled = np.where(light <= _KNEE, light, _KNEE + (1 - _KNEE) * u / (1 + u))
    return np.round(255 * rolled ** (1 / _GAMMA)).astype(np.uint8), brightest
