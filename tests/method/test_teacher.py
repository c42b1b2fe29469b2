import copy

import pytest
import torch

from maskmatch.method import Teacher


def test_teacher_is_the_moving_average(network):
    teacher = Teacher(network, momentum=0.75)
    expected = copy.deepcopy(network.state_dict())
    for step in range(6):
        with torch.no_grad():
            for tensor in [*network.parameters(), network.norm.running_mean]:
                tensor.add_(torch.randn_like(tensor))
        network.norm.num_batches_tracked += 1
        teacher.update(network, step)
        momentum = min(1 - 1 / (step + 1), 0.75)
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                expected[name] = momentum * expected[name] + (1 - momentum) * value
            else:
                expected[name] = value.clone()
    for name, value in teacher.network.state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_teacher_is_never_trained(network):
    teacher = Teacher(network.train(), momentum=0.9)
    assert not teacher.network.training and network.training
    logits = teacher(torch.randn(2, 3, 8, 8))
    assert not logits.requires_grad and not logits.is_inference()
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())


def test_teacher_follows_tensors_that_were_replaced(network):
    teacher = Teacher(network, momentum=0.0)
    teacher.update(network, 0)
    state = {name: torch.randn_like(value) for name, value in network.state_dict().items() if value.is_floating_point()}
    network.load_state_dict(state, strict=False, assign=True)
    teacher.update(network, 1)
    network.norm.running_mean = torch.randn_like(network.norm.running_mean)  # as a move replaces buffers alone
    teacher.update(network, 2)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(teacher.network.state_dict()[name], value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_average_on_a_gpu(network):
    """By other operators than on a CPU."""
    networks = network, copy.deepcopy(network).cuda()
    teachers = [Teacher(one, momentum=0.9) for one in networks]
    for step in range(4):
        for one in networks:
            one.load_state_dict({name: value * 1.5 + 0.25 for name, value in network.state_dict().items()})
        for teacher, one in zip(teachers, networks, strict=True):
            teacher.update(one, step)
    expected, found = (teacher.network.state_dict() for teacher in teachers)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].cpu(), value)
