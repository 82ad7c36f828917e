"""docs/formats.md: its commands make the dumps, and its snippets read them without feie."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from feie.cli import app
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter


@pytest.fixture(scope="module")
def page(project):
    return (project / "docs" / "formats.md").read_text()


@pytest.fixture(scope="module")
def folder(page, tmp_path_factory, settings, record):
    """A store, and the dumps of it that the page's commands make."""
    path = tmp_path_factory.mktemp("formats")
    item = record("face-001", 30)
    odd = replace(item, time=np.cumsum(np.full(30, 1 / 29.97)))
    with StoreWriter(path / "features.zarr", settings) as writer:
        writer.append(record("a/b", 9), odd, record("last", 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        commands = re.findall(r"^feie (dump .*)$", page, re.MULTILINE)
        assert len(commands) == 7
        for command in commands:
            result = CliRunner().invoke(app, shlex.split(command))
            assert result.exit_code == 0, result.output
    return path


SECTIONS = (
    "HDF5", "HDF5, a group a video", "Parquet", "safetensors", "NumPy archives",
    "OpenFace-like CSV", "MuSe feature folders",
)  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS)
def test_a_snippet_reads_a_dump_without_feie(section, page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "feie" not in code
    found: dict = {}
    exec(code, found)
    expected = open_store(folder / "features.zarr")["face-001"]
    assert list(found["columns"]) == list(expected._store.columns)
    values = found["values"]
    assert values.dtype == np.float32
    if section.startswith("MuSe"):
        np.testing.assert_array_equal(values[expected.valid], expected.affect[expected.valid])
        assert np.isfinite(values).all()
        np.testing.assert_allclose(found["time"], expected.time, rtol=1e-15)
    else:
        np.testing.assert_array_equal(values, expected.affect)
        np.testing.assert_array_equal(found["time"], expected.time)
        np.testing.assert_array_equal(found["valid"], expected.valid)


def test_every_format_has_a_row(page):
    from feie.features.formats.writing.format import NAMES

    for name in NAMES:
        assert f"| `{name}` |" in page
