"""What every strategy owes, built in or installed: a new one is tested by existing."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest

from automc.candidate import Candidate
from automc.search.strategies.registry import create_strategy, strategy_names
from automc.search.strategies.strategy import Screen, Strategy, everything
from automc.space import SearchSpace
from automc.trial import Failure, Figure, Trial

pytestmark = pytest.mark.parametrize("name", strategy_names())


@pytest.fixture(autouse=True)
def installed(name: str) -> None:
    """A strategy of the extra `nas` is held to the contract where that is installed."""
    if name.startswith("nni_"):
        pytest.importorskip("nni")


SMALL = {"name": "small", "architecture": {"a": [1, 2, 3], "b": ["x", "y"], "c": [1, 2]}}
LARGE = {"name": "large", "architecture": {f"x_{i}": {"min": 0, "max": 9, "step": 1} for i in range(6)}}


def make(name: str, seed: int = 0, space: object = None, screen: Screen = everything, objectives: int = 2) -> Strategy:
    parsed = SearchSpace.parse(LARGE if space is None else space)  # type: ignore[arg-type]
    return create_strategy(name, space=parsed, objectives=objectives, seed=seed, screen=screen)


def score(candidate: Candidate) -> tuple[float, float]:
    values = [float(str(value)) for value in candidate.architecture.values()]
    return sum(values), sum((value - 9) ** 2 for value in values)


def trial(candidate: Candidate) -> Trial:
    return Trial(candidate, 0, 0, figures={"latency_ms": Figure(1.0, 1.0, 1.0, "ms", "predicted")})


def failed(candidate: Candidate) -> Trial:
    return Trial(candidate, 0, 0, failure=Failure("compression", "broke"))


def play(strategy: Strategy, asks: int, open_asks: int) -> list[str]:
    """Ask with `open_asks` answers outstanding; every seventh fails, every fifth breaks a limit."""
    asked: list[str] = []
    waiting: deque[tuple[int, Candidate]] = deque()
    for number in range(asks):
        candidate = strategy.ask()
        asked.append(candidate.id)
        waiting.append((number, candidate))
        if len(waiting) == open_asks:
            told, candidate = waiting.popleft()
            if told % 7 == 6:
                strategy.tell(failed(candidate), None, 0.0)
            else:
                strategy.tell(trial(candidate), score(candidate), 1.0 if told % 5 == 4 else 0.0)
    return asked


@pytest.mark.parametrize("open_asks", [1, 2, 5])
def test_the_same_seed_and_the_same_tells_give_the_same_asks(name: str, open_asks: int) -> None:
    assert play(make(name, 7), 40, open_asks) == play(make(name, 7), 40, open_asks)


def test_two_strategies_do_not_disturb_each_other(name: str) -> None:
    alone = play(make(name, 7), 30, 2)
    first, second = make(name, 7), make(name, 8)
    between: list[str] = []
    for _ in range(3):
        play(second, 5, 2)
    between += play(first, 30, 2)
    assert between == alone


def test_another_seed_gives_other_asks(name: str) -> None:
    assert play(make(name, 1), 20, 2) != play(make(name, 2), 20, 2)


def test_no_candidate_is_asked_twice_and_all_come_from_the_space(name: str) -> None:
    strategy = make(name)
    asked = play(strategy, 50, 3)
    assert len(set(asked)) == 50
    assert strategy.space.assignment(strategy.ask()) is not None


def test_a_small_space_is_asked_to_its_end_and_then_repeats(name: str) -> None:
    strategy = make(name, space=SMALL, objectives=1)
    asked = []
    for _ in range(14):
        candidate = strategy.ask()
        asked.append(candidate.id)
        strategy.tell(trial(candidate), (float(str(candidate.architecture["a"])),), 0.0)
    assert len(set(asked[:12])) == strategy.space.size == 12
    assert set(asked[12:]) <= set(asked[:12])


def test_what_the_screen_refuses_is_not_asked_while_anything_else_is_left(name: str) -> None:
    def only_small(candidates: Sequence[Candidate]) -> list[bool]:
        return [int(str(candidate.architecture["x_0"])) < 3 for candidate in candidates]

    strategy = make(name, screen=only_small)
    for _ in range(20):
        candidate = strategy.ask()
        assert int(str(candidate.architecture["x_0"])) < 3
        strategy.tell(trial(candidate), score(candidate), 0.0)


def test_a_screen_that_refuses_all_does_not_hang(name: str) -> None:
    strategy = make(name, space=SMALL, objectives=1, screen=lambda candidates: [False] * len(candidates))
    assert strategy.ask().architecture.keys() == {"a", "b", "c"}


def test_failures_alone_and_asks_without_an_answer_are_survived(name: str) -> None:
    strategy = make(name)
    for _ in range(30):
        strategy.tell(failed(strategy.ask()), None, 0.0)
    assert len({strategy.ask().id for _ in range(30)}) == 30


def test_a_second_tell_of_a_candidate_changes_nothing(name: str) -> None:
    once, twice = make(name, 3), make(name, 3)
    for _ in range(25):
        candidate = once.ask()
        assert twice.ask() == candidate
        once.tell(trial(candidate), score(candidate), 0.0)
        twice.tell(trial(candidate), score(candidate), 0.0)
        twice.tell(trial(candidate), (0.0, 0.0), 0.0)


@pytest.mark.parametrize(
    ("objectives", "violation"),
    [
        ((1.0,), 0.0),
        ((1.0, float("nan")), 0.0),
        ((1.0, float("inf")), 0.0),
        ((1.0, 2.0), -1.0),
        ((1.0, 2.0), float("nan")),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(name: str, objectives: tuple[float, ...], violation: float) -> None:
    strategy = make(name)
    candidate = strategy.ask()
    with pytest.raises(ValueError, match=r"objectives|violation"):
        strategy.tell(trial(candidate), objectives, violation)


def test_it_says_what_it_is(name: str) -> None:
    strategy = make(name)
    assert strategy.name == name
    assert len(strategy.summary) > 10
