"""A server whose models take 40 ms for each token: a known capacity, however busy the machine is.

``python tests/paced_server.py serve ...`` is ``seqserve serve ...`` with such models.
"""

import time
from typing import Any

from seqserve.__main__ import main
from seqserve.batch import Batch, Outcome
from seqserve.engine import GenerationEngine

STEP_SECONDS = 0.04


def keep_pace() -> None:
    """Has every step take its time."""
    whole = GenerationEngine.run

    def run(self: GenerationEngine, batch: Batch, options: Any = None) -> list[Outcome]:
        over_at = time.monotonic() + STEP_SECONDS
        outcomes = whole(self, batch, options)
        if batch.phase == "decode":
            time.sleep(max(0.0, over_at - time.monotonic()))
        return outcomes

    GenerationEngine.run = run  # type: ignore[method-assign]


if __name__ == "__main__":
    keep_pace()
    main(prog_name="seqserve")
