"""The user's own network, data and task: what is taken, and how, and what of it is left exactly as it was."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from users_package import Package, Packages

from automc.errors import ConfigError
from automc.workloads._users_data import HeldExamples
from automc.workloads.examples import ArrayExamples
from automc.workloads.workload import SPLITS, weights_digest


def test_a_network_and_data_that_are_fine_are_taken_as_they_are(package: Packages) -> None:
    workload = package().workload()
    sizes = {name: len(workload.split(name)) for name in SPLITS}
    assert sizes == {"train": 48, "calibration": 48, "validation": 24, "test": 24}
    model = workload.model()
    assert not model.training
    (inputs,) = workload.example_inputs()
    assert (inputs.shape, inputs.dtype) == ((1, 5), torch.float32)  # the user's are float64
    assert model(inputs).shape == (1, 3)
    batch = next(iter(workload.split("validation").batches(4)))
    assert batch.targets.tolist() == [0, 1, 2, 0]
    assert set(workload.digests()) == {*SPLITS, "base"}


def test_nothing_is_read_before_it_is_asked_for(package: Packages) -> None:
    made = package(
        data="""
        def splits():
            def unread():
                raise AssertionError("read too early")
            return {"train": lambda: Rows(0), "validation": lambda: Rows(1), "test": unread}
        """
    )
    workload = made.workload()
    assert len(workload.split("validation")) == 24
    place = made.place("data", 'raise AssertionError("read too early")')
    with pytest.raises(ConfigError, match=rf"splits, test failed at .*{place}: AssertionError: read too early"):
        workload.split("test")


KINDS = {
    "a dataset": "Rows(0, 48)",
    "a list of samples": "[Rows(0, 48)[i] for i in range(48)]",
    "arrays": "(Rows(0, 48).x, Rows(0, 48).y)",
    "tensors": "(torch.tensor(Rows(0, 48).x), torch.tensor(Rows(0, 48).y))",
    "a loader": "torch.utils.data.DataLoader(Rows(0, 48), batch_size=7)",
    "a list of one input": "torch.utils.data.DataLoader([([float(v) for v in x], y) for x, y in zip(Rows(0, 48).x,"
    " Rows(0, 48).y)], 5, collate_fn=lambda rows: (np.array([x for x, _ in rows]), np.array([y for _, y in rows])))",
    "a generator": "((Rows(0, 48).x[i : i + 5], Rows(0, 48).y[i : i + 5]) for i in range(0, 48, 5))",
    "a function": "lambda: Rows(0, 48)",
    "one of its samples": "Samples()",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_give_samples_gives_the_same_ones(package: Packages, kind: str) -> None:
    made = package(
        data=f"""
        class Samples(torch.utils.data.IterableDataset):
            def __iter__(self):
                return (Rows(0, 48)[i] for i in range(48))


        def splits():
            return {{"train": {KINDS[kind]}, "validation": Rows(1), "test": Rows(2)}}
        """
    )
    assert made.workload().split("train").digest == package().workload().split("train").digest


def test_a_shuffling_loader_gives_every_process_the_same_order(package: Packages) -> None:
    made = package(
        data="""
        def splits():
            loader = torch.utils.data.DataLoader(Rows(0, 48), batch_size=6, shuffle=True)
            return {"train": loader, "validation": Rows(1), "test": Rows(2)}
        """
    )
    found = made.workload().split("train")
    torch.manual_seed(123)  # another process has drawn other random numbers before
    assert made.workload().split("train").digest == found.digest
    assert next(iter(found.batches(48))).targets.tolist() != [row % 3 for row in range(48)]  # shuffled it was


def test_held_out_samples_are_halved_and_calibration_may_be_given(package: Packages) -> None:
    made = package(
        data="""
        def splits():
            return {"train": Rows(0, 48), "held": Rows(1, 60), "calibration": Rows(5, 9)}
        """
    )
    sizes = {name: len(made.workload().split(name)) for name in SPLITS}
    assert sizes["validation"] + sizes["test"] == 60
    assert min(sizes["validation"], sizes["test"]) > 15
    assert (sizes["train"], sizes["calibration"]) == (48, 9)
    other = package(
        data="""
        class Splits:
            train, validation, test = Rows(0, 48), Rows(1), Rows(2)


        def splits():
            return Splits()
        """
    )
    assert len(other.workload(calibration_samples=5).split("calibration")) == 5


TWO_INPUTS = """
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 4)
        self.out = nn.Linear(4 + 2, 3)

    def forward(self, tokens, numbers):
        return self.out(torch.cat([self.words(tokens).mean(1), numbers], 1))


