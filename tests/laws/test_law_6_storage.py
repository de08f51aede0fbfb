"""Nothing stored is a pickle, and no hidden code."""

from __future__ import annotations

import ast
import json
import zipfile
from pathlib import Path

import automc
from automc.run import Run

ROOT = Path(automc.__file__).parent
PICKLERS = {"cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
"""Modules nobody needs; of `pickle` itself its error may be named, where a user's state dict is read."""
UNSAFE_CALLS = {"torch.save", "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "compile"}


def breaches(source: str) -> list[str]:
    """Pickling and hidden code in a module's source, each named."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLERS]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if node.module and node.module.split(".")[0] in {*PICKLERS, "pickle"} else []
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            found += [ast.unparse(node)] if node.attr != "UnpicklingError" else []
        elif isinstance(node, ast.Call):
            called, given = (
                ast.unparse(node.func),
                {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords},
            )
            found += [called] if called in UNSAFE_CALLS else []
            found += [called] if called == "torch.load" and given.get("weights_only") != "True" else []
            found += [f"{called}(allow_pickle)"] if given.get("allow_pickle", "False") != "False" else []
    return found


def test_no_module_pickles_or_runs_text_as_code() -> None:
    found = {path.relative_to(ROOT).as_posix(): breaches(path.read_text()) for path in ROOT.rglob("*.py")}
    assert {name: what for name, what in found.items() if what} == {}


def test_the_scan_itself_sees_what_it_looks_for() -> None:
    assert breaches("import pickle\npickle.dumps(x)") == ["pickle.dumps"]
    assert breaches("import joblib") == ["joblib"]
    assert breaches("from pickle import loads") == ["pickle"]
    assert breaches("import torch\ntorch.save(model, path)") == ["torch.save"]
    assert breaches("torch.load(path)") == ["torch.load"]
    assert breaches("torch.load(path, weights_only=True)") == []
    assert breaches("numpy.load(path, allow_pickle=True)") == ["numpy.load(allow_pickle)"]
    assert breaches("numpy.load(path, allow_pickle=False)") == []
    assert breaches("model.eval()\nexec(text)") == ["exec"]


def is_safe(path: Path) -> bool:
    """Whether a stored file is text, ONNX, safetensors or npy / npz of plain arrays."""
    content = path.read_bytes()
    if content[:1] == b"\x80" or b"cposix" in content[:64]:  # the pickle protocol's first opcode
        return False
    if zipfile.is_zipfile(path):
        return all(name.endswith(".npy") for name in zipfile.ZipFile(path).namelist())  # torch.save writes data.pkl
    return True


def test_the_weights_and_arrays_of_a_trial_are_stored_as_plain_data(tmp_path: Path) -> None:
    import numpy as np
    from torch import nn

    from automc.evaluate import _array_bytes, _plans_bytes, _weights_bytes
    from automc.techniques.plan import Plan

    stored = {
        "weights": _weights_bytes(nn.Linear(2, 3)),
        "scores": _array_bytes(np.zeros(3)),
        "plans": _plans_bytes((Plan(technique="low_rank"),), ()),
    }
    for name, content in stored.items():
        (tmp_path / name).write_bytes(content)
        assert is_safe(tmp_path / name), name
    header = int.from_bytes(stored["weights"][:8], "little")
    assert set(json.loads(stored["weights"][8 : 8 + header])) >= {"weight", "bias"}  # safetensors: JSON, then bytes


def test_a_run_folder_holds_no_pickle(tmp_path: Path) -> None:
    from noop_runs import config_in

    from automc.search.loop import search

    run: Run = search(config_in(tmp_path), run_dir=tmp_path / "run")
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert [path.name for path in files if not is_safe(path)] == []
