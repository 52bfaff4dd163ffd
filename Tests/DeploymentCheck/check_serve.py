"""Ray Serve on three nodes: docs/deployment/ray/serve_app.py under load, while replicas die, come and go."""

import asyncio
import os
import signal
import sys
import time

from check_proxies import free_ports
from cluster import RAY, children, cluster, is_alive, listening_port
from load import (
    LONG_TOKENS, Load, answers, check_added, check_even, check_stay, check_unbuffered, error, places, requests, shares,
    stop_tokens)
from serving import idle, metrics, serving

SESSIONS = [f"session-{number}" for number in range(240)]
CLIENTS = 8
# Requests for each replica that the number of replicas is chosen for: the clients want a fourth.
TARGET = 1


def draining():
    """Engines that get no new requests and finish those that they have."""
    from ray.serve.context import _get_global_client
    details = _get_global_client().get_serve_details()
    replicas = details["applications"]["sigma"]["deployments"]["engine"]["replicas"]
    return {replica["replica_id"] for replica in replicas if replica["state"] == "STOPPING"}


def process_of(name):
    """The process of an engine."""
    import ray
    actor = ray.get_actor(f"SERVE_REPLICA::sigma#engine#{name}", namespace="serve")
    return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=60)


async def until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.5)


async def settled(port, count, seconds=600):
    """Waits until so many replicas get requests without a session. Returns their names."""
    names = set()

    async def are_there():
        names.clear()
        names.update(await shares(port, 16 * count))
        return len(names) == count

    await until(are_there, seconds, f"there are not {count} replicas")
    return set(names)


def say(line):
    print(line, file=sys.stderr, flush=True)
    return line


async def scenario(port, expected, bodies, deploy):
    lines = []
    names = await settled(port, 3)
    even = check_even(await shares(port, 150), 3)
    home = await places(port, SESSIONS)
    load = Load(port, bodies, expected)
    check_unbuffered(await load.ask("stream 0", "alone", stream=True))
    lines.append(say(f"150 requests without a session {even}; streams come in pieces"))

    async def kill(victim, pid, event):
        """A process of one replica dies under load; its replacement gets its sessions back."""
        before = dict(load.counts)
        worker = await asyncio.to_thread(process_of, victim)
        servers = children(worker)
        streams = await load.long_streams(9, victim)
        assert any(reply.replica == victim and not task.done() for task, reply in streams)
        os.kill(pid(worker), signal.SIGKILL)
        share = check_stay(home, await places(port, SESSIONS), gone={victim})
        await asyncio.gather(*(task for task, _ in streams))
        for task, reply in streams:
            # What Ray had taken from the dead one already may be all of it: `Load` holds it to the bytes that it should have.
            is_good = reply.events[-1:] == ["[DONE]"]
            assert is_good or (reply.replica == victim and (error(reply) or not reply.is_whole)), "a stream of a living replica ended"
        assert any(reply.events[-1:] != ["[DONE]"] for _, reply in streams), "no stream was under way on the dead replica"

        async def are_gone():
            return not any(map(is_alive, [worker, *servers]))

        await until(are_gone, 60, "a process of the dead replica goes on")
        (new,) = await settled(port, 3) - set(home.values())
        after = await places(port, SESSIONS)
        check_stay(home, after, gone={victim})
        returned = sum(after[session] == new for session, name in home.items() if name == victim)
        count = sum(name == victim for name in home.values())
        assert returned >= 0.99 * count, f"{returned} of {count} sessions return to the replacement"
        home.update(after)
        ended = {verdict: load.counts[verdict] - before.get(verdict, 0) for verdict in sorted(load.counts)}
        lines.append(say(f"{event}: {ended}; {share:.2%} of the others' sessions stay, its own return to the replacement"))

    clients = asyncio.create_task(load.clients(CLIENTS))
    await kill(sorted(names)[0], lambda worker: worker, "worker killed")
    await kill(home[SESSIONS[0]], lambda worker: children(worker)[0], "sigma-serve killed")

    # The clients are more than three replicas are meant for: once a fourth may come, it does.
    known = await settled(port, 3)
    home.update(await places(port, SESSIONS))
    await deploy(4)
    (new,) = await settled(port, 4) - known
    share = check_added(home, await places(port, SESSIONS), new)
    lines.append(say(f"a fourth added, as requests wait: {share:.1%} of {len(SESSIONS)} sessions move, all to it"))

    home.update(await places(port, SESSIONS))
    streams = await load.long_streams(12)
    await deploy(3)
    leaving = set()

    async def has_begun():
        leaving.update(await asyncio.to_thread(draining))
        return leaving

    await until(has_begun, 600, "no replica drains")
    (gone,) = leaving
    begin = time.monotonic()
    late = [reply for task, reply in streams if reply.replica == gone and not task.done()]
    assert late, "no stream ran on the replica that was drained"
    assert await settled(port, 3) == set(home.values()) - leaving
    share = check_stay(home, await places(port, SESSIONS), gone=leaving)
    await asyncio.gather(*(task for task, _ in streams))
    assert all(reply.events[-1] == "[DONE]" for _, reply in streams), "draining ended a stream"
    assert all(reply.moments[-1] > begin for reply in late)
    lines.append(say(
        f"one drained: {len(streams)} streams end whole, {len(late)} of them on it; {share:.2%} of the others' sessions stay"))

    load.stopping = True
    await clients
    load.check()
    repeated = await load.again()
    load.check()
    lines.append(say(f"in all {dict(load.counts)}, none lost; {repeated} broken ones sent again gave the same bytes"))

    (stream,) = await load.long_streams(1)
    server = listening_port(children(process_of(stream[1].replica))[0])
    stream[0].cancel()
    seconds = await idle(server, 10)
    assert (await metrics(server))["vllm:num_requests_running"] == 0 and len(stream[1].moments) < LONG_TOKENS
    lines.append(say(f"{seconds:.1f} s after a client has gone its replica has no work"))
    return "; ".join(lines)


def configuration(arguments, most):
    """docs/deployment/ray/serve.yaml, as a user would change it."""
    import yaml
    config = yaml.safe_load((RAY / "serve.yaml").read_text())
    (application,) = config["applications"]
    application["args"].update(
        model=arguments.model, program=arguments.sigma_serve, arguments="--threads 1 --log-level error", drain_s=900)
    (engine,) = application["deployments"]
    engine["autoscaling_config"].update(
        min_replicas=3, max_replicas=most, target_ongoing_requests=TARGET, upscale_delay_s=3, downscale_delay_s=600)
    return config


def check_serve(arguments):
    with serving(arguments.model, "--threads", 1, binary=arguments.sigma_serve) as server:
        bodies = requests(asyncio.run(stop_tokens(server.port)))
        expected = asyncio.run(answers(server.port, bodies))
    with cluster(cpus_per_node=2):
        from ray import serve
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        (port,) = free_ports(1)
        for remaining in reversed(range(4)):
            try:
                serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
                break
            except TimeoutError:
                # Ray gives its proxy a minute, and on a busy machine it may come later.
                if not remaining:
                    raise

        async def deploy(most):
            # What `serve deploy` does on its other side, in Ray's dashboard.
            schema = ServeDeploySchema.model_validate(configuration(arguments, most))
            await asyncio.to_thread(_get_global_client().deploy_apps, schema)

        async def run():
            await deploy(3)
            return await scenario(port, expected, bodies, deploy)

        try:
            return asyncio.run(run())
        finally:
            serve.shutdown()
