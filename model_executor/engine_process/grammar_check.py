"""Compiles each grammar in a sandboxed child process first, so that none can stall or crash vLLM.

A schema of a few lines can take minutes and gigabytes to compile, or crash the process. So the engine process forks a
small process before it has threads, which forks another one for every new grammar: that one converts and compiles the
grammar as vLLM will, generates the beginning of an answer, and has limits on time and memory. Verdicts are cached.
"""

import asyncio
import hashlib
import json
import os
import random
import re
import resource
import select
import signal
import socket
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np
import xgrammar
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar

from model_executor.engine import Grammar, RequestFailedError, RequestRefusedError
from model_executor.ipc import frame, receive_frame
from model_executor.processor.tokenizer import Tokenizer

MAX_VERDICTS = 4096
COMPILE_CPU_S = 5
"""CPU time for the whole check of one grammar."""
CONVERT_CPU_S = 0.25
"""CPU time for the part that vLLM does in the engine process's event loop."""
STEP_CPU_S = 0.02
"""Average CPU time for the mask of allowed tokens; the engine's step waits for it."""
DEADLINE_S = 90
"""After this time the child process counts as stuck rather than busy."""
MEMORY_BYTES = 2 << 30
_NUM_STEPS = 48
_NUM_WALKS = 4
"""If there are more walks than this (one for each tag), they are shorter."""
_MIN_STEPS = 4
_NICENESS = 5
_MAX_VERDICT_BYTES = 4096  # a pipe accepts that much at once
_SOURCE_LOCATION = re.compile(r"\[[\d:]+\] \S+:\d+: |/\S+")
_TOO_EXPENSIVE = "takes too much time or memory to compile"


class GrammarCheck:
    """Decides which grammars may reach vLLM; made by `fork`."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="grammars")  # one grammar at a time, in order
        self._verdicts: OrderedDict[bytes, asyncio.Future[str | None]] = OrderedDict()
        self.is_lost = False
        """Whether the process is gone."""

    @classmethod
    def fork(cls, model_dir: Path) -> "GrammarCheck":
        """Start the process; must be called before this one has threads.

        Args:
            model_dir: the model's directory, for its vocabulary.
        """
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            ours.close()
            _run(theirs, model_dir)
        theirs.close()
        return cls(ours)

    async def require(self, grammar: Grammar) -> None:
        """Return if `grammar` compiles within the limits.

        Raises:
            RequestRefusedError: it does not.
            RequestFailedError: grammars cannot be checked any more.
        """
        key = hashlib.blake2b(msgspec.msgpack.encode((grammar.kind, grammar.value)), digest_size=16).digest()
        if key not in self._verdicts:
            loop = asyncio.get_running_loop()
            self._verdicts[key] = loop.run_in_executor(self._executor, self._check, grammar)
            if len(self._verdicts) > MAX_VERDICTS:
                self._verdicts.popitem(last=False)
        self._verdicts.move_to_end(key)
        # Shielded: other requests may wait for the same verdict, and later ones reuse it.
        if (fault := await asyncio.shield(self._verdicts[key])) is not None:
            raise RequestRefusedError(
                f"'{grammar.param or grammar.kind}' {fault}.", param=grammar.param, code="unsupported_grammar"
            )

    def _check(self, grammar: Grammar) -> str | None:
        """Runs in a thread. Returns what is wrong with `grammar`, or None."""
        try:
            self._end.sendall(frame(msgspec.msgpack.encode(grammar)))
            return msgspec.msgpack.decode(receive_frame(self._end), type=str | None)
        except OSError as error:
            self.is_lost = True
            raise RequestFailedError("grammars cannot be checked any more") from error


def structured_outputs(grammar: Grammar) -> StructuredOutputsParams:
    """`grammar` as vLLM's parameter."""
    match grammar.kind:
        case "json":
            return StructuredOutputsParams(json=grammar.value)
        case "json_object":
            return StructuredOutputsParams(json_object=True)
        case "regex":
            return StructuredOutputsParams(regex=grammar.value)
        case "choice":
            return StructuredOutputsParams(choice=json.loads(grammar.value))
        case "grammar":
            return StructuredOutputsParams(grammar=grammar.value)
        case "structural_tag":
            return StructuredOutputsParams(structural_tag=grammar.value)


