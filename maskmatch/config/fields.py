"""Every option of a run and its default, in one place.

The defaults are those of the built-in data set; configs/*.yaml hold the values of the others.
`None` means "follows from the rest of the configuration".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from maskmatch.config.rules import (
    JITTER_STRENGTHS,
    LARGEST_INT,
    POSITIVE,
    POSITIVE_LIST,
    RANGE,
    SHARE,
    SHARE_ABOVE_0,
    WEIGHTS,
    at_least,
    between,
    each_up_to,
    one_of,
    option,
)

Layout = Literal["builtin", "folder", "voc", "cityscapes", "coco", "ade20k"]
LARGEST_CROP = 2**15  # a side; beyond it a batch has more bytes than can be counted, let alone kept


def a_tenth(steps: int) -> int:
    """Of the run, a step at least."""
    return max(1, steps // 10)


def memory_of_a_tenth(steps: int) -> float:
    """The momentum of a teacher that remembers a tenth of the run: long enough to average, short enough not to lag."""
    return min(0.999, max(0.9, 1 - 10 / steps))


@dataclass
class DataConfig:
    """What is trained on, and how an image becomes a training view."""

    name: Layout | None = option(None)
    """Layout of the data on disk; `builtin` is drawn on first use. Default `folder` where there is a root, which train
    then plans, else `builtin`."""
    root: str | None = option(None, free=True)
    """Folder of the data set; for `builtin` the place where it is kept, by default the user's cache."""
    split: str | None = option(None)
    """Split, by its folder or by its name in splits/ (such as 1_16): lists for the parts that are given none."""
    labeled: str | None = option(None)
    """List file of the labelled images, `image mask` on a line; sought in the current folder, then under root.
    For `folder` this and the next three may be patterns of images, such as `images/site_1/**/*.jpg`."""
    unlabeled: str | None = option(None)
    """List file of the unlabelled images; masks named in it are not read."""
    val: str | None = option(None)
    """List file of the validation images."""
    test: str | None = option(None)
    """List file of the test images."""
    images: str = option("images/**/*")
    """Pattern of a `folder`'s images; without lists those that have a mask are labelled, the others are not."""
    masks: str = option("masks/**/*")
    """Pattern of its masks: the mask of an image is the one for which the wildcards stand for the same."""
    mask_values: list[int | list[int]] | None = option(None)
    """What masks store for each class, where that is not its index: numbers (`0,255`), or colours `[r, g, b]`."""
    ignore_values: list[int | list[int]] | None = option(None)
    """What masks store where there is nothing to learn; default 255, unless it stands for a class."""
    num_classes: int | None = option(None, between(1, 255), free=True)
    """Number of classes; known for the public data sets, and from classes.txt or mask_values."""
    class_names: list[str] | None = option(None, free=True)
    """One name a class, the background too, for tables and pictures; in the order of classes.txt if there is one."""
    palette: list[str] | None = option(None, free=True)
    """One colour a class, as `#rrggbb` or by name, for pictures and predicted masks."""
    crop_size: int | tuple[int, int] = option(64, POSITIVE, each_up_to(LARGEST_CROP))
    """Height and width of a training view, `N` or `H,W`."""
    scale_range: tuple[float, float] = option((0.75, 1.5), RANGE, each_up_to(100))
    """Range of the random resize, relative to the image."""
    flip: float = option(0.5, SHARE)
    """Probability of a horizontal flip."""
    jitter: float = option(0.8, SHARE)
    """Probability of the strong view's colour jitter."""
    jitter_strengths: tuple[float, float, float, float] = option((0.3, 0.3, 0.3, 0.05), JITTER_STRENGTHS)
    """Of brightness, contrast and saturation, factors from [1 - v, 1 + v] and not below 0, and of hue, as a part of the
    full circle."""
    grayscale: float = option(0.0, SHARE)
    """Probability that the strong view is gray."""
    blur: float = option(0.5, SHARE)
    """Probability that the strong view is blurred, with sigma from [0.1, 2.0] pixels."""
    loader: Literal["auto", "dali", "torch"] = option("auto", free=True)
    """Who decodes and augments."""
    workers: int | None = option(None, at_least(0), each_up_to(1024), free=True)
    """Threads that make batches ahead of time; 0: the training makes them itself, a few at a time. Default 1, but 0
    where torch takes all cores of a CPU for the networks, which a thread would hold up for longer than it works."""
    cache: Literal["none", "ram"] = option("ram", free=True)
    """`ram` keeps decoded images, as many as fit into half of the free memory; `none` decodes them each time."""
    on_error: Literal["fatal", "skip"] = option("fatal", free=True)
    """What a file that breaks during training, or is too large from the start, does: end the run, or leave its place to
    the next one of the list."""

    @property
    def layout(self) -> Layout:
        """What `name` stands for."""
        return self.name or ("builtin" if self.root is None else "folder")

    @property
    def crop(self) -> tuple[int, int]:
        """Height and width that `crop_size` stands for."""
        size = self.crop_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])


