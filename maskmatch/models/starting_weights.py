"""`--init_from`: start from another run's network, also with another number of classes."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from maskmatch.common.errors import UserError
from maskmatch.models.weight_files import first_few, misfits, read_weights


def init_from(network: nn.Module, path: str, num_classes: int) -> str:
    """Load a whole network's weights in place; the classifier stays as it is where the number of classes differs.

    Args:
        network: of the same architecture.
        path: a run's folder (its best teacher is taken), a checkpoint's folder (its teacher), or a file.
        num_classes: of `network`.

    Returns:
        One line on what was loaded.

    Raises:
        UserError: there is nothing to load, or it is another network's.
    """
    where = _weights_in(Path(path))
    file = read_weights(where, "init_from", "a run, a checkpoint, ")
    own, given = network.state_dict(), file.tensors
    classifier, problem = misfits(own, given, num_classes)
    if problem:
        raise UserError(
            f"init_from: {where} is not of this model.arch and model.encoder: {problem}; "
            f"--model.encoder_weights takes an encoder alone"
        )
    network.load_state_dict(own | {key: tensor for key, tensor in given.items() if key not in classifier})
    report = f"{len(given) - len(classifier)} tensors loaded from {where}"
    if not classifier:
        return report
    classes = given[classifier[0]].shape[0]
    return f"{report}; {first_few(classifier)} start at random ({classes} classes there, {num_classes} here)"


def _weights_in(path: Path) -> Path:
    """The file that a folder stands for."""
    if not path.is_dir():
        return path
    for folder in (path / "checkpoints" / "best", path):
        if (folder / "teacher.safetensors").is_file():
            return folder / "teacher.safetensors"
    raise UserError(f"init_from: expected a run, a checkpoint or a file of weights, got {path}")
