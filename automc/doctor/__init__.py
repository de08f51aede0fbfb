"""What a search will meet, said before it starts: `automc.doctor(...)` examines a model, its data, device and space.

The public function and this package bear one name, so the package itself is callable (as `automc.search` is).
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from automc.config import SearchConfig
    from automc.doctor.budget import Budget
    from automc.doctor.diagnosis import Diagnosis
    from automc.search.progress import Watcher


class _CallablePackage(ModuleType):
    def __call__(
        self,
        config: SearchConfig | Path | str | None = None,
        *,
        data_root: Path | str | None = None,
        calibrate: bool = False,
        budget: Budget | None = None,
        watch: Watcher | None = None,
    ) -> Diagnosis:
        """As `automc.doctor.examine.examine`."""
        from automc.doctor.examine import examine
        from automc.search.progress import nobody

        return examine(config, data_root=data_root, calibrate=calibrate, budget=budget, watch=watch or nobody)


sys.modules[__name__].__class__ = _CallablePackage
