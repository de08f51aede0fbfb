from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from bundle_samples import profile
from pydantic import BaseModel

from automc.config import SearchConfig, SearchSection, load_config
from automc.profiles import save_profile
from automc.search.strategies.registry import strategy_names
from automc.workloads.registry import options_model, workload_names


def test_init_prints_the_defaults_as_a_file_that_reads_back_to_them(automc, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(automc("config", "init").out)
    assert load_config(file) == SearchConfig()


@pytest.mark.parametrize(
    ("option", "value", "near"), [("--strategy", "nsga3", "nsga2"), ("--space", "digitz", "digits")]
)
def test_init_prints_no_config_that_check_would_refuse(automc, option: str, value: str, near: str) -> None:
    answer = automc("config", "init", option, value)
    assert answer.code == 2
    assert near in answer.err
    assert not answer.out


def test_init_says_what_keys_mean_what_is_allowed_and_the_default(automc) -> None:
    out = automc("config", "init").out
    assert "  # of every random choice (0 or more; default 0)\n  seed: 0\n" in out
    assert (
        "  # accuracy points below the reference, at the top rung "
        "(a number or null; default 1.0; null where this section is\n  #   written without it)\n"
        "  max_drop_points: 1.0\n"
    ) in out
    assert (
        "# which finalist within the constraints is bundled (fastest, smallest, most_accurate, lowest_energy, knee; "
        "default\n#   fastest)\nchoose: fastest\n"
    ) in out


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and every model in it, alone or in a tuple."""
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from sections(kind)


def test_every_key_is_described_and_printed_under_its_description(automc) -> None:
    lines = automc("config", "init").out.splitlines()
    words = " ".join(" ".join(line.strip().removeprefix("#") for line in lines).split())
    for section in sections(SearchConfig):
        for key, field in section.model_fields.items():
            inner = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            meaning = (field.annotation.__doc__ or "").splitlines()[0] if inner else field.description
            assert meaning, f"{section.__name__}.{key} has no description"
            assert " ".join(meaning.split()) in words, f"{section.__name__}.{key}"
            assert any(f"{key}: " in line or line.strip() == f"{key}:" for line in lines), f"{section.__name__}.{key}"


@pytest.mark.parametrize("name", sorted(set(workload_names())))
def test_init_prints_the_options_of_a_workload_and_each_is_described(automc, name: str) -> None:
    out = automc("config", "init", "--workload", name).out
    options = yaml.safe_load(out)["workload"]["options"]
    model = options_model(name)
    assert model is not None
    assert set(options) == set(model.model_fields)
    assert all(field.description for field in model.model_fields.values()), name
    assert yaml.safe_load(out)["workload"]["name"] == name


def test_init_of_a_misspelt_workload_gets_the_nearest(automc) -> None:
    answer = automc("config", "init", "--workload", "arays")
    assert answer.code == 2
    assert "did you mean arrays?" in answer.err


def test_the_description_of_the_strategy_names_every_one_that_ships(automc) -> None:
    assert set(strategy_names()) <= set(re.findall(r"\w+", SearchSection.model_fields["strategy"].description or ""))


def test_schema_is_json_with_every_top_key(automc) -> None:
    schema = json.loads(automc("config", "schema").out)
    assert set(schema["properties"]) == set(SearchConfig.model_fields)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "workload: {name: cifar10, options: {modle: resnet20}}",
            "modle is not an option of workload cifar10; did you mean model?",
        ),
        (
            "workload: {name: cifar10, options: {train_samples: many}}",
            "train_samples = 'many': Input should be a valid integer",
        ),
        (
            "workload: {name: cifar10, options: {model: resnet18}}",
            "model = 'resnet18': Input should be 'resnet20' or 'resnet56'",
        ),
        ("workload: {options: {size: 8}}", "size is not an option of workload digits (it takes: none)"),
        ("workload: {name: arrays}", "file is required by workload arrays"),
        ("workload: {name: arrays, options: {file: a.npz, model: resnet2}}", "no network is called 'resnet2'"),
        ("workload: {name: arrays, options: {file: a.npz, model: mlp, model_args: {hide: 3}}}", "do not fit mlp"),
        ("workload: {name: arrays, options: {file: a.npz, model: no.module:net}}", "No module named 'no'"),
    ],
)
def test_options_of_the_workload_are_checked_without_its_data(
    automc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.delenv("AUTOMC_DATA", raising=False)
    file = tmp_path / "search.yaml"
    file.write_text(text + "\n")
    answer = automc("config", "check", str(file))
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"automc: {file}: workload")
    assert said in answer.err
    assert "\n  next: " in answer.err


def test_sound_options_pass_where_the_data_are_not(automc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOMC_DATA", raising=False)
    file = tmp_path / "search.yaml"
    file.write_text("workload: {name: cifar10, options: {model: resnet56}}\nspace: cnn\n")
    assert automc("config", "check", str(file)).code == 0


def test_a_key_written_twice_is_refused_with_both_lines_in_config_and_space(automc, tmp_path: Path) -> None:
    file, space = tmp_path / "search.yaml", tmp_path / "space.yaml"
    file.write_text("name: twice\nsearch:\n  seed: 1\n  finalists: 2\n  seed: 2\n")
    answer = automc("config", "check", str(file))
    assert answer.code == 2
    assert f"{file}: line 5: the key 'seed' is written twice (first in line 3)" in answer.err
    space.write_text("name: own\ntechniques:\n  int8_ptq: {}\nname: other\n")
    file.write_text(f"space: {space}\n")
    answer = automc("config", "check", str(file))
    assert answer.code == 2
    assert f"{space}: line 4: the key 'name' is written twice (first in line 1)" in answer.err
    assert "\n  next: " in answer.err


def test_a_profile_that_is_not_there_is_a_note_where_the_search_makes_it_and_else_an_error(
    automc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOMC_HOME", str(tmp_path / "home"))
    file = tmp_path / "search.yaml"
    file.write_text("calibrate: quick\n")
    answer = automc("config", "check", str(file))
    assert answer.code == 0
    assert "note: profile host is calibrated first (quick): no hardware profile is called 'host'" in answer.out
    assert automc("config", "check", str(file), "--json").json["notes"]
    file.write_text("calibrate: never\n")
    answer = automc("config", "check", str(file))
    assert answer.code == 2
    assert f"{file}: profile: no hardware profile is called 'host'" in answer.err
    assert "next: automc profile calibrate host" in answer.err
    save_profile(profile(), {}, tmp_path / "home" / "profiles" / "bench-board")
    file.write_text("profile: bench-bord\n")
    assert "did you mean bench-board?" in automc("config", "check", str(file)).err
    file.write_text("profile: bench-board\n")
    answer = automc("config", "check", str(file))
    assert answer.code == 0
    assert "note: a search on this machine would be refused" in answer.out
    file.write_text("profile: none\nworkload: {name: noop}\nspace: noop\n")  # scores its candidates itself
    assert automc("config", "check", str(file)).code == 0


@pytest.mark.parametrize(
    ("energy", "said"),
    [("autp", "did you mean auto?"), ("volts.csv", "its columns are unix_s, volts"), ("none.csv", "no such file")],
)
def test_what_energy_is_read_from_is_checked(
    automc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, energy: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "volts.csv").write_text("unix_s,volts\n1700000000,5\n")
    (tmp_path / "meter.csv").write_text("unix_s,watts\n1700000000,5\n1700000001,5\n")
    path = tmp_path / "search.yaml"
    path.write_text(f"energy: {energy}\n")
    answer = automc("config", "check", str(path))
    assert answer.code == 2
    assert "search.yaml: energy: " in answer.err
    assert said in answer.err
    path.write_text("energy: meter.csv\n")
    assert automc("config", "check", str(path)).code == 0


@pytest.mark.parametrize(
    ("teacher", "recovery", "said"),
    [
        ("reference", "{distillation: {}, fine_tune: {}}", "the reference would be trained by distillation"),
        ("none", "{fine_tune: {}, distillation: {}}", "distillation needs a teacher"),
    ],
)
def test_a_recovery_without_a_teacher_is_refused(
    automc, tmp_path: Path, teacher: str, recovery: str, said: str
) -> None:
    space, file = tmp_path / "space.yaml", tmp_path / "search.yaml"
    space.write_text(f"name: s\ntechniques: {{int8_ptq: {{}}}}\nrecovery: {recovery}\n")
    file.write_text(f"space: {space}\nteacher: {teacher}\n")
    answer = automc("config", "check", str(file))
    assert answer.code == 2
    assert said in answer.err
    assert "next:" in answer.err


def test_a_space_without_a_reference_is_refused(automc, tmp_path: Path) -> None:
    file, space = tmp_path / "search.yaml", tmp_path / "space.yaml"
    space.write_text("name: own\ntechniques:\n  int8_ptq: {}\n")
    file.write_text(f"space: {space}\n")
    answer = automc("config", "check", str(file))
    assert answer.code == 2
    assert "has no anchor `reference`" in answer.err


def test_a_folder_is_said_to_be_one_and_the_file_in_it_is_named(automc, tmp_path: Path) -> None:
    answer = automc("config", "check", str(tmp_path))
    assert answer.code == 2
    assert f"{tmp_path}: is a folder, not a config file" in answer.err
    (tmp_path / "mine.yaml").write_text("")
    answer = automc("config", "check", str(tmp_path))
    assert f"next: automc config check {tmp_path / 'mine.yaml'}" in answer.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("search: {rungs: []}", "rungs: is empty; write at least one"),
        ("search: {rungs: [{candidates: 2, steps: 5}]}", "rungs.0.steps must be 0, found 5"),
        ("search: 3", "search: expected keys and values, found 3"),
        ("search:", "search: expected keys and values, found None"),
        ("[1, 2]", "expected keys and values, found list"),
        ("colour: red", "colour: unknown key (known: "),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_file(automc, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(text + "\n")
    for command in (("config", "check", str(file)), ("search", str(file), "--seed", "3")):
        answer = automc(*command)
        assert answer.code == 2
        assert said in answer.err
        assert "\n  next: " in answer.err
        assert "Traceback" not in answer.err


def test_check_reads_a_file_and_says_what_it_asks_for(automc, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(
        "search: {seed: 7}\nworkload: {name: nasbench201}\nspace: nasbench201\nobjectives: [accuracy, latency_ms]\n"
    )
    answer = automc("config", "check", str(file))
    assert answer.code == 0
    assert "seed 7" in answer.out
    checked = automc("config", "check", str(file), "--json").json
    assert checked["search"]["seed"] == 7


def test_a_misspelt_key_names_file_key_and_the_nearest_known(automc, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text("search: {sead: 7}\n")
    answer = automc("config", "check", str(file))
    assert (answer.code, answer.out) == (2, "")
    assert f"{file}: search.sead: unknown key; did you mean seed?" in answer.err


def test_a_value_out_of_range_names_what_is_allowed(automc, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text("executor: {workers: 0}\n")
    answer = automc("config", "check", str(file))
    assert answer.code == 2
    assert "executor.workers" in answer.err
    assert "greater than or equal to 1" in answer.err


def test_a_misspelt_file_gets_the_nearest_file(automc, tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text(yaml.safe_dump({}))
    answer = automc("config", "check", str(tmp_path / "serch.yaml"))
    assert answer.code == 2
    assert "did you mean" in answer.err
    assert "search.yaml" in answer.err


def test_a_file_that_is_not_yaml_is_refused(automc, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text("search: {seed: 7\n")
    answer = automc("config", "check", str(file))
    assert answer.code == 2
    assert "not YAML" in answer.err


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("search: {strategy: nsga}", "no strategy is called 'nsga'", "did you mean nsga2?"),
        ("space: nasbench21", "no search space is called 'nasbench21'", "did you mean nasbench201?"),
        ("space: nasbench201\nworkload: {name: digit}", "workload.name", "did you mean digits?"),
    ],
)
def test_a_misspelt_name_gets_the_nearest_one(automc, tmp_path: Path, text: str, key: str, hint: str) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(text + "\n")
    answer = automc("config", "check", str(file))
    assert answer.code == 2
    assert key in answer.err
    assert hint in answer.err


def test_a_misspelt_technique_in_a_space_gets_the_nearest_one(automc, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("name: own\ntechniques:\n  chanel_pruning: {ratio: [0.1, 0.2]}\n")
    file = tmp_path / "search.yaml"
    file.write_text(f"space: {space}\n")
    answer = automc("config", "check", str(file))
    assert answer.code == 2
    assert f"{space}: techniques.chanel_pruning" in answer.err
    assert "did you mean channel_pruning?" in answer.err
