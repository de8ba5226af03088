"""What a seed decides."""

import itertools

from soak.bearer import METERED, STEADY, UNKNOWN
from soak.case import all_cases, find_case
from soak.method import METHODS
from soak.plan import ALONE, CHANGES, FAULTS, INCIDENTS, ROUND_SECONDS, plan_calls, plan_incidents


def test_seed_decides_calls_and_incidents() -> None:
    """The same seed has the same ones; another seed, or another caller, others."""
    calls = list(itertools.islice(plan_calls(5, "caller-1"), 50))
    assert calls == list(itertools.islice(plan_calls(5, "caller-1"), 50))
    assert calls != list(itertools.islice(plan_calls(5, "caller-2"), 50))
    assert calls != list(itertools.islice(plan_calls(6, "caller-1"), 50))
    assert plan_incidents(5, 60) == plan_incidents(5, 60)
    assert plan_incidents(5, 60) != plan_incidents(6, 60)


def test_each_round_has_every_incident() -> None:
    """However short the soak; times lie within it, in order."""
    for seconds in (2.0, 30.0, 600.0):
        incidents, changes = plan_incidents(1, seconds)
        num_rounds = max(1, round(seconds / ROUND_SECONDS))
        for kinds, found in ((INCIDENTS, incidents), (CHANGES, changes)):
            times = [one.at_seconds for one in found]
            assert times == sorted(times)
            assert 0 <= times[0] <= times[-1] <= seconds
            for kind in kinds:
                assert sum(one.kind == kind for one in found) >= num_rounds


def test_faults_are_those_of_their_calls() -> None:
    """Within some hundred calls there is every kind and every fault."""
    calls = list(itertools.islice(plan_calls(1, "caller-1"), 800))
    assert {call.case.kind for call in calls} == METHODS.keys()
    assert {call.fault for call in calls} == {"", *FAULTS}
    for call in calls:
        if call.fault == "slow":
            assert call.case.method.has_many_responses
        if call.fault == "malformed":
            assert not call.case.method.has_many_requests
        assert call.is_fragile or call.fault != "cut"
        assert call.token == STEADY or not call.case.method.has_many_requests


def test_calls_share_answers_and_come_with_tokens() -> None:
    """Some of each kind; their metadata say so."""
    calls = list(itertools.islice(plan_calls(1, "caller-1"), 400))
    assert {call.sharing for call in calls} == {ALONE, "", "no-cache"}
    assert {call.token for call in calls} == {STEADY, METERED}
    for call in calls:
        told = dict(call.metadata)
        token = UNKNOWN if call.fault == "unknown" else call.token
        assert told.pop("authorization") == f"Bearer {token}"
        assert told == ({"seqserve-cache": call.sharing} if call.sharing else {})


def test_cases_are_the_same_wherever_they_are_made() -> None:
    """They depend on kind and number alone."""
    first = [case.requests for case in all_cases()]
    find_case.cache_clear()
    assert [case.requests for case in all_cases()] == first


def test_version_is_asked_for_in_copies() -> None:
    """The requests of a case have none."""
    for kind in METHODS:
        case = find_case(kind, 0)
        (request, *_) = case.requests_to("2")
        whole = request.request if kind == "embed_stream" else request
        assert whole.model_version == "2"
        (request, *_) = case.requests
        assert (request.request if kind == "embed_stream" else request).model_version == ""
