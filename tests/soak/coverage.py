"""Whether all that a soak is to do did happen: it would prove less than it says otherwise."""

import collections
from collections.abc import Iterator

from soak.method import METHODS
from soak.plan import CHANGES, FAULTS, INCIDENTS
from soak.records import Records


def check_coverage(records: Records) -> Iterator[str]:
    """Every kind of call was made, everything was done to some, and shared answers were given."""
    calls = [call for book in records.books for call in book.calls.values()]
    ends = collections.Counter((call.bare_fault, end[0]) for call in calls for end in call.ends)
    kinds = {call.case.partition("/")[0] for call in calls}
    yield from (f"no call of {kind} was made" for kind in sorted(METHODS.keys() - kinds))
    faults = {call.bare_fault for call in calls}
    yield from (f"no call was {fault}" for fault in FAULTS if fault not in faults)
    wanted = (*INCIDENTS, *CHANGES)
    yield from (f"there was no {kind}" for kind in wanted if not records.incidents[kind])
    for fault, code in (("late", "DEADLINE_EXCEEDED"), ("cancelled", "CANCELLED")):
        if not ends[fault, code]:
            yield f"no {fault} call ended with {code}"
    plain = [call for call in calls if not call.bare_fault]
    steady, metered = (
        {end[0] for call in plain if call.is_metered == is_metered for end in call.ends}
        for is_metered in (False, True)
    )
    if "RESOURCE_EXHAUSTED" not in steady:
        yield "no burst was too much for the server"
    yield from (
        f"no call of the metered token ended with {code}"
        for code in ("OK", "RESOURCE_EXHAUSTED")
        if code not in metered
    )
    yield from (f"there were no {what}" for what, number in records.shared.items() if not number)
