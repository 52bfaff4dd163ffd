"""nginx and haproxy from Debian, with the configurations of docs/deployment, before replicas on loopback."""

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from load import (
    Load, answers, check_added, check_even, check_stay, check_unbuffered, error, exchange, places, requests, shares,
    stop_tokens)
from serving import ROOT, Server

DEPLOYMENT = ROOT / "docs/deployment"
SESSIONS = [f"session-{number}" for number in range(4000)]
# Enough to see that sessions stay.
FEW = SESSIONS[:1000]
CLIENTS = 6
# Replicas 1 to 4; the fourth begins later. A replica that is drained with this one's time cannot end its streams.
SHORT_DRAIN = ("--drain-timeout", 0.2)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def substitute(text, replacements):
    for old, new in replacements.items():
        assert old in text, f"the configuration has no {old!r}"
        text = text.replace(old, new)
    return text


class Proxy:
    """A proxy's process before replicas that a check starts and ends."""

    def __init__(self, model, binary, folder):
        self.model, self.binary, self.folder = model, binary, Path(folder)
        self.port, *self.ports = free_ports(5)
        self.replicas, self.processes = {}, []

    def start_replica(self, number, *options):
        self.replicas[number] = Server(
            self.model, "--port", self.ports[number], "--threads", 1, *options, binary=self.binary)

    def run(self, *command, log):
        with open(self.folder / log, "w") as file:
            self.processes.append(subprocess.Popen([str(part) for part in command], stdout=file, stderr=file))

    def begin(self):
        """Starts the proxy. Returns when it answers for all replicas that run."""
        raise NotImplementedError

    def name(self, number):
        """What x-replica says of a replica."""
        raise NotImplementedError

    def end(self):
        for process in reversed(self.processes):
            process.terminate()
            process.wait(timeout=20)
        for replica in self.replicas.values():
            if replica.process.poll() is None:
                replica.process.kill()
                replica.process.wait()


class Nginx(Proxy):
    def begin(self):
        replacements = {f"127.0.0.1:{8081 + number}": f"127.0.0.1:{self.ports[number]}" for number in range(3)}
        site = substitute((DEPLOYMENT / "nginx/sigma.conf").read_text(), {"listen 8000;": f"listen 127.0.0.1:{self.port};"})
        (self.folder / "sigma.conf").write_text(site)
        upstream = self.folder / "sigma-replicas.conf"
        upstream.write_text(substitute((DEPLOYMENT / "nginx/sigma-replicas.conf").read_text(), replacements))
        temporary = "\n".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in
                              ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        main = self.folder / "nginx.conf"
        main.write_text(f"worker_processes 2; pid {self.folder}/pid; error_log {self.folder}/error.log;\n"
                        f"events {{}}\nhttp {{ access_log {self.folder}/access.log; {temporary}\n"
                        f"include {self.folder}/sigma.conf; include {upstream}; }}\n")
        subprocess.run(["nginx", "-t", "-q", "-c", main, "-e", self.folder / "error.log"], check=True)
        self.run("nginx", "-c", main, "-e", self.folder / "error.log", "-g", "daemon off;", log="nginx.log")
        watch = [sys.executable, DEPLOYMENT / "nginx/watch_replicas.py", "--interval", 0.5, "--output", upstream,
                 "--reload", f"nginx -c {main} -e {self.folder}/error.log -s reload"]
        self.wait_for_answer()
        for port in self.ports:
            watch += ["--replica", f"127.0.0.1:{port}"]
        self.run(*watch, log="watch.log")

    def wait_for_answer(self):
        deadline = time.monotonic() + 20
        while asyncio.run(exchange(self.port, "GET", "/readyz")).status != 200:
            assert time.monotonic() < deadline, "the proxy does not answer"
            time.sleep(0.1)

    def name(self, number):
        return f"127.0.0.1:{self.ports[number]}"


class Haproxy(Proxy):
    def begin(self):
        replacements = {f"127.0.0.1:{8081 + number}": f"127.0.0.1:{self.ports[number]}" for number in range(4)}
        replacements |= {"bind :8000": f"bind 127.0.0.1:{self.port}", "/run/haproxy/admin.sock": f"{self.folder}/admin.sock"}
        main = self.folder / "haproxy.cfg"
        main.write_text(substitute((DEPLOYMENT / "haproxy/haproxy.cfg").read_text(), replacements))
        subprocess.run(["haproxy", "-c", "-q", "-f", main], check=True)
        self.run("haproxy", "-db", "-f", main, log="haproxy.log")
        Nginx.wait_for_answer(self)

    def name(self, number):
        return f"replica-{number + 1}"