@dataclass
class ModelConfig:
    """The student network; the teacher is a copy of it."""

    arch: str = option("deeplabv3plus")
    """Architecture of segmentation_models.pytorch, by name."""
    encoder: str = option("tu-test_resnet")
    """Encoder of segmentation_models.pytorch, by name; `tu-` prefixes timm's."""
    encoder_weights: str = option("none", free=True)
    """`none`, `imagenet` (downloads) or the path of a .safetensors or .pth file."""
    output_stride: int | None = option(None, one_of(8, 16, 32))
    """Output stride of a dilated encoder (DeepLab); None is the architecture's own."""


@dataclass
class AblationConfig:
    """What only a comparison of the method with its variants sets."""

    reconstruction: bool = option(False)
    """L_r: paint the hidden patches, with a head that is dropped after the training; to compare L_m with."""
    lambda_r: float = option(1.0, at_least(0))
    """Weight of L_r after the ramp."""
    average: Literal["probability", "logit"] = option("probability")
    """What is averaged over the scales."""
    masked_view: Literal["weak", "strong"] = option("weak")
    """Which view is masked for L_m."""
    region: Literal["all", "visible", "hidden"] = option("all")
    """Pixels of L_m."""


@dataclass
class MethodConfig:
    """MaskMatch and the parts that can be switched off or exchanged."""

    supervised_only: bool = option(False)
    """Leave the unlabelled images out; the EMA teacher is still kept."""
    consistency: bool = option(True)
    """L_u: agree with the pseudo-labels on the strong view."""
    class_weights: list[float] | None = option(None, WEIGHTS)
    """Weights of the classes in L_x, one a class."""
    ohem: float = option(1.0, SHARE_ABOVE_0)
    """Share of the labelled pixels that L_x is taken over, those with the highest loss in each process's micro-batch;
    1 takes all."""
    cutmix: bool = option(True)
    """Mix the strong views of images 2i and 2i+1."""
    lcr: bool = option(True)
    """L_m, local consistency: agree with the pseudo-labels on a view with most patches hidden."""
    threshold: float = option(0.95, SHARE)
    """Confidence that a pseudo-label needs to count, tau."""
    class_thresholds: bool = option(True)
    """A threshold for each class, lower where the teacher is less sure of the class, so that none is lost. `false` is
    the published method, and what the configurations of VOC, Cityscapes, COCO and ADE20K take."""
    logit_adjustment: float = option(0.0, at_least(0))
    """alpha: pseudo-labels are taken after each class was raised by -alpha log(its share of the labelled pixels), so
    that rare classes are named more often. 0, the default, is the published method; try 0.5 where a class is lost."""
    lambda_u: float = option(1.0, at_least(0))
    """Weight of L_u after the ramp."""
    lambda_m: float = option(0.2, at_least(0))
    """Weight of L_m after the ramp."""
    scales: list[float] = option([1.0, 1.5], POSITIVE_LIST, each_up_to(16))
    """Scales at which the teacher sees the weak view; until the ramp has ended that nearest to 1 alone."""
    masking: Literal["random", "block", "grid"] = option("random")
    """How the hidden patches are chosen."""
    mask_ratio: float = option(0.3, SHARE)
    """Share of the patches that are hidden."""
    patch_size: int = option(8, at_least(1))
    """Side of a patch in pixels."""
    warmup_steps: int | None = option(None, at_least(0), free=True, follows=lambda steps: steps // 10)
    """Steps of supervised training before the unlabelled losses; default 10 % of the steps."""
    ramp_steps: int | None = option(None, at_least(0), free=True, follows=lambda steps: steps // 10)
    """Steps over which the unlabelled losses then rise to their weights; default 10 % of the steps."""
    ema_momentum: float | None = option(None, SHARE, free=True, follows=memory_of_a_tenth)
    """Momentum of the teacher; default 1 - 10 / steps, between 0.9 and 0.999."""
    strong_updates_bn: bool = option(True)
    """Whether the strong view's forward updates the running statistics of BatchNorm."""
    masked_updates_bn: bool = option(False)
    """Whether the masked view's forward updates the running statistics of BatchNorm."""
    ablation: AblationConfig = field(default_factory=AblationConfig)


@dataclass
class TrainConfig:
    """The loop."""

    steps: int | None = option(None, at_least(1), free=True)
    """Optimizer steps; default 800 where epochs are not set either."""
    epochs: int | None = option(None, at_least(1), free=True)
    """Passes over the unlabelled list (the labelled one with supervised_only), instead of steps."""
    batch_size: int = option(8, at_least(1), free=True)
    """Labelled images a process and micro-batch, and as many unlabelled."""
    accumulate: int = option(1, at_least(1), free=True)
    """Micro-batches a step, whose gradients add up. The global batch is batch_size * accumulate * processes."""
    optimizer: Literal["sgd", "adamw"] = option("adamw")
    """SGD, with a momentum of 0.9, or AdamW."""
    lr: float = option(3e-3, POSITIVE)
    """Learning rate of the encoder at the start of the poly schedule, lr * (1 - step / steps) ** 0.9, for a
    global batch of lr_batch_size."""
    lr_batch_size: int = option(8, at_least(1))
    """Another global batch scales lr, of a single process too: in proportion with SGD, by the square root of the ratio
    with AdamW. The first line of the run says so."""
    head_lr_multiplier: float = option(1.0, at_least(0))
    """Learning rate of everything but the encoder, relative to lr."""
    weight_decay: float = option(1e-2, at_least(0))
    """Of every weight; with AdamW apart from the gradient."""
    seed: int = option(0, between(0, LARGEST_INT))
    """Of the first weights, and of every random choice about the images."""
    device: str = option("auto", free=True)
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    precision: Literal["fp32", "bf16", "fp16"] = option("fp32")
    """Of the networks; weights, losses and the teacher's average stay fp32. fp16 scales its gradients."""
    compile: bool = option(False, free=True)
    """Run the networks and all else of the method through torch.compile."""
    graph: bool | Literal["auto"] = option("auto", free=True)
    """Replay each step as one CUDA graph, so that the GPU does not wait for Python. `auto`: on a GPU, where the step
    can be captured."""
    branches: Literal["sequential", "joint"] = option("sequential")
    """`sequential`: each branch's forward, then its backward, to save memory; `joint`: all in one forward, for
    networks without BatchNorm."""
    checkpoint_activations: bool = option(False, free=True)
    """Keep only the inputs of the network's blocks and compute the rest again in the backward pass, to save memory."""
    select: Literal["teacher", "student"] = option("teacher")
    """Whose mIoU on val decides which checkpoint is the best."""
    validate_every: int | None = option(None, at_least(1), free=True, follows=a_tenth)
    """Steps between validations; default a tenth of the run."""
    checkpoint_every: int | None = option(None, at_least(1), free=True, follows=a_tenth)
    """Steps between checkpoints; default a tenth of the run."""
    keep_checkpoints: int = option(2, at_least(1), free=True)
    """How many of the last checkpoints stay, beside the best."""
    baseline_every: int = option(0, at_least(0), free=True)
    """Train a copy of the network on the labels alone beside the run, from the end of the warm-up on, at every so many
    steps, and hand over whichever is better on val; 0: none. 2 makes a run about a fifth longer."""
    act_on_warnings: bool = option(False, free=True)
    """Where pseudo-labels collapse or val falls, ease the threshold, prolong the warm-up, lower the weight of the
    unlabelled losses, each once; and end the run where val has not risen for long."""


@dataclass
class Config:
    """A whole run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    fused: bool = option(True, free=True)
    """Use the compiled operators; `--no-fused` takes their plain PyTorch definition."""
    init_from: str | None = option(None, free=True)
    """Run, checkpoint or file of weights whose whole network to start from; the number of classes may differ."""
    output: str | None = option(None, saved=False)
    """Folder of the run; default a new runs/NAME-DATE-TIME."""
    resume: str = option("never", saved=False)
    """`never`, `auto` (from the last checkpoint, or step 0 where there is none) or a checkpoint's path."""
    loader_from_file: bool = option(False, saved=False)
    """Whether `data.loader dali` comes from a file of options, such as a run's own: it is then a preference."""
