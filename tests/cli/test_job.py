"""The options that stand for a config: what they come to, alone and over a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from automc.cli.job import Job, config_of
from automc.config import SearchConfig, load_config
from automc.errors import ConfigError
from automc.workloads import workload_names
from automc.yaml_files import TO_FILL_IN


def test_options_alone_are_a_config_with_the_usual_limit(tmp_path: Path) -> None:
    job = Job(model="mypkg.net:build", data="mypkg.data:splits", max_latency_ms=0.3, seed=4)
    config = config_of(job)
    assert (config.name, config.space) == ("mypkg", "cnn")
    assert config.workload.name == "own"
    assert config.workload.options == {"model": "mypkg.net:build", "data": "mypkg.data:splits"}
    assert (config.constraints.max_drop_points, config.constraints.max_latency_ms) == (1.0, 0.3)
    assert config.search.seed == 4
    other = config_of(Job(model="a:b", data="a:c", set=["search.rungs=[{candidates: 2, steps: 0}]", "teacher=base"]))
    assert (len(other.search.rungs), other.search.rungs[0].candidates, other.teacher) == (1, 2, "base")
    assert config_of(Job(model="a:b", data="a:c", max_drop=0.25)).constraints.max_drop_points == 0.25


def test_the_data_say_which_workload_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("t.csv", "t.npz", "w.npz", "net.onnx"):
        (tmp_path / name).write_bytes(b"")
    found = {}
    for data in ("photos", "t.csv", "t.npz", "a.b:c"):
        section = config_of(Job(model="mlp", data=data, weights="w.npz")).workload
        found[data] = section.name
        assert section.options["weights"] == str(tmp_path / "w.npz")  # the run may be resumed from elsewhere
    assert found == {"photos": "images", "t.csv": "table", "t.npz": "arrays", "a.b:c": "own"}
    onnx = config_of(Job(model="net.onnx", data="t.npz"))
    assert (onnx.name, onnx.space, onnx.workload.options["model"]) == ("net", "graph", str(tmp_path / "net.onnx"))


def test_options_lie_over_a_file_and_leave_the_rest_of_it(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(
        "name: mine\nworkload: {name: own, options: {model: 'p.net:a', data: 'p.data:s', weights: w.npz}}\n"
        "constraints: {max_drop_points: 3}\n"
    )
    config = config_of(Job(model="p.net:b", option=["train_steps=7"], max_size_bytes=9e4), file)
    assert config.name == "mine"
    assert config.workload.options == {
        "model": "p.net:b", "data": "p.data:s", "weights": "w.npz", "train_steps": 7,
    }  # fmt: skip
    assert (config.constraints.max_drop_points, config.constraints.max_size_bytes) == (3.0, 9e4)


def test_a_limit_given_beside_a_file_does_not_lift_the_usual_one(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text("name: mine\n")
    assert config_of(Job(max_latency_ms=1.0), file).constraints.max_drop_points == 1.0


def test_other_data_than_the_files_keep_the_network_and_drop_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(
        "workload: {name: arrays, options: {file: a.npz, model: mlp, model_args: {inputs: 3}, divide: 255}}\n"
    )
    section = config_of(Job(data="p.data:s"), file).workload
    assert (section.name, section.options) == (
        "own", {"model": "mlp", "model_args": {"inputs": 3}, "data": "p.data:s"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (Job(), "--model and --data are needed as well"),
        (Job(model="a:b", seed=3), "--data is needed as well"),
        (Job(model="a:b", data="gone.csv"), "--data gone.csv: there is no such file or folder"),
        (Job(model="a:b", data="a:c", option=["size"]), "--option size: is not KEY=VALUE"),
        (Job(model="a:b", data="a:c", option=["size=[1"]), "the value is not YAML"),
        (
            Job(model="a:b", data="a:c", set=["search.finalist=1"]),
            "search.finalist: unknown key; did you mean finalists",
        ),
        (Job(model="a:b", data="a:c", set=["workload.options.size=1"]), "follows from --model and --data"),
        (Job(model="a:b", data="a:c", max_latency_ms=-1.0), "the command line: constraints.max_latency_ms"),
    ],
)
def test_what_makes_no_config_is_refused_in_the_words_of_the_options(job: Job, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(job)
    assert said in caught.value.message


def test_init_prints_the_config_that_the_options_stand_for(automc, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np_file = tmp_path / "mine.npz"
    np_file.write_bytes(b"")
    given = ["--model", "mlp", "--data", "mine.npz", "--max-drop", "0.5", "--seed", "2", "--choose", "smallest"]
    answer = automc("config", "init", *given)
    assert answer.code == 0, answer.err
    (tmp_path / "search.yaml").write_text(answer.out)
    read = load_config(tmp_path / "search.yaml")
    asked = config_of(Job(model="mlp", data="mine.npz", max_drop=0.5, seed=2, choose="smallest"))
    assert {**read.workload.options, **asked.workload.options} == read.workload.options
    assert read.model_copy(update={"workload": asked.workload}) == asked
    assert "default 1.0; null where this section is" in answer.out  # the default, not what was asked for


def test_init_without_options_is_the_default(automc) -> None:
    out = automc("config", "init").out
    assert SearchConfig.model_validate(yaml.safe_load(out)) == SearchConfig()


def test_what_a_template_leaves_open_is_said_to_be_filled_in(automc, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(automc("config", "init", "--workload", "arrays").out)
    answer = automc("config", "check", file)
    assert answer.code == 2
    assert "still to be filled in for workload arrays: model (your package.module:factory" in answer.err
    assert "next: write their values in the place of <fill in>" in answer.err


def test_the_help_of_a_search_says_what_every_option_means(automc) -> None:
    out = " ".join(automc("search", "--help").out.split())
    for name in ("--model", "--weights", "--data", "--task", "--max-drop", "--max-latency-ms", "--seed"):
        assert f"{name} <" in out


FILLED = {
    "model": "mlp",
    "model_args": {"inputs": 3, "hidden": [4], "outputs": 2},  # which stored samples would tell by themselves
    "file": "a.npz",
    "folder": "photos",
    "data": "json:loads",
}


@pytest.mark.parametrize("workload", workload_names())
def test_what_init_prints_for_a_workload_checks_once_filled_in(automc, tmp_path: Path, workload: str) -> None:
    """And says key by key what has to be filled in; whatever has a default stays as it is printed."""
    file = tmp_path / "search.yaml"
    raw = yaml.safe_load(automc("config", "init", "--workload", workload).out)
    options = raw["workload"]["options"]
    for key, value in options.items():
        if value == TO_FILL_IN or key == "model_args":
            options[key] = FILLED[key]
    file.write_text(yaml.safe_dump(raw))
    answer = automc("config", "check", file)
    assert answer.code == 0, answer.err
    assert None not in [options[key] for key in FILLED if key in options]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--profile", "epyc_genoa_1"), "the command line: profile: no hardware profile is called 'epyc_genoa_1'; did"),
        (("--space", "cn"), "the command line: space: "),
        (("--strategy", "guide"), "the command line: search.strategy: "),
    ],
)
@pytest.mark.parametrize("own", [(), ("--model", "mypkg.net:build", "--data", "mypkg.data:splits")], ids=len)
def test_init_refuses_names_that_no_search_would_find(automc, own: tuple[str, ...], given: tuple[str, ...], said: str):
    answer = automc("config", "init", *own, *given)
    assert answer.code == 2
    assert said in answer.err
