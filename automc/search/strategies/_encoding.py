"""Assignments as rows of choice indices, and rows as numbers that a surrogate can learn from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, product

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from automc.errors import InfeasibleCandidate
from automc.space import Assignment, Dimension, SearchSpace
from automc.space_file import CellFile

Rows = npt.NDArray[np.int16]
"""(n, dimensions): index of the choice in each dimension, -1 where the candidate does not use the dimension."""

Floats = npt.NDArray[np.float64]

_HEADS = ("chain", "graph", "recovery")
_UNUSED = -1
_WAYS = 32  # through one cell, at most: a large one has thousands


class Encoding:
    """One space's assignments as rows, and what of a row can be learned from.

    Features come in blocks, each a matrix of its own so that each can have its own length scale:
    choices (ordered ones as their place between 0 and 1, the others one-hot; 0 where unused), what dimensions with the
    same choices have in common (how often each choice occurs; mean, least and most of ordered ones), and the chain
    (how often each technique occurs, which of two comes first). None of it is particular to a space. Where the space
    declares cells, an edge on no way from a cell's input to its output is as good as absent, and each way is a feature:
    whether it is whole, and how often each choice lies on it.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.dimensions = space.dimensions
        self._heads = [i for i, dim in enumerate(self.dimensions) if dim.name in _HEADS]
        self._groups = _groups(self.dimensions)
        self._known: dict[tuple[int, ...], tuple[npt.NDArray[np.bool_], tuple[str, ...]] | None] = {}
        names = sorted(space.techniques)
        self._places = {name: i for i, name in enumerate(names)}
        self._pairs = list(combinations(names, 2))
        self._cells = [_Cell(cell, self.dimensions) for cell in space.cells]

    def row(self, assignment: Assignment) -> Rows:
        """(dimensions,) of one assignment; what is left out of it is unused."""
        found = [
            dim.choices.index(assignment[dim.name]) if dim.name in assignment else _UNUSED for dim in self.dimensions
        ]
        tidied: Rows = self.tidy(np.array([found], dtype=np.int16))[0]
        return tidied

    def assignment(self, row: Rows) -> dict[str, JsonValue]:
        return {
            dim.name: dim.choices[int(index)]
            for dim, index in zip(self.dimensions, row, strict=True)
            if index != _UNUSED
        }

    def tidy(self, rows: Rows) -> Rows:
        """`rows` with -1 wherever the chain does not use the dimension, so that equal candidates are equal rows."""
        kept = rows.copy()
        for head, members in self._by_head(rows):
            known = self._head(head)
            if known is not None:
                kept[np.ix_(members, ~known[0])] = _UNUSED
        return kept

    def legal(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """(n,) False where the chain, what follows export and the recovery exclude each other."""
        mask = np.ones(len(rows), dtype=np.bool_)
        for head, members in self._by_head(rows):
            mask[members] = self._head(head) is not None
        return mask

    def draw(self, rng: np.random.Generator, count: int) -> Rows:
        """Up to `count` different legal rows, every dimension uniform."""
        sizes = [len(dim.choices) for dim in self.dimensions]
        drawn = np.stack([rng.integers(size, size=count) for size in sizes], axis=1).astype(np.int16)
        return self._distinct(drawn)

    def neighbours(self, rows: Rows, rng: np.random.Generator, count: int) -> Rows:
        """Up to `count` different legal rows: each of `rows` with one to three choices changed, some crossed first."""
        drawn = self.draw(rng, 4 * count)
        if not len(rows) or not len(drawn):
            return drawn[:0]
        picks = rng.integers(len(rows), size=(2, count))
        made = rows[picks[0]].copy()
        crossed = (rng.random(made.shape) < 0.5) & (rng.random(count) < 0.3)[:, None]
        made[crossed] = rows[picks[1]][crossed]
        fresh = drawn[rng.integers(len(drawn), size=count)]
        changed = np.zeros(made.shape, dtype=np.bool_)
        for _ in range(3):
            where = rng.integers(made.shape[1], size=count)
            also = rng.random(count) < (0.4 if changed.any() else 1.0)
            changed[np.flatnonzero(also), where[also]] = True
        step = np.array([dim.ordered for dim in self.dimensions]) & (rng.random(made.shape) < 0.5)
        limit = np.array([len(dim.choices) - 1 for dim in self.dimensions])
        beside = np.clip(made + rng.choice([-1, 1], size=made.shape), 0, limit).astype(np.int16)
        made = np.where(changed, np.where(step & (made >= 0), beside, fresh), made)
        # a changed chain may use dimensions that the parent had no choice for
        filler = np.stack([rng.integers(size + 1, size=count) for size in limit], axis=1).astype(np.int16)
        return self._distinct(np.where(made == _UNUSED, filler, made))

    def everything(self) -> Rows:
        """Every legal row once, in a fixed order."""
        return _everything(self.space)

    def features(self, rows: Rows) -> list[Floats]:
        """Blocks of (n, f) each; see the class."""
        wired = rows
        for cell in self._cells:
            wired = cell.pruned(wired)
        ways = [cell.ways(wired) for cell in self._cells]
        blocks = [np.concatenate([self._choices(wired), *ways], axis=1), self._shared(wired), self._layout(rows)]
        return [block for block in blocks if block.shape[1]]

    def _choices(self, rows: Rows) -> Floats:
        columns = []
        for index, dim in zip(rows.T, self.dimensions, strict=True):
            if dim.ordered:
                columns.append((np.maximum(index, 0) / (len(dim.choices) - 1))[:, None])
            else:
                columns.append((index[:, None] == np.arange(len(dim.choices))).astype(np.float64))
        return _stacked(columns, len(rows))

    def _shared(self, rows: Rows) -> Floats:
        columns = []
        for members in self._groups:
            index, size = rows[:, members], len(self.dimensions[members[0]].choices)
            if self.dimensions[members[0]].ordered:
                place = np.maximum(index, 0) / (size - 1)
                columns.append(np.stack([place.mean(axis=1), place.min(axis=1), place.max(axis=1)], axis=1))
            else:
                counted = (index[:, :, None] == np.arange(size)).sum(axis=1)
                columns.append(2.0 * counted / len(members))
        return _stacked(columns, len(rows))

    def _layout(self, rows: Rows) -> Floats:
        block = np.zeros((len(rows), len(self._places) + len(self._pairs) if self._heads else 0))
        if not self._heads:
            return block
        for head, members in self._by_head(rows):
            known = self._head(head)
            if known is None:
                continue
            line, sequence = np.zeros(block.shape[1]), known[1]
            for name in sequence:
                line[self._places[name]] += 1.0
            for at, (first, second) in enumerate(self._pairs, len(self._places)):
                if first in sequence and second in sequence:
                    line[at] = 1.0 if sequence.index(first) < sequence.index(second) else -1.0
            block[members] = line
        return block

    def _by_head(self, rows: Rows) -> list[tuple[tuple[int, ...], npt.NDArray[np.int64]]]:
        if not self._heads:
            return [((), np.arange(len(rows)))]
        heads, inverse = np.unique(rows[:, self._heads], axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        return [(tuple(int(v) for v in head), np.flatnonzero(inverse == i)) for i, head in enumerate(heads)]

    def _head(self, head: tuple[int, ...]) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]] | None:
        """(dimensions used, techniques in order) for these choices of chain, graph and recovery; None where illegal."""
        if head not in self._known:
            # a recovery that its chain does not use has no index: any will do
            chosen = {
                self.dimensions[at].name: self.dimensions[at].choices[max(index, 0)]
                for at, index in zip(self._heads, head, strict=True)
            }
            try:
                sequence = self.space.sequence(chosen)
            except InfeasibleCandidate:
                self._known[head] = None
            else:
                used = set(self.space.active(chosen))
                self._known[head] = (np.array([dim.name in used for dim in self.dimensions], dtype=np.bool_), sequence)
        return self._known[head]

    def _distinct(self, rows: Rows) -> Rows:
        rows = self.tidy(rows[self.legal(rows)])
        _, first = np.unique(rows, axis=0, return_index=True)
        return rows[np.sort(first)]


