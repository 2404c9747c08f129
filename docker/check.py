"""The CPU image and `compose.yaml`, tried for real: `make check-docker`. Needs Docker with compose, and Python 3.11.

Builds the image, brings the service up as a person would, and looks at it from the outside: who it runs as, what it
may write, that it answers about a picture and a clip, whole and streamed, that a killed engine comes back, that SIGTERM
lets a running answer finish. Takes everything down again, its volumes included. Each step says what it saw.

    python3 docker/check.py [--build-options='--network host'] [--port 8000]

What it does not: run the GPU image, which needs a GPU, or Prometheus and Grafana.
"""

import argparse
import base64
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ROOT = Path(__file__).parent.parent
PROJECT = "tessera-check"
"""Compose's name for what this brings up, apart from what a person may have running."""
IMAGE = "tessera:cpu"
MIB = 1 << 20
PICTURE = ROOT / "docs" / "circle.png"
KILL_ENGINE = r"""
import os, pathlib, signal
names = {int(place.name): (place / "cmdline").read_bytes() for place in pathlib.Path("/proc").glob("[0-9]*")}
for pid, command in names.items():
    if b"\0model_executor.host\0" in command:  # and so not this process itself
        os.kill(pid, signal.SIGKILL)
        print("killed", pid)
"""
MAKE_CLIP = """
import av, io, numpy, sys
file = io.BytesIO()
with av.open(file, "w", format="mp4") as container:
    stream = container.add_stream("mpeg4", rate=2, width=224, height=224, pix_fmt="yuv420p")
    for number in range(8):
        frame = numpy.full((224, 224, 3), 255, numpy.uint8)
        frame[60:160, 20 * number : 20 * number + 60] = (0, 0, 255)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode(None))
sys.stdout.buffer.write(file.getvalue())
"""


def main() -> int:
    """Run all steps; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the CPU image and try it with compose.")
    parser.add_argument("--build-options", default="", help="further options of `docker build`")
    parser.add_argument("--port", type=int, default=8000, help="a free port of this machine")
    arguments = parser.parse_args()
    os.environ.update(PORT=str(arguments.port), COMPOSE_PROJECT_NAME=PROJECT)
    # Compose builds in ways that differ from version to version; this is what its `build` section stands for.
    docker(
        "build",
        "--target",
        "cpu",
        "--tag",
        IMAGE,
        *shlex.split(arguments.build_options),
        ".",
        env={"DOCKER_BUILDKIT": "1"},
    )
    server = Server(f"http://127.0.0.1:{arguments.port}")
    tell_size()
    try:
        started_s = time.monotonic()
        docker("compose", "up", "--detach", "--no-build", "--wait", "tessera")
        say(f"up and healthy after {time.monotonic() - started_s:.0f} s")
        check_confinement()
        check_answers(server)
        check_stream(server)
        check_recovery(server)
        check_drain(server)
    except BaseException:
        docker("compose", "logs", "--tail", "60", "tessera", check=False)
        raise
    finally:
        docker("compose", "down", "--volumes", "--timeout", "45")
    expect(
        not output("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}"),
        "a container is left",
    )
    say("down, and nothing is left. All is well.")
    return 0


class Server:
    """The service from the outside.

    Args:
        url: where it listens, without a path.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def open(self, path: str, body: dict[str, Any] | None = None) -> HTTPResponse:
        """The response, still open; an HTTP error is raised."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, {"Content-Type": "application/json"})  # noqa: S310 - its own server
        response: HTTPResponse = urlopen(request, timeout=120)  # noqa: S310
        return response

    def ask(self, *content: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """The parsed answer to one message."""
        with self.open("/v1/chat/completions", question(*content, **fields)) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def chunks(self, *content: dict[str, Any], **fields: Any) -> Iterator[dict[str, Any]]:
        """The parsed events of a streamed answer; fails where the end mark is missing."""
        with self.open("/v1/chat/completions", question(*content, stream=True, **fields)) as response:
            for line in response:
                data = line.decode().removeprefix("data: ").strip()
                if data == "[DONE]":
                    return
                if data and not data.startswith(":"):
                    yield json.loads(data)
        raise AssertionError("the stream has no end mark")

    def state(self) -> str:
        """As `/health` tells it."""
        try:
            with self.open("/health") as response:
                return str(json.load(response)["status"])
        except HTTPError as error:
            return str(json.load(error)["status"])


def question(*content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A request body with one message."""
    return {
        "model": "tessera-tiny",
        "temperature": 0,
        "messages": [{"role": "user", "content": list(content)}],
        **fields,
    }