def build():
    return Two()
"""
TWO_COLUMNS = """
class Pairs(Rows):
    def __getitem__(self, index):
        generator = np.random.default_rng([int(1000 * abs(self.x[index, 0])), index])
        return (generator.integers(0, 11, 6), self.x[index, :2]), self.y[index]


def splits():
    return {"train": torch.utils.data.DataLoader(Pairs(0, 48), 10), "validation": Pairs(1), "test": lambda: Pairs(2)}
"""


def test_several_inputs_and_token_numbers_stay_what_they_are(package: Packages) -> None:
    workload = package(TWO_INPUTS, TWO_COLUMNS).workload()
    tokens, numbers = workload.example_inputs()
    assert (tokens.dtype, tuple(tokens.shape)) == (torch.int64, (1, 6))
    assert (numbers.dtype, tuple(numbers.shape)) == (torch.float32, (1, 2))
    assert isinstance(workload.split("train"), HeldExamples)
    assert workload.preprocessing == {"steps": []}
    shuffled = next(iter(workload.split("train").batches(48, seed=3)))
    ordered = next(iter(workload.split("train").batches(48)))
    assert torch.equal(shuffled.inputs[0], ordered.inputs[0][shuffled.indices])
    assert torch.equal(shuffled.targets, ordered.targets[shuffled.indices])
    assert len(set(shuffled.indices.tolist())) == 48


def test_declared_scaling_is_applied_by_us_and_goes_into_the_bundle(package: Packages) -> None:
    scaled = package().workload(divide=2.0, mean=[0.0] * 5, std=[0.5] * 5)
    plain = package().workload()
    assert isinstance(scaled.split("train"), ArrayExamples)
    first, second = (next(iter(item.split("train").batches(48))).inputs[0] for item in (scaled, plain))
    torch.testing.assert_close(first, second)  # x / 2 / 0.5
    assert [step["op"] for step in scaled.preprocessing["steps"]] == ["divide", "normalise"]  # type: ignore[index, union-attr]
    with pytest.raises(ConfigError, match=r"mean has 2 values, samples of .* have shape"):
        package().workload(mean=[0.0] * 2, std=[1.0] * 2).split("train")
    with pytest.raises(ConfigError, match=r"are for one input, .* gives 2"):
        package(TWO_INPUTS, TWO_COLUMNS).workload(divide=255.0).split("train")


def test_a_regression_of_the_users(package: Packages) -> None:
    made = package(
        data="""
        def splits():
            def pair(rows):
                return rows.x, rows.x[:, :3] * 0.5
            return {"train": pair(Rows(0, 48)), "validation": pair(Rows(1)), "test": pair(Rows(2))}
        """
    )
    workload = made.workload(task="regression")
    assert workload.split("test").batches(3).__next__().targets.shape == (3, 3)  # type: ignore[attr-defined]
    assert "3 values per target, the model gives 2" in package(
        "def build():\n    return nn.Linear(5, 2)\n",
        (made.folder / made.name / "data.py").read_text(),
    ).refusal(task="regression")


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_come_from_a_file(
    package: Packages,
    tmp_path: Path,
    suffix: str,
    dtype: torch.dtype,
) -> None:
    made = package()
    state = {key: tensor.to(dtype) for key, tensor in made.workload(seed=5).model().state_dict().items()}
    path = tmp_path / f"w.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    elif suffix == "pt":
        torch.save(state, path)
    elif dtype is torch.bfloat16:
        pytest.skip("numpy has no bfloat16")
    else:
        np.savez(path, **{key: tensor.numpy() for key, tensor in state.items()})
    found = made.workload(weights=str(path)).model().state_dict()
    assert all(torch.equal(found[key], state[key].float()) for key in state)


def test_an_untrained_network_is_trained_on_the_spot(package: Packages) -> None:
    made = package()
    workload = made.workload(train_steps=80)
    batch = next(iter(workload.split("validation").batches(24)))
    score = workload.task.score(workload.model()(*batch.inputs).detach().numpy(), batch.targets.numpy())
    assert score.mean() > 0.9  # a third untrained


# --- the user's model and process are left as they were ---------------------------------------------------------------

KEPT = """
MODEL = Net()
MODEL.train()