class _Cell:
    """The edges of one declared cell as dimensions; an edge that does not vary is always there."""

    def __init__(self, cell: CellFile, dimensions: Sequence[Dimension]) -> None:
        places = {dim.name: i for i, dim in enumerate(dimensions)}
        self._output = max(end for _, end in cell.edges.values())
        self._edges: list[tuple[int, int, int, int]] = []
        """(dimension or -1, index of its absent choice, from node, to node)"""
        for name, (start, end) in cell.edges.items():
            place = places.get(f"architecture.{name}", -1)
            absent = dimensions[place].choices.index(cell.absent) if place >= 0 else -1
            self._edges.append((place, absent, start, end))
        self._ways = self._from(0)
        self._sizes = [len(dimensions[place].choices) if place >= 0 else 0 for place, *_ in self._edges]

    def pruned(self, rows: Rows) -> Rows:
        """`rows` with the absent choice on every edge that nothing flows through."""
        there = [np.ones(len(rows), np.bool_) if place < 0 else rows[:, place] != no for place, no, *_ in self._edges]
        nothing = np.zeros(len(rows), np.bool_)
        fed, used = {0: ~nothing}, {self._output: ~nothing}
        for node in range(1, self._output + 1):
            into = [on & fed[start] for on, (*_, start, end) in zip(there, self._edges, strict=True) if end == node]
            fed[node] = np.any(into, axis=0) if into else nothing
        for node in range(self._output - 1, -1, -1):
            out = [on & used[end] for on, (*_, start, end) in zip(there, self._edges, strict=True) if start == node]
            used[node] = np.any(out, axis=0) if out else nothing
        kept = rows.copy()
        for place, absent, start, end in self._edges:
            if place >= 0:
                kept[~(fed[start] & used[end]), place] = absent
        return kept

    def ways(self, rows: Rows) -> Floats:
        """(n, f) of every way from input to output, halved: whether it is whole, how often each choice lies on it."""
        columns: list[Floats] = []
        for way in self._ways:
            whole = np.ones(len(rows), np.bool_)
            counts = np.zeros((len(rows), max(self._sizes)))
            for edge in way:
                place, absent, *_ = self._edges[edge]
                if place >= 0:
                    whole &= rows[:, place] != absent
                    counts += rows[:, place][:, None] == np.arange(counts.shape[1])
            columns.append(np.column_stack([np.ones(len(rows)), counts]) * np.where(whole, 0.5, 0.0)[:, None])
        return _stacked(columns, len(rows))

    def _from(self, node: int) -> list[list[int]]:
        if node == self._output:
            return [[]]
        return [
            [number, *rest]
            for number, (*_, start, end) in enumerate(self._edges)
            if start == node
            for rest in self._from(end)
        ][:_WAYS]


