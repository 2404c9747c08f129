"""The command line against the real engine: counts add up through all layers, and the doctor finds a well machine."""

import json
import os
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from tests.support.serving import RunningServer

pytestmark = pytest.mark.engine


def tessera(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        env={**os.environ, **variables}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip


def test_what_bench_counts_is_what_server_and_engine_count(server: RunningServer) -> None:
    options = ("--requests", "9", "--concurrency", "1", "4", "--mix", "text=1,image=1,video=1", "--video-seconds", "1")
    done = tessera("bench", *options, "--max-tokens", "8", "--ignore-eos", "--json", "--url", server.url)
    assert done.returncode == 0, done.stderr
    for level in json.loads(done.stdout):
        here, there = level["counted_here"], level["counted_by_server"]
        assert here["requests"] == 9 and here["answer_tokens"] == 9 * 8
        assert there["http"] == here
        assert there["engine"] == {**here, "requests": None}
        assert level["first_token_s"]["p50"] <= level["answer_s"]["p50"]


@pytest.mark.parametrize("running", [True, False])
def test_the_doctor_asks_a_server_that_runs_or_starts_one(server: RunningServer, running: bool) -> None:
    variables = {"TESSERA_ENGINE__KV_CACHE_BYTES": str(1 << 28)}
    if running:
        variables |= {"TESSERA_PORT": str(urlsplit(server.url).port), "TESSERA_SERVED_MODEL_NAME": "tessera-test"}
    else:
        variables |= {"TESSERA_PORT": "0", "TESSERA_API_KEY": "secret"}
    done = tessera("doctor", "--json", **variables)
    findings = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    asked = findings["test question"]
    assert asked["verdict"] == "ok" and ("started for it" in asked["fact"]) is not running
    assert "differs from plain torch by at most 0" in findings["M-RoPE on cpu"]["fact"]
    assert findings["model"]["verdict"] == "ok"
