"""Grammars are tried before vLLM sees them, in a process that may die of it.

A schema of a few lines can take minutes and gigabytes to compile, or end the process. So the host forks a small process
before it has threads, and that one forks another for every new grammar: it converts and compiles as vLLM will, walks
through an answer, and has limits of time and memory. What was found is remembered.
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
import struct
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
from model_executor.processor.tokenizer import Tokenizer

MAX_VERDICTS = 4096
COMPILE_CPU_S = 5
"""Processor time for everything that is tried."""
CONVERT_CPU_S = 0.25
"""Processor time of the part vLLM does in the host's event loop."""
STEP_CPU_S = 0.02
"""Processor time for what is allowed next, on average; the engine's step waits for it."""
DEADLINE_S = 90
"""After this the process is stuck rather than busy."""
MEMORY_BYTES = 2 << 30
_NUM_STEPS = 48
_NUM_WALKS = 4
"""More walks than these, one for each tag, are made shorter."""
_LEAST_STEPS = 4
_NICENESS = 5
_MAX_ANSWER_BYTES = 4096  # a pipe takes that much at once
_SOURCE_PLACE = re.compile(r"\[[\d:]+\] \S+:\d+: |/\S+")
_TOO_EXPENSIVE = "takes too much time or memory to compile"


class GrammarCheck:
    """Says which grammars vLLM may be given; made by `fork`."""

    def __init__(self, end: socket.socket) -> None:
        """See `fork`."""
        self._end = end
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="grammars")  # one question at a time, in order
        self._verdicts: OrderedDict[bytes, asyncio.Future[str | None]] = OrderedDict()
        self.is_lost = False
        """Whether the process is gone."""

    @classmethod
    def fork(cls, folder: Path) -> "GrammarCheck":
        """Start the process; to be called before this one has threads.

        Args:
            folder: the model's, for its vocabulary.
        """
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            ours.close()
            _run(theirs, folder)
        theirs.close()
        return cls(ours)

    async def require(self, grammar: Grammar) -> None:
        """Return if `grammar` compiles within the limits.

        Raises:
            RequestRefusedError: it does not.
            RequestFailedError: it cannot be tried any more.
        """
        key = hashlib.blake2b(msgspec.msgpack.encode((grammar.kind, grammar.value)), digest_size=16).digest()
        if key not in self._verdicts:
            loop = asyncio.get_running_loop()
            self._verdicts[key] = loop.run_in_executor(self._asking, self._ask, grammar)
            if len(self._verdicts) > MAX_VERDICTS:
                self._verdicts.popitem(last=False)
        self._verdicts.move_to_end(key)
        # Shielded: others may wait for the same, and the next one finds it.
        if (fault := await asyncio.shield(self._verdicts[key])) is not None:
            raise RequestRefusedError(
                f"'{grammar.param or grammar.kind}' {fault}.", param=grammar.param, code="unsupported_grammar"
            )

    def _ask(self, grammar: Grammar) -> str | None:
        """Runs in a thread. Returns what is wrong with `grammar`, or None."""
        try:
            _send(self._end, msgspec.msgpack.encode(grammar))
            return msgspec.msgpack.decode(_receive(self._end), type=str | None)
        except OSError as error:
            self.is_lost = True
            raise RequestFailedError("grammars cannot be checked any more") from error


def structured_outputs(grammar: Grammar) -> StructuredOutputsParams:
    """`grammar` as vLLM takes it."""
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


def _run(end: socket.socket, folder: Path) -> NoReturn:
    """The forked process: one child per question, until the host is gone."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.nice(_NICENESS)
    try:
        tokenizer = Tokenizer(folder)
        vocabulary = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.num_tokens)]
        info = xgrammar.TokenizerInfo(vocabulary, xgrammar.VocabType.RAW, stop_token_ids=[tokenizer.num_tokens - 1])
        while True:
            grammar = msgspec.msgpack.decode(_receive(end), type=Grammar)
            _send(end, msgspec.msgpack.encode(_tried_in_child(grammar, info)))
    except ConnectionError:
        os._exit(0)
    finally:
        os._exit(1)


def _tried_in_child(grammar: Grammar, info: xgrammar.TokenizerInfo) -> str | None:
    """What is wrong with `grammar`, also if it ends the process that tries it."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            _limit()
            os.write(writing, msgspec.msgpack.encode(_fault(grammar, info)))
        finally:
            os._exit(0)
    os.close(writing)
    answered, _, _ = select.select([reading], [], [], DEADLINE_S)
    answer = os.read(reading, _MAX_ANSWER_BYTES) if answered else b""
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return msgspec.msgpack.decode(answer, type=str | None) if answer else _TOO_EXPENSIVE


