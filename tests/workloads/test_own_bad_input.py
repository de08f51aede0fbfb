"""What may be wrong with the user's own model, data and metric, and that the message names their own file and line."""

from __future__ import annotations

import pytest
from users_package import Packages

# --- the factory ------------------------------------------------------------------------------------------------------

FACTORIES = {
    "raises": (
        "def build():\n    return 1 / 0  # here\n",
        "{place}: ZeroDivisionError: division by zero",
        "return 1 / 0  # here",
    ),
    "leaves": ("def build():\n    raise SystemExit(3)\n", "{place}: SystemExit: 3", "raise SystemExit(3)"),
    "raises deeper": (
        "class Odd(Net):\n    def __init__(self):\n        self.size = undefined\n\n\ndef build():\n    return Odd()\n",
        "{place}: NameError: name 'undefined' is not defined",
        "self.size = undefined",
    ),
    "returns a class": (
        "def build():  # now\n    return Net\n",
        "({place}) returned type, not a torch nn.Module",
        "def build():  # now",
    ),
    "returns a state dict": (
        "def build():  # now\n    return Net().state_dict()\n",
        "({place}) returned OrderedDict, not a torch nn.Module",
        "def build():  # now",
    ),
    "returns nothing": ("def build():  # now\n    Net()\n", "({place}) returned NoneType, not", "def build():  # now"),
    "needs arguments": (
        "def build(depth, width=6):\n    return Net(width)\n",
        "model_args do not fit {name}.net:build ({place}): missing a required argument: 'depth'",
        "def build(depth, width=6):",
    ),
    "has a hook": (
        "def keep(module, given, found):\n    return 2 * found\n\n\n"
        "def build():\n    net = Net()\n    net.hidden.register_forward_hook(keep)\n    return net\n",
        "the network has a hook on hidden ({place}): what it does would be lost",
        "def keep(module, given, found):",
    ),
    "has weight norm of old": (
        "import warnings\n\n\ndef build():  # now\n    net = Net()\n    warnings.simplefilter('ignore')\n"
        "    torch.nn.utils.weight_norm(net.out)\n    return net\n",
        "({place}): the network has a hook on out (WeightNorm)",
        "def build():  # now",
    ),
    "has a backward hook": (
        "def build():\n    net = Net()\n    net.register_full_backward_hook(lambda *given: None)\n    return net\n",
        "the network has a hook on itself ({place})",
        "net.register_full_backward_hook(lambda *given: None)",
    ),
    "is lazy": (
        "def build():  # now\n    return nn.Sequential(nn.LazyLinear(3))\n",
        "({place}): 0.weight has no shape yet",
        "def build():  # now",
    ),
    "is on the meta device": (
        "def build():  # now\n    return Net().to('meta')\n",
        "({place}): hidden.weight is on the meta device, which holds shapes and no values",
        "def build():  # now",
    ),
    "cannot be copied": (
        "import threading\n\n\ndef build():  # now\n    net = Net()\n    net.lock = threading.Lock()\n    return net\n",
        "({place}) returned a Net that cannot be copied: cannot pickle '_thread.lock' object",
        "def build():  # now",
    ),
    "is never the same": (
        "import os\n\n\ndef build():\n    torch.manual_seed(int.from_bytes(os.urandom(4), 'big'))\n    return Net()\n",
        "{name}.net:build gives other weights each time it is called",
        "",
    ),
}


@pytest.mark.parametrize("fault", FACTORIES)
def test_a_factory_that_is_wrong_is_named_with_its_line(package: Packages, fault: str) -> None:
    code, said, line = FACTORIES[fault]
    made = package(code)
    place = made.place("net", line) if line else ""
    told = made.refusal()
    assert "workload.options.model: " in told
    assert said.format(place=place, name=made.name) in told.replace(f"{made.folder}/", "")
    assert "\n  next: " in told


def test_a_module_that_is_not_there_or_breaks_is_named_with_its_line(package: Packages) -> None:
    made = package("import no_such_thing_here\n")
    place = made.place("net", "import no_such_thing_here")
    told = made.refusal()
    assert f"net cannot be imported at {place}: ModuleNotFoundError: No module named 'no_such_thing_here'" in told
    made = package(data="def splits(:\n")
    assert f"cannot be imported at {made.place('data', 'def splits(:')}: SyntaxError" in made.refusal()
    assert "No module named 'no_such_package'" in made.refusal(data="no_such_package.x:y")
    fine = package()
    assert "has no function or class 'buidl'; did you mean build?" in fine.refusal(model=f"{fine.name}.net:buidl")
    misspelt = fine.refusal(model=f"{fine.name}.nett:build")
    assert f"No module named '{fine.name}.nett'; did you mean {fine.name}.net?" in misspelt
    assert "is no function or class, but dict" in package("build = {}\n").refusal()


