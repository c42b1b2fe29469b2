"""Student networks: segmentation_models.pytorch by name, or any module that returns logits."""

from maskmatch.models.student import Student, build_student, check_crop, from_module

__all__ = ["Student", "build_student", "check_crop", "from_module"]
