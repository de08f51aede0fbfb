"""Networks out of the model spaces of NNI's hub (extra `nas`): found ones by name, the others as drawn from a seed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

from zoo_networks import Architecture, picture


def found(space: str, name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        return getattr(_hub(), space).load_searched_model(name, pretrained=False, download=False)  # type: ignore[no-any-return]

    return build


def drawn(space: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import numpy as np

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = getattr(_hub(), space)(**options)
            return made.random(random_state=np.random.RandomState(0))  # type: ignore[no-any-return]

    return build


def _hub() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not know some classes of this torch
        import nni.nas.hub.pytorch as hub

        return hub


ARCHITECTURES = (
    Architecture("nni_mobilenet_v3", "NNI hub: MobileNetV3Space", "CNN",
                 drawn("MobileNetV3Space", num_labels=10, width_multipliers=0.5), picture()),
    Architecture("nni_proxyless", "NNI hub: ProxylessNAS", "CNN", found("ProxylessNAS", "acenas-m1"), picture(32)),
    Architecture("nni_shufflenet", "NNI hub: ShuffleNetSpace", "CNN",
                 drawn("ShuffleNetSpace", num_labels=10), picture()),
    Architecture("nni_nasbench201", "NNI hub: NasBench201", "CNN",
                 drawn("NasBench201", stem_out_channels=8, num_modules_per_stack=1), picture()),
    Architecture("nni_darts", "NNI hub: DARTS", "CNN",
                 drawn("DARTS", width=8, num_cells=3, dataset="cifar"), picture()),
    Architecture("nni_autoformer", "NNI hub: AutoFormer", "transformer",
                 drawn("AutoFormer", search_embed_dim=(64, 96), search_mlp_ratio=(2.0, 3.0), search_num_heads=(2, 3),
                       search_depth=(2, 3), img_size=32, patch_size=8, num_labels=10), picture()),
)  # fmt: skip
