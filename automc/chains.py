"""Which techniques may follow each other: the chains of a space, all legal ones or those its file writes down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, combinations, permutations
from typing import Any

from automc.errors import ConfigError
from automc.nearest import nearest_or_all
from automc.space_file import Chains
from automc.techniques import get_technique
from automc.techniques.registry import technique_names
from automc.techniques.technique import Phase, Technique

RECOVERY = "recovery"
"""In a chain: whichever technique is chosen for recovery."""
LATE = (Phase.GRAPH, Phase.CODING)
RECOVER = "list a technique under `recovery`, for example fine_tune: {}"
ORDER = "change the order, or leave one of the two out: automc technique list"

Layouts = tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]
"""(chains of MODEL steps and recoveries, what follows export), each by its label."""


class ChainRules:
    """The order rules of the techniques of one space. where: what errors call the space."""

    def __init__(self, techniques: Mapping[str, Technique[Any]], recoveries: tuple[str, ...], where: str) -> None:
        self._techniques, self._recoveries, self.where = techniques, recoveries, where

    def chains(self, section: Chains) -> Layouts:
        """The chains that `section` lists, else all legal ones within its limits. Raises ConfigError."""
        return self._legal(section) if section.list is None else self._written(section.list)

    def illegal(self, names: Sequence[str]) -> str | None:
        """Why these techniques cannot follow each other in this order, or None."""
        for i, name in enumerate(names):
            technique = self._techniques.get(name) or get_technique(name)
            for later in names[i + 1 :]:
                other = self._techniques.get(later) or get_technique(later)
                if later in technique.excludes or name in other.excludes:
                    return f"{name} and {later} exclude each other"
                if later in technique.after:
                    return f"{name} must come after {later}"
                if technique.phase in LATE and other.phase not in LATE:
                    return f"{name} works on the exported graph, so {later} must come before it"
                if technique.phase is Phase.CODING and other.phase is Phase.GRAPH:
                    return f"{name} codes the final graph, so {later} must come before it"
        return None

    def _legal(self, limits: Chains) -> Layouts:
        chains: dict[str, tuple[str, ...]] = {}
        model = [name for name, technique in self._techniques.items() if technique.phase is Phase.MODEL]
        recover = bool(self._recoveries) and limits.max_recoveries > 0
        orders = chain.from_iterable(permutations(model, count) for count in range(limits.max_steps + 1))
        for order in orders:
            if self.illegal(order) is not None:
                continue
            last = (RECOVERY,) if recover else ()
            between = range(1, len(order)) if recover and limits.max_recoveries == 2 else ()
            for words in [(*order, *last), *((*order[:i], RECOVERY, *order[i:], *last) for i in between)]:
                chains[_label(words)] = words
        if len(chains) > limits.limit:
            raise ConfigError(
                f"{self.where}: chains.limit = {limits.limit}, but {len(chains)} chains are legal",
                next_step="lower chains.max_steps or chains.max_recoveries, write the chains in chains.list, "
                "or raise chains.limit",
            )
        late = [name for phase in LATE for name, item in self._techniques.items() if item.phase is phase]
        subsets = chain.from_iterable(combinations(late, count) for count in range(len(late) + 1))
        ordered = (self._first_legal_order(subset) for subset in subsets)
        return chains, {_label(names): names for names in ordered if names is not None}

    def _first_legal_order(self, names: tuple[str, ...]) -> tuple[str, ...] | None:
        return next((order for order in permutations(names) if self.illegal(order) is None), None)

    def _written(self, written: Sequence[Sequence[str]]) -> Layouts:
        chains: dict[str, tuple[str, ...]] = {}
        for i, words in enumerate(written):
            key = f"{self.where}: chains.list.{i}"
            for word in words:
                if word not in self._techniques and word != RECOVERY:
                    known = word in technique_names()
                    hint = nearest_or_all(word, [*self._techniques, RECOVERY])
                    raise ConfigError(
                        f"{key}: {word!r} is not among this space's techniques{hint}",
                        next_step=f"list {word} under `techniques`, or leave it out of the chain"
                        if known
                        else "automc technique list",
                    )
            recovering = [word for word in words if word == RECOVERY or word in self._recoveries]
            if RECOVERY in words and not self._recoveries:
                raise ConfigError(
                    f"{key}: asks for recovery, but the space lists no technique under `recovery`", next_step=RECOVER
                )
            finished = self._with_last_recovery(tuple(words))
            if len(recovering) + len(finished) - len(words) > 2:
                raise ConfigError(
                    f"{key}: a chain holds at most 2 recoveries, the last one after the MODEL steps",
                    next_step="leave one out; the last one is added where it is not written",
                )
            reason = self.illegal([self._recoveries[0] if word == RECOVERY else word for word in finished])
            if reason is not None:
                raise ConfigError(f"{key}: {reason}", next_step=ORDER)
            chains[_label(finished)] = finished
        if not chains:
            raise ConfigError(
                f"{self.where}: chains.list holds no chain",
                next_step="write at least one, such as [channel_pruning, recovery], or leave chains.list out",
            )
        return chains, {_label(()): ()}

    def _with_last_recovery(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """`words` with a recovery after the last MODEL step, where the space recovers at all."""
        early = [i for i, word in enumerate(words) if word == RECOVERY or self._techniques[word].phase not in LATE]
        end = early[-1] + 1 if early else 0
        if not self._recoveries or (end and (words[end - 1] == RECOVERY or words[end - 1] in self._recoveries)):
            return words
        return (*words[:end], RECOVERY, *words[end:])


def _label(names: Sequence[str]) -> str:
    return " > ".join(names) or "none"
