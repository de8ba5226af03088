"""The answers that were asked for last, of all models, within a number of bytes.

What holds: what the entries take, the memory of the table included, is never more than
``max_bytes``. Answers are kept packed: nobody who was given one can change it, how many bytes it
takes is known, and the garbage collector has nothing to look at.
"""

import pickle
from collections import OrderedDict

from seqserve.metrics import Metrics
from seqserve.sequence import Answer

_ENTRY_BYTES = 320
"""Of an entry beside its answer: the key, the headers of both, and its place in a table that has
just grown."""
_LARGEST_PART = 8
"""An answer of more than so many parts of the whole is not kept: it would push out too many."""


class ResponseCache:
    """Packed answers, those not asked for the longest first. Event loop only.

    Source: packing is ``pickle``, of objects of ours that never leave the process.
    """

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._num_bytes = 0
        metrics.response_cache_bytes.set_function(lambda: self._num_bytes)
        metrics.response_cache_entries.set_function(lambda: len(self._entries))

    def __len__(self) -> int:
        """Answers that are kept."""
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """What they take."""
        return self._num_bytes

    def find(self, key: bytes) -> Answer | None:
        """The answer kept under a key, with the timing it had; it counts as asked for last."""
        packed = self._entries.get(key)
        if packed is None:
            return None
        self._entries.move_to_end(key)
        answer: Answer = pickle.loads(packed)
        return answer

    def keep(self, key: bytes, answer: Answer) -> None:
        """Keeps an answer, in place of those not asked for the longest, unless it is too large."""
        packed = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
        self._remove(key)
        num_bytes = _ENTRY_BYTES + len(packed)
        if num_bytes * _LARGEST_PART > self._max_bytes:
            return
        while self._num_bytes + num_bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
            self._metrics.response_cache_evictions.inc()
        self._entries[key] = packed
        self._num_bytes += num_bytes

    def drop(self, owner: bytes) -> None:
        """Forgets the answers of a model, whose keys begin with its own bytes."""
        for key in [key for key in self._entries if key.startswith(owner)]:
            self._remove(key)

    def _remove(self, key: bytes) -> None:
        packed = self._entries.pop(key, None)
        if packed is not None:
            self._num_bytes -= _ENTRY_BYTES + len(packed)
