"""What must hold after a soak, whatever happened in it; each check yields what does not.

NOTE: callers know of each call what was done to it, and the server when it was in trouble: a status
is expected only where one of both explains it.
"""

import collections
from collections.abc import Callable, Iterator

from soak.bearer import BURST, REQUESTS_PER_SECOND
from soak.caller import UNSENT
from soak.case import Case, find_case
from soak.coverage import check_coverage
from soak.ledger import Book, Call
from soak.records import Records
from soak.slope import fit_slope

MAX_BYTES_PER_1000_CALLS = 2**20
ALLOWED_BYTES = 32 * 2**20
"""That memory may grow by in any soak, however short: it takes a while until all has been used.

Measured on 2 cores: up to 17 MiB in 10 seconds, and in 100 seconds 0.24 MiB in 1,000 calls.
"""
MAX_MORE_FILES = 2
MAX_MORE_THREADS = 6
"""Pools of asyncio and gRPC start threads when they need them first."""
MAX_STOP_SECONDS = 10.0
WARM_UP = 0.4
"""The part of the samples of memory that does not count."""
_SLACK_SECONDS = 0.25
"""Between what is found out about a time and the time itself."""
_CUT_SECONDS = 2.0
"""Until calls find that a connection is there again."""
_EXPECTED_CODES = {
    "": {"OK"},
    "slow": {"OK"},
    "cancelled": {"OK", "CANCELLED"},
    "left": {"OK", "CANCELLED"},
    "late": {"OK", "DEADLINE_EXCEEDED"},
    "absent": {"NOT_FOUND"},
    "malformed": {"INVALID_ARGUMENT"},
    "wrong": {"INVALID_ARGUMENT"},
    "oversized": {"RESOURCE_EXHAUSTED"},
    "unknown": {"UNAUTHENTICATED"},
    "cut": {"OK"},
}
_GONE = {"CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", UNSENT}
"""What a caller may be told by its own side; what the server answered then, nobody knows."""
_NOT_REACHED = "oversized"
"""Refused by gRPC before there is a call."""
_CLOSED_TEXT = "Socket closed (GOAWAY received; Error code: 0; Debug Text: max_age)"
"""What such a call may end with, too: gRPC closes a connection that is old once its calls are
answered, and does not wait for the rest of a message that it has refused."""


def check_once(records: Records) -> Iterator[str]:
    """Every call has one end, and every request of it one answer."""
    for book in records.books:
        for call_id in book.strays:
            yield f"{call_id} was answered, but not asked"
        for call in book.calls.values():
            num_ends = len(call.ends)
            if num_ends > 1 or (not num_ends and book.owner not in records.killed):
                yield f"{_describe(call)} ended {num_ends} times"
            yield from _check_items(call)


def check_codes(records: Records) -> Iterator[str]:
    """Every status has a cause."""
    for book in records.books:
        for call in book.calls.values():
            for code, at, text in call.ends[:1]:
                expected = _EXPECTED_CODES[call.bare_fault] | _excuses(records, book, call, at)
                is_cut_short = call.bare_fault == _NOT_REACHED and _CLOSED_TEXT in text
                if code not in expected and not is_cut_short:
                    yield f"{_describe(call)} ended with {code}: {text}"


def check_answers(records: Records) -> Iterator[str]:
    """Every answer is what the same version answers when nobody else calls, to the last bit."""
    for book in records.books:
        for call in book.calls.values():
            at = call.ends[0][1] if call.ends else float("inf")
            excuses = _EXPECTED_CODES[call.bare_fault] | _excuses(records, book, call, at)
            for answer in call.answers:
                version = answer.version or _find(call).versions[0]
                expected = records.expected.get((call.case, answer.item, version))
                if answer.code != "OK" and answer.code in excuses:
                    continue
                if (answer.code, answer.digest) != expected:
                    yield f"{_describe(call)}: {answer} instead of {expected}"


def check_log(records: Records) -> Iterator[str]:
    """The server has one line for each call, with the status the caller has; nothing else."""
    log, known = records.log, set[str]()
    for book in records.books:
        for call in book.calls.values():
            known.add(call.id)
            codes = log.codes.get(call.id, [])
            end = call.ends[0][0] if call.ends else ""
            if len(codes) > 1:
                yield f"{_describe(call)} is in the log {len(codes)} times: {codes}"
            elif not end or end in _GONE or (end == "OK" and call.bare_fault == "left"):
                continue
            elif codes != ([] if call.bare_fault == _NOT_REACHED else [end]):
                yield f"{_describe(call)} ended with {end}, in the log with {codes}"
    yield from (f"the log has an unexpected line: {line}" for line in log.problems)
    if len(log.failed_at) != records.num_planted:
        yield f"{len(log.failed_at)} batches failed, but {records.num_planted} were to"
    if sorted(log.refused) != sorted(records.damaged):
        yield f"refused were {log.refused}, but damaged were {records.damaged}"
    num_lines = sum(map(len, log.codes.values()))
    if num_lines != records.after.num_counted:
        yield f"the log has {num_lines} calls, the metrics {records.after.num_counted}"


