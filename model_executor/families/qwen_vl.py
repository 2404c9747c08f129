"""Qwen-VL: images of one size, 256 tokens each, and a language model of the first generation.

Source: Qwen-VL report (arXiv 2308.12966) and its release; Qwen technical report (arXiv 2309.16609).
"""

from model_executor.families.family import Config, Family
from model_executor.families.qwen_vl_tensors import qwen_vl_tensors
from model_executor.processor.chatml import MediaFormat, PromptFormat
from model_executor.processor.geometry import Size

PLACEHOLDER_ID = 151_859
"""Id of `<imgpad>` in the one vocabulary that the family has."""
IMAGE_PX = 448
_GROUNDING_TAGS = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")
_IMAGE = MediaFormat("<imgpad>", "<img>", "</img>\n", "Picture")
QWEN_FORMAT = PromptFormat(
    {"image": _IMAGE, "video": _IMAGE},
    is_numbered=True,
    is_cut_after_roles=True,
    has_tools=False,
    user_tokens=_GROUNDING_TAGS,
)


def text_config(config: Config) -> Config:
    """The language model in Qwen2's terms; `intermediate_size` counts gate and up projection together."""
    return {
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"] // 2,
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": config["num_attention_heads"],
        "vocab_size": config["vocab_size"],
        "max_position_embeddings": config["max_position_embeddings"],
        "rms_norm_eps": config["layer_norm_epsilon"],
        "hidden_act": "silu",
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "trained_tokens": config["seq_length"],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": float(config.get("rotary_emb_base", 10_000)),
            # One axis: positions of all three are equal.
            "mrope_section": [config["hidden_size"] // config["num_attention_heads"] // 2, 0, 0],
        },
    }


QWEN_VL = Family(
    name="Qwen-VL",
    architecture="QWenLMHeadModel",
    vision_section="visual",
    model_class="model_executor.models.qwen_vl.model:QwenVL",
    tensors=qwen_vl_tensors,
    ignored_tensors=(".rotary_emb.inv_freq", ".attn.masked_bias", ".attn.bias"),
    prompt_format=QWEN_FORMAT,
    box_unit="thousandth",
    text_config=text_config,
    time_ids_per_s=lambda _: None,
    trained_tokens=lambda config: int(config["seq_length"]),
    image_size=Size(IMAGE_PX, IMAGE_PX),
    frames_as_images=4,  # as the authors did, without having trained on it
    end_token_ids=(151_643, 151_644, 151_645),  # the release names the first alone, which ends no turn
    names_chat_format=True,
    adapter_names={
        "attn.c_attn": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attn.c_proj": ("self_attn.o_proj",),
        "mlp.w2": ("mlp.gate_proj",),  # the one that passes through SiLU
        "mlp.w1": ("mlp.up_proj",),
        "mlp.c_proj": ("mlp.down_proj",),
    },
    vocabulary_file="qwen.tiktoken",
)
