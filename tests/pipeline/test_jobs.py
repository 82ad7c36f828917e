"""`import feie`: light, complete, typed, and the same jobs as the command line."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import feie
from feie.features.errors import StoreNotFoundError, UsageError
from feie.pipeline.functions import job
from feie.pipeline.jobs import COMMANDS, JOBS


def test_importing_and_listing_loads_nothing_heavy():
    code = (
        "import sys, feie; dir(feie); heavy = {'torch', 'numpy', 'pandas', 'zarr', 'pydantic', "
        "'fsspec', 'typer'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_is_there_and_listed():
    for name in dir(feie):
        assert getattr(feie, name) is not None
    assert {*JOBS, "open_store", "VideoDataset", "loader"} <= set(dir(feie))
    assert feie.info is feie.info
    with pytest.raises(AttributeError, match="no attribute 'tran_head'"):
        _ = feie.tran_head


def test_jobs_are_the_commands():
    """Every command is a job; what has none is a part of `feie train-head`."""
    assert COMMANDS.keys() == {found.command for found in JOBS.values()} - {""}
    assert len(COMMANDS) == sum(bool(found.command) for found in JOBS.values())
    without = {name for name, found in JOBS.items() if not found.command}
    assert without <= {"train_fusion", "train_frame_va", "sweep"}
    for found in COMMANDS.values():
        assert found.panel
        assert f"`feie {found.command}" in found.about


def test_the_stub_is_up_to_date(project):
    path = project / "tests" / "tools" / "make_stub.py"
    spec = importlib.util.spec_from_file_location("make_stub", path)
    make_stub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_stub)
    kept = Path(project / "__init__.pyi").read_text()
    assert kept == make_stub.stub(), "options have changed: run `python tests/tools/make_stub.py`"


def test_help_says_what_may_be_given():
    signature = inspect.signature(feie.train_head)
    assert signature.parameters["epochs"].default is None
    assert signature.parameters["progress"].kind is inspect.Parameter.KEYWORD_ONLY
    assert "feie train-head --help" in inspect.getdoc(feie.train_head)
    assert "Raises" in inspect.getdoc(feie.train_head)


def test_options_that_make_no_sense_are_one_sentence():
    with pytest.raises(UsageError, match=r"^train_head has no option .* did you mean 'epochs'"):
        feie.train_head(epoch=3)
    with pytest.raises(UsageError, match=r"^epochs: Input should be greater .* \(got 0\)$"):
        feie.train_head(epochs=0)
    with pytest.raises(UsageError, match=r"^videos is missing$"):
        feie.extract()
    with pytest.raises(StoreNotFoundError, match=r"there is no store at nowhere\.zarr"):
        feie.info(store="nowhere.zarr")


def test_a_head_from_python(example_folder, tmp_path):
    reports = []
    trained = feie.train_head(
        store=example_folder / "features.zarr",  # a path where the option is text
        labels=str(example_folder / "labels.csv"),  # and the other way round
        runs=tmp_path / "runs",
        epochs=2,
        width=4,
        subset=["va"],
        progress=reports.append,
    )
    assert (trained.n_train, trained.n_val, trained.epochs) == (4, 2, 2)
    assert reports[-1].stage == "epochs"
    scored = feie.evaluate(run=trained.run)
    assert scored.n == 2
    assert scored.mean_pearson == pytest.approx(trained.mean_pearson)
    assert feie.info(store=example_folder / "features.zarr").videos == 7


def test_jobs_know_only_jobs():
    with pytest.raises(UsageError, match="there is no job 'trian_head'; did you mean 'train_head'"):
        job("trian_head")


def test_the_page_about_it(project, example_folder, tmp_path, monkeypatch):
    """Run the Python of docs/python-api.md from top to bottom, its address on a server here."""
    import matplotlib

    shutil.copytree(example_folder, tmp_path, dirs_exist_ok=True)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = (project / "docs" / "python-api.md").read_text()
    page = page.replace("https://lab.example.org", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    names: dict[str, object] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        exec(compile(code, "python-api.md", "exec"), names)
    assert (tmp_path / "face-001.png").stat().st_size > 5_000
    assert set(names["mean"]) == {"face-001", "face-002", "face-003"}
    assert names["scored"].n == 2
    assert "far" in names
    server.shutdown()
    server.server_close()
