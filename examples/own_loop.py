"""MaskMatch in a training loop of your own: plain PyTorch, a network of your own, a few seconds on a CPU.

    python examples/own_loop.py [STEPS]

The images are the built-in ones; `DataConfig(name="folder", root=...)` reads others. A loader of your own makes a
`maskmatch.common.batch.Batch`, which says what is in it.
"""

import sys

import torch
from torch import nn

from maskmatch.config import DataConfig, MethodConfig
from maskmatch.data import Dataset, load_dataset, make_loader, read_pair
from maskmatch.method import MaskMatch, Teacher


def network(classes: int) -> nn.Module:
    """Whatever gives logits [N, classes, h, w], at any stride: the losses bring them to the masks' size."""

    def layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    return nn.Sequential(layer(3, 24, 2), layer(24, 48, 2), layer(48, 48, 1), nn.Conv2d(48, classes, 1))


def main(steps: int = 60) -> None:
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = DataConfig()
    dataset = load_dataset(data, supervised_only=False)
    student = network(len(dataset.class_names)).to(device)
    teacher = Teacher(student, momentum=0.9)  # remembers some ten steps; 0.996 is for thousands
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    config = MethodConfig(scales=[1.0, 1.5], threshold=0.7, warmup_steps=steps // 3, ramp_steps=steps // 3)
    method = MaskMatch(config, size_multiple=4)  # the network's stride

    with make_loader(dataset, data, global_batch=8, seed=0, device=device, supervised_only=False) as loader:
        for step in range(steps):
            losses = method(student, teacher, next(loader), step)
            optimizer.zero_grad()
            losses.total.backward()
            optimizer.step()
            teacher.update(student, step)
            if step % 10 == 0 or step == steps - 1:
                parts = {"labelled": losses.loss_x, "strong": losses.loss_u, "masked": losses.loss_m}
                print(f"step {step}:", *[f"{name} {loss.item():.3f}" for name, loss in parts.items()])
    print(f"pixels right on val: {accuracy(teacher, method, dataset, device):.3f}")


def accuracy(teacher: Teacher, method: MaskMatch, dataset: Dataset, device: torch.device) -> float:
    """The share of the validation images' pixels that the teacher labels right."""
    right = total = 0
    found = (read_pair(pair.image, pair.mask, dataset.mask_table) for pair in dataset.val if pair.mask)
    for arrays in found:
        image, mask = (torch.from_numpy(array).to(device) for array in arrays)
        logits = teacher(method.normalize(image.permute(2, 0, 1)[None]))
        label = nn.functional.interpolate(logits, mask.shape, mode="bilinear").argmax(1)[0]
        right += int((label == mask).sum())  # 255, where nothing is known, is no class
        total += int((mask != 255).sum())
    return right / total


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
