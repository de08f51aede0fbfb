"""A run is resumed from whatever folder the user happens to be in."""

from __future__ import annotations

from pathlib import Path

import pytest
from noop_runs import config_in

from automc.errors import RunInterrupted
from automc.search.loop import resume, search
from automc.search.progress import Progress


def test_a_space_named_relative_to_where_the_search_began_is_found_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.evaluated == 3:
            raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    config = config_in(tmp_path).model_copy(update={"space": "law.yaml"})
    with pytest.raises(RunInterrupted):
        search(config, run_dir="run", watch=interrupt)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resume("../run").finished
