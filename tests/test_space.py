"""What a space file holds, what it refuses and how; the techniques are fakes, so that values are worked by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from pydantic import Field, model_validator

from automc.candidate import Candidate, Step
from automc.errors import ConfigError, InfeasibleCandidate
from automc.profiles import shipped_folder
from automc.space import SearchSpace
from automc.techniques import registry
from automc.techniques.plan import Plan
from automc.techniques.technique import Params, Phase, Technique


class Fake(Technique[Params]):
    params: ClassVar[type[Params]] = Params
    phase: ClassVar[Phase] = Phase.MODEL

    def plan(self, model: Any, params: Params, context: Any) -> Plan:
        raise NotImplementedError

    def apply(self, model: Any, plan: Plan) -> Any:
        raise NotImplementedError


class PruneParams(Params):
    ratio: float = Field(0.0, ge=0.0, le=0.7, json_schema_extra={"step": 0.1})
    criterion: Literal["l1", "fpgm"] = "l1"


class Prune(Fake):
    name = "prune"
    params = PruneParams


class RankParams(Params):
    share: float = Field(1.0, gt=0.0, le=1.0)
    layers: int = Field(1, ge=1, le=9)

    @model_validator(mode="after")
    def _not_both(self) -> RankParams:
        if self.share < 0.3 and self.layers > 2:
            raise ValueError("a share below 0.3 takes at most 2 layers")
        return self


class LowRank(Fake):
    name = "low_rank"
    params = RankParams


class Cut(Fake):
    name = "cut"
    after = frozenset({"prune"})
    needs_training = True


class Ternary(Fake):
    name = "ternary"
    excludes = frozenset({"int8"})


class TuneParams(Params):
    rate: float = Field(0.01, gt=0)


class Tune(Fake):
    name = "tune"
    phase = Phase.RECOVERY
    params = TuneParams


class Distil(Fake):
    name = "distil"
    phase = Phase.RECOVERY


class Int8Params(Params):
    method: Literal["minmax", "entropy"] = "minmax"


class Int8(Fake):
    name = "int8"
    phase = Phase.GRAPH
    after = frozenset({"fuse"})
    params = Int8Params


class Fuse(Fake):
    name = "fuse"
    phase = Phase.GRAPH


class Pack(Fake):
    name = "pack"
    phase = Phase.CODING


@pytest.fixture(autouse=True)
def _techniques(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kinds = (Prune, LowRank, Cut, Ternary, Tune, Distil, Int8, Fuse, Pack)
    known = {kind.name: f"{__name__}:{kind.__name__}" for kind in kinds}
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(registry, "_modules", lambda: known)
    registry.get_technique.cache_clear()
    yield
    registry.get_technique.cache_clear()


def space(**given: Any) -> SearchSpace:
    return SearchSpace.parse({"name": "toy", "anchors": [], **given}, "toy.yaml")


def choices(given: SearchSpace, name: str) -> tuple[Any, ...]:
    return next(dimension.choices for dimension in given.dimensions if dimension.name == name)


def names(candidate: Candidate) -> list[str]:
    return [step.technique for step in candidate.steps]


def error(**given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        space(**given)
    return str(caught.value)


# --- chains ---------------------------------------------------------------------------------------------------------


def test_the_order_of_model_steps_is_one_dimension_with_a_recovery_between_or_only_last() -> None:
    found = choices(space(techniques={"prune": {}, "low_rank": {}}, recovery={"tune": {}}), "chain")
    assert found == (
        "recovery",
        "prune > recovery",
        "low_rank > recovery",
        "prune > low_rank > recovery",
        "prune > recovery > low_rank > recovery",
        "low_rank > prune > recovery",
        "low_rank > recovery > prune > recovery",
    )


def test_one_recovery_means_the_last_one() -> None:
    found = choices(
        space(techniques={"prune": {}, "low_rank": {}}, recovery={"tune": {}}, chains={"max_recoveries": 1}), "chain"
    )
    assert found == (
        "recovery", "prune > recovery", "low_rank > recovery", "prune > low_rank > recovery",
        "low_rank > prune > recovery",
    )  # fmt: skip


def test_what_must_come_after_does() -> None:
    toy = space(techniques={"cut": {}, "prune": {}}, recovery={"tune": {}}, chains={"max_recoveries": 1})
    assert choices(toy, "chain") == ("recovery", "cut > recovery", "prune > recovery", "prune > cut > recovery")


def test_max_steps_counts_model_steps_alone() -> None:
    toy = space(techniques={"prune": {}, "low_rank": {}, "fuse": {}}, recovery={"tune": {}}, chains={"max_steps": 1})
    assert choices(toy, "chain") == ("recovery", "prune > recovery", "low_rank > recovery")
    assert choices(toy, "graph") == ("none", "fuse")


def test_graph_steps_follow_in_their_one_legal_order_and_coding_comes_last() -> None:
    toy = space(techniques={"pack": {}, "int8": {}, "fuse": {}})
    assert choices(toy, "graph") == (
        "none", "int8", "fuse", "pack", "fuse > int8", "int8 > pack", "fuse > pack", "fuse > int8 > pack",
    )  # fmt: skip


def test_too_many_chains_are_refused_with_the_way_out() -> None:
    message = error(techniques={"prune": {}, "low_rank": {}}, chains={"limit": 4})
    assert "toy.yaml: chains.limit = 4, but 5 chains are legal" in message
    assert "chains.max_steps" in message


def test_written_chains_are_the_only_ones_and_end_in_recovery() -> None:
    toy = space(
        techniques={"prune": {}, "low_rank": {}, "int8": {}},
        recovery={"tune": {}},
        chains={"list": [["prune", "recovery", "low_rank", "int8"], ["recovery"]]},
    )
    assert choices(toy, "chain") == ("prune > recovery > low_rank > recovery > int8", "recovery")
    assert [dimension.name for dimension in toy.dimensions] == ["chain"]
    assert names(toy.candidate({"chain": "prune > recovery > low_rank > recovery > int8"})) == [
        "prune", "tune", "low_rank", "tune", "int8",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prun"], "'prun' is not among this space's techniques; did you mean prune?"),
        (["int8", "prune"], "int8 works on the exported graph, so prune must come before it"),
        (["int8", "fuse"], "int8 must come after fuse"),
        (["recovery", "prune", "recovery", "prune"], "at most 2 recoveries"),
    ],
)
def test_an_illegal_written_chain_is_refused(words: list[str], said: str) -> None:
    techniques: dict[str, Any] = {"prune": {}, "int8": {}, "fuse": {}}
    message = error(techniques=techniques, recovery={"tune": {}}, chains={"list": [words]})
    assert message.startswith("toy.yaml: chains.list.0: ")
    assert said in message


# --- dimensions and candidates --------------------------------------------------------------------------------------


def test_a_range_is_a_grid_and_the_grid_does_not_drift() -> None:
    toy = space(techniques={"prune": {"ratio": {"min": 0.1, "max": 0.35}}})
    assert choices(toy, "prune.ratio") == (0.1, 0.2, 0.3)  # 0.1 + 2 * 0.1 would be 0.30000000000000004
    assert next(dimension.ordered for dimension in toy.dimensions if dimension.name == "prune.ratio")


def test_an_open_range_runs_over_all_the_technique_allows() -> None:
    assert choices(space(techniques={"prune": {"ratio": {"step": 0.2}}}), "prune.ratio") == (0.0, 0.2, 0.4, 0.6)
    assert choices(space(techniques={"prune": {"ratio": {"min": 0.4}}}), "prune.ratio") == (0.4, 0.5, 0.6, 0.7)


def test_what_has_one_choice_is_no_dimension_but_is_in_the_candidate() -> None:
    toy = space(techniques={"prune": {"ratio": 0.5, "criterion": ["fpgm"]}}, chains={"list": [["prune"]]})
    assert toy.dimensions == ()
    assert toy.candidate({}) == Candidate((Step.of("prune", ratio=0.5, criterion="fpgm"),))


def test_unused_dimensions_do_not_enter_the_candidate() -> None:
    toy = space(techniques={"prune": {"ratio": [0.1, 0.2]}, "low_rank": {"layers": [2, 3]}})
    one = toy.candidate({"chain": "prune", "prune.ratio": 0.1, "low_rank.layers": 2})
    two = toy.candidate({"chain": "prune", "prune.ratio": 0.1, "low_rank.layers": 3})
    assert one == two == toy.candidate({"chain": "prune", "prune.ratio": 0.1})
    assert one.id == two.id


def test_nearly_the_same_float_is_the_same_candidate() -> None:
    toy = space(techniques={"prune": {"ratio": [0.1, 0.3]}}, chains={"list": [["prune"]]})
    assert toy.candidate({"prune.ratio": 0.1 + 0.2}).id == toy.candidate({"prune.ratio": 0.3}).id


def test_saying_a_default_and_not_saying_it_are_one_candidate() -> None:
    toy = space(techniques={"prune": {"ratio": [0.0, 0.3], "criterion": "l1"}}, chains={"list": [["prune"]]})
    assert toy.candidate({"prune.ratio": 0}) == Candidate((Step("prune"),))


def test_the_chosen_recovery_stands_wherever_the_chain_recovers() -> None:
    toy = space(techniques={"prune": {}, "low_rank": {}}, recovery={"tune": {"rate": [0.1, 0.2]}, "distil": {}})
    chain = "prune > recovery > low_rank > recovery"
    assert names(toy.candidate({"chain": chain, "recovery": "distil"})) == ["prune", "distil", "low_rank", "distil"]
    tuned = toy.candidate({"chain": chain, "recovery": "tune", "tune.rate": 0.2})
    assert tuned.steps[1] == tuned.steps[3] == Step.of("tune", rate=0.2)


def test_techniques_that_exclude_each_other_are_an_infeasible_candidate() -> None:
    toy = space(techniques={"ternary": {}, "int8": {}})
    with pytest.raises(InfeasibleCandidate, match="ternary and int8 exclude each other"):
        toy.candidate({"chain": "ternary", "graph": "int8"})
    assert toy.size == 3


def test_parameters_a_technique_refuses_together_are_an_infeasible_candidate() -> None:
    toy = space(techniques={"low_rank": {"share": [0.2, 0.5], "layers": [2, 3]}}, chains={"list": [["low_rank"]]})
    with pytest.raises(InfeasibleCandidate, match="at most 2 layers"):
        toy.candidate({"low_rank.share": 0.2, "low_rank.layers": 3})
    assert len(list(toy.candidates())) == 3


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ({"chain": "prune"}, "lacks 'prune.ratio'"),
        ({"chain": "prune", "prune.ratio": 0.4}, "not among"),
        ({"chain": "prune", "prune.ratio": 0.1, "prune.size": 1}, "no dimension 'prune.size'"),
    ],
)
def test_an_assignment_that_does_not_fit_is_a_bug_not_a_candidate(assignment: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        space(techniques={"prune": {"ratio": [0.1, 0.2]}}).candidate(assignment)


def full() -> SearchSpace:
    return space(
        techniques={
            "prune": {"ratio": {"min": 0.1, "max": 0.4}, "criterion": ["l1", "fpgm"]},
            "low_rank": {"share": [0.2, 0.5], "layers": [2, 3]},
            "ternary": {},
            "int8": {"method": ["minmax", "entropy"]},
        },
        recovery={"tune": {"rate": [0.1, 0.2]}, "distil": {}},
        chains={"max_steps": 2},
        architecture={"depth": [2, 3]},
    )


def test_every_candidate_is_listed_once_and_size_counts_them() -> None:
    toy = space(
        techniques={"prune": {"ratio": [0.1, 0.2, 0.3]}, "low_rank": {"layers": [2, 3]}, "ternary": {}, "int8": {}},
        recovery={"tune": {}, "distil": {}},
        chains={"max_steps": 1},
        architecture={"depth": [2, 3]},
    )
    # none 1, prune 3, low_rank 2, with and without int8: 12; ternary only without: 1; two recoveries, two depths
    assert toy.size == (2 * (1 + 3 + 2) + 1) * 2 * 2
    listed = list(toy.candidates())
    assert len(listed) == len({candidate.id for candidate in listed}) == toy.size


def test_the_assignment_of_a_candidate_gives_it_back() -> None:
    toy, rng = full(), np.random.default_rng(3)
    for _ in range(300):
        candidate = toy.sample(rng)
        found = toy.assignment(candidate)
        assert found is not None
        assert toy.candidate(found) == candidate


def test_a_candidate_of_another_space_has_no_assignment() -> None:
    toy = space(techniques={"prune": {"ratio": [0.1, 0.2]}})
    assert toy.assignment(Candidate((Step.of("prune", ratio=0.3),))) is None
    assert toy.assignment(Candidate((Step("fuse"),))) is None
    assert toy.assignment(Candidate((), '{"depth":2}')) is None


def test_the_used_part_of_an_assignment_decides_the_candidate() -> None:
    toy, rng = full(), np.random.default_rng(5)
    for _ in range(100):
        drawn = toy.draw(rng)
        try:
            candidate = toy.candidate(drawn)
        except InfeasibleCandidate:
            continue
        assert toy.candidate(toy.used(drawn)) == candidate
        assert toy.used(drawn) == toy.assignment(candidate)


def test_the_same_seed_samples_the_same_candidates() -> None:
    first, second = np.random.default_rng(1), np.random.default_rng(1)
    assert [full().sample(first).id for _ in range(20)] == [full().sample(second).id for _ in range(20)]


def test_the_written_space_comes_back_the_same() -> None:
    again = SearchSpace.parse(full().to_json())
    assert again.dimensions == full().dimensions
    assert again.digest == full().digest


# --- anchors --------------------------------------------------------------------------------------------------------


def test_an_anchor_with_several_values_is_one_group_of_candidates() -> None:
    toy = space(
        techniques={"prune": {"ratio": [0.1, 0.2]}},
        recovery={"tune": {"rate": [0.1, 0.2]}},
        anchors=[{"name": "int8_cut", "steps": [{"prune": {"ratio": [0.1, 0.2, 0.4]}}, "recovery", "int8"]}],
    )
    reference, cut = toy.anchors
    assert (reference.name, reference.candidates) == ("reference", (Candidate((Step.of("tune", rate=0.1),)),))
    assert [candidate.steps[0].params["ratio"] for candidate in cut.candidates] == [0.1, 0.2, 0.4]
    assert names(cut.candidates[0]) == ["prune", "tune", "int8"]
    assert "int8" in toy.techniques


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["int9"], "no technique is called 'int9'; did you mean int8?"),
        ([{"prune": {"ratio": 0.9}}], "anchors.odd.prune.ratio = 0.9, but prune allows 0.0 to 0.7"),
        (["int8", "prune"], "prune must come before it"),
        ([{"prune": {}, "int8": {}}], "each step is a name or one {name: parameters}"),
        (["recovery"], "lists no technique under `recovery`"),
    ],
)
def test_a_wrong_anchor_is_refused(steps: list[Any], said: str) -> None:
    assert said in error(anchors=[{"name": "odd", "steps": steps}])


# --- what is refused, and how it is said ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"ratio": {"max": 0.9}}, "toy.yaml: techniques.prune.ratio.max = 0.9, but prune allows 0.0 to 0.7"),
        ({"ratio": {"min": -0.1}}, "toy.yaml: techniques.prune.ratio.min = -0.1, but prune allows 0.0 to 0.7"),
        ({"ratio": [0.1, 0.8]}, "toy.yaml: techniques.prune.ratio = 0.8, but prune allows 0.0 to 0.7"),
        ({"ratio": 0.25}, "techniques.prune.ratio = 0.25, but prune allows 0.0 to 0.7 in steps of 0.1"),
        ({"ratio": {"step": 0.05}}, "techniques.prune.ratio.step = 0.05, but prune allows 0.0 to 0.7 in steps of 0.1"),
        ({"ratio": {"min": 0.05}}, "techniques.prune.ratio.min = 0.05, but prune allows 0.0 to 0.7 in steps of 0.1"),
        ({"ratio": "much"}, "techniques.prune.ratio = much, but prune allows 0.0 to 0.7"),
        ({"ratio": {"min": 0.6, "max": 0.2}}, "techniques.prune.ratio: min = 0.6 is above max = 0.2"),
        ({"ratio": []}, "techniques.prune.ratio: holds no choice"),
        ({"ratio": {"min": 0.1, "maximum": 0.2}}, "techniques.prune.ratio.maximum"),
        ({"criterion": ["l1", "l2"]}, "techniques.prune.criterion = l2, but prune allows l1, fpgm"),
        ({"ration": 0.2}, "techniques.prune.ration: prune has no such parameter; did you mean ratio?"),
    ],
)
def test_a_value_beyond_what_the_technique_allows_is_refused(knobs: dict[str, Any], said: str) -> None:
    assert said in error(techniques={"prune": knobs})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"techniques": {"prun": {}}}, "techniques.prun: no technique is called 'prun'; did you mean prune?"),
        ({"technique": {}}, "toy.yaml: technique: there is no such key; did you mean techniques?"),
        ({"chains": {"max_step": 2}}, "toy.yaml: chains.max_step: there is no such key; did you mean max_steps?"),
        ({"chains": {"max_recoveries": 3}}, "chains.max_recoveries: input should be less than or equal to 2"),
        ({"techniques": {"tune": {}}}, "techniques.tune: tune belongs under `recovery`"),
        ({"recovery": {"prune": {}}}, "recovery.prune: prune belongs under `techniques`"),
        ({"techniques": {"cut": {}}}, "techniques.cut: cut needs training, but the space lists no technique under"),
        ({"techniques": {"low_rank": {"share": 0}}}, "low_rank.share = 0, but low_rank allows above 0.0 to 1.0"),
        ({"techniques": {"low_rank": {"layers": {"max": 3}}}}, "low_rank.layers: a range needs step"),
        ({"architecture": {"depth": {"min": 1, "max": 3}}}, "architecture.depth: a range needs min, max and step"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key(given: dict[str, Any], said: str) -> None:
    assert said in error(**given)


def test_a_space_is_loaded_by_path_and_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntechniques:\n  prune: {ratio: {max: 0.9}}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: techniques\.prune\.ratio\.max = 0\.9"):
        SearchSpace.load(path)
    path.write_text("name: mine\nanchors: []\ntechniques:\n  prune: {ratio: [0.1, 0.2]}\n")
    assert SearchSpace.load(str(path)).size == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "is not YAML"),
        ("- name", "is not a mapping"),
        ("name: a\nname: b\n", "'name' is written twice"),
        ("techniques: {}\n", "name: field required"),
    ],
)
def test_a_file_that_is_no_space_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        SearchSpace.load(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_an_unknown_space_is_named_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="no search space is called 'nowhere'"):
        SearchSpace.load("nowhere")


# --- what ships -----------------------------------------------------------------------------------------------------


@pytest.fixture
def _real_techniques(_techniques: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    registry.get_technique.cache_clear()


@pytest.mark.usefixtures("_real_techniques")
class TestShippedSpaces:
    @pytest.mark.parametrize("name", ["cnn", "digits"])
    def test_it_loads_samples_and_holds_the_default_anchors(self, name: str) -> None:
        shipped, rng = SearchSpace.load(name), np.random.default_rng(0)
        assert shipped.name == name
        assert [anchor.name for anchor in shipped.anchors] == ["reference", "int8", "int8_depth"]
        for _ in range(200):
            candidate = shipped.sample(rng)
            assert shipped.assignment(candidate) is not None

    def test_an_anchor_with_the_spaces_own_settings_is_one_of_its_candidates(self) -> None:
        shipped = SearchSpace.load("cnn")
        int8 = next(anchor for anchor in shipped.anchors if anchor.name == "int8")
        assignment = shipped.assignment(int8.candidates[0])
        assert assignment is not None
        assert (assignment["chain"], assignment["graph"]) == ("recovery", "int8_ptq")

    def test_every_shipped_file_is_a_space(self) -> None:
        folder = shipped_folder("search_spaces")
        names = sorted(path.stem for path in folder.glob("*.yaml") if not path.stem.startswith("_"))
        assert {"cnn", "digits", "nasbench201", "noop"} <= set(names)
        for name in names:
            assert SearchSpace.load(name).size > 1
