"""The search: asking, screening, evaluating, promoting, choosing. `automc.search(...)` runs one.

The public function and this package bear one name, and Python binds a package's name on importing any module of it;
so the package itself is callable and the name means the same whichever came first.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from automc.config import SearchConfig
    from automc.run import Run
    from automc.search.progress import Watcher


class _CallablePackage(ModuleType):
    def __call__(
        self,
        config: SearchConfig | Path | str | None = None,
        *,
        data_root: Path | str | None = None,
        run_dir: Path | str | None = None,
        watch: Watcher | None = None,
    ) -> Run:
        """Run a search, or raise; what is finished is kept and `automc.resume(folder)` goes on from it.

        config: a config, the YAML file of one, or None for the embedded demo. data_root: folder of the data, default
        $AUTOMC_DATA. run_dir: where the run is written, default runs/<name>. watch: called with every `Progress`.
        Raises ConfigError, InfeasibleSearchError, RunInterrupted and others of `automc.errors`.
        """
        from automc.search.loop import search
        from automc.search.progress import nobody

        return search(config, data_root=data_root, run_dir=run_dir, watch=watch or nobody)


sys.modules[__name__].__class__ = _CallablePackage
