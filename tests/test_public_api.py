"""The names a user imports: all there, all lazy, and none that changes its meaning on the way."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from noop_runs import config_in

import automc


@pytest.mark.parametrize("name", automc.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert (inspect.getdoc(getattr(automc, name)) or "").strip()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        _ = automc.serach


def test_importing_automc_imports_nothing_heavy() -> None:
    code = "import sys, automc; print(sorted({'torch', 'ray', 'numpy', 'pydantic', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_search_stays_callable_after_its_own_package_was_imported(tmp_path: Path) -> None:
    import automc.search.loop

    for name in ("first", "second"):
        run = automc.search(config_in(tmp_path), run_dir=tmp_path / name)
        assert run.front()
        assert automc.open_run(tmp_path / name).choose().candidate.id == run.choose().candidate.id
