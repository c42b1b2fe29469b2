import torch

from maskmatch.method.cutmix import AREA, cutmix_boxes, mix


def test_boxes_are_rectangles_of_the_stated_sizes():
    height, width = 60, 80
    boxes = cutmix_boxes(torch.arange(5000), height, width)
    areas = boxes.flatten(1).sum(1)
    mixed = areas > 0
    assert 0.4 < mixed.float().mean() < 0.6
    rows, columns = boxes.any(2).sum(1), boxes.any(1).sum(1)
    assert torch.equal(areas, rows * columns)  # full rectangles
    share = areas[mixed] / (height * width)
    assert share.max() < AREA[1] * 1.05 and share.min() > AREA[0] * 0.8
    touched = boxes.any(0)
    assert touched.all()  # up to the border


def test_boxes_depend_on_the_seed_alone():
    seeds = torch.tensor([5, 9, 5])
    boxes = cutmix_boxes(seeds, 32, 32)
    assert torch.equal(boxes[0], boxes[2])
    assert torch.equal(boxes[1:2], cutmix_boxes(seeds[1:2], 32, 32))


def test_mix_swaps_neighbours_inside_the_boxes():
    values = torch.arange(4).view(4, 1, 1).expand(4, 2, 2)
    boxes = torch.tensor([[[True, False], [False, False]]]).expand(4, 2, 2)
    mixed = mix(boxes, values)
    assert mixed[:, 0, 0].tolist() == [1, 0, 3, 2]
    assert mixed[:, 1, 1].tolist() == [0, 1, 2, 3]
    images = values[:, None].expand(4, 3, 2, 2)
    assert torch.equal(mix(boxes, images), mixed[:, None].expand(4, 3, 2, 2))