def picture() -> dict[str, Any]:
    """A red circle."""
    data = base64.b64encode(PICTURE.read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def text(words: str) -> dict[str, Any]:
    """A text part."""
    return {"type": "text", "text": words}


def tell_size() -> None:
    """Say how large the image is, and where that goes."""
    layers = output("history", "--no-trunc", "--format", "{{.Size}}\t{{.CreatedBy}}", IMAGE).splitlines()
    num_bytes = int(output("image", "inspect", "--format", "{{.Size}}", IMAGE))
    say(f"the image has {num_bytes / MIB:.0f} MiB; its largest layers:")
    for line in layers:
        size, _, made_by = line.partition("\t")
        if size.endswith("GB") or (size.endswith("MB") and float(size.removesuffix("MB")) >= 5):
            print(f"      {size:>8}  {made_by[:90]}")
    listing = inside("sh", "-c", "du -sm /opt/tessera/lib/python3.11/site-packages/* | sort -rn | head -8", run=True)
    for line in listing.splitlines():
        size, path = line.split("\t")
        print(f"      {size:>5} MiB  {path.rpartition('/')[2]}")


def check_confinement() -> None:
    """No root, no writing outside of the volumes, none of the kernel's privileges."""
    expect(inside("id", "-u").strip() == "10001", "the server runs as another user")
    for folder in ("/", "/opt/tessera", "/etc", "/usr/local/bin"):
        refused = docker("compose", "exec", "-T", "tessera", "touch", f"{folder}/x", check=False, quiet=True)
        expect(refused.returncode != 0, f"{folder} can be written to")
    container = output("compose", "ps", "--quiet", "tessera")
    facts = json.loads(output("inspect", container))[0]["HostConfig"]
    expect(facts["ReadonlyRootfs"] is True, "the root file system can be written to")
    expect(facts["CapDrop"] == ["ALL"], "capabilities are left")
    status = inside("cat", "/proc/self/status")
    expect("CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status, "privileges are left")
    inside("touch", "/data/x", "/cache/x", "/tmp/x")
    say("runs as user 10001 without capabilities; only /data, /cache and /tmp can be written to")


def check_answers(server: Server) -> None:
    """The page, then a picture, a clip and a schema, each answered as it should be."""
    with server.open("/") as page:
        expect(b"<title>" in page.read(), "there is no page to try the model on")
    answer = server.ask(picture(), text("What is in this picture?"))
    said = answer["choices"][0]["message"]["content"]
    expect("red circle" in said, f"it says {said!r}")
    say(f"about the picture: {said!r}, {answer['usage']}")
    clip = subprocess.run(
        ["docker", "compose", "exec", "-T", "tessera", "python", "-c", MAKE_CLIP],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    url = f"data:video/mp4;base64,{base64.b64encode(clip).decode()}"
    answer = server.ask(
        {"type": "video_url", "video_url": {"url": url}}, text("What happens in this video?"), max_tokens=60
    )
    expect(answer["usage"]["prompt_tokens_details"]["video_tokens"] > 0, "the clip has no tokens")
    say(f"about a clip of a blue square that moves right: {answer['choices'][0]['message']['content']!r}")
    schema = {"type": "object", "properties": {"color": {"enum": ["red", "green", "blue"]}}, "required": ["color"]}
    form = {"type": "json_schema", "json_schema": {"name": "color", "schema": schema}}
    answer = server.ask(picture(), text("What color is it?"), response_format=form)
    said = answer["choices"][0]["message"]["content"]
    expect(json.loads(said)["color"] in ("red", "green", "blue"), f"it says {said!r}")
    say(f"in an enforced form: {said}")


def check_stream(server: Server) -> None:
    """The same answer, in pieces."""
    pieces = [
        chunk["choices"][0]["delta"].get("content") or ""
        for chunk in server.chunks(picture(), text("What is in this picture?"))
    ]
    expect("red circle" in "".join(pieces) and len(pieces) > 3, f"it streams {pieces}")
    say(f"streamed in {len(pieces)} events: {''.join(pieces)!r}")


def check_recovery(server: Server) -> None:
    """The engine's processes are killed from inside; the server stays, says so, and answers again."""
    killed = inside("python", "-c", KILL_ENGINE)
    expect("killed" in killed, "there was no engine to kill")
    started_s = time.monotonic()
    wait_until(lambda: server.state() != "ready", 10)
    state = server.state()
    wait_until(lambda: server.state() == "ready", 180)
    took_s = time.monotonic() - started_s
    say(f"{len(killed.splitlines())} engine processes killed: {state}, then ready again after {took_s:.1f} s")
    said = server.ask(picture(), text("What is in this picture?"))["choices"][0]["message"]["content"]
    expect("red circle" in said, f"it says {said!r}")
    zombies = inside(
        "python", "-c", "import glob; print(sum(' Z ' in open(p).read() for p in glob.glob('/proc/[0-9]*/stat')))"
    )
    expect(zombies.strip() == "0", "killed processes are left behind")


def check_drain(server: Server) -> None:
    """SIGTERM comes while an answer is on its way: the answer is finished first, and the exit status is 0."""
    chunks: list[dict[str, Any]] = []
    failures: list[BaseException] = []

    def read() -> None:
        try:
            chunks.extend(server.chunks(text("Count."), max_tokens=400, ignore_eos=True))
        except BaseException as error:
            failures.append(error)

    container = output("compose", "ps", "--quiet", "tessera")
    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: "tessera_requests_running 1.0" in server.open("/metrics").read().decode(), 20)
    started_s = time.monotonic()
    docker("compose", "stop", "tessera")
    stopped_s = time.monotonic() - started_s
    reader.join(30)
    expect(not failures, f"the answer broke off: {failures}")
    finish = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]][-1]
    expect(finish == "length", f"the answer ended with {finish}")
    status = output("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", container)
    expect(status == "0 false", f"the server ended with {status}")
    say(f"SIGTERM during an answer: {len(chunks)} events to the end, stopped after {stopped_s:.1f} s with status 0")


