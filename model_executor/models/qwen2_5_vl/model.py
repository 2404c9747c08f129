"""The Qwen2.5-VL model class that vLLM runs."""

from vllm.multimodal import MULTIMODAL_REGISTRY

from model_executor.models.qwen2_5_vl.vision import WindowTower
from model_executor.models.shared.model import VisionLanguageModel
from model_executor.models.shared.processing import DummyInputs, ProcessingInfo, Processor


@MULTIMODAL_REGISTRY.register_processor(Processor, info=ProcessingInfo, dummy_inputs=DummyInputs)
class Qwen25VL(VisionLanguageModel):
    """Qwen2.5-VL."""

    tower = WindowTower
