"""A network between two steps of a chain as far as screening needs it: its shapes, and what is known of its base."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from automc.techniques.plan import Edit, Plan

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


@dataclass(frozen=True)
class Outline:
    """exact: whether `plan` leaves the very shapes that a plan on the weights would; else those that it would leave if
    the steps before had changed nothing in what is important."""

    plan: Plan
    exact: bool = True


@dataclass(frozen=True, eq=False)
class Sketch:
    """What `plans` leave of `base`.

    base: in eval mode or not, with its weights. shapes: of `base` after `plans`, on the meta device, in eval mode.
    exact: whether every plan is exact.
    """

    base: nn.Module
    plans: tuple[Plan, ...]
    shapes: nn.Module
    exact: bool = True
    _origin: Sketch | None = field(default=None, repr=False)
    _known: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def origin(self) -> Sketch:
        """Of the base itself: what is found out about that is kept there, for all that follow from it."""
        return self._origin or self

    @property
    def edits(self) -> tuple[Edit, ...]:
        """Of all plans, in order."""
        return tuple(edit for plan in self.plans for edit in plan.edits)

    def known(self, key: Hashable, find_out: Callable[[], T]) -> T:
        """What `find_out` says of this sketch, asked once. key: the caller's own; tells also what it reads beside."""
        if key not in self._known:
            self._known[key] = find_out()
        return cast(T, self._known[key])

    def then(self, outline: Outline, shapes: nn.Module) -> Sketch:
        """The sketch after one more plan, which leaves `shapes`."""
        return Sketch(self.base, (*self.plans, outline.plan), shapes, self.exact and outline.exact, self.origin)
