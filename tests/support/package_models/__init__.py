"""Models in Python packages that are not in the zoo: where their files are, and inputs of the kind that their authors
use.
"""

from collections.abc import Mapping

from support.package_models.model import PackageModel
from support.package_models.pictures import PICTURES
from support.package_models.sounds import SOUNDS
from support.package_models.texts import TEXTS

MODELS: Mapping[str, PackageModel] = {**PICTURES, **SOUNDS, **TEXTS}
"""By name."""

__all__ = ["MODELS", "PackageModel"]
