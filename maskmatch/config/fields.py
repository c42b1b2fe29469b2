"""Every option of a run and its default, in one place.

The defaults are those of the built-in data set; configs/*.yaml hold the values of the others.
`None` means "follows from the rest of the configuration"; `maskmatch.training.schedules.resolve` fills it in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from maskmatch.common.errors import UserError


@dataclass
class DataConfig:
    """What is trained on, and how an image becomes a training view."""

    name: Literal["builtin", "folder", "voc", "cityscapes", "coco", "ade20k"] = "builtin"
    """Layout of the data on disk; `builtin` is drawn on first use."""
    root: str | None = None
    """Folder of the data set; for `builtin` the place where it is kept, by default the user's cache."""
    split: str | None = None
    """Split, by its folder or by its name in splits/ (such as 1_16): lists for the parts that are given none."""
    labeled: str | None = None
    """List file of the labelled images, `image mask` on a line; sought in the current folder, then under root.
    For `folder` this and the next three may be patterns of images, such as `images/site_1/**/*.jpg`."""
    unlabeled: str | None = None
    """List file of the unlabelled images; masks named in it are not read."""
    val: str | None = None
    """List file of the validation images."""
    test: str | None = None
    """List file of the test images."""
    images: str = "images/**/*"
    """Pattern of a `folder`'s images; without lists those that have a mask are labelled, the others are not."""
    masks: str = "masks/**/*"
    """Pattern of its masks: the mask of an image is the one for which the wildcards stand for the same."""
    mask_values: list[int | list[int]] | None = None
    """What masks store for each class, where that is not its index: numbers (`0,255`), or colours `[r, g, b]`."""
    ignore_values: list[int | list[int]] | None = None
    """What masks store where there is nothing to learn; default 255, unless it stands for a class."""
    num_classes: int | None = None
    """Number of classes; known for the public data sets, and from classes.txt or mask_values."""
    class_names: list[str] | None = None
    """One name a class, the background too, for tables and pictures; in the order of classes.txt if there is one."""
    palette: list[str] | None = None
    """One colour a class, as `#rrggbb` or by name, for pictures and predicted masks."""
    crop_size: int | tuple[int, int] = 64
    """Height and width of a training view, `N` or `H,W`."""
    scale_range: tuple[float, float] = (0.75, 1.5)
    """Range of the random resize, relative to the image."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.8
    """Probability of the strong view's colour jitter."""
    brightness: float = 0.3
    """Strength of the brightness jitter: a factor from [1 - v, 1 + v]."""
    contrast: float = 0.3
    """Strength of the contrast jitter."""
    saturation: float = 0.3
    """Strength of the saturation jitter."""
    hue: float = 0.05
    """Strength of the hue jitter, as a part of the full circle."""
    grayscale: float = 0.0
    """Probability that the strong view is gray."""
    blur: float = 0.5
    """Probability that the strong view is blurred, with sigma from [0.1, 2.0] pixels."""
    loader: Literal["auto", "dali", "torch"] = "auto"
    """Who decodes and augments."""
    workers: int | None = None
    """Threads that make batches ahead of time; 0: the training makes them itself, a few at a time. Default 1, but 0
    where torch takes all cores of a CPU for the networks, which a thread would hold up for longer than it works."""
    cache: Literal["none", "ram"] = "ram"
    """`ram` keeps decoded images, as many as fit into half of the free memory; `none` decodes them each time."""
    on_error: Literal["fatal", "skip"] = "fatal"
    """What a file that breaks during training, or is too large from the start, does: end the run, or leave its place to
    the next one of the list."""


@dataclass
class ModelConfig:
    """The student network; the teacher is a copy of it."""

    arch: str = "deeplabv3plus"
    """Architecture of segmentation_models.pytorch, by name."""
    encoder: str = "tu-test_resnet"
    """Encoder of segmentation_models.pytorch, by name; `tu-` prefixes timm's."""
    encoder_weights: str = "none"
    """`none`, `imagenet` (downloads) or the path of a .safetensors or .pth file."""
    output_stride: int | None = None
    """Output stride of a dilated encoder (DeepLab); None is the architecture's own."""


