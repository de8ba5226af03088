"""Replicas behind Envoy: losses, rollouts and growth, seen by callers."""

from pathlib import Path

import pytest

from proxied_replicas import ProxiedReplicas

MAX_UNEVENNESS = 0.2


@pytest.mark.needs("envoy")
async def test_no_accepted_call_fails_and_replicas_share_alike(store: Path, tmp_path: Path) -> None:
    """One of two is killed, both are restarted, a third comes: callers notice nothing.

    What a killed process had accepted, clients try again; nothing else is tried twice.
    """
    async with ProxiedReplicas(store, tmp_path / "envoy") as replicas:
        await replicas.run(num_calls=200)
    assert {phase.name: phase.failures for phase in replicas.phases} == {
        "two replicas": {},
        "one of two killed": {},
        "both restarted": {},
        "a third one comes": {},
        "three replicas": {},
    }
    shares = {phase.name: len(phase.shares) for phase in replicas.phases if phase.shares}
    assert shares == {"two replicas": 2, "three replicas": 3}
    assert all(phase.unevenness < MAX_UNEVENNESS for phase in replicas.phases)
