"""What the checks of a soak find in its records, fault by fault."""

import collections
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from soak.answer import Answer
from soak.case import find_case
from soak.checks import MAX_MORE_FILES, MAX_MORE_THREADS, find_violations
from soak.ledger import Book, Call, Ledger, read_ledger
from soak.records import Records
from soak.server_log import ServerLog, read_server_log
from soak.vitals import Vitals

_STATE = {"tasks": 9, "calls": 0, "outstanding": 0, "lane_work": 0}
_VITALS = Vitals(100 * 2**20, 20, 30, {}, 3)


def make_records() -> Records:
    """Three calls that ended well, of which one is a stream of requests."""
    calls = [
        Call("a-0", "generate/0", "", "", 10.0, [("OK", 11.0, "")], [Answer(0, "OK", "1", "x")]),
        Call("a-1", "embed_stream/0", "", "", 10.0, [("OK", 12.0, "")], []),
        Call("a-2", "stream/0", "late", "", 10.0, [("DEADLINE_EXCEEDED", 10.1, "")], []),
    ]
    expected = {("generate/0", 0, "1"): ("OK", "x"), ("generate/0", 0, "2"): ("OK", "y")}
    for item in range(len(find_case("embed_stream", 0).requests)):
        calls[1].answers.append(Answer(item, "OK", "1", f"e{item}"))
        expected["embed_stream/0", item, "1"] = ("OK", f"e{item}")
    log = ServerLog(states=[dict(_STATE), dict(_STATE)])
    for call in calls:
        log.codes[call.id] = [call.ends[0][0]]
    return Records(
        expected=expected,
        books=[Book("a", {call.id: call for call in calls})],
        killed=set(),
        crashed=[],
        bursts=[],
        num_planted=0,
        log=log,
        samples=[(float(place), 100.0 * 2**20) for place in range(20)],
        before=_VITALS,
        after=_VITALS,
        shared={"answers that were kept": 0.0},
        incidents=collections.Counter(),
        damaged=[],
        exit_code=0,
        stop_seconds=0.5,
        seconds=19.0,
    )


def find(records: Records) -> dict[str, list[str]]:
    """Violations, without those of coverage: three calls are not all of them."""
    found = find_violations(records)
    del found["all of it happened"]
    return {name: one for name, one in found.items() if one}


def call(records: Records, number: int) -> Call:
    """One of the calls."""
    return records.books[0].calls[f"a-{number}"]


def end(number: int, code: str, at: float = 11.0) -> Callable[[Records], None]:
    """Has a call end otherwise, for its caller and in the log."""

    def change(records: Records) -> None:
        call(records, number).ends[:] = [(code, at, "")]
        call(records, number).answers.clear()
        records.log.codes[f"a-{number}"] = [code]

    return change


def test_good_records_have_no_violations() -> None:
    """But three calls are no soak."""
    records = make_records()
    assert find(records) == {}
    assert "no call of rerank was made" in find_violations(records)["all of it happened"]
    assert "there was no burst" in find_violations(records)["all of it happened"]
    assert "there were no answers that were kept" in find_violations(records)["all of it happened"]


