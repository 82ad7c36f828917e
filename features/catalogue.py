"""Weights of others that feie can use: where they come from, under which terms, where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from os.path import expanduser
from pathlib import Path

from feie.features.faces.bundled import BUNDLED, FETCHED, ONET, YUNET, places

_RESEARCH = "non-commercial research only (insightface's model licence)"
_PACKS = "https://github.com/deepinsight/insightface/releases/download/v0.7"
_EMOTIEFF = (
    "https://raw.githubusercontent.com/sb-ai-lab/EmotiEffLib/main/models/affectnet_emotions/onnx"
)
_EMOTIEFF_LICENCE = "Apache-2.0; trained on AffectNet, which is for non-commercial research only"


@dataclass(frozen=True)
class Model:
    """One file, or one archive of ONNX files.

    Attributes
    ----------
    name : str
        What `feie models fetch` takes.
    use : str
        How it is named to feie.
    url : str
        Where its makers publish it; an archive ends in ``.zip``.
    folder : Path
        Where the file, or what is in the archive, belongs.
    licence : str
        In a sentence.
    commercial : bool
        Whether the licence allows commercial use.
    sha256 : dict of str to str
        Of the files where they belong, as far as it is known; a file that is not named here is
        not pinned, and its hash is shown after the download.
    """

    name: str
    use: str
    url: str
    folder: Path
    licence: str
    commercial: bool
    sha256: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of what is downloaded."""
        return self.url.rsplit("/", 1)[1]

    @property
    def is_archive(self) -> bool:
        """Whether it has to be unpacked."""
        return self.file.endswith(".zip")

    def on_disk(self) -> list[Path]:
        """Files that are where they belong."""
        if self.file in BUNDLED:
            return places(self.file)
        folder = Path(expanduser(self.folder))
        if not self.is_archive:
            return [folder / self.file] if (folder / self.file).is_file() else []
        # Some archives unpack into a folder of their own name inside.
        return sorted((*folder.glob("*.onnx"), *(folder / self.name).glob("*.onnx")))


def _pack(name: str, **sha256: str) -> Model:
    return Model(
        name=name,
        use=f"--detector scrfd:{name}",
        url=f"{_PACKS}/{name}.zip",
        folder=Path("~/.insightface/models") / name,
        licence=_RESEARCH,
        commercial=False,
        sha256={
            f"{stem.replace('_2_5g', '_2.5g')}.onnx": digest for stem, digest in sha256.items()
        },
    )


def _emotieff(name: str, file: str) -> Model:
    return Model(
        name=name,
        use=f"--extractor {name}",
        url=f"{_EMOTIEFF}/{file}.onnx",
        folder=Path(FETCHED),
        licence=_EMOTIEFF_LICENCE,
        commercial=False,
    )


_DET_500M = "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a"
_DET_2_5G = "041f73f47371333d1d17a6fee6c8ab4e6aecabefe398ff32cca4e2d5eaee0af9"

CATALOGUE = {
    model.name: model
    for model in (
        Model(
            name="yunet",
            use="--detector yunet",
            url="https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/"
            "face_detection_yunet_2023mar.onnx",
            folder=Path(FETCHED),
            licence="MIT, (c) 2020 Shiqi Yu; comes with feie; trained on WIDER FACE, whose "
            "pictures are for research",
            commercial=True,
            sha256={YUNET: BUNDLED[YUNET]},
        ),
        Model(
            name="onet",
            use="--detector auto (with yunet)",
            url="https://raw.githubusercontent.com/SAKURA-CAT/mtcnn-runtime/main/mtcnnruntime/"
            "weights/onet.onnx",
            folder=Path(FETCHED),
            licence="MIT, (c) 2016 Kaipeng Zhang; comes with feie; trained on WIDER FACE and "
            "CelebA, whose pictures are for research",
            commercial=True,
            sha256={ONET: BUNDLED[ONET]},
        ),
        _pack("buffalo_s", det_500m=_DET_500M),
        _pack("buffalo_sc", det_500m=_DET_500M),
        _pack("buffalo_m", det_2_5g=_DET_2_5G),
        _pack("buffalo_l"),
        _pack("antelopev2"),
        _emotieff("mt-emotieffnet", "enet_b0_8_va_mtl"),
        _emotieff("mt-mobilefacenet", "mbf_va_mtl"),
        _emotieff("mt-mobilevit", "mobilevit_va_mtl"),
    )
}


def find_model(name: str) -> Model | None:
    """Find a model by its name, or by the name that its makers gave to its file."""
    by_file = (model for model in CATALOGUE.values() if Path(model.file).stem == name)
    return CATALOGUE.get(name) or next(by_file, None)
