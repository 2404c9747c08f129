"""Qwen-VL's vision tower and rotary embedding by themselves, against its description in float64."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from model_executor.client.engine_client import EngineClient
from model_executor.engine import EngineSettings, Prompt
from model_executor.processor.geometry import Grid
from model_executor.processor.patches import write_image
from tests.engine.quantised import CONFIGS, SCHEMES
from tests.support.engines import ready
from tests.support.images import small_photos
from tests.support.oracle import MEAN, STD
from tests.support.prompts import greedy
from tests.support.qwen_vl_oracle import QwenVLOracle, turned
from training.random_qwen_vl import QwenVLShape, write_random_qwen_vl

pytestmark = [pytest.mark.engine, pytest.mark.slow]

GRID = Grid(1, 32, 32)


@pytest.fixture(scope="module")
def qwen_vl(tmp_path_factory: pytest.TempPathFactory) -> QwenVLOracle:
    folder = tmp_path_factory.mktemp("models") / "qwen-vl"
    write_random_qwen_vl(folder, QwenVLShape(num_layers=1, dtype=torch.float32))
    return QwenVLOracle(folder)


@pytest.fixture(scope="module")
def tower(world: None, qwen_vl: QwenVLOracle) -> nn.Module:
    from model_executor.models.qwen_vl.vision import ResampledTower
    from model_executor.models.shared.tower import PixelStatistics

    statistics = PixelStatistics((MEAN[0], MEAN[1], MEAN[2]), (STD[0], STD[1], STD[2]))
    ours = ResampledTower(SimpleNamespace(**qwen_vl.config["visual"]), statistics, None, "visual")
    prefix = "transformer.visual."
    stored = torch.load(qwen_vl.folder / "pytorch_model.bin", weights_only=True)
    ours.load_weights((name.removeprefix(prefix), each) for name, each in stored.items() if name.startswith(prefix))
    for module in ours.modules():
        if method := getattr(module, "quant_method", None):
            method.process_weights_after_loading(module)
    return ours


def rows_of(picture: Image.Image) -> torch.Tensor:
    rows = np.empty((GRID.num_patches, 588), np.uint8)
    write_image(rows, GRID, np.asarray(picture))
    return torch.from_numpy(rows)


@torch.no_grad()
def test_features_equal_the_description(tower: nn.Module, qwen_vl: QwenVLOracle) -> None:
    pictures = [picture.convert("RGB").resize((448, 448)) for picture in small_photos()] * 3  # more than one pack
    got = tower([rows_of(picture) for picture in pictures], [GRID] * len(pictures))
    expected = [qwen_vl.features(picture) for picture in pictures[:3]] * 3
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == (256, 256)
        assert (ours - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("num_prompt_tokens", [1, 2048, 2049, 4096, 4097, 8192])
def test_the_rotary_embedding_equals_the_description(vllm_imported: None, num_prompt_tokens: int) -> None:
    from model_executor.models.qwen_vl.rotary import GrowingRotary
    from model_executor.processor.dynamic_ntk import num_raises

    text = SimpleNamespace(
        hidden_size=256, num_attention_heads=2, trained_tokens=2048, rope_parameters={"rope_theta": 10_000.0}
    )
    rotary = GrowingRotary(text, 8192)
    generator = torch.Generator().manual_seed(0)
    positions = torch.tensor([0, 1, 2046, 2047, 2048, 2049, 4095, 4096, 8191])
    q, k = (torch.randn(len(positions), heads, 128, generator=generator) for heads in (4, 2))
    block = num_raises(num_prompt_tokens, 2048) * 8192
    turned_q, turned_k = rotary((positions + block).expand(3, -1), q.clone(), k.clone())
    growth = max(1, 2 ** int(np.ceil(np.log2(num_prompt_tokens / 2048) + 1)) - 1)
    base = 10_000 * growth ** (128 / 126)
    angles = positions.double()[:, None] / base ** (torch.arange(0, 128, 2).double() / 128)
    counts = positions.double() + 1
    scale = torch.where(counts > 2048, counts.log() / np.log(2048), 1.0)[:, None, None]
    # Angles are float32, of up to 8191 radians.
    assert torch.allclose(turned_q.double(), turned(q.double(), angles) * scale, atol=5e-3)
    assert torch.allclose(turned_k.double(), turned(k.double(), angles), atol=5e-3)


def test_a_bias_where_the_model_has_none_is_refused_unless_it_is_zero() -> None:
    from model_executor.models.qwen_vl.model import renamed

    zero, other = ("transformer.h.0.mlp.w1.bias", torch.zeros(4)), ("transformer.h.0.mlp.w1.bias", torch.ones(4))
    assert list(renamed([zero])) == []
    assert list(renamed([("transformer.h.0.attn.bias", torch.ones(4))])) == []  # a mask, in some files
    ((name, _),) = renamed([("transformer.h.0.attn.c_attn.bias", torch.ones(4))])
    assert name == "model.layers.0.self_attn.qkv_proj.bias"
    with pytest.raises(ValueError, match="no bias there"):
        list(renamed([other]))


def test_w2_is_the_gate(vllm_imported: None) -> None:
    from model_executor.models.qwen_vl.model import renamed

    names = {"transformer.h.3.mlp.w2.weight", "transformer.h.3.mlp.w1.weight"}
    assert {name for name, _ in renamed((name, torch.zeros(1)) for name in sorted(names))} == {
        "model.layers.3.mlp.gate_proj.weight",
        "model.layers.3.mlp.up_proj.weight",
    }


def test_the_released_config_is_read_without_its_code(qwen_vl: QwenVLOracle, vllm_imported: None) -> None:
    from transformers import AutoConfig

    from model_executor.plugin import register

    register()
    config = AutoConfig.from_pretrained(Path(qwen_vl.folder), trust_remote_code=False)
    assert type(config).__module__ == "model_executor.models.qwen_vl.config"
    assert (config.intermediate_size, config.rms_norm_eps) == (512, 1e-6)
    assert not hasattr(config, "seq_length")


async def test_int4_answers_as_the_dequantised_weights(tmp_path: Path, shared_memory: Path) -> None:
    """In the layout of Qwen-VL-Chat-Int4, zeros for biases included; bfloat16, so bounds as for the other families."""
    write_random_qwen_vl(tmp_path / "plain")
    packed: dict[str, torch.Tensor] = {}
    exact: dict[str, torch.Tensor] = {}
    for name, weight in torch.load(tmp_path / "plain" / "pytorch_model.bin", weights_only=True).items():
        packed[name], exact[name] = weight, weight.float()
        if name.startswith("transformer.h.") and weight.dim() == 2:
            parts, exact[name] = SCHEMES["gptq"](weight.float())
            del packed[name]
            packed |= {name.replace("weight", part): value for part, value in parts.items()}
            packed.setdefault(name.replace("weight", "bias"), torch.zeros(len(weight)))
    quantized = tmp_path / "quantized"
    shutil.copytree(tmp_path / "plain", quantized, ignore=shutil.ignore_patterns("*.bin"))
    save_file({name: value.contiguous() for name, value in packed.items()}, quantized / "model.safetensors")
    config = json.loads((quantized / "config.json").read_text())
    (quantized / "config.json").write_text(json.dumps(config | {"quantization_config": CONFIGS["gptq"]}))
    torch.save(exact, tmp_path / "plain" / "pytorch_model.bin")
    del packed, exact, weight  # the oracle and the engine need the room
    oracle = QwenVLOracle(tmp_path / "plain")
    prompt, _ = oracle.prompt([("user", ["Tell me about the sea."])])
    settings = EngineSettings(dtype="bfloat16", max_model_len=2048, kv_cache_bytes=64 << 20, warm_standby=False)
    engine = EngineClient(quantized, settings, shared_memory=shared_memory)
    await engine.start()
    try:
        await ready(engine)
        ids, logprobs, _ = await greedy(engine, Prompt(prompt), 24)
    finally:
        await engine.close()
    steps = [
        oracle.logits([*prompt, *ids[:n]], [], num_prompt_tokens=len(prompt)).log_softmax(-1) for n in range(len(ids))
    ]
    chosen = torch.stack([step[id_] for step, id_ in zip(steps, ids, strict=True)])
    best = torch.stack([step.max() for step in steps])
    assert len(set(ids)) > 12
    assert (chosen - torch.tensor(logprobs)).abs().median() < 0.4
    assert (best - chosen).quantile(0.9) < 0.75


async def test_an_adapter_in_the_authors_names_equals_merged_weights(tmp_path: Path, shared_memory: Path) -> None:
    write_random_qwen_vl(tmp_path / "model")
    oracle, generator = QwenVLOracle(tmp_path / "model"), torch.Generator().manual_seed(3)
    tensors: dict[str, torch.Tensor] = {}
    prompt, _ = oracle.prompt([("user", ["Tell me about the sea."])])
    plain = oracle.answer([("user", ["Tell me about the sea."])], 24)
    for layer in range(oracle.config["num_hidden_layers"]):
        for module in ("attn.c_attn", "attn.c_proj", "mlp.w1", "mlp.w2"):
            weight = oracle.weights[f"transformer.h.{layer}.{module}.weight"]
            a = torch.randn(4, weight.shape[1], generator=generator) / weight.shape[1] ** 0.5
            b = torch.randn(weight.shape[0], 4, generator=generator) * 0.2 / 4**0.5
            weight += 8 / 4 * (b @ a)
            name = f"base_model.model.transformer.h.{layer}.{module}"
            tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    adapter = tmp_path / "adapters" / "own"
    adapter.mkdir(parents=True)
    save_file(tensors, adapter / "adapter_model.safetensors")
    modules = ["c_attn", "attn.c_proj", "w1", "w2"]
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": modules, "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    expected = oracle.answer([("user", ["Tell me about the sea."])], 24)
    settings = EngineSettings(
        dtype="float32", max_model_len=2048, kv_cache_bytes=64 << 20, warm_standby=False, lora_dir=adapter.parent
    )
    engine = EngineClient(tmp_path / "model", settings, shared_memory=shared_memory)
    await engine.start()
    try:
        await ready(engine)
        for served, answer in (("own", expected), (None, plain)):
            ids, logprobs, _ = await greedy(engine, Prompt(prompt, adapter=served), 24)
            assert ids == answer.token_ids
            assert logprobs == pytest.approx(answer.logprobs, abs=1e-3)
    finally:
        await engine.close()
    assert expected.token_ids != plain.token_ids
