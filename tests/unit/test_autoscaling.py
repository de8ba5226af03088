"""The simulation of autoscalers: conservation, delays and limits."""

from collections.abc import Sequence

import pytest

from bench.autoscaling import (
    CPU_CHOSEN,
    QUEUE_CHOSEN,
    START_SECONDS,
    Traffic,
    compare_with_measured,
    name_of,
    simulate,
)
from bench.autoscaling_policy import SYNC_SECONDS, Autoscaler, Behavior, Target
from bench.autoscaling_replica import TARGET_TOKENS, Costs, Replica

COSTS = Costs.read()


def test_every_call_is_answered_once_or_refused() -> None:
    """Also where there are more than a replica takes."""
    replica = Replica(COSTS, max_outstanding=100)
    answered, num_arrived = 0.0, 0.0
    for step in range(400):
        arrivals = 80.0 if step < 40 else 0.0
        num_arrived += arrivals
        answered += sum(number for _, number in replica.advance(step / 4, 0.25, arrivals))
    assert replica.num_outstanding == 0
    assert replica.num_refused > 0
    assert answered + replica.num_refused == pytest.approx(num_arrived)


def test_one_call_takes_its_steps() -> None:
    """As measured for one row."""
    replica = Replica(COSTS)
    done = replica.advance(0, 1.0, 1.0)
    (latency, number) = done[0]
    assert number == 1
    steps = TARGET_TOKENS * COSTS.step(1)
    assert latency == pytest.approx(steps, rel=0.05)


def test_replica_is_about_as_fast_as_the_measured_one() -> None:
    """Half as slow or as fast, at two rates: good for the choice of a threshold, no more."""
    for row in compare_with_measured(COSTS):
        ratio = row["simulated_p50_seconds"] / row["measured_p50_seconds"]
        assert 0.5 < ratio < 2


@pytest.mark.parametrize("targets", [CPU_CHOSEN, [Target("queue", 16)], QUEUE_CHOSEN], ids=name_of)
def test_replicas_come_late_and_go_later(targets: Sequence[Target]) -> None:
    """After the time to start, no faster than the policy, and not before the stabilization."""
    behavior = Behavior()
    traffic = Traffic("step", 900, lambda now: 400.0 if 60 <= now < 300 else 20.0)
    course = simulate(traffic, targets, COSTS)["course"]
    first = next(point for point in course if point["replicas"] > behavior.min_replicas)
    assert first["second"] >= 60 + START_SECONDS
    most = max(point["replicas"] for point in course)
    assert first["replicas"] <= behavior.min_replicas + behavior.up_pods
    last = [point["second"] for point in course if point["replicas"] == most][-1]
    assert last >= first["second"] + behavior.down_stabilization_seconds - 2 * SYNC_SECONDS


def test_work_of_a_replica_is_what_the_target_says() -> None:
    """Held exactly, nothing changes; twice as much wants twice as many."""
    replicas = [Replica(COSTS) for _ in range(3)]
    for load, wanted in ((10.0, 3), (20.0, 6)):
        autoscaler = Autoscaler([Target("queue", 10)], Behavior())
        for one in replicas:
            one.mean_outstanding = load
        for _ in range(SYNC_SECONDS):
            autoscaler.observe(replicas)
        assert autoscaler.decide(15, 3, 3) == wanted


def test_of_two_metrics_the_one_that_wants_more_decides() -> None:
    """The queue says in time that there is too little, the processors that nothing is to spare."""
    replicas = [Replica(COSTS) for _ in range(4)]
    for load, busy, wanted in ((20.0, 0.8, 8), (1.0, 0.8, 4), (1.0, 0.2, 3)):
        autoscaler = Autoscaler([Target("queue", 10), Target("cpu", 0.8)], Behavior())
        for one in replicas:
            one.mean_outstanding, one.busy = load, busy
        for _ in range(SYNC_SECONDS):
            autoscaler.observe(replicas)
        assert autoscaler.decide(15, 4, 4) == wanted  # 3: a quarter goes at a time
