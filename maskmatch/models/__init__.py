"""Student networks: segmentation_models.pytorch by name, or any module that returns logits."""

from maskmatch.models.starting_weights import init_from
from maskmatch.models.student import Student, build_student, check_crop, check_patches, from_module

__all__ = ["Student", "build_student", "check_crop", "check_patches", "from_module", "init_from"]
