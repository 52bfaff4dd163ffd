"""A Ray cluster of three nodes on this machine."""

import contextlib
import os
import sys
from pathlib import Path

from check_proxies import free_ports
from serving import ROOT

RAY = ROOT / "docs/deployment/ray"
NODES = 3
AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


@contextlib.contextmanager
def cluster(cpus_per_node):
    """Yields the cluster's address; the driver is connected to it."""
    # Workers inherit it from their node.
    os.environ["PYTHONPATH"] = str(RAY)
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DEDUP_LOGS="0", RAY_memory_monitor_refresh_ms="0")
    sys.path.insert(0, str(RAY))
    import ray
    from ray.cluster_utils import Cluster

    def node():
        """With ports of the agents' own given, a node does not die where they take more than 15 s to say theirs."""
        return dict(zip(AGENT_PORTS, free_ports(len(AGENT_PORTS))), num_cpus=cpus_per_node, object_store_memory=200 << 20)

    nodes = Cluster()
    try:
        nodes.add_node(**node(), include_dashboard=False)
        for _ in range(NODES - 1):
            nodes.add_node(**node())
        ray.init(address=nodes.address, namespace="check", log_to_driver=False)
        yield nodes.address
    finally:
        ray.shutdown()
        nodes.shutdown()


def children(parent):
    """Processes that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            if int(fields["PPid"]) == parent:
                found.append(int(status.parent.name))
    return found


def is_alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def listening_port(pid):
    """The port of 127.0.0.1 on which a process listens."""
    sockets = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            return int(fields[1].split(":")[1], 16)
    raise AssertionError(f"process {pid} listens nowhere")
