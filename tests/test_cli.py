"""The command line: what it prints where, and how it exits."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from feie.cli import app
from feie.features.errors import FeieError
from feie.pipeline.functions import job
from feie.pipeline.jobs import COMMANDS, JOBS, command_model, options_model
from feie.pipeline.options import Options, options_of
from feie.pipeline.result import Result


@pytest.fixture(scope="module")
def cli():
    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture(scope="module")
def store(cli, tmp_path_factory, clip, untrained):
    """A store of three clips, one of them broken, made by the command itself."""
    root = tmp_path_factory.mktemp("cli")
    clip(root / "v" / "a.mp4", 20)
    clip(root / "v" / "b.mp4", 30, seed=1)
    (root / "v" / "broken.mp4").write_text("no video")
    path = root / "s.zarr"
    options = ("--videos", root / "v", "--store", path, "--extractor", untrained)
    result = cli("extract", *options, code=3)
    assert "broken" in result.stdout
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_teaches_with_an_example(cli, command):
    text = cli(command, "--help").stdout
    assert "Example" in text
    assert f"feie {command}" in text


def _plain(text: str) -> str:
    """Text without the marks of Markdown and of a panel, in single spaces."""
    return " ".join(text.replace("`", "").replace("│", " ").split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_in_the_help_with_what_it_does(command):
    said = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "1000"}).stdout
    text = _plain(said)
    for option in options_of(command_model(command)).values():
        if option.flag.hidden:
            continue
        assert option.field.description, f"{command}: {option.name} says nothing of itself"
        assert _plain(option.help) in text, f"{command} {option.name}"
        if option.flag.argument:
            assert f" {option.name.upper()} " in text
        if option.flag.names or not option.flag.argument:
            for name in option.names:
                assert re.search(rf"{name}\b", text)
        if isinstance(option.flag.default, str):
            assert f"({_plain(option.flag.default)})" in text
        for old in option.old_names:
            assert not re.search(rf"{old}(?![\w-])", said.replace(option.help, ""))


def _typed(command: str):
    """What typer makes of a command, its parameters by name."""
    group = typer.main.get_command(app)
    built = group.get_command(None, command)
    return {parameter.name: parameter for parameter in built.params}


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_are_those_of_python(command):
    """What a command shows as default is what a job in Python has; only what is typed is passed."""
    name = next(name for name, found in JOBS.items() if found.command == command)
    ours, theirs = options_of(command_model(command)), options_of(options_model(name))
    for option, parameter in inspect.signature(job(name)).parameters.items():
        if option == "progress":
            continue
        default = parameter.default
        assert theirs[option].required == (default is inspect.Parameter.empty)
        if not theirs[option].required:
            assert default == theirs[option].default
            assert option in ours
            same = ours[option].default == default
            assert same or ours[option].flag.default in (default, theirs[option].flag.default)
    for option in ours.values():
        if not option.flag.hidden and (option.flag.names or not option.flag.argument):
            by_name = f"by_{option.name}" if option.flag.argument else option.name
            shown = _typed(command)[by_name].default
            assert shown in (None, False, option.default) or str(shown) == str(option.default)


@pytest.mark.parametrize("name", JOBS)
def test_every_job_has_options_and_a_result_of_their_kinds(name):
    assert issubclass(options_model(name), Options)
    places = inspect.signature(job(name)).return_annotation.split(" | ")
    module = sys.modules[f"feie.pipeline.{JOBS[name].run}"]
    for place in places:
        if hasattr(module, place):
            assert issubclass(getattr(module, place), Result)


def test_help_loads_nothing_heavy():
    """`feie --help` takes some 0.25 s and `feie COMMAND --help` 0.4 s; numpy alone has 0.1 s."""
    heavy = ("torch", "zarr", "pandas", "numpy", "cv2", "onnxruntime", "scipy", "matplotlib", "av",
             "h5py", "distributed")  # fmt: skip
    loaded = f"[m for m in {(*heavy, 'pydantic')!r} if m in sys.modules]"
    shown = "feie.cli.app(['--help'], standalone_mode=False)"
    listing = f"import sys, feie.cli; {shown}; sys.exit({loaded} or 0)"
    subprocess.run([sys.executable, "-c", listing], check=True, capture_output=True)
    code = f"""