def _run(end: socket.socket, model_dir: Path) -> NoReturn:
    """The forked process: checks each grammar in a child of its own, until the engine process is gone."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.nice(_NICENESS)
    try:
        tokenizer = Tokenizer(model_dir)
        vocabulary = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.num_tokens)]
        info = xgrammar.TokenizerInfo(vocabulary, xgrammar.VocabType.RAW, stop_token_ids=[tokenizer.num_tokens - 1])
        while True:
            grammar = msgspec.msgpack.decode(receive_frame(end), type=Grammar)
            end.sendall(frame(msgspec.msgpack.encode(_check_in_child(grammar, info))))
    except ConnectionError:
        os._exit(0)
    finally:
        os._exit(1)


def _check_in_child(grammar: Grammar, info: xgrammar.TokenizerInfo) -> str | None:
    """What is wrong with `grammar`, even if it crashes the process that compiles it."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            _limit_resources()
            os.write(writing, msgspec.msgpack.encode(_find_fault(grammar, info)))
        finally:
            os._exit(0)
    os.close(writing)
    is_readable, _, _ = select.select([reading], [], [], DEADLINE_S)
    verdict = os.read(reading, _MAX_VERDICT_BYTES) if is_readable else b""
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return msgspec.msgpack.decode(verdict, type=str | None) if verdict else _TOO_EXPENSIVE


def _limit_resources() -> None:
    """Limit this process's CPU time and memory; exceeding them kills it, or makes allocations fail."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (COMPILE_CPU_S, COMPILE_CPU_S))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, mapped + MEMORY_BYTES))


def _find_fault(grammar: Grammar, info: xgrammar.TokenizerInfo) -> str | None:
    """What is wrong with `grammar`: does with it everything that vLLM will do."""
    try:
        started_at_s = time.process_time()
        params = SamplingParams(structured_outputs=structured_outputs(grammar))
        validate_xgrammar_grammar(params)
        if time.process_time() - started_at_s > CONVERT_CPU_S:
            return _TOO_EXPENSIVE
        compiled = _compile(params.structured_outputs, info)
    except Exception as error:
        return f"cannot be compiled: {_reason(error)}"
    prefixes = _answer_prefixes(grammar)
    num_steps = max(_NUM_STEPS * _NUM_WALKS // max(len(prefixes), _NUM_WALKS), _MIN_STEPS)
    for prefix in prefixes:
        matcher = xgrammar.GrammarMatcher(compiled)
        matcher.accept_string(prefix)
        may_be_empty = grammar.kind in ("regex", "grammar", "structural_tag")
        if fault := _walk(matcher, info, num_steps, may_be_empty=may_be_empty):
            return fault
    return None


def _answer_prefixes(grammar: Grammar) -> list[str]:
    """Beginnings of answers that lead to different parts of the grammar: the empty one, and each tag."""
    tags: list[str] = []
    pending = [json.loads(grammar.value)] if grammar.kind == "structural_tag" else []
    while pending:
        node = pending.pop()
        if node["type"] == "tag":
            tags.append(node["begin"])
        pending += [node["format"]] if "format" in node else [*node.get("elements", []), *node.get("tags", [])]
    return ["", *tags]


def _compile(params: StructuredOutputsParams | None, info: xgrammar.TokenizerInfo) -> xgrammar.CompiledGrammar:
    """Compile as vLLM does without optional white space; choices have been converted to a grammar."""
    assert params is not None
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    if params.regex is not None:
        return compiler.compile_regex(params.regex)
    if params.grammar is not None:
        return compiler.compile_grammar(params.grammar)
    if params.structural_tag is not None:
        return compiler.compile_structural_tag(params.structural_tag)
    schema = params.json if params.json is not None else '{"type": "object"}'
    return compiler.compile_json_schema(schema, any_whitespace=False, separators=(",", ":"))


def _walk(
    matcher: xgrammar.GrammarMatcher, info: xgrammar.TokenizerInfo, num_steps: int, *, may_be_empty: bool
) -> str | None:
    """Generate the beginning of an answer, to check that there is one and that each step is fast."""
    mask = xgrammar.allocate_token_bitmask(1, info.vocab_size)
    generator = random.Random(0)
    stops = set(info.stop_token_ids)
    started_at_s = time.process_time()
    for step in range(num_steps):
        matcher.fill_next_token_bitmask(mask)
        bits = np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")[: info.vocab_size]
        allowed = np.flatnonzero(bits)
        if len(allowed) == 0 or (step == 0 and not may_be_empty and stops.intersection(allowed.tolist())):
            return "matches no text"
        token = int(allowed[generator.randrange(len(allowed))])
        if token in stops or not matcher.accept_token(token):
            break
    if time.process_time() - started_at_s > STEP_CPU_S * (step + 1) + CONVERT_CPU_S:
        return "takes too much time for each token"
    return None


def _reason(error: Exception) -> str:
    """The message of xgrammar's error, without the location in its source."""
    text = str(error).splitlines()[-1] if str(error) else type(error).__name__
    return _SOURCE_LOCATION.sub("", text)[:300].rstrip(".")
