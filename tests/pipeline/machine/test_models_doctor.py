"""`feie models` against a server of this machine, and `feie doctor` on a healthy and a sick one."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
import zipfile

import pytest
from typer.testing import CliRunner

from feie.cli import app
from feie.features.catalogue import CATALOGUE
from feie.features.errors import UsageError
from feie.features.faces.bundled import BUNDLED, ONET, YUNET
from feie.features.faces.detectors import load_detector
from feie.features.store.reader import open_store
from feie.pipeline.extract import job as extract
from feie.pipeline.extract.job import ExtractOptions
from feie.pipeline.machine import doctor, models
from feie.pipeline.machine.models import ModelsOptions


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def server(tmp_path):
    """A web server of a folder: its address and the folder."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def fetch(name, mirror, **options):
    return models.run(ModelsOptions(action="fetch", name=name, mirror=mirror, **options))


def test_nothing_is_there_and_nothing_is_fetched_by_listing(home):
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == 0, result.output
    for name, model in CATALOGUE.items():
        assert name in result.stdout
        assert model.url in result.stdout or model.file in BUNDLED
    assert result.stdout.count("comes with feie; trained on WIDER FACE") == 2
    assert not home.exists()


def test_terms_come_before_the_download(home, server):
    mirror, _ = server
    result = CliRunner().invoke(app, ["models", "fetch", "buffalo_s", "--mirror", mirror])
    assert result.exit_code == 2
    assert "non-commercial" in result.stderr
    assert "--yes" in result.stderr
    assert not home.exists()


