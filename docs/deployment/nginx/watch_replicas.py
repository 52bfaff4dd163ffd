#!/usr/bin/env python3
"""Asks replicas of sigma-serve for /readyz, and tells nginx who is ready: open-source nginx has no health checks of its
own.

    watch_replicas.py --replica 127.0.0.1:8081 --replica 127.0.0.1:8082 --output /etc/nginx/conf.d/sigma-replicas.conf

A replica that fails twice in a row is marked `down`; one success brings it back. Its points stay on the ring, so its
sessions return to it, and no other session moves. Replicas that do not run yet may be named. nginx reloads only when
something has changed; streams that run stay on their old workers.
"""

import argparse
import http.client
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

UPSTREAM = """\
# Written by watch_replicas.py.
upstream sigma {{
    zone sigma 256k;
    hash $sigma_key consistent;
{servers}
    keepalive 32;
    keepalive_timeout 60s;
}}
"""
SERVER = "    server {replica} weight=10 max_fails=1 fail_timeout=5s{state};"
FAILURES = 2


def is_ready(replica, timeout):
    host, _, port = replica.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout)
    try:
        connection.request("GET", "/readyz", headers={"host": "localhost"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def configuration(replicas, down):
    # With all of them down nginx would ask nobody; then requests find out who is back.
    if len(down) == len(replicas):
        down = ()
    servers = [SERVER.format(replica=replica, state=" down" if replica in down else "") for replica in replicas]
    return UPSTREAM.format(servers="\n".join(servers))


def write(path, text):
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replica", action="append", required=True, metavar="HOST:PORT")
    parser.add_argument("--output", required=True, help="the file with the upstream, which nginx includes")
    parser.add_argument("--reload", default="nginx -s reload", help="what makes nginx read it (default: %(default)s)")
    parser.add_argument("--interval", type=float, default=2, help="seconds between questions (default: %(default)s)")
    arguments = parser.parse_args()

    replicas = arguments.replica
    failures = {replica: FAILURES for replica in replicas}
    written = None
    with ThreadPoolExecutor(len(replicas)) as pool:
        while True:
            answers = pool.map(lambda replica: is_ready(replica, arguments.interval), replicas)
            for replica, ready in zip(replicas, answers):
                failures[replica] = 0 if ready else failures[replica] + 1
            down = {replica for replica in replicas if failures[replica] >= FAILURES}
            text = configuration(replicas, down)
            if text != written:
                write(arguments.output, text)
                # When nginx refuses, or does not run yet, the next round tries again.
                if subprocess.run(shlex.split(arguments.reload)).returncode == 0:
                    written = text
                    print(f"down: {', '.join(sorted(down)) or 'none'}", file=sys.stderr, flush=True)
            time.sleep(arguments.interval)


if __name__ == "__main__":
    sys.exit(main())
