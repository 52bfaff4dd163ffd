"""A Ray cluster of three nodes on this machine."""

import contextlib
import os
import re
import sys
from pathlib import Path

from serving import ROOT

RAY = ROOT / "docs/deployment/ray"
NODES = 3
STORE = 200 << 20


@contextlib.contextmanager
def cluster(cpus_per_node):
    """Yields the cluster; the driver is connected to it."""
    # Workers inherit it from their node.
    os.environ["PYTHONPATH"] = str(RAY)
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        # A busy machine is not a dead one.
        RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S="60", RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S="60")
    sys.path.insert(0, str(RAY))
    import ray

    nodes = started(cpus_per_node)
    try:
        ray.init(address=nodes.address, namespace="check", log_to_driver=False)
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def started(cpus_per_node, tries=4):
    """A node ends itself where its agent takes more than 15 s to begin, as it may on a busy machine.

    Agents as in an installation without the dashboard's packages begin sooner.
    """
    import ray._private.utils
    from ray.cluster_utils import Cluster

    ray._private.utils.get_dashboard_dependency_error = lambda: ImportError("left out")
    nodes = Cluster()
    try:
        for number in range(NODES):
            head = {"include_dashboard": False} if number == 0 else {}
            nodes.add_node(num_cpus=cpus_per_node, object_store_memory=STORE, **head)
        return nodes
    except Exception:
        nodes.shutdown()
        if tries == 1:
            raise
    return started(cpus_per_node, tries - 1)


def children(parent):
    """Processes that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            if int(fields["PPid"]) == parent:
                found.append(int(status.parent.name))
    return found


def title(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def workers(nodes, kind):
    """The processes of a cluster's actors of a kind."""
    session = Path(nodes.head_node.get_session_dir_path()).name
    raylets = [int(each.name) for each in Path("/proc").glob("[0-9]*")
               if "/raylet/raylet " in title(each.name) and session in title(each.name)]
    assert len(raylets) == NODES
    return [child for raylet in raylets for child in children(raylet) if re.match(rf"ray::\w*{kind}", title(child))]


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