# --- what the network makes of the samples ----------------------------------------------------------------------------

NETWORKS = {
    "takes other samples": (
        "def build():\n    net = Net()\n    net.hidden = nn.Linear(7, 6)\n    return net\n",
        "float32 (2, 5) in hidden ({place}): RuntimeError: mat1 and mat2",
        "return self.out(self.drop(torch.relu(self.hidden(x))))",
    ),
    "raises in forward": (
        "class Odd(Net):\n    def forward(self, x):\n        return self.nothing(x)\n\n\n"
        "def build():\n    return Odd()\n",
        "in the network itself ({place}): AttributeError: 'Odd' object has no attribute 'nothing'",
        "return self.nothing(x)",
    ),
    "gives class numbers": (
        "class Odd(Net):\n    def forward(self, x):  # now\n        return super().forward(x).argmax(1)\n\n\n"
        "def build():\n    return Odd()\n",
        "(forward: {place}) must give one tensor of floats",
        "def forward(self, x):  # now",
    ),
    "gives too many axes": (
        "class Odd(Net):\n    def forward(self, x):  # now\n        return super().forward(x)[:, None]\n\n\n"
        "def build():\n    return Odd()\n",
        "(forward: {place}) gives shape (2, 1, 3) for 2 samples; classification needs (2, values)",
        "def forward(self, x):  # now",
    ),
}


@pytest.mark.parametrize("fault", NETWORKS)
def test_a_network_that_does_not_fit_the_samples_is_named_with_its_line(package: Packages, fault: str) -> None:
    code, said, line = NETWORKS[fault]
    made = package(code)
    assert said.format(place=made.place("net", line), name=made.name) in made.refusal()


# --- data -------------------------------------------------------------------------------------------------------------