@pytest.mark.parametrize(
    ("change", "check", "text"),
    [
        (
            lambda r: call(r, 0).ends.append(("OK", 11.5, "")),
            "each call ends once",
            "a-0 (generate/0) ended 2 times",
        ),
        (
            lambda r: call(r, 0).ends.clear(),
            "each call ends once",
            "a-0 (generate/0) ended 0 times",
        ),
        (
            lambda r: call(r, 0).answers.append(Answer(0, "OK", "1", "x")),
            "each call ends once",
            "a-0 (generate/0): request 0 was answered 2 times",
        ),
        (
            lambda r: call(r, 1).answers.pop(1),
            "each call ends once",
            "a-1 (embed_stream/0) ended well without answers to [1]",
        ),
        (
            lambda r: call(r, 1).answers.reverse(),
            "each call ends once",
            "a-1 (embed_stream/0) was answered out of order",
        ),
        (
            lambda r: r.books[0].strays.append("a-9"),
            "each call ends once",
            "a-9 was answered, but not asked",
        ),
        (end(0, "UNAVAILABLE"), "each status has a cause", "a-0 (generate/0) ended with UNAVAIL"),
        (end(0, "INTERNAL"), "each status has a cause", "ended with INTERNAL"),
        (end(0, "DEADLINE_EXCEEDED"), "each status has a cause", "ended with DEADLINE_EXCEEDED"),
        (
            lambda r: call(r, 0).answers.__setitem__(0, Answer(0, "OK", "2", "x")),
            "answers as alone",
            "digest='x') instead of ('OK', 'y')",
        ),
        (
            lambda r: r.log.codes["a-0"].append("OK"),
            "log as the ledgers",
            "a-0 (generate/0) is in the log 2 times: ['OK', 'OK']",
        ),
        (
            lambda r: r.log.codes.pop("a-0"),
            "log as the ledgers",
            "a-0 (generate/0) ended with OK, in the log with []",
        ),
        (lambda r: r.log.problems.append("Traceback"), "log as the ledgers", "line: Traceback"),
        (lambda r: r.log.failed_at.append(1.0), "log as the ledgers", "1 batches failed, but 0"),
        (lambda r: r.log.refused.append("tiny/3"), "log as the ledgers", "refused were ['tiny/3']"),
        (
            lambda r: setattr(r, "after", _VITALS._replace(num_counted=4)),
            "log as the ledgers",
            "the log has 3 calls, the metrics 4",
        ),
        (
            lambda r: setattr(
                r, "after", _VITALS._replace(gauges={"seqserve_live_rows tiny,1": 2})
            ),
            "nothing is held",
            "seqserve_live_rows tiny,1 is 2",
        ),
        (
            lambda r: r.log.states[-1].update(outstanding=1),
            "nothing is held",
            "1 outstanding are left",
        ),
        (
            lambda r: r.log.states[-1].update(tasks=10),
            "nothing is held",
            "10 tasks run, before there were 9",
        ),
        (
            lambda r: setattr(r, "after", _VITALS._replace(num_files=21 + MAX_MORE_FILES)),
            "nothing is held",
            f"{21 + MAX_MORE_FILES} files are open, before there were 20",
        ),
        (
            lambda r: setattr(r, "after", _VITALS._replace(num_threads=31 + MAX_MORE_THREADS)),
            "nothing is held",
            f"{31 + MAX_MORE_THREADS} threads run, before there were 30",
        ),
        (
            lambda r: r.samples.__setitem__(
                slice(None), [(float(place), place * 10.0 * 2**20) for place in range(20)]
            ),
            "memory is flat",
            "memory grows by",
        ),
        (lambda r: setattr(r, "exit_code", 1), "orderly end", "the server ended with 1"),
        (lambda r: setattr(r, "exit_code", None), "orderly end", "the server ended with None"),
        (lambda r: setattr(r, "stop_seconds", 99.0), "orderly end", "took 99.0 seconds to end"),
        (lambda r: r.crashed.append("a ended with -6"), "orderly end", "a ended with -6"),
    ],
)
def test_one_fault_is_one_violation(
    change: Callable[[Records], object], check: str, text: str
) -> None:
    """Found by the check that is there for it, and by no other."""
    records = make_records()
    change(records)
    found = find(records)
    assert list(found) == [check]
    assert text in found[check][0]


def test_trouble_of_the_server_explains_statuses() -> None:
    """Only of calls that were under way."""
    for code, trouble in (
        ("RESOURCE_EXHAUSTED", {"bursts": [(10.5, 10.6)]}),
        ("INTERNAL", {"num_planted": 1}),
    ):
        records = dataclasses.replace(make_records(), **trouble)
        end(0, code)(records)
        if code == "INTERNAL":
            records.log.failed_at.append(10.5)
        assert find(records) == {}
        call(records, 0).begun_at, call(records, 0).ends = 20.0, [(code, 21.0, "")]
        assert list(find(records)) == ["each status has a cause"]


