"""Replicas of sigma-serve on a Ray cluster.

    serve run --working-dir . serve_app:build model=/srv/sigma/model.gguf min_replicas=3 max_replicas=8 arguments="--memory 6GiB"

A request goes from Ray's proxy to a `Front`, which keeps it until a replica has begun to answer, and from there to an
`Engine`, which is one sigma-serve. The session in `x-session-id` decides the engine. Ray itself does not send a request
again that a replica had accepted; the front does, as a request changes nothing on a replica, and the same file gives
the same bytes.
"""

import asyncio
import json
import logging
import shlex

import aiohttp
from pydantic import BaseModel
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from session_router import SessionRouter
from sigma_child import SigmaServe
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse

logger = logging.getLogger("ray.serve")

# Headers of one connection, and those that aiohttp and the front's server write themselves.
CONNECTION_HEADERS = {"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "host", "content-length",
                      "date", "server", "accept-encoding"}
# Tries for a request that no replica has begun to answer, and seconds between them, in which Ray notices a death.
TRIES, PAUSE = 4, 0.25
# Points of the ring for each replica; their shares stay within a few per cent of each other.
POINTS = 2000


def end_to_end(headers):
    return [(name, value) for name, value in headers if name.lower() not in CONNECTION_HEADERS]


class Options(BaseModel):
    """What `serve run` can set."""
    model: str
    program: str = "sigma-serve"
    # Further options of sigma-serve.
    arguments: str = ""
    min_replicas: int = 1
    max_replicas: int = 1
    # Requests for each replica, waiting ones included, that the number of replicas is chosen for.
    target_requests: float = 8
    upscale_delay_s: float = 30
    downscale_delay_s: float = 600
    # Processors that Ray sets aside for a replica. sigma-serve's own threads are an option of its own:
    # arguments="--threads 8".
    cpus: float = 1
    # sigma-serve's --parallel and --queue. A replica that is full hands over to the next one on the ring.
    parallel: int = 16
    queue: int = 64
    # Seconds that running answers have when a replica is drained.
    drain_s: float = 120
    fronts: int = 1


@serve.deployment
class Engine:
    """One sigma-serve."""

    def __init__(self, command):
        context = serve.get_replica_context()
        self.slot = context.rank.rank
        self.name = context.replica_id.unique_id
        self.server = SigmaServe(command)
        self._http = None

    def record_replica_metadata(self):
        """What `SessionRouter` reads."""
        return {"slot": self.slot}

    def _session(self):
        if self._http is None:
            self._http = aiohttp.ClientSession(
                self.server.url, auto_decompress=False, connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
                timeout=aiohttp.ClientTimeout(total=None))
        return self._http

    async def check_health(self):
        """Fails where a request would not be answered; Ray then replaces the replica."""
        async with self._session().get("/readyz", timeout=aiohttp.ClientTimeout(total=10)) as response:
            if response.status != 200:
                raise RuntimeError(f"/readyz says {response.status}: {await response.text()}")

    async def forward(self, method, path, headers, body):
        """Yields status and headers, then the body's parts as they come. Leaving it ends the work."""
        async with self._session().request(
                method, path, headers=headers, data=body, allow_redirects=False) as response:
            yield response.status, [*end_to_end(response.headers.items()), ("x-replica", self.name)]
            async for part in response.content.iter_any():
                yield part

    def __del__(self):
        # Ray calls it when the last answer has ended, or the time to drain is over.
        if hasattr(self, "server"):
            self.server.stop()


@serve.deployment
class Front:
    """Keeps requests until a replica has begun to answer."""

    def __init__(self, engine):
        self.engine = engine

    async def __call__(self, request: Request):
        if request.url.path == "/metrics":
            return JSONResponse({"error": {"message": "each replica has its own metrics", "code": "not_found"}}, 404)
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        arguments = (request.method, path, end_to_end(request.headers.items()), await request.body())
        engine = self.engine.options(stream=True, session_id=request.headers.get("x-session-id", ""))
        for remaining in reversed(range(TRIES)):
            answer = engine.forward.remote(*arguments)
            try:
                status, headers = await anext(answer)
            except (RayActorError, aiohttp.ClientError) as error:
                # None of it has reached the client.
                logger.warning("a replica has gone before it answered %s: %s", path, type(error).__name__)
                if not remaining:
                    return JSONResponse(failure(path, "no replica could answer"), 503, {"retry-after": "2"})
                await asyncio.sleep(PAUSE)
                continue
            headers = dict(headers)
            kind = headers.get("content-type") or headers.pop("Content-Type", "")
            is_stream = kind.startswith("text/event-stream")
            return StreamingResponse(events(answer, path) if is_stream else parts(answer), status, headers, kind)


async def parts(answer):
    try:
        async for part in answer:
            yield part
    finally:
        answer.cancel()


async def events(answer, path):
    """Whole events alone, so that an error can follow any of them."""
    rest = b""
    try:
        async for part in answer:
            whole, separator, rest = (rest + part).rpartition(b"\n\n")
            if separator:
                yield whole + separator
        if rest:
            yield rest
    except (RayActorError, aiohttp.ClientError) as error:
        logger.warning("a replica has gone while it answered %s: %s", path, type(error).__name__)
        name = "event: error\n" if path.startswith(("/v1/messages", "/v1/responses")) else ""
        yield f"{name}data: {json.dumps(failure(path, 'the replica has gone; send the request again'))}\n\n".encode()
    finally:
        answer.cancel()


def failure(path, message):
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": "api_error", "message": message}}
    if path.startswith("/v1/responses"):
        return {"type": "error", "code": "replica_lost", "message": message, "param": None}
    return {"error": {"message": message, "type": "server_error", "param": None, "code": "replica_lost"}}


def build(options: Options) -> serve.Application:
    command = [options.program, "--model", options.model, "--parallel", str(options.parallel),
               "--queue", str(options.queue), *shlex.split(options.arguments)]
    engine = Engine.options(
        name="engine",
        max_ongoing_requests=options.parallel + options.queue,
        autoscaling_config=AutoscalingConfig(
            min_replicas=options.min_replicas, max_replicas=options.max_replicas,
            target_ongoing_requests=options.target_requests, upscale_delay_s=options.upscale_delay_s,
            downscale_delay_s=options.downscale_delay_s),
        request_router_config=RequestRouterConfig(
            request_router_class=SessionRouter, request_router_kwargs={"num_virtual_nodes": POINTS}),
        health_check_period_s=5, health_check_timeout_s=30,
        graceful_shutdown_timeout_s=options.drain_s, graceful_shutdown_wait_loop_s=1,
        ray_actor_options={"num_cpus": options.cpus},
    ).bind(command)
    return Front.options(
        name="front", num_replicas=options.fronts, max_ongoing_requests=4096, ray_actor_options={"num_cpus": 0},
    ).bind(engine)
