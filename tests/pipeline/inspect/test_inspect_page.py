"""The page of `feie inspect --html`: its numbers, its size, strangers' ids, and a real browser."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from feie.cli import app
from feie.features.schema import Schema
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.pipeline.inspect.job import InspectOptions, run
from feie.pipeline.inspect.summary import NO_FACE, courses_of
from feie.pipeline.progress import silent

HOSTILE = (
    "</script><script>document.title='stolen'</script>",
    "<img src=x onerror=\"document.title='stolen'\">",
    "'\"><svg onload=document.title='stolen'>",
    "&lt;b&gt; $title ${data} {{x}}",
    "日本語 é \u2028 😀",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory, settings, record):
    path = tmp_path_factory.mktemp("page") / "<b>s.zarr"
    hostile = {"name": "<script>document.title='stolen'</script>", "sha256": "e" * 64}
    with StoreWriter(path, replace(settings, extractor=hostile)) as writer:
        for number, name in enumerate(HOSTILE):
            writer.append(record(name.replace("/", "-"), 30 + number))
        writer.append(record("short", 3))
        writer.append(record("<i>bad", 0, message="truncated: <img src=x onerror=alert(1)>"))
        for number in range(120):
            writer.append(record(f"many/{number:03d}", 10 + number))
    return path


@pytest.fixture(scope="module")
def page(store):
    path = store.parent / "page.html"
    assert run(InspectOptions(store=str(store), html=path)).videos == len(HOSTILE) + 122
    return path


def data_of(page):
    text = page.read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>',
                                text, re.DOTALL)[1])  # fmt: skip


def test_the_numbers_of_the_page_are_those_of_the_store(store, page):
    found, source = data_of(page), open_store(store)
    assert found["id"] == source.videos.index.to_list()
    assert found["parts"] == 40
    codes = np.frombuffer(base64.b64decode(found["courses"][1]), np.uint8).reshape(-1, 40)
    for name in ("short", "many/000", "many/119"):
        row = found["id"].index(name)
        affect, valid = source[name].affect, source[name].valid
        n = len(affect)
        assert (found["frames"][row], found["seconds"][row]) == (n, round(n / 30, 2))
        assert found["face"][row] == pytest.approx(valid.mean(), abs=1e-4)
        assert found["mean"][0][row] == pytest.approx(affect[valid, 0].mean(), abs=1e-3)
        assert found["top"][row] == affect[valid, 2:9].mean(0).argmax()
        for part in range(40):
            mine = [i for i in range(n) if i * 40 // n == part]
            mine = mine or [max(i for i in range(n) if i * 40 // n <= part)]
            seen = [i for i in mine if valid[i]]
            if seen:
                value = codes[row, part] / 254 * 2 - 1
                assert value == pytest.approx(affect[seen, 1].mean(), abs=2 / 254)
            else:
                assert codes[row, part] == NO_FACE
    bad = found["id"].index("<i>bad")
    assert found["message"][bad].startswith("truncated")
    assert (found["mean"][0][bad], found["top"][bad]) == (None, -1)


def test_rows_that_were_replaced_and_any_order_of_videos(tmp_path, settings, record):
    """The rows of videos lie between those of others, and chunks of rows are shared."""
    with StoreWriter(tmp_path / "s.zarr", settings) as writer:
        for seed, name in enumerate(["c", "a", "b", "a"]):
            writer.append(record(name, 50, seed=seed))
    store = open_store(tmp_path / "s.zarr")
    videos = store.videos.loc[["b", "a", "c"]]
    found = courses_of(store, videos, [0, 3], 1, 5, silent)
    assert found.codes.shape == (3, 1, 5)
    for row, name in enumerate(["b", "a", "c"]):
        affect = store[name].affect[store[name].valid]
        np.testing.assert_allclose(found.mean[row], affect[:, [0, 3]].mean(0), rtol=1e-5)


def test_columns_of_other_extractors_have_their_own_scale(tmp_path, settings, record):
    schema = Schema.of({"pose": ["Tx", "Ty"], "one": ["c"]})
    values = np.stack([np.linspace(-300, 500, 40), np.zeros(40), np.ones(40)], 1)
    made = record("x", 40)
    made.valid[:] = True
    made.affect = values.astype(np.float32)
    with StoreWriter(tmp_path / "s.zarr", replace(settings, schema=schema)) as writer:
        writer.append(made)
    run(InspectOptions(store=str(tmp_path / "s.zarr"), html=tmp_path / "p.html"))
    found = data_of(tmp_path / "p.html")
    assert found["means"] == ["Tx", "Ty"]
    assert (found["low"][0], found["high"][0]) == (-300, 500)
    assert list(base64.b64decode(found["courses"][0]))[::39] == [0, 254]
    assert found["classes"] == []


def test_nothing_of_a_store_becomes_code(page):
    text = page.read_text()
    assert "stolen'</script>" not in text
    assert text.count("<script") == 2
    assert "<img" not in text
    assert "<i>bad" not in text
    assert "<b>s.zarr" not in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "default-src 'none'" in text


def test_a_page_grows_by_less_than_two_hundred_bytes_a_video(store, page):
    one = store.parent / "one.html"
    run(InspectOptions(store=str(store), videos=("short",), html=one))
    more = (page.stat().st_size - one.stat().st_size) / (len(data_of(page)["id"]) - 1)
    assert more < 200


def test_failures_are_named_without_a_script(page):
    text = page.read_text().split("<script")[0]
    assert html.escape("<i>bad") in text
    assert html.escape("<img src=x onerror=alert(1)>") in text
    assert "truncated</td><td>1</td>" in text


def test_a_pattern_chooses_and_failures_alone_are_a_page(tmp_path, store, settings, record):
    command = ["inspect", str(store), "many/00*", "--html", str(tmp_path / "p.html"), "--json"]
    assert json.loads(CliRunner().invoke(app, command).stdout)["videos"] == 10
    with StoreWriter(tmp_path / "empty.zarr", settings) as writer:
        writer.append(record("x", 0, message="empty: no bytes"))
    run(InspectOptions(store=str(tmp_path / "empty.zarr"), html=tmp_path / "e.html"))
    assert data_of(tmp_path / "e.html")["message"] == ["empty: no bytes"]


# --- in a browser ----------------------------------------------------------------------------


def test_a_browser_shows_the_page_and_has_nothing_to_complain_of(browser, page):
    shown, console = browser(page)
    assert console == []
    assert "stolen" not in re.search(r"<title>(.*?)</title>", shown)[1]
    assert "127 videos" in shown
    rows = re.search(r'<tbody id="rows">(.*)</tbody>', shown, re.DOTALL)[1]
    assert 10 < rows.count("<tr") < 127  # those in view only
    assert html.escape(HOSTILE[1], quote=False).replace("/", "-") in rows.replace("&quot;", '"')
    assert "<svg viewBox" in rows


PROBE = """<script>
const seen = {};
const ids = () => [...body.rows].slice(1, -1).map((row) => row.cells[0].textContent);
const head = [...document.querySelectorAll("#head button")];
head[1].click(); seen.longest = ids()[0];
head[1].click(); seen.shortest = ids()[0];
field.value = "MANY/01"; select(); seen.filtered = ids().sort();
field.value = "truncated"; select(); seen.by_reason = ids();
field.value = ""; kind.selectedIndex = 1; select(); seen.failed = ids();
kind.selectedIndex = 0; select();
box.scrollTop = 1e9; draw(); seen.last = ids().at(-1); seen.rows = ids().length;
document.body.dataset.seen = JSON.stringify(seen);
</script></body>"""


def test_the_table_sorts_filters_and_scrolls(browser, page, tmp_path):
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    (tmp_path / "probe.html").write_text(text.replace("</body>", PROBE))
    shown, console = browser(tmp_path / "probe.html")
    assert console == []
    seen = json.loads(html.unescape(re.search(r'data-seen="(.*?)"', shown)[1]))
    assert seen["longest"] == "many/119"
    assert seen["shortest"] == "<i>bad"
    assert seen["filtered"] == [f"many/01{k}" for k in range(10)]
    assert seen["by_reason"] == seen["failed"] == ["<i>bad"]
    assert seen["last"] == "many/119"  # sorted by frames
    assert seen["rows"] < 80


LAYOUT = """<script>
const wide = (cell) => Math.round(cell.getBoundingClientRect().width);
const root = document.documentElement, bare = (b) => b.textContent.replace(/ [▾▴]/, "");
const seen = { wide: root.clientWidth, over: root.scrollWidth,
  names: [...document.querySelectorAll("#head button")].map(bare),
  widths: [...document.querySelectorAll("#head th")].map(wide),
  curves: [...body.querySelectorAll("tr:nth-child(4) svg")].map(wide) };
