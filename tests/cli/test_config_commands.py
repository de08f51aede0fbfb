from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from automc.config import SearchConfig, load_config


def test_init_prints_the_defaults_as_a_file_that_reads_back_to_them(automc, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(automc("config", "init").out)
    assert load_config(file) == SearchConfig()


def test_init_says_what_keys_mean(automc) -> None:
    out = automc("config", "init").out
    assert "# accuracy points below the reference, at the top rung\n  max_drop_points: 1.0\n" in out


def test_schema_is_json_with_every_top_key(automc) -> None:
    schema = json.loads(automc("config", "schema").out)
    assert set(schema["properties"]) == set(SearchConfig.model_fields)


def test_check_reads_a_file_and_says_what_it_asks_for(automc, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text("search: {seed: 7}\nspace: nasbench201\n")
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