@pytest.mark.shared
def test_an_archive_is_unpacked_where_a_bare_scrfd_looks(home, server, shared):
    mirror, folder = server
    with zipfile.ZipFile(folder / "buffalo_s.zip", "w") as archive:
        archive.write(shared / "models" / "det_500m.onnx", "buffalo_s/det_500m.onnx")
        archive.writestr("../../evil.onnx", b"outside")
        archive.writestr("readme.txt", b"words")
    entry = fetch("buffalo_s", mirror, yes=True).models[0]
    pack = home / ".insightface" / "models" / "buffalo_s"
    assert sorted(p.name for p in pack.iterdir()) == ["det_500m.onnx", "evil.onnx"]
    assert {f.path: f.pinned for f in entry.files} == {
        str(pack / "det_500m.onnx"): True,
        str(pack / "evil.onnx"): None,
    }
    assert [p.name for p in pack.parent.iterdir()] == ["buffalo_s"]
    assert load_detector("scrfd").name == "scrfd:det_500m"
    (pack / "det_500m.onnx").write_bytes(b"damaged since")
    result = CliRunner().invoke(app, ["models", "list", "buffalo_s", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["models"][0]["files"][0]["pinned"] is False


@pytest.mark.shared
def test_a_single_file_is_found_by_a_bare_yunet(home, server, shared):
    mirror, folder = server
    name = "face_detection_yunet_2023mar.onnx"
    (folder / name).write_bytes((shared / "models" / name).read_bytes())
    assert fetch("yunet", mirror).models[0].files[0].pinned
    assert load_detector("yunet").name == "yunet:face_detection_yunet_2023mar"


def test_another_file_than_the_known_one_is_not_kept(home, server):
    mirror, folder = server
    (folder / "face_detection_yunet_2023mar.onnx").write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(UsageError, match=f"sha256 {found}, known is 8f2383e4"):
        fetch("yunet", mirror)
    (folder / "buffalo_l.zip").write_bytes(b"no archive")
    with pytest.raises(UsageError, match="no archive"):
        fetch("buffalo_l", mirror, yes=True)
    assert [p for p in home.rglob("*") if p.is_file()] == []


def test_what_is_not_pinned_says_so(home, server):
    mirror, folder = server
    (folder / "mbf_va_mtl.onnx").write_bytes(b"some weights")
    mirrored = ["models", "fetch", "mbf_va_mtl", "--yes", "--mirror", mirror]
    result = CliRunner().invoke(app, mirrored)
    assert result.exit_code == 0, result.output
    assert "its sha256 is not known" in result.stdout
    assert hashlib.sha256(b"some weights").hexdigest() in result.stdout


def test_without_a_network_it_says_what_to_copy_where(home, server):
    mirror, _ = server
    with pytest.raises(UsageError, match=r"404.*download https://github\.com.*copy it to .*cache"):
        fetch("yunet", mirror)
    with pytest.raises(UsageError, match=r"unpack it into .*buffalo_sc"):
        fetch("buffalo_sc", "http://127.0.0.1:9", yes=True)
    for name, said in (("frob", "there are yunet"), (None, "which model")):
        with pytest.raises(UsageError, match=said):
            fetch(name, mirror)
    with pytest.raises(UsageError, match="no http address"):
        fetch("yunet", "file:///etc")


def test_the_doctor_finds_this_machine_fit(home, tmp_path):
    result = CliRunner().invoke(app, ["doctor", "--folder", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    findings = {f["name"]: f for f in json.loads(result.stdout)["findings"]}
    assert findings["extractor"]["state"] == "ok", findings["extractor"]
    assert "26 numbers" in findings["extractor"]["found"]
    assert "hevc" in findings["video codecs"]["found"]
    assert findings["detector"]["state"] == "ok", findings["detector"]
    assert "yunet+onet, which comes with feie" in findings["detector"]["found"]
    assert "videos can be extracted" in CliRunner().invoke(app, ["doctor"]).stdout


def test_the_doctor_says_what_is_broken(home, tmp_path, monkeypatch):
    from feie.features.extractors import load as extractors

    monkeypatch.setattr(extractors, "bundled_sha256", lambda _: "0" * 64)
    result = CliRunner().invoke(app, ["doctor", "--folder", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "not the one it came with" in result.stdout
    assert "cannot be written" in result.stdout
    assert "Traceback" not in result.output


def detector_found(folder):
    found = doctor.run(doctor.DoctorOptions(folder=folder)).findings
    return next(f for f in found if f.name == "detector")


def test_the_doctor_on_a_checkout_that_was_never_built(home, tmp_path, never_built):
    found = detector_found(tmp_path)
    assert found.state == "missing"  # nothing finds faces, and that is what it says
    assert "pip install ." in found.cure
    (pack := home / ".insightface" / "models" / "buffalo_s").mkdir(parents=True)
    (pack / "det_500m.onnx").write_bytes(b"whatever")
    found = detector_found(tmp_path)
    assert (found.state, "--detector scrfd:buffalo_s" in found.found) == ("note", True)


def test_weights_put_in_place_are_found_by_extract_and_by_the_doctor(
    home, tmp_path, never_built, clip
):
    """The same files, however they come: `feie models add` on a machine without a network."""
    files = {name: places[0].read_bytes() for name, places in never_built.items()}
    for name, short in ((YUNET, "yunet"), (ONET, "onet")):
        (tmp_path / "down" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "down" / name).write_bytes(files[name])
        added = CliRunner().invoke(app, ["models", "add", short, str(tmp_path / "down" / name)])
        assert added.exit_code == 0, added.output
    assert (home / ".cache" / "feie" / "models" / ONET).read_bytes() == files[ONET]
    assert detector_found(tmp_path).state == "ok"
    clip(tmp_path / "v" / "a.mp4", 3, size=(160, 120))
    store = tmp_path / "s.zarr"
    options = ExtractOptions(videos=tmp_path / "v", store=str(store), isolate=False)
    assert extract.run(options).extracted == 1
    assert open_store(store).provenance["detector"]["name"] == "yunet+onet"


def test_the_doctor_says_which_recurrence_runs(monkeypatch):
    monkeypatch.setenv("FEIE_RECURRENCE", "plain")
    found = doctor._recurrence()
    assert (found.state, found.found) == ("note", "plain (chosen)")
    pytest.importorskip("numba")
    monkeypatch.delenv("FEIE_RECURRENCE")
    assert doctor._recurrence().found == "fused (numba)"
