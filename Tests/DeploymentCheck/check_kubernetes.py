"""The manifests against the API's schemas and against each other, and sigma-serve as the container would run it."""

import asyncio
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from check_server import chat
from serving import ROOT, send

FOLDER = ROOT / "docs/deployment/kubernetes"
# The oldest version with `sleep` in preStop, and the newest that the schemas are there for.
VERSIONS = ("1.30", "1.37")
SIZES = {"Ki": 10, "Mi": 20, "Gi": 30, "KiB": 10, "MiB": 20, "GiB": 30}
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 1 << 5, 1 << 12, 1 << 14, 1 << 18
CLONE_NEWNS = 1 << 17


def size(text):
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]+)", text).groups()
    return int(number) << SIZES[unit]


def check_kubernetes(arguments):
    import kubernetes_validate
    import yaml

    objects = [each for name in ("sigma.yaml", "router.yaml") for each in yaml.safe_load_all((FOLDER / name).read_text())]
    for each in objects:
        for version in VERSIONS:
            kubernetes_validate.validate(each, version, strict=True)
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}

    pod = found["Deployment", "sigma"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = dict(each.removeprefix("--").split("=", 1) for each in container["args"])
    resources = container["resources"]
    assert size(options["memory"]) == size(resources["requests"]["memory"]) < size(resources["limits"]["memory"])
    # sigma-serve itself knows these options: with a file that is missing it says so, and 64 would be wrong usage.
    code = subprocess.run([arguments.sigma_serve, *container["args"]], capture_output=True).returncode
    assert code == 66, f"sigma-serve with the manifest's options ends with {code}, expected 66 (no such file)"
    grace = container["lifecycle"]["preStop"]["sleep"]["seconds"] + int(options["drain-timeout"])
    assert pod["terminationGracePeriodSeconds"] >= grace + 10, "the pod is killed before it has drained"
    readiness = container["readinessProbe"]
    noticed = readiness["failureThreshold"] * (readiness["periodSeconds"] + readiness["timeoutSeconds"])
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] >= noticed
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    for path in (options["model"], options["api-key-file"]):
        assert mounts[str(Path(path).parent)]["readOnly"]
    for kind, name in (("Deployment", "sigma"), ("Deployment", "sigma-router")):
        pod = found[kind, name]["spec"]["template"]
        labels = pod["metadata"]["labels"]
        assert found[kind, name]["spec"]["selector"]["matchLabels"] == labels
        assert found["Service", name]["spec"]["selector"] == labels
        assert found["PodDisruptionBudget", name]["spec"]["selector"]["matchLabels"] == labels
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        security = pod["spec"]["containers"][0]["securityContext"]
        assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        ports = {each["name"] for each in pod["spec"]["containers"][0]["ports"]}
        assert {each["targetPort"] for each in found["Service", name]["spec"]["ports"]} <= ports

    routes = found["ConfigMap", "sigma-router"]["data"]["haproxy.cfg"]
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        file.write(routes)
        file.flush()
        subprocess.run(["haproxy", "-c", "-q", "-f", file.name], check=True)
    # The pods' router decides as the other one does.
    def deciding(text):
        return {line.strip() for line in text.split("backend replicas")[1].splitlines()
                if not line.strip().startswith(("#", "server")) and line.strip()}

    assert deciding(routes) == deciding((ROOT / "docs/deployment/haproxy/haproxy.cfg").read_text())
    return f"{len(objects)} objects are valid in {' and '.join(VERSIONS)}; budget, grace, probes, labels and rights agree; haproxy -c"


def check_container(arguments):
    """The Containerfile's text, and the server as uid 65532 without capabilities on a root that is only read."""
    containerfile = (FOLDER / "Containerfile").read_text()
    hadolint = Path(sys.executable).parent / "hadolint"
    subprocess.run([hadolint, FOLDER / "Containerfile"], check=True)
    user = re.search(r"^USER (\d+):(\d+)$", containerfile, re.MULTILINE)
    assert containerfile.index("USER") > containerfile.rindex("FROM") and int(user[1]) > 0

    assert os.geteuid() == 0, "this check makes a name space of its own: run it as superuser"
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name, *values):
        if getattr(libc, name)(*values) != 0:
            raise OSError(ctypes.get_errno(), name)

    def enter():
        call("unshare", CLONE_NEWNS)
        call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
        for line in Path("/proc/self/mounts").read_text().splitlines():
            path = line.split()[1].encode().decode("unicode_escape").encode()
            # Some of /proc and /sys cannot be mounted anew, and nobody writes there.
            if libc.mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY, None) and not path.startswith((b"/proc", b"/sys", b"/dev")):
                raise OSError(ctypes.get_errno(), f"{path} stays writable")
        os.chdir("/")

    program = [shutil.which("setpriv"), f"--reuid={user[1]}", f"--regid={user[2]}", "--clear-groups", "--no-new-privs",
               "--bounding-set=-all", "--inh-caps=-all"]
    assert program[0], "setpriv is not installed: apt-get install util-linux"
    # That nothing can be written is what the rest is worth.
    probe = subprocess.run([*program, "sh", "-c", "touch /tmp/x /var/tmp/x ~/x; id -u"], preexec_fn=enter, capture_output=True, text=True)
    assert probe.stdout.strip() == user[1] and probe.stderr.lower().count("read-only file system") >= 2, probe

    process = subprocess.Popen(
        [*program, arguments.sigma_serve, "--model", arguments.model, "--port", "0", "--threads", "1", "--log-level", "error"],
        preexec_fn=enter, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        match = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)\n", line)
        assert match, f"sigma-serve says {line!r}"
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(rf"^Uid:\t{user[1]}\t", status, re.MULTILINE) and re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
        code, _, body = asyncio.run(send(int(match[1]), "POST", "/v1/chat/completions", chat(1)))
        assert code == 200 and json.loads(body)["choices"], body
        process.terminate()
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
    return f"hadolint passes; sigma-serve answers and ends as uid {user[1]} without capabilities on a read-only root"
