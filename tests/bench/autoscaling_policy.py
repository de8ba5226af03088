"""Autoscalers for simulations, with the delays that a cluster has.

Source: kubernetes.io, Horizontal Pod Autoscaling (ratio, tolerance, stabilization, policies); KEDA
hands its metric to such an autoscaler as an average value.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence

from bench.autoscaling_replica import Replica

SYNC_SECONDS = 15
TOLERANCE = 0.1


@dataclasses.dataclass(frozen=True)
class Target:
    """What an autoscaler holds a metric at."""

    metric: str
    """``cpu``: part of the processors; ``queue``: sequences that wait or run, for each replica."""
    value: float

    @property
    def name(self) -> str:
        """For tables."""
        return f"CPU {self.value:.0%}" if self.metric == "cpu" else f"queue {self.value:.0f}"


@dataclasses.dataclass(frozen=True)
class Behavior:
    """How fast replicas come and go, as in the manifests."""

    min_replicas: int = 2
    max_replicas: int = 10
    up_percent: int = 100
    up_pods: int = 4
    up_period_seconds: int = 30
    down_percent: int = 25
    down_period_seconds: int = 60
    down_stabilization_seconds: int = 300


class Autoscaler:
    """Looks each 15 seconds at metrics that were averaged and scraped before.

    Of several metrics the one decides that wants most replicas.
    """

    def __init__(self, targets: Sequence[Target], behavior: Behavior) -> None:
        self._behavior = behavior
        self._metrics = [_Metric(target) for target in targets]
        self._desired: collections.deque[tuple[float, int]] = collections.deque()
        self._history: collections.deque[tuple[float, int]] = collections.deque()

    def observe(self, replicas: Sequence[Replica]) -> None:
        """A second has passed."""
        for metric in self._metrics:
            metric.observe(replicas)

    def decide(self, now: float, num_ready: int, num_replicas: int) -> int:
        """How many replicas there are to be.

        Args:
            now: Seconds.
            num_ready: Replicas that serve.
            num_replicas: These, and those that start.
        """
        wanted = max(one.want(num_ready, num_replicas) for one in self._metrics)
        wanted = max(self._behavior.min_replicas, min(self._behavior.max_replicas, wanted))
        decided = self._limit(now, wanted, num_replicas)
        self._history.append((now, decided - num_replicas))
        return decided

    def _limit(self, now: float, wanted: int, num_replicas: int) -> int:
        """What stabilization and policies let through."""
        behavior = self._behavior
        self._desired.append((now, wanted))
        while self._desired[0][0] <= now - behavior.down_stabilization_seconds:
            self._desired.popleft()
        if wanted > num_replicas:
            before = num_replicas - self._changed(now, behavior.up_period_seconds, +1)
            most = max(
                math.ceil(before * (1 + behavior.up_percent / 100)), before + behavior.up_pods
            )
            return max(num_replicas, min(wanted, most))
        wanted = min(num_replicas, max(one for _, one in self._desired))
        before = num_replicas + self._changed(now, behavior.down_period_seconds, -1)
        least = math.ceil(before * (1 - behavior.down_percent / 100))
        return min(num_replicas, max(wanted, least))

    def _changed(self, now: float, period: float, sign: int) -> int:
        """Replicas that came (+1) or went (-1) in the last so many seconds."""
        recent = [change for at, change in self._history if at > now - period]
        return sum(abs(change) for change in recent if change * sign > 0)


class _Metric:
    """What is known of one metric, and how many replicas it wants."""

    def __init__(self, target: Target) -> None:
        self._target = target
        # The metrics server averages over 30 seconds and is read 15 later; Prometheus scrapes each
        # 15 and KEDA asks it each 15.
        self._window = 30 if target.metric == "cpu" else 1
        length = self._window + SYNC_SECONDS
        self._samples: collections.deque[float] = collections.deque(maxlen=length)

    def observe(self, replicas: Sequence[Replica]) -> None:
        """A second has passed."""
        if self._target.metric == "cpu":
            self._samples.append(sum(one.busy for one in replicas) / len(replicas))
        else:
            self._samples.append(sum(one.mean_outstanding for one in replicas))

    def want(self, num_ready: int, num_replicas: int) -> int:
        """As many as bring the metric to its target; what there is, if it is about there."""
        samples = list(self._samples)[: self._window]
        value = sum(samples) / len(samples)
        if self._target.metric == "cpu":
            ratio = value / self._target.value
            wanted = math.ceil(ratio * num_ready)
        else:
            ratio = value / (self._target.value * num_replicas)
            wanted = math.ceil(value / self._target.value)
        return num_replicas if abs(ratio - 1) <= TOLERANCE else wanted
