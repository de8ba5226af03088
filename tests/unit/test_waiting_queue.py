"""Whose turn is next: classes, ageing, and fair shares of callers."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import make_sequence
from seqserve.sequence import Priority, Sequence
from seqserve.waiting_queue import WaitingQueue

AGEING = 10.0


def make_queue(*sequences: Sequence) -> WaitingQueue:
    """A queue with sequences that came in this order."""
    queue = WaitingQueue(AGEING)
    for sequence in sequences:
        queue.add(sequence)
    return queue


def take_next(queue: WaitingQueue, now: float = 0.0) -> Sequence:
    """Serves the next one."""
    (turn,) = queue.next_turns(now, 1)
    queue.take([turn.sequence])
    return turn.sequence


def test_higher_classes_go_first() -> None:
    """Classes go in order, and those of one class in order of arrival."""
    sequences = [
        make_sequence(priority=priority)
        for priority in (Priority.LOW, Priority.HIGH, Priority.NORMAL, Priority.HIGH)
    ]
    queue = make_queue(*sequences)
    order = [take_next(queue) for _ in sequences]
    assert [sequences.index(sequence) for sequence in order] == [1, 3, 2, 0]
    assert len(queue) == 0


def test_waiting_lifts_by_one_class_at_a_time() -> None:
    """After each period a sequence counts as one class higher, up to the highest."""
    low = make_sequence(priority=Priority.LOW, submitted_at=5.0)
    queue = make_queue(low)
    found = [queue.next_turns(now, 1)[0].priority for now in (14.9, 15.0, 24.9, 25.0, 999.0)]
    assert found == [
        *(Priority.LOW, Priority.NORMAL, Priority.NORMAL),
        *(Priority.HIGH, Priority.HIGH),
    ]
    late = make_queue(make_sequence(priority=Priority.LOW))
    assert late.next_turns(2 * AGEING, 1)[0].priority is Priority.HIGH  # two at once


def test_lifted_sequence_goes_before_later_ones_of_its_caller() -> None:
    """One that has risen does not queue behind those of its caller that came after it."""
    old = make_sequence(priority=Priority.NORMAL, submitted_at=0.0)
    new = make_sequence(priority=Priority.HIGH, submitted_at=9.0)
    queue = make_queue(old, new)
    assert take_next(queue, 9.0) is new
    queue.add(new)
    assert take_next(queue, 10.0) is old


def test_new_caller_is_next_after_one_sequence() -> None:
    """However many inputs one caller has queued, another's single one goes first or second."""
    queue = make_queue(*(make_sequence(caller="bulk") for _ in range(10_000)))
    for _ in range(100):
        take_next(queue)
    single = make_sequence(caller="single")
    queue.add(single)
    assert single in [take_next(queue), take_next(queue)]


def test_waiting_does_not_win_over_fair_shares() -> None:
    """Thousands that have risen are joined by who comes later, and by who had not waited long."""
    queue = make_queue(*(make_sequence(caller="bulk") for _ in range(1000)))
    before = make_sequence(caller="before", submitted_at=AGEING - 1.0)
    queue.add(before)
    later = make_sequence(caller="later", submitted_at=AGEING + 1.0)
    low = make_sequence(caller="low", priority=Priority.LOW, submitted_at=AGEING + 1.0)
    (first,) = queue.next_turns(AGEING, 1)
    assert first.priority is Priority.HIGH
    for sequence in (later, low):
        queue.add(sequence)
    turns = queue.next_turns(AGEING + 1.0, 1003)
    assert {turn.sequence.caller for turn in turns[:3]} == {"bulk", "before", "later"}
    assert {turn.priority for turn in turns[:-1]} == {Priority.HIGH}
    assert turns[-1] == (Priority.LOW, low)
    queue.take([turn.sequence for turn in turns[:-1]])
    # With those gone, their class is as high as its priority again.
    queue.add(make_sequence(caller="new", submitted_at=AGEING + 2.0))
    assert [turn.priority for turn in queue.next_turns(AGEING + 2.0, 2)] == [
        Priority.NORMAL,
        Priority.LOW,
    ]


