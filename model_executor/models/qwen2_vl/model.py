"""The Qwen2-VL model class that vLLM runs."""

from vllm.multimodal import MULTIMODAL_REGISTRY

from model_executor.models.qwen2_vl.vision import VisionTower
from model_executor.models.shared.model import VisionLanguageModel
from model_executor.models.shared.processing import DummyInputs, ProcessingInfo, Processor


@MULTIMODAL_REGISTRY.register_processor(Processor, info=ProcessingInfo, dummy_inputs=DummyInputs)
class Qwen2VL(VisionLanguageModel):
    """Qwen2-VL."""

    tower = VisionTower