import sys
from feie.cli import app
from feie.pipeline.jobs import COMMANDS
for command in COMMANDS:
    app([command, "--help"], standalone_mode=False)
    found = [m for m in {heavy!r} if m in sys.modules]
    assert not found, (command, found)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_only_what_was_typed_is_passed_on(cli, store):
    """A default is the model's business, so that a model can tell it from what was typed."""
    seen = []

    def run(options, progress):
        seen.append(options)
        return Result()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("feie.cli.command_run", lambda command: run)
        cli("extract", "v", "--follow", "--batch-size", "64")
        cli("extract", "--videos", "v")
    assert seen[0].model_fields_set == {"videos", "follow", "batch_size"}
    assert seen[1].model_fields_set == {"videos"}


READS_OR_WRITES_A_STORE = [
    command
    for command in COMMANDS
    if {"store", "stores"} & options_of(command_model(command)).keys()
]


def _passed_on(cli, *arguments, code=0):
    """Options that a command hands to its job."""
    seen = []

    def run(options, progress):
        seen.append(options)
        return Result()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("feie.cli.command_run", lambda command: run)
        said = cli(*arguments, code=code)
    return (seen[0] if seen else None), said


@pytest.mark.parametrize("command", READS_OR_WRITES_A_STORE)
def test_one_shape_of_the_store(cli, command):
    """By its place and as --store, in every command that has one."""
    model = command_model(command)
    places = [n for n, o in options_of(model).items() if o.flag.argument]
    field = "stores" if "stores" in places else "store"
    assert field in places
    before = places[: places.index(field)]
    needed = {"merge": ["--out", "m.zarr"], "dump": ["--format", "npz", "--out", "d"]}
    rest = needed.get(command, [])
    by_place, _ = _passed_on(cli, command, *before, "x.zarr", *rest)
    by_name, _ = _passed_on(cli, command, *before, "--store", "x.zarr", *rest)
    assert by_place == by_name
    assert str(getattr(by_place, field)) in ("x.zarr", "('x.zarr',)")


def test_a_place_that_was_named_is_left_to_the_next(cli):
    shown, _ = _passed_on(cli, "inspect", "--store", "s.zarr", "a", "b")
    assert (shown.store, shown.videos) == ("s.zarr", ("a", "b"))
    shown, _ = _passed_on(cli, "inspect", "s.zarr", "a", "b")
    assert (shown.store, shown.videos) == ("s.zarr", ("a", "b"))
    extracted, _ = _passed_on(cli, "extract", "v", "s.zarr")
    assert (str(extracted.videos), extracted.store) == ("v", "s.zarr")
    extracted, _ = _passed_on(cli, "extract", "--videos", "v", "s.zarr")
    assert (str(extracted.videos), extracted.store) == ("v", "s.zarr")
    _, said = _passed_on(cli, "info", "--store", "s.zarr", "t.zarr", code=2)
    assert "t.zarr" in said.stderr


WRITES = {"merge", "inspect", "dump", "evaluate", "predict", "compound", "ablate", "train-mma",
          "render-faces", "label-units", "demo", "extract", "import"}  # fmt: skip


@pytest.mark.parametrize("command", sorted(WRITES))
def test_what_is_written_is_out(command):
    names = [o.names + o.old_names for o in options_of(command_model(command)).values()]
    assert any("--out" in group for group in names)


def test_old_names_go_on_working_with_a_word(cli):
    for command in COMMANDS:
        for option in options_of(command_model(command)).values():
            for old in option.old_names:
                assert _typed(command).keys() >= {option.name}
                assert old not in option.names
    found, said = _passed_on(cli, "compound", "--against", "f.csv")
    assert str(found.frequencies) == "f.csv"
    assert "--against is called --frequencies now" in " ".join(said.stderr.split())
    found, said = _passed_on(cli, "inspect", "s.zarr", "--html", "p.html")
    assert str(found.page) == "p.html"
    found, said = _passed_on(cli, "evaluate-mma", "--data", "d", "--weights", "w")
    assert found.extractor == "w"
    warned = pytest.warns(FutureWarning, match="against is called frequencies now")
    with warned, pytest.raises(FeieError):
        job("compound")(store="nowhere.zarr", against="f.csv")


