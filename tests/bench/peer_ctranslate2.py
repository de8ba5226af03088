"""CTranslate2 as a library, in a process of its own: the peer of offline and single translation.

It is given what suits it: batches of equal target length, since its rows end together where no
callback ends them; all of them submitted at once, so that every one of ``inter_threads`` has work;
names of tokens made before the clock starts.
"""

import sys
import time
from typing import Any

import ctranslate2

from bench.json_process import answer
from bench.peer_vocabulary import to_names, to_tokens
from bench.workload import Sentence


class Library:
    """One translator, loaded with other threads when asked."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._translator: Any = None

    def load(self, inter_threads: int, intra_threads: int) -> None:
        """Loads the model anew."""
        self._translator = None
        self._translator = ctranslate2.Translator(
            self._folder,
            device="cpu",
            compute_type="int8",
            inter_threads=inter_threads,
            intra_threads=intra_threads,
        )

    def translate(
        self, sentences: list[Any], num_beams: int, max_batch_size: int, batch_type: str
    ) -> dict[str, Any]:
        """Translates all, in groups of equal target length, longest first."""
        groups: dict[int, list[int]] = {}
        for index, (_, target_length) in enumerate(sentences):
            groups.setdefault(target_length, []).append(index)
        names = [to_names(source) for source, _ in sentences]
        targets: list[list[str]] = [[]] * len(sentences)
        started_at = time.perf_counter()
        pending = []
        for target_length, indices in sorted(groups.items(), reverse=True):
            results = self._translator.translate_batch(
                [names[index] for index in indices],
                beam_size=num_beams,
                min_decoding_length=target_length,
                max_decoding_length=target_length,
                max_batch_size=max_batch_size,
                batch_type=batch_type,
                asynchronous=True,
            )
            pending += list(zip(indices, results, strict=True))
        for index, result in pending:
            targets[index] = result.result().hypotheses[0]
        seconds = time.perf_counter() - started_at
        return {"seconds": seconds, "targets": [to_tokens(target) for target in targets]}

    def time_single(self, sentence: list[Any], num_calls: int) -> dict[str, Any]:
        """Seconds of single translations, one after the other, and to their first tokens."""
        source, target_length = Sentence(*sentence)
        names = to_names(source)
        seconds, first_seconds, num_tokens = [], [], set()
        for _ in range(num_calls):
            started_at = time.perf_counter()
            (result,) = self._translator.translate_batch(
                [names],
                beam_size=1,
                min_decoding_length=target_length,
                max_decoding_length=target_length,
            )
            seconds.append(time.perf_counter() - started_at)
            num_tokens.add(len(result.hypotheses[0]))
            arrivals: list[float] = []
            started_at = time.perf_counter()
            self._translator.translate_batch(
                [names],
                beam_size=1,
                min_decoding_length=target_length,
                max_decoding_length=target_length,
                callback=lambda _, arrivals=arrivals: arrivals.append(time.perf_counter()),
            )
            first_seconds.append(arrivals[0] - started_at)
        return {
            "seconds": seconds,
            "first_token_seconds": first_seconds,
            "num_tokens": sorted(num_tokens),
        }


def main() -> None:
    """Answers the benchmark."""
    library = Library(sys.argv[1])
    answer(
        {
            "load": library.load,
            "translate": library.translate,
            "time_single": library.time_single,
        }
    )


if __name__ == "__main__":
    main()
