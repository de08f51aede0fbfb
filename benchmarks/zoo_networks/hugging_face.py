"""Configurations of the package transformers, small, built as its documentation does and handed on as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from zoo_networks import Architecture, Input, picture, tokens

MASK = Input((16,), "mask")
TEXT = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PICTURE = {"image_size": 32, "num_channels": 3}


def configured(kind: str, model: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        network: nn.Module = getattr(transformers, model)(getattr(transformers, kind)(**options))
        return network

    return build


def _one(name: str, kind: str, inputs: tuple[Input, ...], config: str, model: str, **options: Any) -> Architecture:
    return Architecture(name, f"transformers: {model}", kind, configured(config, model, **options), inputs)


ARCHITECTURES = (
    _one("bert", "text, two inputs", (tokens(), MASK), "BertConfig", "BertForSequenceClassification", **TEXT),
    _one("distilbert", "text, two inputs", (tokens(), MASK), "DistilBertConfig", "DistilBertForSequenceClassification",
         vocab_size=64, dim=32, n_layers=2, n_heads=2, hidden_dim=64),
    _one("roberta_tagger", "text", (tokens(),), "RobertaConfig", "RobertaForTokenClassification", **TEXT),
    _one("albert", "text, shared layers", (tokens(),), "AlbertConfig", "AlbertForSequenceClassification",
         embedding_size=16, **TEXT),
    _one("gpt2", "language model, tied weights, with its cache", (tokens(),), "GPT2Config", "GPT2LMHeadModel",
         vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=2),
    _one("llama", "language model", (tokens(),), "LlamaConfig", "LlamaForCausalLM", use_cache=False,
         num_key_value_heads=1, **TEXT),
    _one("t5", "encoder and decoder, three inputs", (tokens(), MASK, tokens(8)), "T5Config",
         "T5ForConditionalGeneration",
         vocab_size=64, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, use_cache=False),
    _one("vit", "pictures", picture(), "ViTConfig", "ViTForImageClassification", patch_size=8,
         **{**TEXT, **PICTURE}),
    _one("deit", "pictures", picture(), "DeiTConfig", "DeiTForImageClassification", patch_size=8,
         **{**TEXT, **PICTURE}),
    _one("swin", "pictures, shifted windows", picture(), "SwinConfig", "SwinForImageClassification", patch_size=4,
         embed_dim=16, depths=[2, 2], num_heads=[2, 2], window_size=4, **PICTURE),
    _one("hf_resnet", "pictures", picture(), "ResNetConfig", "ResNetForImageClassification", embedding_size=16,
         hidden_sizes=[16, 32], depths=[2, 2], layer_type="basic"),
    _one("hf_convnext_v2", "pictures", picture(), "ConvNextV2Config", "ConvNextV2ForImageClassification", patch_size=4,
         num_stages=2, hidden_sizes=[16, 32], depths=[2, 2], image_size=32),
    _one("hf_regnet", "pictures", picture(), "RegNetConfig", "RegNetForImageClassification", embedding_size=16,
         hidden_sizes=[16, 32], depths=[1, 2], groups_width=8, layer_type="y"),
    _one("hf_mobilenet_v2", "pictures", picture(), "MobileNetV2Config", "MobileNetV2ForImageClassification",
         depth_multiplier=0.25, image_size=32),
    _one("poolformer", "pictures", picture(), "PoolFormerConfig", "PoolFormerForImageClassification",
         depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 32], num_labels=10),
    _one("segformer", "segmentation", picture(), "SegformerConfig", "SegformerForSemanticSegmentation",
         depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 32], num_attention_heads=[1, 2, 2, 2], decoder_hidden_size=16,
         num_labels=4),
    _one("yolos", "detection, two outputs", picture(), "YolosConfig", "YolosForObjectDetection",
         patch_size=8, num_detection_tokens=10, **{**TEXT, **PICTURE, "image_size": [32, 32]}),
    _one("vilt", "pictures and text, four inputs", (tokens(), MASK, Input((16,), "integer"), *picture()),
         "ViltConfig", "ViltForQuestionAnswering", patch_size=8, max_image_length=16, num_labels=5,
         **{**TEXT, **PICTURE}),
    _one("wav2vec2", "sound", (Input((800,)),), "Wav2Vec2Config", "Wav2Vec2ForSequenceClassification",
         hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=32,
         conv_dim=(16, 16, 16), conv_kernel=(10, 3, 3), conv_stride=(5, 2, 2), num_conv_pos_embeddings=16,
         num_conv_pos_embedding_groups=4, num_labels=5),
    _one("time_series_patches", "series", (Input((64, 4)),), "PatchTSTConfig", "PatchTSTForClassification",
         num_input_channels=4, context_length=64, patch_length=8, patch_stride=8, d_model=32, ffn_dim=64,
         num_attention_heads=2, num_hidden_layers=2, num_targets=5),
)  # fmt: skip
