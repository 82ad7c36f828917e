"""docs/train-mma.md: its table of fields has every field of a configuration, with its default."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from feie.features.mma.augment import AugmentConfig
from feie.features.mma.config import (
    LossConfig,
    MmaConfig,
    OptimiserConfig,
    PhaseConfig,
    read_config,
)
from feie.features.mma.data.config import PackSource, TableSource
from feie.features.mma.network import NetworkConfig
from feie.features.schema import AFFECT

MODELS: dict[str, tuple[type[BaseModel], ...]] = {
    "": (MmaConfig,),
    "network.": (NetworkConfig,),
    "phases.": (PhaseConfig,),
    "sources.": (TableSource, PackSource),
    "losses.": (LossConfig,),
    "optimiser.": (OptimiserConfig,),
    "augment.": (AugmentConfig,),
}
NESTED = {"losses", "optimiser", "augment"}  # their fields are rows of their own


@pytest.fixture(scope="module")
def page(project: Path) -> str:
    path = project / "docs" / "train-mma.md"
    if not path.is_file():
        pytest.skip("the source archive has no docs")
    return path.read_text(encoding="utf-8")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def test_the_table_names_every_field_and_its_default(page: str) -> None:
    table = page.partition("## Every field")[2]
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \|", table, re.MULTILINE))
    wanted: dict[str, object] = {"stages": None}
    for prefix, models in MODELS.items():
        for model in models:
            for name, field in model.model_fields.items():
                wanted[prefix + name] = field.get_default(call_default_factory=True)
    wanted = {name: value for name, value in wanted.items() if name not in NESTED}
    assert rows.keys() == wanted.keys()
    for name, value in wanted.items():
        if value is PydanticUndefined:
            assert rows[name] == "–", name
        elif value is None:
            assert rows[name] == "none", name
        elif value == AFFECT:
            assert rows[name] == "`affect`"
        else:
            assert yaml.safe_load(rows[name].strip("`")) == _plain(value), name


def test_the_example_with_stages_is_a_configuration(page: str, tmp_path: Path) -> None:
    blocks = [block.split("```")[0] for block in page.split("```yaml\n")[1:]]
    (block,) = (block for block in blocks if "\nstages:" in block)
    (tmp_path / "page.yaml").write_text(block)
    first, second = read_config(tmp_path / "page.yaml")
    assert (first.init, second.losses.distil) == ("mma-lite.safetensors", 0.3)
    assert second.augment == AugmentConfig()
