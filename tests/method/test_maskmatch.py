"""Every loss against its formula, written out again in fp64 with torch.nn.functional."""

import copy

import pytest
import torch
import torch.nn.functional as F

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.config import AblationConfig, MethodConfig
from maskmatch.method import BRANCHES, DIVISORS, MaskMatch, Teacher
from maskmatch.method.cutmix import cutmix_boxes
from maskmatch.ops import patch_mask

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def make(**options):
    defaults = {"warmup_steps": 0, "ramp_steps": 0, "threshold": 0.3, "scales": [0.75, 1.0], "patch_size": 8}
    defaults |= {"class_thresholds": False, "logit_adjustment": 0.0}  # they have tests of their own
    config = MethodConfig(**{**defaults, **options})
    return MaskMatch(config, mean=MEAN, std=STD, size_multiple=4)


def normalized(images):
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    return (images.double() / 255 - mean) / std


def expected_pseudo_labels(network, weak, scales, average="probability"):
    teacher = copy.deepcopy(network).double().eval()
    images = normalized(weak)
    total = 0
    for scale in scales:
        size = [round(side * scale / 4) * 4 for side in images.shape[2:]]
        resized = F.interpolate(images, size, mode="bilinear", align_corners=False)
        logits = F.interpolate(teacher(resized), images.shape[2:], mode="bilinear", align_corners=False)
        total = total + (logits.softmax(1) if average == "probability" else logits) / len(scales)
    confidence, label = (total if average == "probability" else total.softmax(1)).max(1)
    return label, confidence


def expected_loss(network, images, label, confidence, threshold):
    logits = copy.deepcopy(network).double().train()(images)
    logits = F.interpolate(logits, label.shape[1:], mode="bilinear", align_corners=False)
    loss = F.cross_entropy(logits, label.long(), ignore_index=IGNORE_INDEX, reduction="none")
    return (loss * (confidence >= threshold)).sum() / (label != IGNORE_INDEX).sum()


def loss_of(method, network, batch, name, pseudo=None):
    branch = method.branch(name, batch, pseudo)
    (logits,) = method.logits(network.train(), [branch])
    return method.loss(logits, branch, dict(zip(DIVISORS, method.divisors(batch), strict=True))[name])


def assert_close(value, expected):
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


def test_supervised_loss(network, batch):
    ones = torch.ones(batch.target.shape)
    expected = expected_loss(network, normalized(batch.images), batch.target, ones, 0)
    assert_close(loss_of(make(), network, batch, "loss_x"), expected)


@pytest.mark.parametrize("average", ["probability", "logit"])
@pytest.mark.parametrize("scales", [[1.0], [0.75, 1.0, 1.5]])
def test_pseudo_labels(network, batch, scales, average):
    pseudo = make(scales=scales, ablation=AblationConfig(average=average)).pseudo_labels(Teacher(network, 0.9), batch)
    label, confidence = expected_pseudo_labels(network, batch.weak, scales, average)
    assert_close(pseudo.confidence, confidence)
    assert (pseudo.label[batch.valid] == label[batch.valid]).float().mean() > 0.999
    assert (pseudo.label[~batch.valid] == IGNORE_INDEX).all()


def test_other_scales_join_when_the_ramp_has_ended(network, batch):
    method = make(scales=[0.75, 1.0, 1.5], warmup_steps=10, ramp_steps=10)
    seen = []

    def teacher(view):
        seen.append(tuple(view.shape[2:]))
        return network(view)

    for step, sizes in ((9, []), (10, [(32, 40)]), (18, [(32, 40)]), (19, [(24, 32), (32, 40), (48, 60)])):
        seen.clear()
        method(network, teacher, batch, step)
        assert seen == sizes
    assert make(scales=[0.5, 1.25], ramp_steps=2).ramp_up.scales(0) == [1.25]


@pytest.mark.parametrize("cutmix", [True, False])
def test_consistency_loss_mixes_views_and_labels_alike(network, batch, cutmix):
    method = make(cutmix=cutmix)
    pseudo = method.pseudo_labels(Teacher(network, 0.9), batch)
    images, label, confidence = normalized(batch.strong), *pseudo
    if cutmix:
        boxes = cutmix_boxes(batch.seeds, 32, 40)
        assert boxes.any() and not boxes.all()
        swap = [1, 0, 3, 2]
        images = torch.where(boxes[:, None], images[swap], images)
        label = torch.where(boxes, label[swap], label)
        confidence = torch.where(boxes, confidence[swap], confidence)
    expected = expected_loss(network, images, label, confidence, 0.3)
    assert_close(loss_of(method, network, batch, "loss_u", pseudo), expected)


@pytest.mark.parametrize("region", ["all", "visible", "hidden"])
@pytest.mark.parametrize("view", ["weak", "strong"])
def test_masked_loss(network, batch, region, view):
    method = make(ablation=AblationConfig(region=region, masked_view=view), mask_ratio=0.5)
    pseudo = method.pseudo_labels(Teacher(network, 0.9), batch)
    images = getattr(batch, view)
    _, grid = patch_mask(images, 8, mask_ratio=0.5, seeds=batch.seeds, mean=MEAN, std=STD)
    hidden = F.interpolate(grid[:, None].float(), scale_factor=8)[:, 0, :32, :40].bool()
    masked = normalized(images).masked_fill(hidden[:, None], 0)
    label = pseudo.label.clone()
    if region != "all":
        label[hidden if region == "visible" else ~hidden] = IGNORE_INDEX
    expected = expected_loss(network, masked, label, pseudo.confidence, 0.3)
    assert_close(loss_of(method, network, batch, "loss_m", pseudo), expected)


