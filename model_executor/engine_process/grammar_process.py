"""The processes that try grammars, each of which may die of it.

A keeper is forked from the host before that has threads. It never tries anything itself: for every grammar it forks a
process that converts and compiles as vLLM will, walks through an answer, has limits of time and memory, and answers on
a socket of its own. A keeper can also fork another keeper, to take the place of one that was lost.

The host's side: `model_executor/engine_process/grammar_check.py`.
"""

import ctypes
import json
import os
import random
import re
import resource
import signal
import socket
import struct
import time
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np
import xgrammar
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar

from model_executor.engine import Grammar
from model_executor.processor.tokenizer import Tokenizer

COMPILE_CPU_S = 5
"""Processor time for everything that is tried."""
CONVERT_CPU_S = 0.25
"""Processor time of the part vLLM does in the host's event loop."""
STEP_CPU_S = 0.02
"""Processor time for what is allowed next, on average; the engine's step waits for it."""
DEADLINE_S = 90
"""After this the process is stuck rather than busy."""
MEMORY_BYTES = 2 << 30
TRY, CLONE = b"t", b"c"
"""What a keeper is told, with one end of a socket pair: try a grammar and answer there, or listen there for orders."""
TOO_EXPENSIVE = "takes too much time or memory to compile"
_NUM_STEPS = 48
_NUM_WALKS = 4
"""More walks than these, one for each tag, are made shorter."""
_LEAST_STEPS = 4
_NICENESS = 5
_PR_SET_PDEATHSIG = 1
_SOURCE_PLACE = re.compile(r"\[[\d:]+\] \S+:\d+: |/\S+")


def fork_keeper(folder: Path) -> socket.socket:
    """Start a keeper; to be called before this process has threads.

    Args:
        folder: the model's, for its vocabulary.

    Returns:
        Where to give it orders; at its end once it is gone.
    """
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        _keep(theirs, folder)
    theirs.close()
    return ours


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


def _keep(orders: socket.socket, folder: Path) -> NoReturn:
    """The keeper: a child for every order, until the host is gone."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for its children
    os.nice(_NICENESS)
    try:
        tokenizer = Tokenizer(folder)
        vocabulary = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.num_tokens)]
        info = xgrammar.TokenizerInfo(vocabulary, xgrammar.VocabType.RAW, stop_token_ids=[tokenizer.num_tokens - 1])
        while True:
            order, files, _, _ = socket.recv_fds(orders, 1, 1)
            if not order:
                os._exit(0)
            end = socket.socket(fileno=files[0])
            if os.fork() == 0:
                # What it does for the host goes on if the keeper is lost.
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)
                orders.close()
                if order == TRY:
                    _try(end, info)
                orders = end
            else:
                end.close()
    finally:
        os._exit(1)


def _try(end: socket.socket, info: xgrammar.TokenizerInfo) -> NoReturn:
    """The process of one grammar: says who it is, and then what is wrong with the grammar, if it lives to."""
    try:
        signal.alarm(DEADLINE_S)
        end.sendall(struct.pack(">I", os.getpid()))
        grammar = msgspec.msgpack.decode(_receive(end), type=Grammar)
        _limit()
        end.sendall(framed(msgspec.msgpack.encode(_fault(grammar, info))))
    finally:
        os._exit(0)


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
            return TOO_EXPENSIVE
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


def framed(body: bytes) -> bytes:
    """A message as it travels, after its length."""
    return struct.pack(">I", len(body)) + body


def _receive(end: socket.socket) -> bytes:
    """One message.

    Raises:
        ConnectionError: the other side is gone.
    """
    (num_bytes,) = struct.unpack(">I", _receive_exactly(end, 4))
    return _receive_exactly(end, num_bytes)


def _receive_exactly(end: socket.socket, num_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < num_bytes:
        if not (more := end.recv(num_bytes - len(data))):
            raise ConnectionError
        data += more
    return bytes(data)
