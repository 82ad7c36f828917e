"""What the guides for contributors name is there."""

import re

import pytest
import yaml


@pytest.mark.parametrize("guide", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_module_that_is_named_exists(project, guide):
    text = (project / guide).read_text(encoding="utf-8")
    named = 0
    for line in re.sub(r"\n(?=\w|\()", " ", text).splitlines():
        beside = [project]
        for name in re.findall(r"`([\w./-]+(?:\.py|/))`", line):
            # A name alone stands for a module beside those before it.
            path = next((p for p in (folder / name for folder in beside) if p.exists()), None)
            assert path is not None, f"{guide} names {name}"
            beside.append(path.parent if path.is_file() else path)
            named += 1
    assert named > 10


def test_the_citation_says_the_version_and_licence_of_the_package(project):
    import feie

    said = yaml.safe_load((project / "CITATION.cff").read_text(encoding="utf-8"))
    assert said["version"] == feie.__version__
    assert said["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= said.keys()
    assert [r["url"][-10:] for r in said["references"]] == ["2303.00180", "2403.11590"]