def test_total_is_the_weighted_sum(network, batch):
    method = make(lambda_u=0.7, lambda_m=0.3)
    losses = method(network.train(), Teacher(network, 0.9), batch, step=0)
    assert min(losses.loss_x, losses.loss_u, losses.loss_m) > 0
    torch.testing.assert_close(losses.total, losses.loss_x + 0.7 * losses.loss_u + 0.3 * losses.loss_m)


@pytest.mark.parametrize(
    ("options", "live"),
    [
        ({}, {"loss_x", "loss_u", "loss_m"}),
        ({"supervised_only": True}, {"loss_x"}),
        ({"lcr": False}, {"loss_x", "loss_u"}),
        ({"consistency": False}, {"loss_x", "loss_m"}),
        ({"warmup_steps": 1}, {"loss_x"}),
    ],
)
def test_components_switch_off(network, batch, options, live):
    method = make(**options)
    assert set(method.ramp_up.weights(0)) == live
    losses = method(network.train(), Teacher(network, 0.9), batch, step=0)
    assert {name for name in BRANCHES if getattr(losses, name) > 0} == live


def test_ramp():
    method = make(warmup_steps=10, ramp_steps=4)
    assert [method.ramp_up.factor(step) for step in (0, 9, 10, 11, 12, 13, 14, 99)] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert make().ramp_up.factor(0) == 1


def test_confident_pixels_are_counted(network, batch):
    method = make()
    pseudo = method.pseudo_labels(Teacher(network, 0.9), batch)
    expected = sum(float(c) >= 0.3 for c in pseudo.confidence[batch.valid])
    assert 0 < expected < batch.valid.sum()
    assert method.confident(pseudo) == expected


def test_one_forward_answers_several_branches(network, batch):
    network.eval()  # without the batch's statistics, which would differ
    method = make()
    pseudo = method.pseudo_labels(Teacher(network, 0.9), batch)
    branches = [method.branch(name, batch, pseudo) for name in BRANCHES]
    apart = [method.logits(network, [branch])[0] for branch in branches]
    for together, alone in zip(method.logits(network, branches), apart, strict=True):
        torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(("branch", "option"), [("loss_u", "strong_updates_bn"), ("loss_m", "masked_updates_bn")])
@pytest.mark.parametrize("updates", [True, False])
def test_which_forward_updates_batchnorm(network, batch, branch, option, updates):
    method = make(**{option: updates})
    pseudo = method.pseudo_labels(Teacher(network, 0.9), batch)
    mean, count = network.norm.running_mean.clone(), network.norm.num_batches_tracked.clone()
    method.logits(network.train(), [method.branch(branch, batch, pseudo)])
    assert torch.equal(network.norm.running_mean, mean) != updates
    assert network.norm.num_batches_tracked == count + updates
    assert network.norm.momentum == 0.1


@pytest.mark.parametrize("leaves_out", [True, False])
def test_the_masked_branch_alone_tells_the_network_what_is_hidden(network, batch, leaves_out):
    config = MethodConfig(warmup_steps=0, ramp_steps=0, patch_size=8, mask_ratio=0.7)
    method = MaskMatch(config, size_multiple=4, leaves_out_hidden=leaves_out)
    pseudo = method.pseudo_labels(Teacher(network, 0.9), batch)
    told = []
    network.register_forward_pre_hook(
        lambda module, inputs, options: told.append(options) or (inputs, {}), with_kwargs=True
    )
    for name in ("loss_x", "loss_u", "loss_m"):
        method.logits(network, [method.branch(name, batch, pseudo)])
    assert told[:2] == [{}, {}]
    if not leaves_out:
        assert told[2] == {}
        return
    grid, visible = told[2]["hidden"]
    assert grid.shape == (4, 4, 5) and visible == 6
    assert ((~grid).flatten(1).sum(1) == visible).all()


def test_unlabelled_loss_without_unlabelled_images_is_refused(network, batch):
    batch = batch._replace(weak=None)
    with pytest.raises(ValueError, match="no unlabelled images"):
        make()(network, Teacher(network, 0.9), batch, step=0)


@pytest.mark.slow
def test_a_whole_step_compiles_in_one_graph(network, batch):
    method, teacher = make(), Teacher(network, 0.9)
    expected = method(network.train(), teacher, batch, 0)
    compiled = torch.compile(lambda batch: method(network, teacher, batch, 0), fullgraph=True)(batch)
    for value, reference in zip(compiled, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-5, atol=1e-6)


def test_a_batch_that_is_there_twice_ends_the_step_once(network, batch):
    parts = list(make(cutmix=False).parts(Teacher(network, 0.9), [batch, batch], step=0))
    assert [(part.batch, part.first, part.last) for part in parts] == [
        (0, True, False), (0, False, False), (0, False, False), (1, True, False), (1, False, False), (1, False, True),
    ]  # fmt: skip