def test_what_has_risen_from_below_is_joined_by_all_above_it() -> None:
    """Nobody is overtaken by one that came with a lower priority and no earlier."""
    queue = make_queue(make_sequence(priority=Priority.LOW, caller="low"))
    queue.next_turns(2 * AGEING, 1)
    queue.add(make_sequence(priority=Priority.NORMAL, submitted_at=2 * AGEING, caller="normal"))
    turns = queue.next_turns(2 * AGEING, 2)
    assert {turn.priority for turn in turns} == {Priority.HIGH}


def test_callers_share_by_work() -> None:
    """A caller of long sources gets as much work done as one of short sources, not as many."""
    queue = make_queue(
        *(make_sequence(range(27), max_new_tokens=3, caller="long") for _ in range(100)),
        *(make_sequence(range(7), max_new_tokens=3, caller="short") for _ in range(100)),
    )
    served = [take_next(queue).caller for _ in range(80)]
    assert 58 <= served.count("short") <= 62  # 30 tokens of work against 10


def test_beams_are_work() -> None:
    """Every beam may decode all new tokens."""
    sequence = make_sequence(range(5), num_beams=4, max_new_tokens=10)
    assert sequence.work == 45


def test_idle_caller_saves_up_nothing() -> None:
    """Who was away does not get ahead of who was served meanwhile by more than one sequence."""
    queue = make_queue(*(make_sequence(caller="busy") for _ in range(50)))
    for _ in range(40):
        take_next(queue)
    for _ in range(5):
        queue.add(make_sequence(caller="back"))
    served = [take_next(queue).caller for _ in range(8)]
    assert 3 <= served.count("busy") <= 5


def test_leaving_does_not_wipe_out_what_a_caller_was_served() -> None:
    """Sending inputs one by one gets a caller no more than queueing them."""
    queue = make_queue(*(make_sequence(caller="queued") for _ in range(50)))
    served = []
    for _ in range(20):
        if not any(sequence.caller == "single" for sequence in queue):
            queue.add(make_sequence(caller="single"))
        served.append(take_next(queue).caller)
    assert 9 <= served.count("single") <= 11


def test_removed_sequences_cost_nothing() -> None:
    """What was never run is not charged."""
    queue = make_queue(*(make_sequence(caller="quitter") for _ in range(9)))
    queue.add(make_sequence(caller="other"))
    quitters = [sequence for sequence in queue if sequence.caller == "quitter"]
    queue.remove(quitters[:8])
    assert take_next(queue) is quitters[8]


def test_callers_that_are_gone_are_forgotten() -> None:
    """Names that come once do not pile up."""
    queue = make_queue(*(make_sequence(caller="stays") for _ in range(300)))
    for index in range(250):
        queue.add(make_sequence(caller=f"once {index}"))
        take_next(queue)
        take_next(queue)
    share = queue._classes[Priority.NORMAL].callers
    assert len(share._served) <= 3


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_everyone_has_a_turn(seed: int) -> None:
    """Against any stream of high inputs each waits a bounded time; nothing is lost or doubled.

    Two arrivals are served for each that comes, of up to 4 callers; a low one has risen to the top
    after two periods and then waits for what its caller and three others queued before.
    """
    chance = random.Random(seed)
    queue = WaitingQueue(AGEING)
    added: list[Sequence] = []
    served: dict[Sequence, float] = {}
    for now in range(300):
        if now < 200:
            sequence = make_sequence(
                range(chance.randint(1, 9)),
                priority=chance.choice(list(Priority)),
                caller=chance.choice("abcd"),
                submitted_at=float(now),
            )
            added.append(sequence)
            queue.add(sequence)
        if len(queue) and chance.random() < 0.9:
            sequence = take_next(queue, now)
            assert sequence not in served
            served[sequence] = now
    assert set(served) == set(added)
    assert len(queue) == 0
    waits = [served[sequence] - sequence.submitted_at for sequence in added]
    assert max(waits) <= 2 * AGEING + 60