async def settled(proxy, numbers):
    """Waits until exactly these replicas get requests without a session."""
    wanted = {proxy.name(number) for number in numbers}
    deadline = time.monotonic() + 30
    while set(await shares(proxy.port, 60)) != wanted:
        assert time.monotonic() < deadline, f"the proxy does not settle on {wanted}"
        await asyncio.sleep(0.2)


async def scenario(proxy):
    port = proxy.port
    bodies = requests(await stop_tokens(proxy.ports[0]))
    expected = await answers(proxy.ports[0], bodies)
    await settled(proxy, (0, 1, 2))
    even = check_even(await shares(port, 900), 3)
    home = await places(port, SESSIONS)
    few = {session: home[session] for session in FEW}
    load = Load(port, bodies, expected)
    seconds = check_unbuffered(await load.ask("stream 0", "alone", stream=True))
    lines = [f"900 requests without a session {even}; a stream of {seconds:.1f} s came in pieces"]
    print(lines, file=sys.stderr, flush=True)
    clients = asyncio.create_task(load.clients(CLIENTS))

    async def lose(number, event, which):
        """One replica goes while streams run on all."""
        before = dict(load.counts)
        streams = await load.long_streams(12, proxy.name(number))
        on_it = [reply for task, reply in streams if reply.replica == proxy.name(number) and not task.done()]
        proxy.replicas[number].process.send_signal(which)
        if which == signal.SIGTERM:
            # What it answers before it has seen the signal is no fault.
            await settled(proxy, [each for each in range(3) if each != number])
        share = check_stay(few, await places(port, FEW), gone={proxy.name(number)})
        await asyncio.gather(*(task for task, _ in streams))
        code = proxy.replicas[number].process.wait(timeout=60)
        for task, reply in streams:
            if reply not in on_it:
                assert reply.events[-1] == "[DONE]", "a stream of a living replica ended"
        ended = {verdict: load.counts[verdict] - before.get(verdict, 0) for verdict in sorted(load.counts)}
        lines.append(f"{event}: {ended}; {share:.2%} of the others' sessions stay")
        print(lines[-1], file=sys.stderr, flush=True)
        return on_it, code

    async def bring_back(number, *options):
        await asyncio.to_thread(proxy.start_replica, number, *options)
        await settled(proxy, (0, 1, 2))
        check_stay(few, await places(port, FEW))

    on_it, _ = await lose(0, "killed", signal.SIGKILL)
    assert not any(reply.is_whole for reply in on_it), "a killed replica's stream has a good end"
    await bring_back(0)
    on_it, code = await lose(1, "drained", signal.SIGTERM)
    assert code == 0 and all(reply.events[-1] == "[DONE]" for reply in on_it), "draining ended a stream"
    await bring_back(1)
    on_it, code = await lose(2, "drained in 0.2 s", signal.SIGTERM)
    assert code == 0 and all(error(reply) for reply in on_it), "streams ended without an error event"
    await bring_back(2)

    await asyncio.to_thread(proxy.start_replica, 3)
    await settled(proxy, (0, 1, 2, 3))
    share = check_added(home, await places(port, SESSIONS), proxy.name(3))
    lines.append(f"a fourth added: {share:.1%} of {len(SESSIONS)} sessions move, all to it")

    load.stopping = True
    await clients
    load.check()
    repeated = await load.again()
    load.check()
    lines.append(f"in all {dict(load.counts)}, none lost; {repeated} broken ones sent again gave the same bytes")
    return "; ".join(lines)


def check(kind, program, model, binary):
    assert shutil.which(program), f"{program} is not installed: apt-get install {program}"
    with tempfile.TemporaryDirectory() as folder:
        proxy = kind(model, binary, folder)
        try:
            for number in range(3):
                proxy.start_replica(number, *(SHORT_DRAIN if number == 2 else ()))
            proxy.begin()
            return asyncio.run(scenario(proxy))
        finally:
            proxy.end()


def check_nginx(arguments):
    return check(Nginx, "nginx", arguments.model, arguments.sigma_serve)


def check_haproxy(arguments):
    return check(Haproxy, "haproxy", arguments.model, arguments.sigma_serve)
