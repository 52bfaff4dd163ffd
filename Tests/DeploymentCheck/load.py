"""Load on whatever stands before replicas, and what became of every request: what the checks of this folder share."""

import asyncio
import collections
import itertools
import json
import os
import time
from dataclasses import dataclass, field

from check_server import chat, endless
from serving import request_bytes

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
QUESTIONS, LONG_STREAMS = 16, 4
# What the demo model has room for. A slower model needs fewer to be still at it when a replica goes.
LONG_TOKENS = int(os.environ.get("LONG_TOKENS", 3500))


@dataclass
class Reply:
    """What came back, whole or not."""
    status: int | None = None
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    is_whole: bool = False
    # When each piece of the body came.
    moments: list = field(default_factory=list)

    @property
    def replica(self):
        # nginx lists the replicas it has tried: the last one has answered.
        return self.headers.get("x-replica", "").split(",")[-1].strip()

    @property
    def events(self):
        return [block[6:].decode() for block in self.body.split(b"\n\n") if block.startswith(b"data: ")]


async def exchange(port, method, path, body=None, session=None, reply=None):
    """Sends a request and reads what comes back to its end, however it ends. `reply` is filled meanwhile."""
    reply = reply if reply is not None else Reply()
    headers = [f"x-session-id: {session}"] if session is not None else []
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        writer.write(request_bytes(method, path, body, headers))
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        for line in head[1:]:
            name, _, value = line.partition(":")
            reply.headers[name.strip().lower()] = value.strip()
        reply.status = int(head[0].split(" ")[1])
        if reply.headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                reply.body += (await reader.readexactly(size + 2))[:-2]
                reply.moments.append(time.monotonic())
        else:
            reply.body = await reader.readexactly(int(reply.headers["content-length"]))
        reply.is_whole = True
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        if writer:
            writer.close()
    return reply


def parts(events):
    """The text of a stream of chat completions or completions: thinking and answer."""
    thinking = answer = ""
    for event in events:
        if event == "[DONE]":
            continue
        for choice in json.loads(event).get("choices", ()):
            delta = choice.get("delta", {"content": choice.get("text")})
            thinking += delta.get("reasoning_content") or ""
            answer += delta.get("content") or ""
    return thinking, answer


def said(reply):
    """The text of a reply that came whole and well."""
    if reply.headers["content-type"].startswith("text/event-stream"):
        return parts(reply.events)
    choice = json.loads(reply.body)["choices"][0]
    if "text" in choice:
        return "", choice["text"]
    return choice["message"].get("reasoning_content") or "", choice["message"]["content"]


def error(reply):
    """The error in a stream's last event, if it has one."""
    events = reply.events
    try:
        return json.loads(events[-1])["error"]
    except (IndexError, ValueError, KeyError, TypeError):
        return None


async def stop_tokens(port):
    """What ends an answer, of the demo model and of models in the ChatML format."""
    stops = []
    for text in ("<|endoftext|>", "<|end|>", "<|im_end|>"):
        reply = await exchange(port, "POST", "/tokenize", {"prompt": text, "add_special_tokens": False})
        tokens = json.loads(reply.body)["tokens"]
        stops += tokens if len(tokens) == 1 else []
    return stops


def requests(stops):
    """All requests of a load: name, path and body."""
    found = {f"question {index}": (CHAT, chat(index)) for index in range(QUESTIONS)}
    for index in range(LONG_STREAMS):
        found[f"stream {index}"] = (COMPLETIONS, {**endless(index, stops), "max_tokens": LONG_TOKENS})
    return found


async def answers(port, bodies):
    """What an undisturbed server says to each request."""
    async def one(path, body):
        reply = await exchange(port, "POST", path, body)
        assert reply.status == 200 and reply.is_whole, (reply.status, reply.body)
        return said(reply)

    texts = await asyncio.gather(*(one(*request) for request in bodies.values()))
    return dict(zip(bodies, texts))


