"""Checks of docs/deployment: what stands before replicas of sigma-serve loses nothing, and keeps sessions where they
are.

    python3 Tests/DeploymentCheck/check_deployment.py [CHECK ...] [--model Models/demo.gguf]

Every check prints a line and raises where something is wrong.
"""

import argparse
import importlib
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Servers and requests are those of the server's own checks.
sys.path.insert(0, str(ROOT / "Tests/ServerCheck"))
# The module of each check, which is its function check_NAME.
CHECKS = {"nginx": "check_proxies", "haproxy": "check_proxies", "kubernetes": "check_kubernetes",
          "container": "check_kubernetes", "router": "check_router", "serve": "check_serve", "batch": "check_batch"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", choices=[[], *CHECKS], metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--model", default=str(ROOT / "Models/demo.gguf"))
    parser.add_argument("--sigma-serve", default=str(ROOT / ".build/release/sigma-serve"))
    parser.add_argument("--sigma-run", default=str(ROOT / ".build/release/sigma-run"))
    arguments = parser.parse_args()
    # So that what was started ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in arguments.checks or CHECKS:
        if name == "container" and not arguments.checks and os.geteuid() != 0:
            print("container: left out, as it takes a superuser", flush=True)
            continue
        begin = time.monotonic()
        result = getattr(importlib.import_module(CHECKS[name]), f"check_{name}")(arguments)
        print(f"{name}: {result} ({time.monotonic() - begin:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
