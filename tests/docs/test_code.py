"""Every Python block of README and docs runs, with small inputs in place of the reader's, or is compiled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from maskmatch import ops

ROOT = Path(__file__).parents[2]
PAGES = [Path("README.md"), *sorted(path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md"))]
ONLY_COMPILED = {
    "from pycocotools.coco import COCO": "COCO's images, 20 GB",
    "import json, onnxruntime": "an exported file: tests/inference/test_deployment.py runs one in the same way",
    "shape_type": "run by tests/data/test_leftovers.py on drawn polygons",
    "from maskmatch import load": "a trained run: tests/inference/test_trained_model.py calls the same",
}
"""What a block has in it -> why it is not run here."""
INSTEAD = {
    'DataConfig(name="voc", root="VOC2012", split="1_16", crop_size=320)': "DataConfig(crop_size=64)",
    'torch.device("cuda")': 'torch.device("cpu")',
    "        ...\n": "        break\n",
}
"""Text of a block -> what takes its place, as it names data or a device that a test does not have."""


def python_blocks() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        found += [(f"{page}-{number}", block) for number, block in enumerate(blocks)]
    return found


def inputs(several: bool) -> dict[str, Any]:
    """What the blocks call by a name and do not make."""
    classes = 5
    network = torch.nn.Conv2d(3, classes, 1)
    maps = torch.randn(2, classes, 4, 6, generator=torch.Generator().manual_seed(0))
    target = torch.randint(classes, (2, 32, 48))
    target[0, 0] = 255
    return {
        "torch": torch,
        "F": F,
        "network": network,
        "C": classes,
        "size": (32, 48),
        "target": target,
        "upsample_cross_entropy": ops.upsample_cross_entropy,
        "patch_mask": ops.patch_mask,
        "multiscale_pseudo_label": ops.multiscale_pseudo_label,
        "loss": torch.zeros(()),
        "label": target.clamp(max=classes - 1),
        "confidence": torch.rand(2, 32, 48),
        "logits": [maps, 2 * maps] if several else maps,
        "images": torch.zeros(2, 3, 32, 48, dtype=torch.uint8),
        "patch_size": 8,
        "mask_ratio": 0.7,
        "mean": torch.tensor(0.5),
        "std": torch.tensor(0.25),
        "seeds": torch.tensor([0, 1]),
        "hidden_patches": lambda images, size, ratio: torch.zeros(2, 1, 32, 48, dtype=torch.bool),
    }


@pytest.mark.parametrize(("name", "code"), python_blocks(), ids=[name for name, _ in python_blocks()])
def test_block(name: str, code: str) -> None:
    compile(code, name, "exec")
    if any(text in code for text in ONLY_COMPILED):
        return
    for text, other in INSTEAD.items():
        code = code.replace(text, other)
    names = inputs(several="multiscale_pseudo_label(logits" in code)
    if "# this" not in code:
        exec(compile(code, name, "exec"), names)
        return
    before, after = code.split("# this\n")
    other = dict(names)
    exec(before, names)
    exec(after, other)
    for result in ("loss", "confidence"):
        np.testing.assert_allclose(names[result], other[result], rtol=1e-5, atol=1e-6)