def test_one_name_has_one_meaning():
    """Options of one name are of one type in all commands, but for files of a data set's own."""
    kinds: dict[str, dict[str, set[str]]] = {}
    for command in COMMANDS:
        for option in options_of(command_model(command)).values():
            if not option.flag.hidden:
                kind = str(option.typed).removeprefix("list[").removesuffix("]")
                kinds.setdefault(option.names[0], {}).setdefault(kind, set()).add(command)
    text = {"<class 'str'>", "<class 'pathlib.Path'>", "str", "pathlib.Path"}
    two = {n: found for n, found in kinds.items() if len(found) > 1 and not found.keys() <= text}
    literals = {n: f for n, f in two.items() if all("Literal" in k or k in text for k in f)}
    assert two.keys() - literals.keys() == set()


def test_what_was_mistyped_is_suggested(cli):
    assert "did you mean 'extract'?" in " ".join(cli("xtract", code=2).stderr.split())
    assert "--store" in cli("extract", "v", "--stoer", "s.zarr", code=2).stderr


def test_groups_of_columns_by_any_case(cli, store, tmp_path):
    command = ("dump", store, "--format", "npz")
    for subset in ("VA,AU", "va,au"):
        cli(*command, "--subset", subset, "--out", tmp_path / subset)
    one, two = (sorted((tmp_path / s).rglob("*.npz")) for s in ("VA,AU", "va,au"))
    assert [p.name for p in one] == [p.name for p in two]
    assert len(one) == 2
    with np.load(one[0]) as upper, np.load(two[0]) as lower:
        assert upper.files == lower.files
        for name in lower:
            np.testing.assert_array_equal(upper[name], lower[name])
    assert "unknown group fau" in cli(*command, "--subset", "fau", "--out", "x", code=2).stderr


def test_a_run_by_its_name(cli, example_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ("--labels", example_folder / "labels.csv", "--subset", "VA")
    trained = ("--epochs", "1", "--name", "a", "--width", "2")
    cli("train-head", example_folder / "features.zarr", *given, *trained)
    scored = json.loads(cli("evaluate", "--run", "a", "--against", "a", "--json").stdout)
    assert scored["run"] == "runs/a"
    assert scored["against"]["run"] == "runs/a"
    predicted = cli("predict", example_folder / "features.zarr", "--run", "a", code=3)
    assert "face-007" in predicted.stdout


def test_a_result_is_printed_as_it_says(capsys):
    from feie.cli import _show
    from feie.pipeline.result import Table

    class Shown(Result):
        def tables(self):
            rows = [("a [bold]", 1.0, 3), ("b", None, 4)]
            return [Table("of [x]", ("name", "figure", "n"), rows, [("mean", 0.5, "")])]

        def lines(self):
            return ["failed [v]: broken"]

    _show(Shown())
    said = capsys.readouterr().out
    for part in ("of [x]", "a [bold]", "1.000", "undefined", "0.500", "failed [v]: broken"):
        assert part in said


def test_version(cli):
    assert cli("--version").stdout.startswith("feie ")


def test_json_is_one_object_and_nothing_else(cli, store, untrained):
    options = ("--videos", store.parent / "v", "--store", store, "--extractor", untrained)
    result = json.loads(cli("extract", *options, "--json", code=3).stdout)
    assert (result["videos"], result["skipped"], result["failed"]) == (3, 3, 1)
    info = json.loads(cli("info", store, "--json").stdout)
    assert (info["videos"], info["frames"], info["failed"]) == (3, 50, 1)
    assert info["face_share"] == 1.0
    verified = json.loads(cli("verify", store, "--json").stdout)
    assert (verified["store"], verified["sound"], verified["violations"]) == (str(store), True, [])


@pytest.mark.slow
def test_the_three_lines_work_bare_where_labels_csv_lies(cli, project, tmp_path, monkeypatch):
    """Extract, train-head, evaluate, with defaults only, in a folder that holds labels.csv."""
    monkeypatch.chdir(tmp_path)
    rows = (project / "data.example" / "labels.csv").read_text().splitlines()
    by_split = {s: [r for r in rows if f",{s}," in r] for s in ("train", "val", "test")}
    kept = [rows[0], *by_split["train"][:14], *by_split["val"][:7], *by_split["test"][:7]]
    (tmp_path / "labels.csv").write_text("\n".join(kept))
    (tmp_path / "clips").mkdir()
    for row in kept[1:]:
        name = row.split(",")[0] + ".mp4"
        (tmp_path / "clips" / name).symlink_to(project / "data.example" / "videos" / name)
    cli("extract", "--videos", "clips")
    trained = json.loads(cli("train-head", "--subset", "va,au", "--json").stdout)
    assert trained["subset"] == ["va", "au"]
    assert (trained["n_train"], trained["n_val"]) == (14, 7)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "clips", "features.zarr", "features.zarr.lock", "labels.csv", "runs",
    ]  # fmt: skip
    scores = json.loads(cli("evaluate", "--json").stdout)
    assert (scores["split"], scores["n"]) == ("val", 7)
    assert list(scores["pearson"]) == rows[0].split(",")[2:]
    assert -1 <= scores["mean_pearson"] <= 1
    assert json.loads(cli("evaluate", "--split", "test", "--json").stdout)["n"] == 7
    assert "Amusement" in cli("evaluate").stdout


