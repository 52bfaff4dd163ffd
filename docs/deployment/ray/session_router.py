"""Sessions stay on their replica, and return to its slot when it has been replaced."""

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter, _hash_bytes


class SessionRouter(ConsistentHashRouter):
    """Ray's ConsistentHashRouter, with a replica's points on the ring taken from its slot.

    Ray's takes them from the replica's random id: the replacement of a replica that died has other points, and draws a
    share of every other replica's sessions. A slot is the rank that a replica had when it began
    (`record_replica_metadata`); a replacement gets the rank of the one that died. All routers read the same broadcast,
    and so have the same ring.
    """

    # Seconds that a replica has to say how many requests it holds, before a request goes to the next replica. Ray's
    # 0.1 s is not always enough where engines use all processors, and sessions would move for nothing. A replica that
    # has died is known at once.
    queue_len_response_deadline_s = max_queue_len_response_deadline_s = 5

    def update_replicas(self, replicas):
        self._slots = self._distinct_slots(replicas)
        super().update_replicas(replicas)

    @staticmethod
    def _distinct_slots(replicas):
        """Ray closes gaps in its ranks after scaling down, so that a new replica can begin with a rank that an older
        one began with."""
        slots, used = {}, {}
        for replica in sorted(replicas, key=lambda each: each.replica_id.unique_id):
            slot = replica.replica_metadata["slot"]
            slots[replica.replica_id] = f"{slot}/{used.get(slot, 0)}"
            used[slot] = used.get(slot, 0) + 1
        return slots

    def _rebuild_ring(self, new_snapshot):
        points = sorted((_hash_bytes(f"{self._slots[replica]}:{number}".encode()), self._slots[replica], replica)
                        for replica in new_snapshot for number in range(self._num_virtual_nodes))
        self._ring_hashes = [point for point, _, _ in points]
        self._ring_replicas = [replica for _, _, replica in points]
        self._replica_set_snapshot = new_snapshot
