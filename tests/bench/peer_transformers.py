"""``transformers.generate`` on torch, in a process of its own."""

import sys
import time
from typing import Any

import torch
from transformers import MarianMTModel

from bench.json_process import answer
from bench.workload import PAD_TOKEN

_BATCH_SIZE = 64
_NUM_THREADS = 2


class Transformers:
    """The checkpoint in fp32, as ``from_pretrained`` loads it."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(_NUM_THREADS)
        self._model: Any = MarianMTModel.from_pretrained(folder)

    @torch.inference_mode()
    def translate(self, sentences: list[Any]) -> dict[str, Any]:
        """Translates in batches of 64; source and target lengths are equal in each."""
        targets: list[list[int]] = []
        started_at = time.perf_counter()
        for start in range(0, len(sentences), _BATCH_SIZE):
            batch = sentences[start : start + _BATCH_SIZE]
            lengths = {(len(source), target_length) for source, target_length in batch}
            if len(lengths) != 1:
                raise ValueError(f"lengths must be equal in a batch, but are {sorted(lengths)}")
            ((_, target_length),) = lengths
            sources = torch.tensor([source for source, _ in batch])
            tokens = self._model.generate(
                sources,
                attention_mask=torch.ones_like(sources),
                num_beams=1,
                do_sample=False,
                min_new_tokens=target_length,
                max_new_tokens=target_length,
                pad_token_id=PAD_TOKEN,
            )
            targets += tokens[:, 1:].tolist()  # without the start token
        return {"seconds": time.perf_counter() - started_at, "targets": targets}


def main() -> None:
    """Answers the benchmark."""
    answer({"translate": Transformers(sys.argv[1]).translate})


if __name__ == "__main__":
    main()