@dataclass
class MethodConfig:
    """MaskMatch and the parts that can be switched off or exchanged."""

    supervised_only: bool = False
    """Leave the unlabelled images out; the EMA teacher is still kept."""
    consistency: bool = True
    """L_u: agree with the pseudo-labels on the strong view."""
    class_weights: list[float] | None = None
    """Weights of the classes in L_x, one a class."""
    ohem: float = 1.0
    """Share of the labelled pixels that L_x is taken over, those with the highest loss in each process's micro-batch;
    1 takes all."""
    cutmix: bool = True
    """Mix the strong views of images 2i and 2i+1."""
    lcr: bool = True
    """L_m, local consistency: agree with the pseudo-labels on a view with most patches hidden."""
    reconstruction: bool = False
    """L_r: paint the hidden patches, with a head that is dropped after the training; to compare L_m with."""
    lambda_r: float = 1.0
    """Weight of L_r after the ramp."""
    threshold: float = 0.95
    """Confidence that a pseudo-label needs to count, tau."""
    class_thresholds: bool = True
    """A threshold for each class, lower where the teacher is less sure of the class, so that none is lost. `false` is
    the published method, and what the configurations of VOC, Cityscapes, COCO and ADE20K take."""
    logit_adjustment: float = 0.0
    """alpha: pseudo-labels are taken after each class was raised by -alpha log(its share of the labelled pixels), so
    that rare classes are named more often. 0, the default, is the published method; try 0.5 where a class is lost."""
    lambda_u: float = 1.0
    """Weight of L_u after the ramp."""
    lambda_m: float = 0.2
    """Weight of L_m after the ramp."""
    scales: list[float] = field(default_factory=lambda: [1.0, 1.5])
    """Scales at which the teacher sees the weak view; until the ramp has ended that nearest to 1 alone."""
    average: Literal["probability", "logit"] = "probability"
    """What is averaged over the scales."""
    masking: Literal["random", "block", "grid"] = "random"
    """How the hidden patches are chosen."""
    mask_ratio: float = 0.3
    """Share of the patches that are hidden."""
    patch_size: int = 8
    """Side of a patch in pixels."""
    masked_view: Literal["weak", "strong"] = "weak"
    """Which view is masked for L_m."""
    region: Literal["all", "visible", "hidden"] = "all"
    """Pixels of L_m."""
    warmup_steps: int | None = None
    """Steps of supervised training before the unlabelled losses; default 10 % of the steps."""
    ramp_steps: int | None = None
    """Steps over which the unlabelled losses then rise to their weights; default 10 % of the steps."""
    ema_momentum: float | None = None
    """Momentum of the teacher; default 1 - 10 / steps, between 0.9 and 0.999."""
    strong_updates_bn: bool = True
    """Whether the strong view's forward updates the running statistics of BatchNorm."""
    masked_updates_bn: bool = False
    """Whether the masked view's forward updates the running statistics of BatchNorm."""


@dataclass
class TrainConfig:
    """The loop."""

    steps: int | None = None
    """Optimizer steps; default 800 where epochs are not set either."""
    epochs: int | None = None
    """Passes over the unlabelled list (the labelled one with supervised_only), instead of steps."""
    batch_size: int = 8
    """Labelled images a process and micro-batch, and as many unlabelled."""
    accumulate: int = 1
    """Micro-batches a step, whose gradients add up. The global batch is batch_size * accumulate * processes."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float = 3e-3
    """Learning rate of the encoder at the start of the poly schedule, for a global batch of lr_batch_size."""
    lr_batch_size: int = 8
    """Another global batch scales lr, of a single process too: in proportion with SGD, by the square root of the ratio
    with AdamW. The first line of the run says so."""
    head_lr_multiplier: float = 1.0
    """Learning rate of everything but the encoder, relative to lr."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-2
    poly_power: float = 0.9
    """lr * (1 - step / steps) ** poly_power."""
    seed: int = 0
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the networks; weights, losses and the teacher's average stay fp32. fp16 scales its gradients."""
    compile: bool = False
    """Run the networks and all else of the method through torch.compile."""
    branches: Literal["sequential", "joint"] = "sequential"
    """`sequential`: each branch's forward, then its backward, to save memory; `joint`: all in one forward, for
    networks without BatchNorm."""
    checkpoint_activations: bool = False
    """Keep only the inputs of the network's blocks and compute the rest again in the backward pass, to save memory."""
    max_skipped_steps: int = 20
    """Steps in a row whose loss or gradient may be infinite or NaN, and which are skipped, before the run ends."""
    select: Literal["teacher", "student"] = "teacher"
    """Whose mIoU on val decides which checkpoint is the best."""
    validate_every: int | None = None
    """Steps between validations; default a tenth of the run."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; default a tenth of the run."""
    keep_checkpoints: int = 2
    """How many of the last checkpoints stay, beside the best."""


@dataclass
class Config:
    """A whole run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    fused: bool = True
    """Use the compiled operators; `--no-fused` takes their plain PyTorch definition."""
    init_from: str | None = None
    """Run, checkpoint or file of weights whose whole network to start from; the number of classes may differ."""
    output: str | None = None
    """Folder of the run; default a new runs/NAME-DATE-TIME."""
    resume: str = "never"
    """`never`, `auto` (from the last checkpoint, or step 0 where there is none) or a checkpoint's path."""
    dry_run: bool = False
    """Print what memory a training step will need, and leave."""
    profile: int = 0
    """Steps to time by phase and to trace, instead of training."""
    loader_from_file: bool = False
    """Whether `data.loader dali` comes from a file of options, such as a run's own: it is then a preference."""


