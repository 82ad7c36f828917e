"""The table of jobs: what the command line offers, and what there is in Python.

Nothing else lists jobs. A new one is a module with a function ``run`` that takes one options
model, and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes
    ----------
    run : str
        Module with its function ``run``, which takes options and a progress callback, and gives a
        `feie.pipeline.result.Result`.
    options : str
        ``module:class`` of its options model, a light one: ``--help`` reads it.
    command : str
        What the command line calls it; empty where only Python does.
    panel : str
        Heading of the list of commands.
    about : str
        The command's help, in Markdown: one line, details, examples.
    again : str
        What is said after Ctrl-C.
    front : str
        ``module:class`` of the options of a command that stands before several jobs and picks
        one; ``run`` is in the same module.
    """

    run: str
    options: str
    command: str = ""
    panel: str = ""
    about: str = ""
    again: str = "nothing was lost that had been finished"
    front: str = ""


_PIPELINE = "feie.pipeline."
_GOES_ON = "the same command goes on where it stopped"

JOBS: dict[str, Job] = {
    "demo": Job(
        run="machine.demo",
        options="machine.options:DemoOptions",
        command="demo",
        panel="Start here",
        again="the same command starts from the beginning",
        about="""Extract, train and evaluate on the example clips: all of feie, offline, in minutes.

        Example: `feie demo --data data.example`""",
    ),
    "doctor": Job(
        run="machine.doctor",
        options="machine.options:DoctorOptions",
        command="doctor",
        panel="Start here",
        about="""Say what works on this machine, and how to fix what does not.

        Exit code 0 when videos can be extracted, 2 when not. Nothing is changed or downloaded.

        Example: `feie doctor --json`""",
    ),
    "models": Job(
        run="machine.models",
        options="machine.options:ModelsOptions",
        command="models",
        panel="Start here",
        again="nothing was kept",
        about="""List models made by others, their licences and what is installed; fetch or add one.

        Only `fetch` uses the network; `add` copies a file to where feie looks for it. Files whose
        sha256 is known are kept only if they match it.

        Example: `feie models fetch yunet`""",
    ),
    "extract": Job(
        run="extract.job",
        options="engine.options:ExtractOptions",
        command="extract",
        panel="Stage one",
        again=_GOES_ON,
        about="""Find the face of every frame and write 26 affect numbers per frame to a store.

        Run it again to continue after a crash or to add videos: what is done is skipped. A broken
        video is named and kept as a failure (exit code 3); all others are extracted.

        Example: `feie extract --videos reactions/ --detector scrfd:det_10g.onnx`""",
    ),
    "import_features": Job(
        run="imports.job",
        options="imports.options:ImportFeaturesOptions",
        command="import",
        panel="Stage one",
        again=_GOES_ON,
        about="""Make a store of features that other tools computed, such as OpenFace or wav2vec.

        Columns keep their names and are put in groups, which `feie train-head --subset` takes.
        Frames without a face stay as gaps. Run it again to continue or to add files: what is done
        is skipped. A broken file costs its own videos, which are named (exit code 3).

        Example: `feie import openface/ --store openface.zarr`""",
    ),
    "merge": Job(
        run="stores.merge",
        options="stores.options:MergeOptions",
        command="merge",
        panel="Stage one",
        again="nothing was written; start again",
        about="""Join stores that were made apart, such as those of `feie extract --shard`.

        Stores whose numbers were made in different ways are refused. Videos come out sorted by id,
        each once. Of a single store the result is a copy without what was replaced. The new store
        appears under its name when it is complete.

        Example: `feie merge part-1.zarr part-2.zarr --out features.zarr`""",
    ),
    "info": Job(
        run="stores.info",
        options="stores.options:InfoOptions",
        command="info",
        panel="The store",
        about="""Say what a store holds, what failed, and which weights and options made it.

        Example: `feie info features.zarr --reproduce`""",
    ),
    "inspect": Job(
        run="inspect.job",
        options="inspect.options:InspectOptions",
        command="inspect",
        panel="The store",
        about="""Draw videos over time: faces, valence and arousal, expressions, action units, gaps.

        Where `--out` ends in `.html`, write one self-contained page instead: totals, lengths,
        failures, and a table of all videos with small curves that sorts and filters.

        Example: `feie inspect features.zarr session1/00001 --out 00001.pdf --from 10 --to 20`

        Example: `feie inspect features.zarr --out overview.html`""",
    ),
    "verify": Job(
        run="stores.verify",
        options="stores.options:VerifyOptions",
        command="verify",
        panel="The store",
        about="""Check a store against its specification, every committed byte of it.

        Exit code 1 when it is damaged, or when a source is no longer what its numbers were made
        from.

        Example: `feie verify features.zarr --videos reactions/`""",
    ),
    "dump": Job(
        run="dump.job",
        options="dump.options:DumpOptions",
        command="dump",
        panel="The store",
        again="nothing half-written has a final name; the same command starts again or goes on",
        about="""Write the numbers of a store in a format that other programs read.

        Every number is kept to its last bit, and `feie import` reads each format back. A data
        sheet (columns, units, missing values, licences) and the provenance lie beside it. What has
        its final name is whole: after an interruption a single file is started again, and a folder
        continues and keeps the files that are complete.

        Example: `feie dump features.zarr --format muse --subset au --missing hold --out feats/au`
        """,
    ),
    "train_head": Job(
        run="train.job",
        options="train.options:TrainHeadOptions",
        front="grid.command:TrainHeadCommand",
        command="train-head",
        panel="Stage two",
        again="`feie train-head --resume RUN` goes on with it",
        about="""Train a head, such as the masked recurrent one (MRNN), on stored affect vectors.

        The epoch is chosen on the validation split; the test split is not read. With --sweep every
        point of a grid is trained, and a table says which is best. With several stores (faces,
        voice) one head is trained on each; their weighted mean, weights chosen on validation, is
        one run.

        Example: `feie train-head --subset va,au --seed 1`""",
    ),
    "train_fusion": Job(run="train.fusion", options="train.fusion:TrainFusionOptions"),
    "train_frame_va": Job(run="train.frame_va", options="train.frame_va:TrainFrameVaOptions"),
    "sweep": Job(run="grid.sweep", options="grid.options:SweepOptions"),
    "evaluate": Job(
        run="evaluate.job",
        options="evaluate.options:EvaluateOptions",
        command="evaluate",
        panel="Stage two",
        about="""Print Pearson per target with bootstrap 95 % intervals, and write the predictions.

        Where the labels name subjects, the bootstrap draws subjects rather than videos.

        Example: `feie evaluate --run runs/a --against runs/b --report report.html`""",
    ),
    "predict": Job(
        run="predict.job",
        options="predict.options:PredictOptions",
        command="predict",
        panel="Stage two",
        about="""Predict videos without labels, from a store or straight from the videos.

        A video that cannot be extracted is named and has no row in the file (exit code 3).

        Example: `feie predict --run runs/a --videos new-clips --out predictions.csv`""",
    ),
    "compound": Job(
        run="predict.compound",
        options="predict.options:CompoundOptions",
        command="compound",
        panel="Stage two",
        about="""Score the seven compound expressions from the stored probabilities, untrained.

        A compound's score is the sum of the probabilities of its two expressions (Savchenko,
        arXiv 2403.11590).

        Example: `feie compound --store features.zarr --out compound.csv`""",
    ),
    "ablate": Job(
        run="grid.ablate",
        options="grid.options:AblateOptions",
        command="ablate",
        panel="Stage two",
        again=_GOES_ON,
        about="""Train every row of a paper's ablation table over several seeds; print mean and sd.

        The published figures (Kollias et al., arXiv 2303.00180) stand beside them. The same
        command continues after a crash: finished runs are kept, the others resume. Every run
        is one of `feie train-head`; `feie evaluate --run ablation-subsets/runs/va-au-s0` scores it.

        Example: `feie ablate --table subsets --seeds 5`""",
    ),
    "cross_validate": Job(
        run="study.cross_validate",
        options="study.options:CrossValidateOptions",
        command="cross-validate",
        panel="Stage two",
        again=_GOES_ON,
        about="""Leave persons out in turn, train on the others, and score what is predicted.

        Where the labels have a column `subject`, no person stands on both sides of a fold. Epochs,
        and what `--choose` names, are chosen by a validation part of the other folds. The same
        command continues after a crash. Every run is one of `feie train-head`.

        Example: `feie cross-validate --folds 5 --seeds 3`""",
    ),
    "compare": Job(
        run="study.compare",
        options="study.options:CompareOptions",
        command="compare",
        panel="Stage two",
        about="""Tell which differences in Pearson are more than chance, and which are not.

        Runs, cross-validations and CSV files of predictions are compared with the first of them by
        a paired bootstrap over persons (or videos); p-values are corrected for their number (Holm).

        Example: `feie compare cross-validation other-cross-validation`""",
    ),
    "train_mma": Job(
        run="extractor.train_mma",
        options="extractor.options:TrainMmaOptions",
        command="train-mma",
        panel="The extractor",
        again="the same command goes on from the last checkpoint",
        about="""Train the multi-task affect network (MMA) on labelled faces.

        The configuration says which data are where: AffectNet, Aff-Wild2, EmotioNet, tables or
        packs (docs/train-mma.md). A label that a data set lacks is unknown, not absent. A run that
        was killed continues from its last checkpoint with the same command.

        Example: `feie train-mma mma-base --data-root /data --out mma-run`""",
    ),
    "evaluate_mma": Job(
        run="extractor.evaluate_mma",
        options="extractor.options:EvaluateMmaOptions",
        command="evaluate-mma",
        panel="The extractor",
        about="""Score an extractor on every image of a pack or data set: F1, CCC, calibration, ….

        Example: `feie evaluate-mma --data fer2013_val.h5 --json`, or
        `feie evaluate-mma --reader affectnet --data AffectNet --split val`""",
    ),
    "render_faces": Job(
        run="extractor.render_faces",
        options="extractor.options:RenderFacesOptions",
        command="render-faces",
        panel="The extractor",
        about="""Render a training pack of synthetic faces with exactly known action units.

        Example: `feie render-faces --model ict_facekit_light.h5 --out synthetic/train.h5`""",
    ),
    "label_units": Job(
        run="extractor.label_units",
        options="extractor.options:LabelUnitsOptions",
        command="label-units",
        panel="The extractor",
        about="""Guess the action units of a pack's faces with a teacher network, for training only.

        Needs `pip install 'feie[teacher]'`.

        Example: `feie label-units --data faces.h5 --teacher face_landmarker.task --out units.h5`
        """,
    ),
}
"""Jobs by the names of their Python functions, in the order of the list of commands."""

COMMANDS = {job.command: job for job in JOBS.values() if job.command}
"""Jobs by the names of their commands."""


def _found(place: str) -> Any:
    module, _, name = place.partition(":")
    found = import_module(_PIPELINE + module)
    return getattr(found, name) if name else found


def options_model(name: str) -> Any:
    """Give the pydantic model of a job's options."""
    return _found(JOBS[name].options)


def job_run(name: str) -> Callable[..., Any]:
    """Give the function that carries a job out."""
    run: Callable[..., Any] = _found(JOBS[name].run).run
    return run


def command_model(command: str) -> Any:
    """Give the pydantic model of a command's options."""
    return _found(COMMANDS[command].front or COMMANDS[command].options)


def command_run(command: str) -> Callable[..., Any]:
    """Give the function that carries a command out."""
    found = COMMANDS[command]
    run: Callable[..., Any] = _found(found.front.partition(":")[0] or found.run).run
    return run
