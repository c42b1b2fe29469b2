"""What is chosen for the machine, and for the size of the data on it."""

from __future__ import annotations

from maskmatch.planning.choice import Choice


def of_network(side: int, *, gpu: bool) -> list[Choice]:
    """The network, what it sees and how it is trained; `side` is the median short side of the masks."""
    crop = 320 if gpu and side >= 240 else 128 if side >= 96 else 64
    where = "a GPU" if gpu else "a CPU"
    encoder = "resnet50" if gpu else "tu-tf_efficientnet_lite0"
    return [
        Choice("data.crop_size", crop, f"for {where}; the masks' short side is {side} pixels"),
        Choice("model.arch", "deeplabv3plus", f"for {where}"),
        Choice("model.encoder", encoder, f"for {where}; from scratch unless model.encoder_weights names a file"),
        Choice("method.patch_size", crop // 8, "an eighth of the crop"),
        Choice("method.mask_ratio", 0.7, "as the public configurations hide"),
        Choice("train.batch_size", 4, "labelled images a step, and as many without masks"),
        Choice("train.lr", 2e-4, "for a batch of 4"),
        Choice("train.lr_batch_size", 4, "the batch that the learning rate is for"),
        Choice("train.head_lr_multiplier", 2.5, "the head starts at random"),
    ]


def of_training() -> list[Choice]:
    """What planned runs alone do."""
    return [
        Choice("train.baseline_every", 2, "labelled alone is held beside the method, and the better handed over"),
        Choice("train.act_on_warnings", True, "a run that collapses does something about it"),
    ]