def test_info_for_people(cli, store):
    text = cli("info", store).stdout
    assert "3 (1 failed)" in text
    assert "untrained" in text


def test_verify_finds_a_damaged_store(cli, store, tmp_path):
    import shutil

    damaged = tmp_path / "s.zarr"
    shutil.copytree(store, damaged)
    chunk = next(p for p in sorted((damaged / "affect" / "c").rglob("*")) if p.is_file())
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(bytes(data))
    assert "S15" in cli("verify", damaged, code=1).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extract"], "--videos"),
        (["extract", "--videos", "nowhere"], "nowhere"),
        (["extract", "--videos", ".", "--faces", "some"], "--faces"),
        (["extract", "--videos", ".", "--fps", "-1"], "--fps"),
        (["extract", "--videos", ".", "--batch-size", "0"], "--batch-size"),
        (["extract", "--videos", ".", "--frobnicate"], "--frobnicate"),
        (["extract", "--videos", ".", "--store", "https://lab.org/s.zarr"], "--store"),
        (["extract", "--videos", "x" * 300], "xxx"),
        (["info", "nowhere.zarr"], "feie extract"),
        (["train-head"], "feie extract"),
        (["train-head", "--preset", "fast"], "--preset"),
        (["train-head", "--subset", ","], "--subset"),
        (["train-head", "--gpus", "0"], "belongs to --sweep"),
        (["train-head", "--jobs", "2"], "belongs to --sweep"),
        (["evaluate"], "runs"),
        (["evaluate", "--split", "exam"], "--split"),
        (["verify", "nowhere.zarr"], "nowhere.zarr"),
        (["train-mma", "nowhere.yaml"], "nowhere.yaml"),
        (["evaluate-mma", "--data", "nowhere.h5"], "nowhere.h5"),
        (["demo", "--data", "nowhere"], "nowhere"),
        (["models", "frobnicate"], "ACTION"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_bad_usage_is_one_error_and_exit_code_2(cli, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    result = cli(*arguments, code=2)
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_stops_at_once_and_the_same_command_goes_on(tmp_path, clip, untrained):
    for i in range(3):
        clip(tmp_path / "v" / f"{i}.mp4", 700, seed=i)
    command = [sys.executable, "-c", "from feie.cli import app; app()", "extract"]
    command += ["--videos", tmp_path / "v", "--store", tmp_path / "s.zarr", "--threads", "1"]
    command += ["--extractor", untrained, "--commit-videos", "1"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "s.zarr" / "video").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on where it stopped" in said
    assert "Traceback" not in said
    subprocess.run(command, check=True, capture_output=True)
    from feie.features.store.reader import open_store

    assert open_store(tmp_path / "s.zarr").ids == ["0", "1", "2"]
