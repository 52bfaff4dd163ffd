"""Ray Serve on three nodes: docs/deployment/ray/serve_app.py under load, while replicas die, come and go."""

import asyncio
import os
import signal
import sys
import time

from check_proxies import free_ports
from cluster import children, cluster, is_alive, listening_port
from load import (
    LONG_TOKENS, Load, answers, check_added, check_even, check_stay, check_unbuffered, error, places, requests, shares)
from serving import idle, metrics, serving

SESSIONS = [f"session-{number}" for number in range(240)]
CLIENTS = 8
# Requests for each replica that the number of replicas is chosen for: the clients want a fourth.
TARGET = 1


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
        names.update(await shares(port, 8 * count))
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
    late = [reply for task, reply in streams if not task.done()]
    names = await settled(port, 3)
    (gone,) = set(home.values()) - names
    share = check_stay(home, await places(port, SESSIONS), gone={gone})
    await asyncio.gather(*(task for task, _ in streams))
    assert all(reply.events[-1] == "[DONE]" for _, reply in streams), "draining ended a stream"
    on_it = sum(reply.replica == gone for reply in late)
    assert on_it, "no stream ran on the replica that was drained"
    lines.append(say(f"one drained: {len(streams)} streams, {on_it} of them on it, end whole; {share:.2%} of the others' sessions stay"))

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


def check_serve(arguments):
    bodies = requests([503, 507])
    with serving(arguments.model, "--threads", 1, binary=arguments.sigma_serve) as server:
        expected = asyncio.run(answers(server.port, bodies))
    with cluster(cpus_per_node=2):
        from ray import serve
        from serve_app import Options, build

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
            application = build(Options(
                model=arguments.model, program=arguments.sigma_serve, arguments="--threads 1 --log-level error",
                min_replicas=3, max_replicas=most, target_requests=TARGET, upscale_delay_s=3, downscale_delay_s=600))
            await asyncio.to_thread(serve.run, application, name="sigma")

        async def run():
            await deploy(3)
            return await scenario(port, expected, bodies, deploy)

        try:
            return asyncio.run(run())
        finally:
            serve.shutdown()
