"""Admission: a bounded number of sequences, all of a request or none."""

import asyncio
import threading

import pytest

from seqserve.admission import Admission
from seqserve.errors import OverloadedError


def test_places_are_held_while_the_request_is_answered() -> None:
    """Inside the block the places are taken, afterwards they are free."""
    admission = Admission(5)
    with admission.admit(2), admission.admit(3):
        assert admission.num_outstanding == 5
    assert admission.num_outstanding == 0


def test_request_beyond_the_limit_is_refused_whole() -> None:
    """All places of a request or none are given, and the refusal says when to come back."""
    admission = Admission(5)
    with admission.admit(3):
        with pytest.raises(OverloadedError) as caught, admission.admit(3):
            pass
        assert admission.num_outstanding == 3
        with admission.admit(2):
            assert admission.num_outstanding == 5
    assert str(caught.value) == (
        "3 inputs are being worked on and 3 more would exceed the limit of 5; try again later"
    )
    assert caught.value.retry_after_seconds == 1.0


def test_failed_request_gives_its_places_back() -> None:
    """An error inside the block frees the places and passes through."""
    admission = Admission(5)
    with pytest.raises(KeyError), admission.admit(4):
        raise KeyError
    assert admission.num_outstanding == 0


def test_places_are_conserved_between_threads() -> None:
    """Many threads that come and go leave no place behind and never exceed the limit."""
    admission = Admission(3)
    highest: list[int] = []

    def come_and_go() -> None:
        for _ in range(200):
            try:
                with admission.admit(2):
                    highest.append(admission.num_outstanding)
            except OverloadedError:
                continue

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(highest) == {2}
    assert admission.num_outstanding == 0


def test_places_given_back_early_are_given_back_once() -> None:
    """What ``release`` freed is not freed again at the end of the block."""
    admission = Admission(5)
    with admission.admit(3) as places:
        places.release()
        places.release()
        assert admission.num_outstanding == 0
        with admission.admit(5):
            assert admission.num_outstanding == 5
    assert admission.num_outstanding == 0


def test_request_that_turns_out_to_be_of_another_size_holds_what_it_is() -> None:
    """More only as far as there is more; what it had stays its own."""
    admission = Admission(5)
    with admission.admit(3) as places:
        places.resize(5)
        assert admission.num_outstanding == 5
        places.resize(2)
        assert admission.num_outstanding == 2
        with admission.admit(1):
            with pytest.raises(OverloadedError, match=r"^3 inputs are .* 3 more would"):
                places.resize(5)
            assert admission.num_outstanding == 3
    assert admission.num_outstanding == 0


async def test_end_of_all_requests_can_be_waited_for() -> None:
    """Places that are taken meanwhile are waited for, too."""
    admission = Admission(5)
    await admission.wait_until_idle()
    first, second = admission.admit(2), admission.admit(1)
    waiting = asyncio.ensure_future(admission.wait_until_idle())
    await asyncio.sleep(0)
    first.release()
    third = admission.admit(1)
    second.release()
    await asyncio.sleep(0)
    assert not waiting.done()
    third.release()
    await asyncio.wait_for(waiting, 10)
