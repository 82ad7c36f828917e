"""Issue 19, S8: the stores that the benches make obey the specification, and a broken rule of one
kind does not keep `feie verify` from the bytes: a store of theirs failed S5 and was never read.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from feie.features.store.check import check_store

BENCH = Path(__file__).parents[1] / "bench"


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_stage_two_data_and_gappy_store(tmp_path):
    store, _ = load("stage_two_data").cached_store(tmp_path, videos=12)
    assert check_store(store) == []
    for number in range(2):  # one of a store that has gaps already
        copy = tmp_path / f"gappy-{number}.zarr"
        command = [sys.executable, BENCH / "gappy_store.py", store, copy, "--seed", str(number)]
        subprocess.run(command, check=True, capture_output=True)
        assert check_store(copy) == []
        store = copy


def test_every_rule_is_reported_and_the_bytes_are_read_all_the_same(tmp_path):
    store, _ = load("stage_two_data").cached_store(tmp_path, videos=12)
    content = json.loads((store / "zarr.json").read_text())
    content["attributes"]["provenance"]["sessions"][0].pop("versions")
    content["attributes"]["groups"] = {"va": [0, 99]}
    (store / "zarr.json").write_text(json.dumps(content))
    (store / "video" / "fps" / "zarr.json").unlink()
    chunk = store / "bbox" / "c" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0x10
    chunk.write_bytes(bytes(data))
    assert {v.rule for v in check_store(store)} == {"S3", "S5", "S10", "S15"}
