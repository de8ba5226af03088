"""What a soak does, from its seed alone: which calls, what is done to them, what happens when.

How fast calls follow each other depends on the machine, and so where incidents meet them; which
calls they are, in which order each caller sends them, and the incidents do not.
"""

import dataclasses
import itertools
import random
from collections.abc import Iterator

from seqserve.servicers.sharing import CACHE_KEY
from soak.bearer import METERED, STEADY, UNKNOWN, metadata_of
from soak.case import NUM_CASES, Case, find_case
from soak.method import METHODS

ALONE = "no-store"
"""Of a call that is computed by itself, and leaves nothing to others."""
ROUND_SECONDS = 12.0
"""In each every incident happens, at times of its own."""
_KINDS = {
    **dict.fromkeys(("generate", "embed"), 4),
    **dict.fromkeys(("stream", "embed_stream", "infer", "infer_stream"), 2),
    **dict.fromkeys(("score", "classify", "classify_tokens", "rerank", "fill_mask"), 1),
    "tokenize": 1,
}
"""With how often each is called."""
_FAULTS = {
    "": 72,
    "cancelled": 7,
    "late": 6,
    "absent": 2,
    "malformed": 2,
    "oversized": 2,
    "wrong": 2,
    "unknown": 2,
    "left": 3,
    "slow": 3,
    "cut": 4,
}
"""What is done to a call, with how often; nothing, mostly.

Given up after a moment; a deadline of a moment; a model that there is not; bytes that are no
message; more bytes than may be sent; a request without inputs; a stream that is left after its
first message, or read with pauses; the connection cut in the middle of it and of others; a token
that nobody knows.
"""
_SHARING = {ALONE: 5, "": 4, "no-cache": 1}
"""What calls want of answers of others, with how often."""
_METERED_PART = 0.15
"""Of the calls of one request: messages of streams wait for their turn, and are not refused."""
_OF_ONE_REQUEST = frozenset({"absent", "malformed", "oversized", "unknown", "wrong"})
_OF_MANY_RESPONSES = frozenset({"left", "slow"})
FAULTS = tuple(filter(None, _FAULTS))
INCIDENTS = ("burst", "failed batch", "killed caller")
"""To the server and its callers; several in a round."""
CHANGES = ("reload by calls", "damaged version", "reload by the store")
"""To what is served; one after the other, since each is waited for."""


@dataclasses.dataclass(frozen=True)
class PlannedCall:
    """One call of a caller."""

    case: Case
    fault: str
    moment: float
    """Of the fault, in [0, 1)."""
    version: str
    """To ask for."""
    is_fragile: bool
    """Whether it goes over the connection that is cut."""
    sharing: str = ALONE
    """Whether it takes answers of others and leaves its own; empty for both."""
    token: str = STEADY

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What it says of token and sharing."""
        sharing = ((CACHE_KEY, self.sharing),) if self.sharing else ()
        return (metadata_of(UNKNOWN if self.fault == "unknown" else self.token), *sharing)


@dataclasses.dataclass(frozen=True)
class Incident:
    """Something that happens while calls are made."""

    at_seconds: float
    kind: str
    choice: float
    """Which caller or model it meets, in [0, 1)."""


def plan_calls(seed: int, caller: str) -> Iterator[PlannedCall]:
    """The calls of one caller, without end."""
    chance = random.Random(f"calls {seed} {caller}")
    while True:
        (kind,) = chance.choices(list(_KINDS), list(_KINDS.values()))
        case = find_case(kind, chance.randrange(NUM_CASES))
        faults = {name: weight for name, weight in _FAULTS.items() if _fits(name, kind)}
        (fault,) = chance.choices(list(faults), list(faults.values()))
        yield PlannedCall(
            case,
            fault,
            chance.random(),
            version="1" if chance.random() < 0.2 else "",
            is_fragile=fault == "cut" or chance.random() < 0.1,
            sharing=chance.choices(list(_SHARING), list(_SHARING.values()))[0],
            token=STEADY
            if METHODS[kind].has_many_requests or chance.random() > _METERED_PART
            else METERED,
        )


def plan_incidents(seed: int, seconds: float) -> tuple[list[Incident], list[Incident]]:
    """Incidents in the order of their times, and changes of what is served in theirs."""
    chance = random.Random(f"incidents {seed}")
    incidents, changes = list[Incident](), list[Incident]()
    for number in range(max(1, round(seconds / ROUND_SECONDS))):
        start = number * ROUND_SECONDS
        length = min(ROUND_SECONDS, seconds)
        for kind in (*INCIDENTS, "failed batch", "killed caller"):
            at = start + chance.uniform(0.1, 0.9) * length
            incidents.append(Incident(at, kind, chance.random()))
        order = chance.sample(CHANGES, len(CHANGES))
        times = itertools.count(start, length / len(CHANGES))
        changes += [
            Incident(at, kind, chance.random()) for at, kind in zip(times, order, strict=False)
        ]
    return sorted(incidents, key=lambda one: one.at_seconds), changes


def _fits(fault: str, kind: str) -> bool:
    """Whether there is such a fault of such a call."""
    method = METHODS[kind]
    if fault in _OF_ONE_REQUEST:
        return not method.has_many_requests
    if fault in _OF_MANY_RESPONSES:
        return method.has_many_responses
    return True