document.body.dataset.seen = JSON.stringify(seen);
</script></body>"""


@pytest.mark.parametrize("width", [600, 1400])
def test_a_narrow_window_keeps_ids_and_curves(browser, page, tmp_path, width):
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    (tmp_path / "probe.html").write_text(text.replace("</body>", LAYOUT))
    shown, console = browser(tmp_path / "probe.html", width)
    assert console == []
    seen = json.loads(html.unescape(re.search(r'data-seen="(.*?)"', shown)[1]))
    assert seen["over"] <= seen["wide"]
    curves, means = ["valence", "arousal"], ["mean valence", "mean arousal"]
    kept = [name for name in seen["names"] if name in ("id", *curves)]
    assert kept == ["id", *curves]
    assert (seen["names"] == kept) == (width == 600)
    assert set(means) <= set(seen["names"]) or width == 600
    assert seen["widths"][0] > 0.2 * 0.9 * min(width, 1216)
    assert len(seen["curves"]) == 2
    assert min(seen["curves"]) > 150


@pytest.mark.slow
def test_a_browser_shows_the_report_of_an_evaluation(browser, tmp_path, settings, record):
    with StoreWriter(tmp_path / "s.zarr", settings) as writer:
        for number in range(24):
            writer.append(record(f"v{number}", 20 + number))
    rng = np.random.default_rng(0)
    lines = [f"v{k},{'train' if k < 14 else 'val'},{rng.random():.3f},{rng.random():.3f}"
             for k in range(24)]  # fmt: skip
    (tmp_path / "labels.csv").write_text("\n".join(["id,split,Joy,<b>Awe</b>", *lines]))
    shared = ["--store", str(tmp_path / "s.zarr"), "--labels", str(tmp_path / "labels.csv")]
    runs = ["--runs", str(tmp_path / "runs")]
    for command in (
        ["train-head", "--epochs", "2", "--name", "a", *shared, *runs],
        ["evaluate", "--run", str(tmp_path / "runs" / "a"), *shared, "--report",
         str(tmp_path / "r.html")],
    ):  # fmt: skip
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    shown, console = browser(tmp_path / "r.html")
    assert console == []
    assert shown.count("<img") >= 4
    assert "<b>Awe" not in shown
    assert not re.search(r'(src|href)="(?!data:)', re.sub(r"<link rel=.icon[^>]*>", "", shown))