def _limit() -> None:
    """Bound this process; what exceeds the bounds ends it, or fails to allocate."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (COMPILE_CPU_S, COMPILE_CPU_S))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, mapped + MEMORY_BYTES))


def _fault(grammar: Grammar, info: xgrammar.TokenizerInfo) -> str | None:
    """What is wrong with `grammar`, found by doing all that vLLM will do with it."""
    try:
        began_s = time.process_time()
        params = SamplingParams(structured_outputs=structured_outputs(grammar))
        validate_xgrammar_grammar(params)
        if time.process_time() - began_s > CONVERT_CPU_S:
            return _TOO_EXPENSIVE
        compiled = _compiled(params.structured_outputs, info)
    except Exception as error:
        return f"cannot be compiled: {_reason(error)}"
    starts = _starts(grammar)
    num_steps = max(_NUM_STEPS * _NUM_WALKS // max(len(starts), _NUM_WALKS), _LEAST_STEPS)
    for start in starts:
        matcher = xgrammar.GrammarMatcher(compiled)
        matcher.accept_string(start)
        may_be_empty = grammar.kind in ("regex", "grammar", "structural_tag")
        if fault := _walk(matcher, info, num_steps, may_be_empty=may_be_empty):
            return fault
    return None


def _starts(grammar: Grammar) -> list[str]:
    """How answers may begin that differ in what follows: with nothing yet, or with a tag."""
    begins: list[str] = []
    waiting = [json.loads(grammar.value)] if grammar.kind == "structural_tag" else []
    while waiting:
        form = waiting.pop()
        if form["type"] == "tag":
            begins.append(form["begin"])
        waiting += [form["format"]] if "format" in form else [*form.get("elements", []), *form.get("tags", [])]
    return ["", *begins]


def _compiled(wanted: StructuredOutputsParams | None, info: xgrammar.TokenizerInfo) -> xgrammar.CompiledGrammar:
    """As vLLM compiles it without free white space; choices have become a grammar."""
    assert wanted is not None
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    if wanted.regex is not None:
        return compiler.compile_regex(wanted.regex)
    if wanted.grammar is not None:
        return compiler.compile_grammar(wanted.grammar)
    if wanted.structural_tag is not None:
        return compiler.compile_structural_tag(wanted.structural_tag)
    schema = wanted.json if wanted.json is not None else '{"type": "object"}'
    return compiler.compile_json_schema(schema, any_whitespace=False, separators=(",", ":"))


def _walk(
    matcher: xgrammar.GrammarMatcher, info: xgrammar.TokenizerInfo, num_steps: int, *, may_be_empty: bool
) -> str | None:
    """Write the beginning of an answer, to see that there is one and that each step is quick."""
    mask = xgrammar.allocate_token_bitmask(1, info.vocab_size)
    choose = random.Random(0)
    stops = set(info.stop_token_ids)
    began_s = time.process_time()
    for step in range(num_steps):
        matcher.fill_next_token_bitmask(mask)
        bits = np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")[: info.vocab_size]
        allowed = np.flatnonzero(bits)
        if len(allowed) == 0 or (step == 0 and not may_be_empty and stops.intersection(allowed.tolist())):
            return "leaves nothing to say"
        token = int(allowed[choose.randrange(len(allowed))])
        if token in stops or not matcher.accept_token(token):
            break
    if time.process_time() - began_s > STEP_CPU_S * (step + 1) + CONVERT_CPU_S:
        return "takes too much time at each token"
    return None


def _reason(error: Exception) -> str:
    """The engine's words, without the place in its source."""
    text = str(error).splitlines()[-1] if str(error) else type(error).__name__
    return _SOURCE_PLACE.sub("", text)[:300].rstrip(".")


def _send(end: socket.socket, body: bytes) -> None:
    end.sendall(struct.pack(">I", len(body)) + body)


def _receive(end: socket.socket) -> bytes:
    """One message.

    Raises:
        ConnectionError: the other side is gone.
    """
    parts: list[bytes] = []
    for num_bytes in (4, None):
        wanted = num_bytes or struct.unpack(">I", parts[0])[0]
        body = b""
        while len(body) < wanted:
            if not (more := end.recv(wanted - len(body))):
                raise ConnectionError
            body += more
        parts.append(body)
    return parts[1]
