"""The phases of an export, as they are shown while it runs."""

import enum
from collections.abc import Callable


class Phase(enum.StrEnum):
    """In order; not every export has all of them."""

    READ = "read and map the checkpoint"
    VERIFY = "verify the model against transformers"
    QUANTIZE = "calibrate and change the number format"
    EXPORT = "export the graphs"
    VERIFY_GRAPHS = "verify the graphs against torch"
    WRITE = "write the folder"


OnPhase = Callable[[Phase], None]
"""Told each phase as it begins."""