SPLIT = """
def splits():
    return {{"train": {train}, "validation": Rows(1), "test": Rows(2)}}
"""
LOADER = "torch.utils.data.DataLoader(Odd(0, 80), batch_size=8)"
ODD = """
class Odd(Rows):
    def __getitem__(self, index):
        {body}
        return super().__getitem__(index)
"""
DATA = {
    "raises at batch 7": (
        ODD.format(body="if index == 60: raise KeyError('row 60')  # here"),
        LOADER,
        "{name}.data:splits, train, batch 7 failed at {place}: KeyError: 'row 60'",
        "if index == 60: raise KeyError('row 60')  # here",
    ),
    "raises at batch 7 in a loader's own process": (
        ODD.format(body="if index == 60: raise KeyError('row 60')  # here"),
        "torch.utils.data.DataLoader(Odd(0, 80), batch_size=8, num_workers=1)",
        "{name}.data:splits, train, batch 7 failed at {place}: KeyError: 'row 60'",
        "if index == 60: raise KeyError('row 60')  # here",
    ),
    "raises at sample 60": (
        ODD.format(body="if index == 60: raise OSError('gone')  # here"),
        "Odd(0, 80)",
        "train, sample 60 failed at {place}: OSError: gone",
        "if index == 60: raise OSError('gone')  # here",
    ),
    "repeats for ever": (
        "def endless():  # here\n    while True:\n        yield Rows(0).x, Rows(0).y\n",
        "endless()",
        "train ({place}): repeats itself: no new sample among the last 10008, after 24 different ones",
        "def endless():  # here",
    ),
    "goes on after its length": (
        "class Long:\n    def __len__(self):\n        return 3\n\n    def __iter__(self):  # here\n"
        "        while True:\n            yield Rows(0).x, Rows(0).y\n",
        "Long()",
        "train ({place}): gives more than the 3 batches that its len() says",
        "def __iter__(self):  # here",
    ),
    "is empty": ("", "Rows(0, 0)", "train ({place}): the split is empty", "def __getitem__(self, index):"),
    "is an empty loader": ("", "iter([])", "train ({place}): the split is empty", "def splits():"),
    "gives NaN": (
        "def broken():  # here\n    rows = Rows(0, 80)\n    rows.x[61, 2] = np.nan\n"
        "    return torch.utils.data.DataLoader(rows, batch_size=8)\n",
        "broken",
        "train, batch 7 ({place}): inputs hold NaN or infinity, first in sample 61 of the split",
        "def __getitem__(self, index):",
    ),
    "gives infinite targets": (
        "def broken():  # here\n    rows = Rows(0, 80)\n    return rows.x, np.where(rows.y == 2, np.inf, rows.y)\n",
        "broken",
        "train ({place}): targets hold NaN or infinity, first in sample 2 of the split",
        "def broken():  # here",
    ),
    "gives one sample of another shape": (
        "class Odd(Rows):\n    def __getitem__(self, index):  # here\n        x, y = super().__getitem__(index)\n"
        "        return (x[:4] if index == 60 else x), y\n",
        "Odd(0, 80)",
        "train, sample 60 ({place}): a sample of shape (4,), those before it have (5,)",
        "def __getitem__(self, index):  # here",
    ),
    "gives texts": (
        "class Odd(Rows):\n    def __getitem__(self, index):  # here\n        return 'a text', 1\n",
        "Odd(0, 80)",
        "train, sample 0 ({place}): its input is str (<U6), not numbers",
        "def __getitem__(self, index):  # here",
    ),
    "gives ragged lists": (
        "class Odd(Rows):\n    def __getitem__(self, index):  # here\n        return [[1, 2], [3]], 1\n",
        "Odd(0, 80)",
        "train, sample 0 ({place}): its input is a list of unequal parts",
        "def __getitem__(self, index):  # here",
    ),
    "gives three things": (
        "class Odd(Rows):\n    def __getitem__(self, index):  # here\n        return self.x[0], self.x[1], 1\n",
        "Odd(0, 80)",
        "train, sample 0 ({place}): is 3 values, not a pair (inputs, target)",
        "def __getitem__(self, index):  # here",
    ),
    "gives dictionaries": (
        "class Odd(Rows):\n    def __getitem__(self, index):  # here\n        return {'x': self.x[0], 'y': 1}\n",
        "Odd(0, 80)",
        "train, sample 0 ({place}): is dict, not a pair (inputs, target)",
        "def __getitem__(self, index):  # here",
    ),
    "has fewer targets than inputs": (
        "", "(Rows(0, 9).x, Rows(0, 8).y)", "train ({place}): 9 inputs but 8 targets", "def splits():",
    ),
    "is no data at all": ("", "5", "train ({place}): is int, which holds no samples", "def splits():"),
    "has labels out of range": (
        "def shifted():  # here\n    return Rows(0, 9).x, Rows(0, 9).y + 1\n",
        "shifted",
        "{name}.data:splits ({place}), train: label 3 of sample 2 is out of range, the model has 3 classes (0 to 2)",
        "def splits():",
    ),
    "has one class": (
        "", "(Rows(0, 9).x, 0 * Rows(0, 9).y)", "({place}), train: all 9 samples have label 0", "def splits():",
    ),
    "holds samples of validation": (
        "def leaking():\n    return np.concatenate([Rows(0, 9).x, Rows(1).x[3:4]]), np.arange(10) % 3\n",
        "leaking",
        "({place}): sample 3 of validation is also sample 9 of train; a score on samples that were trained on proves",
        "def splits():",
    ),
    "has other samples than validation": (
        "", "(Rows(0, 9).x.astype(int), Rows(0, 9).y)",
        "({place}): validation has inputs of float32 (5,), train of int64 (5,)", "def splits():",
    ),
    "is drawn anew each time": (
        "def drawn(part):\n    order = np.random.default_rng(0 if part == 'train' else None).permutation(80)[:30]\n"
        "    return Rows(9, 80).x[order], Rows(9, 80).y[order]\n",
        "(Rows(0, 9).x, Rows(0, 9).y), 'validation': lambda: drawn('validation'), 'test': Rows(2)} or {'train': 0",
        "{name}.data:splits ({place}) gives other samples each time it is called (validation differs)",
        "def splits():",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", DATA)
def test_data_that_are_wrong_are_named_with_split_place_and_line(package: Packages, fault: str) -> None:
    code, train, said, line = DATA[fault]
    net = "class Net(Net):\n    def forward(self, x):\n        return super().forward(x.float())\n"
    made = package(net, code + SPLIT.format(train=train))
    lines = (made.folder / made.name / "data.py").read_text().splitlines()
    number = max(index for index, text in enumerate(lines, 1) if text.strip() == line)
    if line in ("def __getitem__(self, index):",):
        number = min(index for index, text in enumerate(lines, 1) if text.strip() == line)
    told = made.refusal()
    assert said.format(place=f"{made.name}/data.py:{number}", name=made.name) in told
    assert "workload.options.data: " in told
    assert "\n  next: " in told


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("raise RuntimeError('no disk')", "failed at {file}:{line}: RuntimeError: no disk"),
        ("return None", "returned no split train and no validation and no test (it returned NoneType"),
        ("return {'train': Rows(0), 'validation': Rows(1)}", "returned no split test (it returned train, validation)"),
        ("return {'train': Rows(0), 'valid': Rows(1)}", "returned a split 'valid'; did you mean validation?"),
        ("return {'train': Rows(0), 'held': Rows(1), 'test': Rows(2)}", "returned held, which is halved"),
        ("return {'held': Rows(1)}", "returned no split train"),
    ],
)
def test_what_splits_returns_must_be_splits(package: Packages, answer: str, said: str) -> None:
    made = package(data=f"def splits():\n    {answer}\n")
    file, _, line = made.place("data", answer).partition(":")
    told = made.refusal()
    assert said.format(file=file, line=line) in told
    assert f"{made.name}.data:splits" in told