def test_cut_connections_explain_what_went_over_them() -> None:
    """And nothing that went over others."""
    records = make_records()
    end(0, "UNAVAILABLE")(records)
    records.books[0].cuts.append(10.5)
    assert list(find(records)) == ["each status has a cause"]
    call(records, 0).fault = "+fragile"
    assert find(records) == {}


def test_metered_token_explains_what_was_refused() -> None:
    """And must not have been good for more than its rate and its burst."""
    records = make_records()
    end(0, "RESOURCE_EXHAUSTED")(records)
    assert list(find(records)) == ["each status has a cause"]
    call(records, 0).fault = "+metered"
    assert find(records) == {}
    answered = call(make_records(), 0)
    for number in range(3, 60):
        one = dataclasses.replace(answered, id=f"a-{number}", fault="+metered")
        records.books[0].calls[one.id] = one
        records.log.codes[one.id] = ["OK"]
    for vitals in ("before", "after"):
        setattr(records, vitals, _VITALS._replace(num_counted=60))
    assert find(records) == {
        "rates are kept": ["57 calls of the metered token were answered in 1 seconds"]
    }


def test_old_connections_explain_only_what_was_too_large() -> None:
    """They are closed without waiting for the rest of a message that was refused."""
    text = "Stream removed (Socket closed (GOAWAY received; Error code: 0; Debug Text: max_age))"
    records = make_records()
    end(0, "UNAVAILABLE")(records)
    call(records, 0).ends[:] = [("UNAVAILABLE", 11.0, text)]
    assert list(find(records)) == ["each status has a cause"]
    call(records, 0).fault = "oversized"
    assert find(records) == {}


def test_calls_of_killed_callers_need_no_end() -> None:
    """What they were answered counts all the same."""
    records = make_records()
    call(records, 0).ends.clear()
    records.killed.add("a")
    assert find(records) == {}
    records.log.codes["a-0"] *= 2
    assert list(find(records)) == ["log as the ledgers"]


def test_ledger_keeps_what_was_entered(tmp_path: Path) -> None:
    """Half a line, the last words of a killed process, is none; an answer without a call shows."""
    path = tmp_path / "a.jsonl"
    answer = Answer(0, "OK", "1", "x")
    with Ledger(path) as ledger:
        ledger.begin("a-0", "generate/0", "", "1")
        ledger.answer("a-0", [answer])
        ledger.end("a-0", "OK")
        ledger.begin("a-0", "generate/0", "", "1")
        ledger.end("a-9", "OK")
        ledger.cut()
    with path.open("ab") as file:
        file.write(b'["end", "a-0", "O')
    book = read_ledger(path)
    assert (book.owner, book.strays, len(book.cuts)) == ("a", ["a-0", "a-9"], 1)
    (found,) = book.calls.values()
    assert (found.answers, [code for code, _, _ in found.ends]) == ([answer], ["OK"])


def test_log_is_sorted_by_what_was_planned(tmp_path: Path) -> None:
    """Warnings, errors, and lines that are none of ours are problems."""
    path = tmp_path / "server.log"
    lines = [
        '{"event": "call", "request_id": "a-0", "code": "OK", "level": "info"}',
        '{"event": "batch failed", "exception": "RuntimeError: planted by the soak", '
        '"level": "error", "timestamp": "1970-01-01T00:00:05.000000Z"}',
        '{"event": "batch failed", "exception": "RuntimeError: lost", "level": "error"}',
        '{"event": "model refused", "model": "tiny/3", "level": "error"}',
        '{"event": "state", "tasks": 3, "level": "info"}',
        '{"event": "stopping", "level": "info"}',
        "Traceback (most recent call last):",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    log = read_server_log(path)
    assert log.codes == {"a-0": ["OK"]}
    assert (log.failed_at, log.refused, len(log.states)) == ([5.0], ["tiny/3"], 1)
    assert log.problems == [lines[2], lines[6]]
