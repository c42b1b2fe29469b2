"""Every option of a run: what it is, which values it takes, what it follows from and whether a resume may change it.

fields.py      the options themselves
rules.py       what a value must be, to be named beside a field
validation.py  the rules of a whole configuration, and what it follows from the number of steps
former.py      options of before: their names of today
"""

from maskmatch.config.fields import AblationConfig, Config, DataConfig, MethodConfig, ModelConfig, TrainConfig
from maskmatch.config.validation import Option, check_sections, each_option, filled_in, flat, saved, validate

__all__ = [
    "AblationConfig",
    "Config",
    "DataConfig",
    "MethodConfig",
    "ModelConfig",
    "Option",
    "TrainConfig",
    "check_sections",
    "each_option",
    "filled_in",
    "flat",
    "saved",
    "validate",
]