def test_one_that_has_risen_does_not_hold_back_those_behind_it() -> None:
    """A line mixes sequences that need one period more and those that need two."""
    low = make_sequence(priority=Priority.LOW, submitted_at=0.0)
    normal = make_sequence(priority=Priority.NORMAL, submitted_at=1.0)
    queue = make_queue(low, normal)
    queue.next_turns(10.0, 2)
    turns = {turn.sequence: turn.priority for turn in queue.next_turns(11.0, 2)}
    assert turns == {low: Priority.NORMAL, normal: Priority.HIGH}


def test_many_rise_at_once_in_their_order() -> None:
    """In one pass over the line: nobody waits for a look at each of thousands against each."""
    queue = WaitingQueue(5.0)
    sequences = [make_sequence([5], submitted_at=0.0) for _ in range(20_000)]
    for sequence in sequences:
        queue.add(sequence)
    assert {turn.priority for turn in queue.next_turns(4.9, 10)} == {Priority.NORMAL}
    turns = queue.next_turns(5.0, len(sequences))
    assert {turn.priority for turn in turns} == {Priority.HIGH}
    assert [turn.sequence for turn in turns] == sequences


def test_lines_are_looked_through_only_when_somebody_rises() -> None:
    """What rises next is known; until then, turns cost nothing for those behind them."""
    queue = WaitingQueue(5.0)
    for at in (1.0, 2.0, 3.0):
        queue.add(make_sequence([5], submitted_at=at))
    looks = 0
    due_at = queue._due_at

    def count(priority: Priority, sequence: Sequence) -> float:
        nonlocal looks
        looks += 1
        return due_at(priority, sequence)

    queue._due_at = count  # type: ignore[method-assign]
    for now in (3.0, 4.0, 5.9):
        queue.next_turns(now, 3)
    assert looks == 0
    assert [turn.priority for turn in queue.next_turns(6.0, 3)] == [Priority.HIGH] * 3
    looks = 0
    queue.next_turns(60.0, 3)
    assert looks == 0


def test_small_call_is_next_after_one_sequence_of_a_large_one() -> None:
    """Of one caller: a call with one text does not wait for all of a call with a thousand."""
    queue = WaitingQueue(5.0)
    large = [make_sequence([5, 6], caller="a", call=1) for _ in range(1000)]
    for sequence in large:
        queue.add(sequence)
    queue.take(large[:100])
    small = make_sequence([5], caller="a", call=2)
    queue.add(small)
    turns = [turn.sequence for turn in queue.next_turns(0.0, 2)]
    assert small in turns
    queue.take(turns)
    assert [turn.sequence for turn in queue.next_turns(0.0, 3)] == large[101:104]


def test_calls_do_not_add_up_to_more_than_their_callers_share() -> None:
    """Who makes ten calls has no more turns than who makes one."""
    queue = WaitingQueue(5.0)
    many = [make_sequence([5], caller="a", call=call) for call in range(1, 11)]
    one = [make_sequence([5], caller="b", call=11) for _ in range(10)]
    for sequence in [*many, *one]:
        queue.add(sequence)
    callers = [turn.sequence.caller for turn in queue.next_turns(0.0, 20)]
    assert callers.count("a") == callers.count("b") == 10
    for count in range(2, 21, 2):
        assert abs(callers[:count].count("a") - callers[:count].count("b")) <= 1


def test_debts_end_with_the_choice_they_are_of() -> None:
    """Who was served while nobody else waited is not behind newcomers an hour later."""
    queue = make_queue(*(make_sequence(caller="a") for _ in range(100)))
    queue.take([turn.sequence for turn in queue.next_turns(0.0, 90)])
    queue.take([turn.sequence for turn in queue.next_turns(AGEING, 10)])  # they have risen
    for _ in range(50):
        queue.add(make_sequence(caller="b", submitted_at=3600.0))
    last = make_sequence(caller="a", submitted_at=3600.0)
    queue.add(last)
    assert last in [turn.sequence for turn in queue.next_turns(3600.0, 2)]
