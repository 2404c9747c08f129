"""`vllm bench serve` of this environment with random prompts: chat, completions, responses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# vLLM's command asks for the metadata of a package that the CPU build does not have.
STARTER = (
    "import asyncio, argparse; from vllm.benchmarks import serve; parser = argparse.ArgumentParser();"
    "serve.add_cli_args(parser); asyncio.run(serve.main_async(parser.parse_args()))"
)
TOKENIZER = Path(__file__).parents[4] / "training" / "bundle"
BACKENDS = {"openai-chat": "chat/completions", "openai": "completions", "openai-responses": "responses"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_requests_are_answered(backend: str, tmp_path: Path) -> None:
    url = os.environ["OPENAI_BASE_URL"].removesuffix("/v1")
    command = [sys.executable, "-c", STARTER, "--backend", backend, "--endpoint", f"/v1/{BACKENDS[backend]}"]
    command += ["--base-url", url, "--model", "tessera-tiny", "--tokenizer", str(TOKENIZER), "--num-prompts", "4"]
    command += ["--dataset-name", "random", "--random-input-len", "32", "--random-output-len", "16", "--ignore-eos"]
    command += ["--save-result", "--result-dir", str(tmp_path), "--disable-tqdm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    (result,) = tmp_path.glob("*.json")
    told = json.loads(result.read_text())
    assert (told["completed"], told["total_output_tokens"]) == (4, 64), done.stdout[-2000:]