NOT_OF_THE_RUN = ("output", "resume", "dry_run", "profile", "loader_from_file")
"""Fields of Config that say what the command does, not what the run is: config.yaml has none of them."""


def validate(config: Config) -> None:
    """Refuse values that no run can have.

    Raises:
        UserError: names the option, what it takes and what it got.
    """
    data, method, train = config.data, config.method, config.train
    sides = (data.crop_size,) if isinstance(data.crop_size, int) else data.crop_size
    low, high = data.scale_range
    unit = "a number from 0 to 1"
    rules: list[tuple[str, object, bool, str]] = [
        ("data.crop_size", data.crop_size, min(sides) > 0, "positive"),
        (
            "data.scale_range",
            data.scale_range,
            0 < low <= high,
            "two positive numbers, the smaller one first",
        ),
        *((f"data.{name}", getattr(data, name), 0 <= getattr(data, name) <= 1, unit) for name in _PROBABILITIES),
        *((f"data.{name}", getattr(data, name), getattr(data, name) >= 0, "at least 0") for name in _STRENGTHS),
        ("data.hue", data.hue, 0 <= data.hue <= 0.5, "a number from 0 to 0.5"),
        (
            "data.num_classes",
            data.num_classes,
            data.num_classes is None or 1 <= data.num_classes <= 255,
            "a number from 1 to 255",
        ),
        ("data.workers", data.workers, (data.workers or 0) >= 0, "at least 0"),
        ("method.threshold", method.threshold, 0 <= method.threshold <= 1, unit),
        ("method.mask_ratio", method.mask_ratio, 0 <= method.mask_ratio <= 1, unit),
        ("method.patch_size", method.patch_size, method.patch_size >= 1, "at least 1"),
        (
            "method.scales",
            method.scales,
            bool(method.scales) and min(method.scales) > 0,
            "a list of positive numbers",
        ),
        ("method.ohem", method.ohem, 0 < method.ohem <= 1, "a number above 0 and up to 1"),
        (
            "method.class_weights",
            method.class_weights,
            min(method.class_weights or [1]) >= 0 and max(method.class_weights or [1]) > 0,
            "numbers of at least 0, not all 0",
        ),
        ("method.logit_adjustment", method.logit_adjustment, method.logit_adjustment >= 0, "at least 0"),
        ("method.lambda_u", method.lambda_u, method.lambda_u >= 0, "at least 0"),
        ("method.lambda_m", method.lambda_m, method.lambda_m >= 0, "at least 0"),
        ("method.lambda_r", method.lambda_r, method.lambda_r >= 0, "at least 0"),
        ("method.warmup_steps", method.warmup_steps, (method.warmup_steps or 0) >= 0, "at least 0"),
        ("method.ramp_steps", method.ramp_steps, (method.ramp_steps or 0) >= 0, "at least 0"),
        ("method.ema_momentum", method.ema_momentum, 0 <= (method.ema_momentum or 0) <= 1, unit),
        ("train.steps", train.steps, train.steps is None or train.steps >= 1, "at least 1"),
        ("train.epochs", train.epochs, train.epochs is None or train.epochs >= 1, "at least 1"),
        ("train.batch_size", train.batch_size, train.batch_size >= 1, "at least 1"),
        ("train.accumulate", train.accumulate, train.accumulate >= 1, "at least 1"),
        ("train.lr", train.lr, train.lr > 0, "positive"),
        ("train.lr_batch_size", train.lr_batch_size, train.lr_batch_size >= 1, "at least 1"),
        ("train.seed", train.seed, 0 <= train.seed < 2**31, "a number from 0 to 2147483647"),
        ("train.validate_every", train.validate_every, (train.validate_every or 1) >= 1, "at least 1"),
        ("profile", config.profile, config.profile >= 0, "at least 0"),
        ("train.max_skipped_steps", train.max_skipped_steps, train.max_skipped_steps >= 1, "at least 1"),
        ("train.keep_checkpoints", train.keep_checkpoints, train.keep_checkpoints >= 1, "at least 1"),
        ("train.checkpoint_every", train.checkpoint_every, (train.checkpoint_every or 1) >= 1, "at least 1"),
    ]
    for name, value, right, expected in rules:
        if not right:
            raise UserError(f"{name} must be {expected}, got {value}")
    if train.steps is not None and train.epochs is not None:
        raise UserError(f"train.steps and train.epochs exclude each other, got {train.steps} and {train.epochs}")
    if method.cutmix and method.consistency and not method.supervised_only and train.batch_size % 2:
        raise UserError(
            f"CutMix pairs images: train.batch_size must be even, or method.cutmix false; got {train.batch_size}"
        )


_PROBABILITIES = ("flip", "jitter", "grayscale", "blur")
_STRENGTHS = ("brightness", "contrast", "saturation")