def check_rest(records: Records) -> Iterator[str]:
    """In the end the server holds nothing that it did not hold before."""
    before, after = records.before, records.after
    yield from (f"{name} is {value:g}" for name, value in after.gauges.items())
    if len(records.log.states) < 2:
        yield "the server did not say what it holds"
        return
    first, last = records.log.states[0], records.log.states[-1]
    yield from (
        f"{last[name]} {name} are left"
        for name in ("calls", "outstanding", "lane_work")
        if last[name]
    )
    if last["tasks"] > first["tasks"]:
        yield f"{last['tasks']} tasks run, before there were {first['tasks']}"
    if after.num_files > before.num_files + MAX_MORE_FILES:
        yield f"{after.num_files} files are open, before there were {before.num_files}"
    if after.num_threads > before.num_threads + MAX_MORE_THREADS:
        yield f"{after.num_threads} threads run, before there were {before.num_threads}"


def check_memory(records: Records) -> Iterator[str]:
    """Memory grows no more than is known of libraries."""
    grown, limit = bytes_per_1000_calls(records), max_bytes_per_1000_calls(records)
    if grown > limit:
        yield (
            f"memory grows by {grown / 2**20:.2f} MiB in 1,000 calls, which may be at most "
            f"{limit / 2**20:.2f}"
        )


def check_end(records: Records) -> Iterator[str]:
    """Callers and server end as they should."""
    yield from records.crashed
    if records.exit_code != 0:
        yield f"the server ended with {records.exit_code}"
    if records.stop_seconds > MAX_STOP_SECONDS:
        yield f"the server took {records.stop_seconds:.1f} seconds to end"


def check_rates(records: Records) -> Iterator[str]:
    """A token is good for no more than what it was given, however many callers have it."""
    calls = [call for book in records.books for call in book.calls.values() if call.is_metered]
    ended_at = [call.ends[0][1] for call in calls if call.ends]
    num_answered = sum(call.ends[0][0] == "OK" for call in calls if call.ends)
    if not num_answered:
        return
    seconds = max(ended_at) - min(call.begun_at for call in calls) + _SLACK_SECONDS
    most = BURST + REQUESTS_PER_SECOND * seconds
    if num_answered > most:
        yield f"{num_answered} calls of the metered token were answered in {seconds:.0f} seconds"


CHECKS: dict[str, Callable[[Records], Iterator[str]]] = {
    "each call ends once": check_once,
    "each status has a cause": check_codes,
    "answers as alone": check_answers,
    "log as the ledgers": check_log,
    "nothing is held": check_rest,
    "memory is flat": check_memory,
    "orderly end": check_end,
    "rates are kept": check_rates,
    "all of it happened": check_coverage,
}


def find_violations(records: Records) -> dict[str, list[str]]:
    """What each check finds; nothing, if all is well."""
    return {name: list(check(records)) for name, check in CHECKS.items()}


def bytes_per_1000_calls(records: Records) -> float:
    """How fast memory grew, after a while."""
    rate = records.num_calls / (records.samples[-1][0] - records.samples[0][0])
    return fit_slope(records.samples, WARM_UP) / rate * 1000


def max_bytes_per_1000_calls(records: Records) -> float:
    """How fast it may grow in a soak of this length."""
    return MAX_BYTES_PER_1000_CALLS + ALLOWED_BYTES / (1 - WARM_UP) / records.num_calls * 1000


def _check_items(call: Call) -> Iterator[str]:
    """Requests of a stream are answered once and in their order; all of them if it ended well."""
    items = [answer.item for answer in call.answers]
    for item, number in collections.Counter(items).items():
        if number > 1:
            yield f"{_describe(call)}: request {item} was answered {number} times"
    case = _find(call)
    num_requests = len(case.requests)
    if any(item >= num_requests for item in items):
        yield f"{_describe(call)} has {num_requests} requests, and answers to {items}"
    is_whole = bool(call.ends) and call.ends[0][0] == "OK" and call.bare_fault != "left"
    if is_whole and (missing := sorted(set(range(num_requests)) - set(items))):
        yield f"{_describe(call)} ended well without answers to {missing}"
    if case.model == "sentence" and items != sorted(items):
        yield f"{_describe(call)} was answered out of order: {items}"


def _excuses(records: Records, book: Book, call: Call, ended_at: float) -> set[str]:
    """Codes that what happened meanwhile explains."""
    codes = set[str]()
    start, end = call.begun_at - _SLACK_SECONDS, ended_at + _SLACK_SECONDS
    if any(begin <= end and start <= over for begin, over in records.bursts):
        codes.add("RESOURCE_EXHAUSTED")
    if call.bare_fault == "late" and _find(call).method.has_many_requests:
        codes.add(UNSENT)
    if any(start <= at <= end for at in records.log.failed_at):
        codes.add("INTERNAL")
    if call.is_metered:
        codes.add("RESOURCE_EXHAUSTED")
    if call.is_fragile and any(start - _CUT_SECONDS <= at <= end for at in book.cuts):
        codes |= {"UNAVAILABLE", UNSENT}
    return codes


def _find(call: Call) -> Case:
    kind, _, number = call.case.partition("/")
    return find_case(kind, int(number))


def _describe(call: Call) -> str:
    version = f" of version {call.version}" if call.version else ""
    fault = f", {call.fault}" if call.fault else ""
    return f"{call.id} ({call.case}{version}{fault})"