@lru_cache(maxsize=4)
def _everything(space: SearchSpace) -> Rows:
    """By space: the enumeration of one is the same for every strategy over it."""
    encoding = Encoding(space)
    heads = [i for i, dim in enumerate(space.dimensions) if dim.name in _HEADS]
    parts = []
    for head in product(*(range(len(space.dimensions[i].choices)) for i in heads)):
        known = encoding._head(head)
        if known is None:
            continue
        ranges = [
            [head[heads.index(i)]] if i in heads else range(len(dim.choices)) if known[0][i] else [_UNUSED]
            for i, dim in enumerate(space.dimensions)
        ]
        grids = np.meshgrid(*(np.asarray(choices, dtype=np.int16) for choices in ranges), indexing="ij")
        parts.append(np.stack([grid.ravel() for grid in grids], axis=1))
    return encoding._distinct(np.concatenate(parts))


def _groups(dimensions: Sequence[Dimension]) -> list[list[int]]:
    """Indices of dimensions that have the same choices, two or more together."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, dim in enumerate(dimensions):
        if dim.name not in _HEADS:
            found[repr(dim.choices)].append(index)
    return [members for members in found.values() if len(members) > 1]


def _stacked(columns: Sequence[Floats], count: int) -> Floats:
    return np.concatenate(columns, axis=1) if columns else np.zeros((count, 0))