def test_arguments_that_splits_does_not_take_are_named(package: Packages) -> None:
    told = package().refusal(data_args={"folder": "x"})
    assert "data_args do not fit" in told
    assert "got an unexpected keyword argument 'folder'" in told


# --- the task ---------------------------------------------------------------------------------------------------------

TASK = """
def loss(outputs, targets):
    {loss}


def metric(outputs, targets):
    {metric}


def task():
    return {{"loss": loss, "metric": metric, "direction": {direction}}}
"""
FINE = {
    "loss": "return torch.nn.functional.cross_entropy(outputs, targets)",
    "metric": "return (outputs.argmax(1) == targets)",
    "direction": "'max'",
}
TASKS = {
    "metric is None": ({"metric": "outputs.argmax(1)"}, "metric ({metric}) returned NoneType"),
    "metric is one value": (
        {"metric": "return (outputs.argmax(1) == targets).mean()"},
        "metric ({metric}) returned a single value for 2 samples",
    ),
    "metric is a tensor of one value": (
        {"metric": "return torch.tensor(0.5)"},
        "metric ({metric}) returned a single value for 2 samples",
    ),
    "metric is NaN": (
        {"metric": "return np.full(len(targets), np.nan)"},
        "metric ({metric}) returned nan for 2 of 2 samples",
    ),
    "metric has another shape": ({"metric": "return outputs"}, "metric ({metric}) returned shape (2, 3) for 2 samples"),
    "metric is a text": ({"metric": "return 'good'"}, "metric ({metric}) returned str"),
    "metric raises": ({"metric": "return outputs.nothing"}, "metric failed at {raised}: AttributeError"),
    "loss is a number": ({"loss": "return 0.5"}, "loss ({loss}) returned float, not a tensor of one value"),
    "loss is per sample": (
        {"loss": "return outputs.sum(1)"},
        "loss ({loss}) returned a tensor of shape (2,), not a tensor of one value",
    ),
    "loss is detached": ({"loss": "return outputs.detach().mean()"}, "loss ({loss}) has no gradient"),
    "loss raises": ({"loss": "return outputs.nothing"}, "loss failed at {raised}: AttributeError"),
    "direction": ({"direction": "'up'"}, "direction = 'up', but max and min are allowed"),
    "no direction": ({"direction": "None"}, "gives no direction (dict)"),
}


@pytest.mark.parametrize("fault", TASKS)
def test_a_task_that_is_wrong_is_named_with_its_line(package: Packages, fault: str) -> None:
    change, said = TASKS[fault]
    made = package(data=TASK.format(**{**FINE, **change}))
    raised = made.place("data", "return outputs.nothing") if "outputs.nothing" in str(change) else ""
    places = {name: made.place("data", f"def {name}(outputs, targets):") for name in ("loss", "metric")}
    told = made.refusal(task=f"{made.name}.data:task")
    assert "workload.options.task: " in told
    assert said.format(raised=raised, **places) in told


def test_a_task_of_the_users_is_what_it_says(package: Packages) -> None:
    made = package(data=TASK.format(**FINE))
    task = made.workload(task=f"{made.name}.data:task").task
    assert (task.metric, task.direction) == ("metric", "max")
    made = package(
        data="""
        from automc.workloads.tasks import Classification

        class Task(Classification):
            metric = "accuracy"

        def accuracy(outputs, targets):
            return torch.from_numpy(outputs.argmax(1) == targets)  # a tensor of one score per sample is taken

        def task():
            return {"loss": torch.nn.functional.cross_entropy, "metric": accuracy, "direction": "max"}
        """
    )
    workload = made.workload(task=f"{made.name}.data:task")
    workload.split("train")
    assert workload.task.metric == "own_accuracy"  # what a bundle calls accuracy, its verify.py computes itself
    assert made.workload(task=f"{made.name}.data:Task").task.direction == "max"
    assert "'segmentation' is none of classification, regression" in made.refusal(task="segmentation")