def docker(
    *arguments: str, check: bool = True, quiet: bool = False, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a docker command in the project's folder."""
    if not quiet:
        print("    $ docker", shlex.join(arguments), flush=True)
    sink = subprocess.DEVNULL if quiet else None
    return subprocess.run(
        ["docker", *arguments], cwd=ROOT, check=check, stdout=sink, stderr=sink, env={**os.environ, **(env or {})}
    )


def output(*arguments: str) -> str:
    """What a docker command prints."""
    return subprocess.run(
        ["docker", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def inside(*command: str, run: bool = False) -> str:
    """What a command prints in the running service, or with `run` in a new container of the image."""
    place = (
        ["run", "--rm", "--network", "none", "--entrypoint", command[0], IMAGE]
        if run
        else ["compose", "exec", "-T", "tessera", command[0]]
    )
    return output(*place, *command[1:])


def wait_until(condition: Any, timeout_s: float) -> None:
    """Wait for something to become true, and fail where it does not."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        expect(time.monotonic() < deadline_s, f"it did not happen within {timeout_s:g} s")
        time.sleep(0.05)


def expect(fact: bool, otherwise: str) -> None:
    """Fail with a sentence where `fact` does not hold."""
    if not fact:
        raise AssertionError(otherwise)


def say(words: str) -> None:
    """Tell what was seen."""
    print(f"[check-docker] {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
