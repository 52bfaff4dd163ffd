"""docs/deployment/ray/session_router.py by itself: which sessions move when replicas die, return and come, without a
cluster."""

import sys
import types
import uuid

from cluster import RAY

SESSIONS = [f"session-{number}" for number in range(4000)]
POINTS = 2000


class ReplicaName:
    """Hashable, as Ray's."""

    def __init__(self):
        self.unique_id = uuid.uuid4().hex[:8]


def new(slot):
    return types.SimpleNamespace(replica_id=ReplicaName(), replica_metadata={"slot": slot})


def homes(kind, replicas):
    """Where a router of this kind sends each session."""
    router = kind.__new__(kind)
    router._deployment_id, router._num_virtual_nodes, router._num_fallback_replicas = "check", POINTS, 2
    router._ring_hashes, router._ring_replicas, router._replica_set_snapshot = [], [], frozenset()
    if hasattr(kind, "_distinct_slots"):
        router._slots = kind._distinct_slots(replicas)
    router._rebuild_ring(frozenset(each.replica_id for each in replicas))
    return {session: router._lookup_ranked_replicas(session)[0] for session in SESSIONS}


def moved(before, after, gone=None):
    """The share of the sessions that move, of those whose replica lives."""
    living = [session for session in SESSIONS if before[session] is not gone]
    return sum(before[session] is not after[session] for session in living) / len(living)


def check_router(arguments):
    sys.path.insert(0, str(RAY))
    from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
    from session_router import SessionRouter

    three = [new(slot) for slot in range(3)]
    before = homes(SessionRouter, three)
    died = three[1]
    without = homes(SessionRouter, [three[0], three[2]])
    assert moved(before, without, died.replica_id) == 0
    replacement = new(1)
    after = homes(SessionRouter, [three[0], replacement, three[2]])
    assert moved(before, after, died.replica_id) == 0
    assert all(after[session] is replacement.replica_id for session in SESSIONS if before[session] is died.replica_id)

    fourth = new(3)
    added = homes(SessionRouter, [*three, fourth])
    share = moved(before, added)
    assert 0.22 < share <= 0.28 and all(added[each] is fourth.replica_id for each in SESSIONS if added[each] is not before[each])
    assert homes(SessionRouter, [fourth, *three[::-1]]) == added, "the order of a broadcast matters"

    # A replica with slot 3 lives while Ray gives rank 3 out again: both have points, and sessions.
    twins = homes(SessionRouter, [*three, fourth, new(3)])
    assert len(set(twins.values())) == 5

    # What Ray's own router does with a replacement, which is why there is another.
    theirs = homes(ConsistentHashRouter, three)
    share_of_theirs = moved(theirs, homes(ConsistentHashRouter, [three[0], replacement, three[2]]), died.replica_id)
    assert share_of_theirs > 0.2
    return (f"a death and its replacement move no session of the others (Ray's own router: {share_of_theirs:.0%}), a fourth replica "
            f"{share:.1%} of {len(SESSIONS)}, all to it")
