"""ImageNet weights that a download of before has left on this machine; nothing is asked of a network."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from huggingface_hub import constants

FILES = ("model.safetensors", "pytorch_model.bin")


def cached_weights(encoder: str) -> Path | None:
    """The file of an encoder's weights in the cache of the Hugging Face hub or of torch hub, or None.

    Args:
        encoder: as `model.encoder` names it; `tu-` prefixes timm's.
    """
    name = encoder.removeprefix("tu-")
    if not timm.is_model(name):
        return None
    config = timm.get_pretrained_cfg(name)
    usual = f"models--{(config.hf_hub_id or '').replace('/', '--')}" if config else ""
    repositories = [usual, *(f"models--{owner}--{name}.*" for owner in ("timm", "smp-hub"))]
    places = [f"{repository}/snapshots/*/{file}" for repository in repositories if repository for file in FILES]
    hub, torch_hub = Path(constants.HF_HUB_CACHE), Path(torch.hub.get_dir()) / "checkpoints"
    found = [path for place in places for path in sorted(hub.glob(place))]
    found += [torch_hub / Path(config.url).name] if config and isinstance(config.url, str) else []
    found += sorted(torch_hub.glob(f"{name}-*.pth"))  # torchvision's
    return next((path for path in found if path.is_file()), None)
