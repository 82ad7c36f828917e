"""Make the example clips and their labels; see README.md beside this file for the rules.

    python data.example/make_clips.py --model ict_facekit_light.h5

Needs feie installed and the ICT face model as HDF5. The same seed gives the same curves, labels
and pictures; the bytes of the videos may differ with the version of x264.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from feie.features.faces.align import ALIGNED_SIZE, align_face
from feie.features.schema import ACTION_UNITS
from feie.features.synthetic.aus import expression_weights
from feie.features.synthetic.backdrop import make_backdrop
from feie.features.synthetic.camera import Pose
from feie.features.synthetic.degrade import Degradation, degrade
from feie.features.synthetic.ict import load_ict
from feie.features.synthetic.person import Person, make_person
from feie.features.synthetic.render import FaceRenderer, View
from feie.features.synthetic.sampling import (
    CROP_SIDE,
    PHOTO_SIZE,
    aim_camera,
    draw_lighting,
    eye_weights,
    fair_exposure,
)

Curve = NDArray[np.float64]
Image = NDArray[np.uint8]

TARGETS = ("Adoration", "Amusement", "Anxiety", "Disgust", "Empathic-Pain", "Fear", "Surprise")
# Split -> number of persons; each person is seen in two clips.
PEOPLE = {"train": 48, "val": 16, "test": 24}
CLIPS_PER_PERSON = 2
FIRST_PERSON = 2000  # persons 0-999 are those of the training packs

# What a face does in an event: unit -> activation at the event's intensity 1.
MOVES: dict[str, dict[str, float]] = {
    "smile": {"AU12": 0.75, "AU06": 0.6, "AU01": 0.35},
    "laugh": {"AU12": 1.0, "AU06": 0.8, "AU25": 0.9, "AU26": 0.45},
    "worry": {"AU01": 0.9, "AU04": 0.8, "AU07": 0.3, "AU24": 0.5},
    "disgust": {"AU09": 0.9, "AU10": 0.8, "AU17": 0.6, "AU04": 0.4},
    "pain": {"AU04": 0.9, "AU01": 0.4, "AU07": 0.8, "AU15": 0.8, "AU17": 0.5},
    "fright": {"AU01": 1.0, "AU02": 0.5, "AU04": 0.6, "AU05": 0.8, "AU20": 0.9, "AU25": 0.7},
    "startle": {"AU01": 0.9, "AU02": 1.0, "AU05": 0.6, "AU25": 0.8, "AU26": 0.9},
}
# Target -> share of each move's score; the rule of the labels.
RULE: dict[str, dict[str, float]] = {
    "Adoration": {"smile": 0.9, "laugh": 0.2},
    "Amusement": {"laugh": 0.9, "smile": 0.3},
    "Anxiety": {"worry": 0.9, "fright": 0.3},
    "Disgust": {"disgust": 0.95},
    "Empathic-Pain": {"pain": 0.9, "worry": 0.15},
    "Fear": {"fright": 0.9, "worry": 0.1, "startle": 0.1},
    "Surprise": {"startle": 0.9, "fright": 0.2},
}


@dataclass(frozen=True)
class Clip:
    """What happens in one clip; curves have one value a frame."""

    moves: dict[str, Curve]
    units: NDArray[np.float64]  # (frames, 17)
    poses: list[Pose]
    gazes: list[tuple[float, float]]
    blink: Curve
    rate: int


def wander(rng: np.random.Generator, time: Curve, spread: float) -> Curve:
    """Draw a smooth curve about zero: three slow sinusoids."""
    parts = [
        rng.normal(0, spread / np.sqrt(3)) * np.sin(2 * np.pi * (f * time + rng.uniform()))
        for f in rng.uniform(0.08, 0.55, 3)
    ]
    return np.asarray(np.sum(parts, axis=0))


def event(rng: np.random.Generator, place: Curve, intensity: float) -> Curve:
    """Draw rise, hold and fall of an event over `place`, the clip's time in [0, 1].

    Times are shares of the clip, so that labels do not depend on its length.
    """
    rise, hold, fall = rng.uniform(0.08, 0.2), rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.3)
    start = rng.uniform(0.02, max(0.05, 0.95 - rise - hold - 0.5 * fall))
    up = np.clip((place - start) / rise, 0, 1)
    down = np.clip((place - start - rise - hold) / fall, 0, 1)
    ramp = up * up * (3 - 2 * up) - down * down * (3 - 2 * down)
    return np.asarray(intensity * np.clip(ramp, 0, 1))


def draw_clip(rng: np.random.Generator, leading: str, intensity: float) -> Clip:
    """Draw the curves of a clip that shows the move `leading` and perhaps others."""
    rate = int(rng.choice([25, 30]))
    frames = int(rng.integers(45, 161))
    time = np.arange(frames) / rate
    place = np.arange(frames) / (frames - 1)
    moves = {name: np.zeros(frames) for name in MOVES}
    moves[leading] = event(rng, place, intensity)
    for _ in range(int(rng.choice(4, p=[0.15, 0.35, 0.3, 0.2]))):
        other = str(rng.choice(list(MOVES)))
        more = event(rng, place, rng.uniform(0.2, 0.95))
        # One face does one thing at a time: a later event gives way to what is there.
        busy = np.max(list(moves.values()), axis=0)
        moves[other] = np.maximum(moves[other], more * (1 - np.clip(busy / 0.3, 0, 1)))
    units = np.zeros((frames, len(ACTION_UNITS)))
    for name, curve in moves.items():
        for unit, share in MOVES[name].items():
            column = ACTION_UNITS.index(unit)
            strength = share * rng.uniform(0.85, 1.0)
            units[:, column] = np.maximum(units[:, column], strength * curve)
    for column in range(units.shape[1]):
        units[:, column] += np.clip(wander(rng, time, 0.03), 0, 0.06)
    blink = np.zeros(frames)
    moment = rng.uniform(0.3, 3.0)
    while moment < time[-1]:
        blink = np.maximum(blink, np.exp(-(((time - moment) / 0.07) ** 2)))
        moment += rng.uniform(1.5, 4.5)
    yaw = rng.normal(0, 9) + wander(rng, time, 8)
    pitch = rng.normal(0, 5) + wander(rng, time, 5)
    roll = rng.normal(0, 3) + wander(rng, time, 4)
    poses = [
        Pose(float(a), float(b), float(c))
        for a, b, c in zip(
            np.clip(yaw, -32, 32), np.clip(pitch, -18, 18), np.clip(roll, -14, 14), strict=True
        )
    ]
    # The eyes stay on the screen while the head turns.
    look_x, look_y = wander(rng, time, 3), wander(rng, time, 2)
    gazes = [
        (float(np.clip(-0.6 * p.yaw + x, -22, 22)), float(np.clip(-0.4 * p.pitch + y, -14, 14)))
        for p, x, y in zip(poses, look_x, look_y, strict=True)
    ]
    return Clip(moves, units.clip(0, 1), poses, gazes, blink.clip(0, 1), rate)


def labels(clip: Clip) -> dict[str, float]:
    """Seven intensities in [0, 1] from the curves of the moves.

    The score of a move is 0.6 max + 0.8 mean of its curve over the clip; an intensity is the
    `RULE`'s weighted sum of scores, clipped to [0, 1].
    """
    score = {name: 0.6 * curve.max() + 0.8 * curve.mean() for name, curve in clip.moves.items()}
    return {
        target: float(np.clip(sum(w * score[m] for m, w in RULE[target].items()), 0, 1))
        for target in TARGETS
    }


def frames_of(
    renderer: FaceRenderer, person: Person, clip: Clip, rng: np.random.Generator
) -> Iterator[Image]:
    """Render the aligned faces of a clip, (112, 112, 3) uint8 RGB."""
    mesh = renderer.mesh
    look = renderer.look(person)
    lighting = draw_lighting(rng)
    backdrop = make_backdrop(rng, PHOTO_SIZE)
    exposure = fair_exposure(person) * float(np.exp(rng.normal(0, 0.12)))
    asymmetry = float(rng.normal(0, 0.1))
    middle = Pose(*np.mean([[p.yaw, p.pitch, p.roll] for p in clip.poses], axis=0).tolist())
    resting = renderer.vertices(look, {}, middle, (0.0, 0.0))
    camera = aim_camera(renderer, resting, float(rng.uniform(50, 120)), PHOTO_SIZE, CROP_SIDE)
    how = Degradation(
        scale=float(rng.uniform(0.55, 1.0)),
        blur=float(rng.uniform(0, 0.6)),
        grey=bool(rng.uniform() < 0.1),
        gamma=float(np.exp(rng.normal(0, 0.12))),
        noise=float(rng.uniform(0, 1.5)),
    )
    for units, pose, gaze, blink in zip(
        clip.units, clip.poses, clip.gazes, clip.blink, strict=True
    ):
        weights = expression_weights(units, mesh.expression, asymmetry)
        for name, value in eye_weights(gaze, float(blink)).items():
            weights[name] = min(1.0, weights.get(name, 0.0) + value)
        vertices = renderer.vertices(look, weights, pose, gaze)
        view = View(pose, camera, lighting, exposure)
        photo = degrade(renderer.draw(look, vertices, units, view, backdrop), how, rng)
        yield align_face(photo, renderer.landmarks(vertices, camera) * how.scale)


def write_video(path: Path, frames: Iterator[Image], rate: int) -> int:
    """Encode frames as H.264 and return their number."""
    count = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate))
        stream.width = stream.height = ALIGNED_SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "23", "preset": "slow", "threads": "1"}
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            count += 1
        container.mux(stream.encode())
    return count


def main() -> None:
    """Render the clips and write labels.csv."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--model", type=Path, required=True, help="ICT face model (HDF5)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--seed", type=int, default=27)
    parser.add_argument("--labels-only", action="store_true", help="write no videos")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    renderer = FaceRenderer(load_ict(options.model))
    videos = options.out / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    rows: list[list[str]] = []
    person_number = FIRST_PERSON
    for split, people in PEOPLE.items():
        tones = np.random.default_rng([options.seed, len(split)]).permutation(people)
        for index in range(people):
            # Tones are spread evenly over each split's persons.
            tone = (float(tones[index]) + 0.5) / people
            person = make_person(person_number, tone=tone)
            for take in range(CLIPS_PER_PERSON):
                number = len(rows) + 1
                rng = np.random.default_rng([options.seed, number])
                # Each move leads equally often in a split, at intensities spread by the golden
                # ratio, so that every target varies even in the smallest split.
                turn, which = divmod(index * CLIPS_PER_PERSON + take, len(MOVES))
                leading = list(MOVES)[which]
                clip = draw_clip(rng, leading, 0.3 + 0.7 * ((0.5 + 0.618 * turn) % 1))
                name = f"face-{number:03d}"
                rows.append([name, split, *(f"{v:.4f}" for v in labels(clip).values())])
                if not options.labels_only:
                    path = videos / f"{name}.mp4"
                    count = write_video(path, frames_of(renderer, person, clip, rng), clip.rate)
                    print(f"{name} {split} {leading} {count} frames {path.stat().st_size} bytes")
            person_number += 1
    with (options.out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "split", *TARGETS])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
