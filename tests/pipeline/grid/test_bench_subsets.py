"""The command that trains the seven subsets at a data set's scale, at a small one."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "stage_two_subsets.py"


@pytest.mark.slow
def test_all_seven_subsets_are_trained_from_a_store_that_it_makes(tmp_path):
    command = [sys.executable, BENCH, "--folder", tmp_path, "--videos", "20", "--epochs", "1",
               "--frame-stride", "6", "--jobs", "1"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "7 runs trained on 20 videos" in done.stdout
    assert "failed: 0" in done.stdout
    assert len(list(tmp_path.glob("subsets-20-*/runs/*/head.json"))) == 7
