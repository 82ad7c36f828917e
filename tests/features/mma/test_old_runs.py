# ruff: noqa: E501
"""Runs that an earlier version began go on: their configurations have the same digests."""

from pathlib import Path

from feie.features.mma.config import read_config
from feie.features.mma.training.trainer import config_digest

MMA_LITE_0_1_0 = """\
# The training of the bundled mma-lite; mma-lite.md says where the data come from and how to make
# the files that are no download:
#   feie train-mma mma-lite.yaml --data-root ../shared/data --data-root MADE \\
#       --detector scrfd:det_500m.onnx --out mma-run
name: mma-lite
precision: bf16
seed: 0
validation:
  fer2013: {pack: fer2013_val.h5}
  muxspace: {pack: muxspace_aligned112.h5, part: {held_out: 0.2, keep: held-out}}
  synthetic: {pack: synthetic_val.h5}
log_every: 100
validate_every: 1000
stages:
  - network: {like: mma-lite, depths: [1, 1, 2]}
    sources:
      fer2013: {pack: fer2013_train.h5, proportion: 0.36, balance: 0.25, valence_arousal: expression, pseudo_units: fer2013_units.h5}
      fer2013_detected: {pack: fer2013_train.h5, crops: detected, proportion: 0.24, balance: 0.25, valence_arousal: expression, pseudo_units: fer2013_units.h5}
      muxspace: {pack: muxspace_aligned112.h5, part: {held_out: 0.2, keep: train}, proportion: 0.13, balance: 0.7, valence_arousal: expression, pseudo_units: muxspace_units.h5}
      synthetic: {pack: synthetic_train.h5, proportion: 0.27}
    phases:
      - {steps: 10000, size: 64, batch: 256}
      - {steps: 7000, size: 96, batch: 192}
    losses: {ccc: 0.3, cce: 1.0, bce: 4.0, positive: 1.5, dm: 0.03, smoothing: 0.1, matching: bce, match_annotated: false}
    optimiser: {lr: 2.0e-3, weight_decay: 0.05, warmup: 0.03, ema: 0.999}
  - network: {like: mma-lite, depths: [1, 2, 2]}
    sources:
      fer2013: {pack: fer2013_train.h5, proportion: 0.33, balance: 0.25, valence_arousal: expression, graded: 0.4, pseudo_units: fer2013_units.h5}
      fer2013_detected: {pack: fer2013_train.h5, crops: detected, proportion: 0.24, balance: 0.25, valence_arousal: expression, graded: 0.4, pseudo_units: fer2013_units.h5}
      muxspace: {pack: muxspace_aligned112.h5, part: {held_out: 0.2, keep: train}, proportion: 0.13, balance: 0.7, valence_arousal: expression, graded: 0.4, pseudo_units: muxspace_units.h5}
      synthetic: {pack: synthetic_train.h5, proportion: 0.30, graded: 0.4}
    phases:
      - {steps: 11000, size: 80, batch: 192}
    losses: {ccc: 0.3, cce: 1.0, bce: 4.0, positive: 1.5, dm: 0.03, distil: 0.5, matching: bce, match_annotated: false}
    optimiser: {lr: 1.2e-3, weight_decay: 0.05, warmup: 0.03, ema: 0.999}
    augment: {rotate: 10.0, cutout: 0.15, noise: 0.1, low_resolution: 0.15}
  - network: {like: mma-lite, depths: [1, 2, 2]}
    sources:
      fer2013: {pack: fer2013_train.h5, proportion: 0.32, balance: 0.25, valence_arousal: expression, graded: 0.45, pseudo_units: fer2013_units.h5}
      fer2013_detected: {pack: fer2013_train.h5, crops: detected, proportion: 0.24, balance: 0.25, valence_arousal: expression, graded: 0.45, pseudo_units: fer2013_units.h5}
      muxspace: {pack: muxspace_aligned112.h5, part: {held_out: 0.2, keep: train}, proportion: 0.14, balance: 0.85, valence_arousal: expression, graded: 0.45, pseudo_units: muxspace_units.h5}
      synthetic: {pack: synthetic_train.h5, proportion: 0.30, graded: 0.45}
    phases:
      - {steps: 11000, size: 80, batch: 192}
    losses: {ccc: 0.3, cce: 1.0, bce: 4.0, positive: 1.5, dm: 0.03, distil: 0.5, matching: bce, match_annotated: false}
    optimiser: {lr: 1.2e-3, weight_decay: 0.05, warmup: 0.03, ema: 0.999}
    augment: {rotate: 10.0, cutout: 0.15, noise: 0.1, low_resolution: 0.15}
"""

DIGESTS = (
    "c3468eee1ce8a5c039523f3469bbdd966952d3da9a80c22d2c8da583dfa056d8",
    "774b26b77458a3e64d50d47b8054df5a7ae95a58d6da25bf0fc17e3259ffad0f",
    "21950ec410e5ecb681b21f8d5009e795feaa203613023837d2491a540070fbbd",
)


def test_the_stages_of_0_1_0_have_their_digests(tmp_path: Path) -> None:
    """What came later (votes, init, equalise, …) is in no digest until it is used."""
    path = tmp_path / "mma-lite.yaml"
    path.write_text(MMA_LITE_0_1_0)
    stages = read_config(path)
    assert tuple(map(config_digest, stages)) == DIGESTS
    for used in (
        "augment: {equalise: 0.2}",
        "augment: {quality: [20, 80]}",
        "init: mma-lite-0.1.0.safetensors",
    ):
        path.write_text(
            f"{MMA_LITE_0_1_0.split('stages:')[0]}{used}\nstages:{MMA_LITE_0_1_0.split('stages:')[1]}"
        )
        assert config_digest(read_config(path)[0]) != DIGESTS[0]
    for used in ("votes: majority", "units_share: 0.5"):
        path.write_text(MMA_LITE_0_1_0.replace("balance: 0.25,", f"balance: 0.25, {used},", 1))
        assert config_digest(read_config(path)[0]) != DIGESTS[0]