def build():
    return MODEL
"""


def test_the_users_own_model_object_is_never_changed(package: Packages, tmp_path: Path) -> None:
    made = package(KEPT)
    other = made.workload(model=f"{made.name}.net:Net", seed=9).model()
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    import importlib

    theirs = importlib.import_module(f"{made.name}.net").MODEL
    before = weights_digest(theirs)
    for options in ({}, {"weights": str(tmp_path / "w.safetensors")}, {"train_steps": 3}):
        workload = made.workload(**options)
        model = workload.model()
        workload.digests()
        model.requires_grad_(False)
        assert model is not theirs
    assert theirs.training
    assert weights_digest(theirs) == before
    assert all(parameter.requires_grad and parameter.grad is None for parameter in theirs.parameters())
    named = made.workload(model=f"{made.name}.net:MODEL").model()  # the object itself, not a factory
    assert weights_digest(named) == before
    assert not named.training


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch.compile
@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("net = net.half()", "is in torch.float16: it is converted to float32"),
        ("net = net.double()", "is in torch.float64: it is converted to float32"),
        pytest.param(
            "net = net.cuda()",
            "is on cuda:0: it is copied to the CPU",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
        ),
        ("net = net.train()", ""),
        ("net = net.requires_grad_(False)", ""),
        ("net = torch.nn.DataParallel(net)", ""),
        ("net = torch.compile(net)", ""),
    ],
)
def test_a_network_in_another_state_is_brought_into_ours(
    package: Packages,
    capsys: pytest.CaptureFixture[str],
    change: str,
    found: str,
) -> None:
    made = package(f"def build():\n    net = Net()\n    {change}\n    return net\n")
    model = made.workload().model()
    assert type(model).__name__ == "Net"
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert found in capsys.readouterr().err


def test_parametrized_weights_become_plain_ones_that_compute_the_same(package: Packages) -> None:
    made = package(
        """
        def build():
            net = Net()
            torch.nn.utils.parametrizations.weight_norm(net.hidden)
            return net
        """
    )
    model = made.workload(seed=2).model()
    assert sorted(model.state_dict()) == ["hidden.bias", "hidden.weight", "out.bias", "out.weight"]
    x = torch.linspace(-1, 1, 5)[None]
    torch.testing.assert_close(model(x), package().workload(seed=2).model()(x))


def test_what_user_code_prints_stays_off_stdout(package: Packages, capsys: pytest.CaptureFixture[str]) -> None:
    made = package(
        "print('importing')\ndef build():\n    print('building', 6, end='')\n    return Net()\n",
        "def splits():\n    print('reading')\n    return {'train': Rows(0), 'validation': Rows(1), 'test': Rows(2)}\n",
    )
    made.workload().digests()
    made.workload().model()
    streams = capsys.readouterr()
    assert streams.out == ""
    for line in ("importing", "building 6", "reading"):
        assert streams.err.splitlines().count(line) == 1  # however often it is called


def test_the_process_stays_as_it_was_whatever_user_code_changes(
    package: Packages,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = package(
        """
        import os
        import random

        import numpy as np

        def build():
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)
            torch.set_num_threads(torch.get_num_threads() + 1)
            os.chdir("/")
            torch.manual_seed(0), np.random.seed(0), random.seed(0)
            return Net()
        """
    )
    here = (torch.get_num_threads(), Path.cwd())
    torch.manual_seed(7), np.random.seed(7), random.seed(7)
    drawn = (torch.rand(1).item(), np.random.rand(), random.random())
    torch.manual_seed(7), np.random.seed(7), random.seed(7)
    model = made.workload().model()
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == drawn
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()
    assert (torch.get_num_threads(), Path.cwd()) == here
    assert model.hidden.weight.dtype is torch.float32
    told = capsys.readouterr().err
    assert "changed torch's default dtype to torch.float64; it is put back to torch.float32" in told
    assert "changed the working folder to /" in told


def test_random_weights_of_a_factory_are_the_same_in_every_process(package: Packages) -> None:
    made: Package = package()
    first = weights_digest(made.workload().model())
    torch.manual_seed(99)
    assert weights_digest(made.workload().model()) == first
    assert weights_digest(made.workload(seed=1).model()) != first
