"""A base trained on the spot, where the user has data and an architecture but no weights."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from automc.candidate import digest
from automc.profiles import cache_folder
from automc.recovery.recipe import Recipe
from automc.threads import one_thread
from automc.workloads.files import replacing
from automc.workloads.weights import load_weights, read_weights

if TYPE_CHECKING:
    from torch import nn

    from automc.workloads.workload import Workload

BASE_RECIPE = Recipe(batch_size=64, learning_rate=0.05, weight_decay=5e-4)
log = logging.getLogger(__name__)


def trained_base(
    workload: Workload, build: Callable[[], nn.Module], label: str, steps: int, seed: int, recipe: Recipe = BASE_RECIPE
) -> nn.Module:
    """`build()`, its random weights drawn from `seed`, trained for `steps` on the train split; eval mode, float32, CPU.

    Kept in the cache folder under the digest of `label` (which names the architecture), its parameter shapes, the train
    split, steps, seed, recipe and torch's version, so that every worker and every later run starts from the same base.
    Where the cache cannot be written it is trained again each time, to the same weights. Raises TrainingDiverged.
    """
    import torch
    from safetensors.torch import save_file

    from automc.recovery.training import RecoveryContext, train

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
    key = digest(
        {
            "label": label,
            "shapes": [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()],
            "train": workload.split("train").digest,
            "steps": steps,
            "seed": seed,
            "recipe": recipe.model_dump(mode="json"),
            "torch": torch.__version__,
        }
    )
    path = cache_folder() / "bases" / f"{key}.safetensors"
    if path.is_file():
        load_weights(model, read_weights(path), str(path))
        return model.eval()
    log.info("training the base of %s for %d steps", workload.name, steps)
    with one_thread():  # another number of threads would make other weights
        model = train(model, RecoveryContext(workload, recipe, seed), steps)
    try:
        with replacing(path) as part:
            save_file(model.state_dict(), part)
    except OSError as error:  # full or read-only: the cache only saves time
        log.warning("%s cannot be written (%s): the base is trained again next time", path, error)
    return model