class Load:
    """Clients that ask until they are stopped, and a verdict on each reply."""

    def __init__(self, port, bodies, expected):
        self.port, self.bodies, self.expected = port, bodies, expected
        self.counts = collections.Counter()
        self.replicas = collections.Counter()
        self.lost, self.wrong, self.broken = [], [], []
        self.numbers = itertools.count()
        self.stopping = False

    async def ask(self, name, session, *, stream, reply=None):
        path, body = self.bodies[name]
        reply = await exchange(self.port, "POST", path, {**body, "stream": stream}, session, reply)
        verdict = self.judge(name, reply)
        self.counts[verdict] += 1
        self.replicas[reply.replica] += 1
        return reply

    def judge(self, name, reply):
        """Whole, broken after it had begun (and then clearly), or lost."""
        if reply.status != 200:
            self.lost.append((name, reply.status, reply.body[:200]))
            return "lost"
        is_stream = reply.headers["content-type"].startswith("text/event-stream")
        if reply.is_whole and (not is_stream or reply.events[-1:] == ["[DONE]"]):
            if said(reply) != self.expected[name]:
                self.wrong.append((name, said(reply), self.expected[name]))
                return "wrong"
            return "streamed whole" if is_stream else "whole"
        # Begun: the connection was cut inside the body, or the last event is an error. An end that looks like a good
        # one is wrong.
        if reply.is_whole and not error(reply):
            self.wrong.append((name, "an end without an error", reply.events[-2:]))
            return "wrong"
        thinking, answer = parts(reply.events[:-1]) if is_stream else ("", "")
        wanted = self.expected[name]
        if not (wanted[0].startswith(thinking) and wanted[1].startswith(answer)):
            self.wrong.append((name, (thinking, answer), wanted))
            return "wrong"
        self.broken.append((name, reply))
        return "ended with an error event" if reply.is_whole else "cut inside the body"

    async def clients(self, count):
        async def client():
            while not self.stopping:
                number = next(self.numbers)
                session = None if number % 3 == 0 else f"client-{number % 50}"
                await self.ask(f"question {number % QUESTIONS}", session, stream=number % 2 == 0)

        await asyncio.gather(*(client() for _ in range(count)))

    async def long_streams(self, count, replica=None, events=20):
        """Begins streams. Returns tasks and replies when one of the replica's (else each of them) has so many events
        and goes on."""
        begun = []
        for index in range(count):
            reply = Reply()
            work = self.ask(f"stream {index % LONG_STREAMS}", f"long-{index}", stream=True, reply=reply)
            begun.append((asyncio.create_task(work), reply))

        def are_there():
            if replica is None:
                return all(len(reply.moments) >= events for _, reply in begun)
            return any(reply.replica == replica and len(reply.moments) >= events and not task.done() for task, reply in begun)

        while not are_there():
            became = [(reply.status, reply.replica, len(reply.moments), reply.body[-200:]) for _, reply in begun]
            assert not all(task.done() for task, _ in begun), f"no stream has run on {replica}: {became}"
            await asyncio.sleep(0.005)
        return begun

    def check(self):
        assert not self.lost, f"{len(self.lost)} lost: {self.lost[:3]}"
        assert not self.wrong, f"{len(self.wrong)} wrong: {self.wrong[:3]}"

    async def again(self):
        """Sends what was broken again. Each gives the bytes it would have given. Returns how many."""
        broken, self.broken = self.broken, []
        for name, _ in broken:
            reply = await self.ask(name, None, stream=True)
            assert reply.is_whole and said(reply) == self.expected[name]
        return len(broken)


async def places(port, sessions, width=8):
    """The replica of each session, by requests that compute nothing."""
    found, numbers = {}, iter(sessions)

    async def client():
        for session in numbers:
            reply = await exchange(port, "GET", "/v1/models", session=session)
            assert reply.status == 200, (session, reply.status, reply.body)
            found[session] = reply.replica

    await asyncio.gather(*(client() for _ in range(width)))
    return found


async def shares(port, count):
    """How many of so many requests without a session each replica gets."""
    counts = collections.Counter()
    for _ in range(count):
        counts[(await exchange(port, "GET", "/v1/models")).replica] += 1
    return counts


def check_even(counts, replicas):
    """Each has its share, to four standard deviations of chance and two points of the ring's own."""
    total = sum(counts.values())
    share = 1 / replicas
    slack = 4 * (share * (1 - share) / total) ** 0.5 + 0.02
    assert len(counts) == replicas and all(abs(count / total - share) <= slack for count in counts.values()), counts
    return "/".join(str(counts[name]) for name in sorted(counts))


def check_stay(before, after, gone=()):
    """Of the sessions whose replica lives at least 99 % are where they were. Returns the share."""
    living = [session for session, replica in before.items() if replica not in gone]
    share = sum(after[session] == before[session] for session in living) / len(living)
    assert share >= 0.99, f"only {share:.1%} of the sessions of living replicas stay"
    assert not set(after.values()) & set(gone), "a replica that is gone still has sessions"
    return share


def check_added(before, after, new):
    """Adding one moves at most its share and three points, and only to it. Returns the share that moved."""
    moved = [session for session in before if after[session] != before[session]]
    share = len(moved) / len(before)
    assert all(after[session] == new for session in moved), "sessions moved between old replicas"
    limit = 1 / len(set(before.values()) | {new}) + 0.03
    assert 0 < share <= limit, f"{share:.1%} of the sessions moved, at most {limit:.1%} may"
    return share


def check_unbuffered(reply):
    """A stream's first piece came long before its last, and the pieces came in many parts."""
    first, last = reply.moments[0], reply.moments[-1]
    assert len(reply.moments) > LONG_TOKENS / 20, (
        f"{len(reply.moments)} pieces of {LONG_TOKENS} tokens in {last - first:.1f} s: either something buffers, or this machine is "
        "too fast for this model (--model takes a larger one)")
    return last - first
