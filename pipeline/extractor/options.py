"""What `train-mma`, `evaluate-mma`, `render-faces` and `label-units` can be asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from feie.pipeline.options import Flag, Options

HELD_OUT_EVERY = 5
"""Rendered identities whose number leaves remainder 4 by this are held out: a fifth of all."""

_DEVICE = "`cpu`, `cuda`, `cuda:1` or `auto`."


class TrainMmaOptions(Options):
    """What `feie train-mma` is asked to do.

    A batch depends on the configuration and the step alone, wherever the network is and however
    many workers read.
    """

    config: Annotated[
        Path,
        Field(
            description="YAML: data, network, schedule; or `mma-base`, `va-expr8`, which come "
            "with feie."
        ),
        Flag(names=("--config",), argument=True),
    ]
    data_root: Annotated[
        tuple[Path, ...],
        Field(description="Folder of the data named in the configuration; can be repeated."),
    ] = (Path(),)
    out: Annotated[
        Path,
        Field(description="Folder of checkpoints, logs, curves and weights, a stage each."),
    ] = Path("mma-run")
    detector: Annotated[
        str | None,
        Field(description="Aligns data with `crops: detected`, e.g. `scrfd:FILE.onnx`."),
    ] = None
    device: Annotated[str, Field(description=_DEVICE)] = "auto"
    threads: Annotated[int, Field(ge=1, description="Threads of the network on a CPU.")] = 2
    workers: Annotated[
        int,
        Field(
            ge=0,
            description="Threads that read and augment images; 0: the processors that the network "
            "leaves, at most eight.",
        ),
    ] = 0


class EvaluateMmaOptions(Options):
    """What `feie evaluate-mma` is asked to do."""

    data: Annotated[
        Path,
        Field(
            description="HDF5 pack: `jpeg` or `images`, `expression` (names, or codes with "
            "attribute `classes`), and any of `valence`, `arousal`, `au` (attribute `columns`); "
            "or, with --reader, the folder of a data set or a table."
        ),
        Flag(names=("--data",), argument=True),
    ]
    reader: Annotated[
        Literal["pack", "affectnet", "aff-wild2", "emotionet", "table"],
        Field(description="What kind of data it is."),
    ] = "pack"
    split: Annotated[
        Literal["train", "val", "test"] | None, Field(description="Which split of a data set.")
    ] = None
    partition: Annotated[
        tuple[Path, ...],
        Field(
            description="CSV, or folder with a CSV per split, of another protocol; can be repeated."
        ),
    ] = ()
    images: Annotated[
        Path | None, Field(description="Folder of the images, if not the usual one.")
    ] = None
    annotations: Annotated[
        Path | None,
        Field(description="File or folder of the annotations, if not the usual one."),
    ] = None
    outside: Annotated[
        Literal["keep", "drop"],
        Field(
            description="Contempt, other, none, uncertain: `keep` (without expression) or `drop`."
        ),
    ] = "keep"
    every: Annotated[int, Field(gt=0, description="Score only every so many images.")] = 1
    tolerance: Annotated[
        float,
        Field(ge=0, le=1, description="Share of images that may be missing or unreadable."),
    ] = 0.01
    extractor: Annotated[
        str,
        Field(
            description="Bundled name, a .safetensors made by `feie train-mma`, or what else "
            "`feie extract --extractor` takes."
        ),
        Flag(names=("--extractor", "--weights")),
    ] = "mma-lite"
    detector: Annotated[
        str | None,
        Field(
            description="Aligns images that are not 112x112 and have no landmarks, e.g. "
            "`scrfd:FILE.onnx`; without it one fixed crop does."
        ),
    ] = None
    held_out: Annotated[
        float | None,
        Field(gt=0, lt=1, description="Score only the share that training held out."),
    ] = None
    held_out_by: Annotated[
        Literal["name", "person"],
        Field(description="What was held out: images by `name`, or whole persons: `person`."),
    ] = "name"
    without: Annotated[
        Path | None,
        Field(description="A pack whose images are left out where they are the very same pixels."),
    ] = None
    equalised: Annotated[
        bool,
        Field(
            description="Judge on histogram-equalised copies of the images, as FER2013's often are."
        ),
    ] = False
    picture: Annotated[
        Path | None,
        Field(description="Draw the confusion matrix into this file (PNG, SVG, PDF)."),
    ] = None
    repeats: Annotated[int, Field(ge=0, description="Bootstrap resamples.")] = 1000
    device: Annotated[str, Field(description=_DEVICE)] = "auto"


class RenderFacesOptions(Options):
    """What `feie render-faces` is asked to do.

    The pack is a function of model, count, seed, identities, people and quality.
    """

    model: Annotated[Path, Field(description="The ICT face model as HDF5.")]
    out: Annotated[Path, Field(description="The pack to write (HDF5); nothing may be there yet.")]
    count: Annotated[int, Field(ge=1, description="Images.")] = 30_000
    seed: Annotated[int, Field(ge=0, description="Fixes every pixel.")] = 0
    identities: Annotated[
        int,
        Field(
            ge=HELD_OUT_EVERY,
            description="Persons there are; person k has the same face in every pack.",
        ),
    ] = 1000
    people: Annotated[
        Literal["train", "held-out", "all"],
        Field(description="`train`, `held-out` (a fifth of the identities) or `all`."),
    ] = "train"
    quality: Annotated[int, Field(ge=1, le=100, description="JPEG quality of the crops.")] = 92
    workers: Annotated[int, Field(ge=1, description="Processes.")] = 1


class LabelUnitsOptions(Options):
    """What `feie label-units` is asked to do."""

    data: Annotated[Path, Field(description="HDF5 pack of faces.")]
    teacher: Annotated[Path, Field(description="MediaPipe's face_landmarker.task.")]
    out: Annotated[Path, Field(description="The pseudo-labels to write (HDF5).")]
