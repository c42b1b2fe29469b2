"""maskmatch.ops and maskmatch.nn need torch and numpy, and nothing else that one would have to install."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import re, sys
from importlib import machinery, metadata

def plain(name):
    return re.match(r"[\\w-]+", name)[0].lower().replace("_", "-")

# What stays is torch, numpy, and what torch itself uses; but for Triton and YAML, without which it does.
allowed = {plain(one) for one in metadata.requires("torch") or []} - {"triton", "pyyaml"}
allowed |= {"torch", "numpy", "mpmath", "markupsafe", "maskmatch"}
hidden = {name for name, owners in metadata.packages_distributions().items() if not allowed & set(map(plain, owners))}

class Others(machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(machinery.PathFinder)] = Others
import maskmatch.nn, maskmatch.ops, torch

logits = torch.randn(1, 3, 4, 4, requires_grad=True)
label, confidence = maskmatch.ops.multiscale_pseudo_label([logits.detach()], (9, 9))
maskmatch.nn.UpsampleCrossEntropyLoss()(logits, label.long()).backward()
maskmatch.nn.PatchMask(2, mask_ratio=0.5)(torch.rand(1, 3, 9, 9), torch.arange(1))
print(logits.grad.shape, {"torchvision", "timm", "PIL", "yaml", "rich"} <= hidden)
"""


def test_every_other_package_hidden() -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "torch.Size([1, 3, 4, 4]) True\n"
