"""Passes and pipelines: named, verified after each step, open to observers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass

from ..errors import BrickcError, InternalError, VerifyError
from ..ir.graph import Graph
from ..ir.verify import verify

__all__ = ["Observer", "Pass", "Pipeline"]

#: called with the stage's name and its graph, which it must not change
Observer = Callable[[str, Graph], None]


@dataclass(frozen=True)
class Pass:
    """A pure function Graph -> Graph, and why it stands where it stands."""

    name: str
    function: Callable[[Graph], Graph]
    why: str


@dataclass(frozen=True)
class Pipeline:
    """Passes in a fixed order."""

    name: str
    passes: tuple[Pass, ...]

    def run(
        self,
        graph: Graph,
        observers: Iterable[Observer] = (),
        *,
        seconds: MutableMapping[str, float] | None = None,
    ) -> Graph:
        """The graph after all passes.

        Observers see every stage under the name of the pass that made it. ``seconds``
        collects the time that each pass took, without verifier and observers. The input is
        verified too, so that a broken graph is not blamed on the first pass.

        Raises what the user has to mend as the passes raise it. Everything else is a bug of
        ours, and the error names the pass: VerifyError for a graph that breaks the rules,
        InternalError for an exception that nobody meant.
        """
        watchers = tuple(observers)
        _verify(graph, f"the input of {self.name}")
        for step in self.passes:
            started = time.perf_counter()
            graph = _apply(step, graph)
            if seconds is not None:
                taken = time.perf_counter() - started
                seconds[step.name] = seconds.get(step.name, 0.0) + taken
            _verify(graph, f"pass {step.name}")
            for watcher in watchers:
                watcher(step.name, graph)
        return graph

    def then(self, *passes: Pass) -> Pipeline:
        """A pipeline that goes on after this one."""
        return Pipeline(self.name, (*self.passes, *passes))

    def describe(self) -> str:
        """One line a pass: its name and why it stands there."""
        width = max((len(p.name) for p in self.passes), default=0)
        return "\n".join(f"{p.name:<{width}}  {p.why}" for p in self.passes)


def _apply(step: Pass, graph: Graph) -> Graph:
    try:
        return step.function(graph)
    except (InternalError, VerifyError) as error:
        raise _blame(error, f"pass {step.name}") from error
    except BrickcError:
        raise  # the user's to mend
    except Exception as error:
        raise InternalError(
            f"pass {step.name} failed on graph {graph.name!r}",
            got=f"{type(error).__name__}: {error}",
        ) from error


def _verify(graph: Graph, after: str) -> None:
    try:
        verify(graph)
    except VerifyError as error:
        raise _blame(error, f"after {after}") from error


def _blame(error: BrickcError, stage: str) -> BrickcError:
    """The same error with the stage named in it."""
    return type(error)(
        f"{stage}: {error.what}", where=error.where, got=error.got, expected=error.expected,
        hint=error.hint,
    )  # fmt: skip
