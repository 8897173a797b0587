"""Which passes run, in which order, and why: the one place to read it."""

from __future__ import annotations

from functools import partial

from ..ir.graph import Graph
from ..ir.kernel.capabilities import Capabilities
from .differentiate import with_gradients
from .loss_scaling import SCALED, scale_loss
from .optimize.canonicalise import canonicalise
from .optimize.cse import merge_equal
from .optimize.dead import drop_dead
from .optimize.expand import expand
from .optimize.join_optimizer import join_gradients
from .optimize.legalise_convolution import legalise_convolution
from .optimize.mixed_precision import keep_halves
from .optimize.own_updates import own_updates
from .optimize.pooled_gradients import pooled_gradients
from .optimize.simplify import simplify
from .optimize.specialise import specialise
from .optimize.whole_window import whole_window
from .optimizers import Optimizer
from .pipeline import Pass, Pipeline

__all__ = ["inference_pipeline", "target_pipeline", "training_pipeline"]


def inference_pipeline() -> Pipeline:
    """Outputs, loss and metrics without gradients: functions ``infer`` and ``evaluate``."""
    return Pipeline(
        "inference",
        (
            Pass(
                "specialise",
                partial(specialise, training=False),
                "first: no other pass knows two modes; dropout and running statistics vanish here",
            ),
            Pass(
                "expand",
                partial(expand, only_without_vjp=False),
                "before simplify, which looks at plain bricks and sees across old borders",
            ),
            Pass(
                "simplify",
                simplify,
                "last: what is cheap to remove here need not be laid out, fused and planned",
            ),
        ),
    )


def training_pipeline(loss: str, optimizer: Optimizer, *, runtime_lr: bool = True) -> Pipeline:
    """Forward, loss, backward and update as one graph: function ``train_step``."""

    scaling = optimizer.loss_scale
    scale: tuple[Pass, ...] = ()
    if scaling is not None:
        scale = (
            Pass(
                "scale loss",
                partial(scale_loss, loss=loss, scaling=scaling),
                "right before differentiate, which then scales every gradient",
            ),
        )

    def differentiate(graph: Graph) -> Graph:
        return with_gradients(graph, SCALED if scaling else loss, trained_only=True)

    def join_optimizer(graph: Graph) -> Graph:
        return join_gradients(graph, optimizer, runtime_lr=runtime_lr)

    return Pipeline(
        "training",
        (
            Pass(
                "specialise",
                partial(specialise, training=True),
                "first: the loss must be that of training, and updates of states join the graph",
            ),
            Pass(
                "canonicalise",
                canonicalise,
                "before differentiate: an identity that is gone needs no gradient",
            ),
            Pass(
                "expand without vjp",
                partial(expand, only_without_vjp=True),
                "before differentiate, which then finds a rule for every brick; composites with a "
                "better rule of their own stay whole until it has been used",
            ),
            *scale,
            Pass(
                "differentiate",
                differentiate,
                "on bricks with their names: their rules are shorter than those of their parts",
            ),
            Pass(
                "join optimizer",
                join_optimizer,
                "right after the gradients, so that everything below sees one step as one graph",
            ),
            Pass(
                "expand",
                partial(expand, only_without_vjp=False),
                "after differentiate; forward and backward halves of a composite now share nodes",
            ),
            Pass(
                "simplify",
                simplify,
                "last: it merges what forward, backward and optimizer compute twice",
            ),
        ),
    )


def target_pipeline(capabilities: Capabilities) -> Pipeline:
    """What depends on the target: after either of the others."""
    passes: tuple[Pass, ...] = ()
    if capabilities.convolution == "contract":
        passes = (
            Pass(
                "legalise convolution",
                legalise_convolution,
                "after simplify: the three convolutions must be final before they are taken apart",
            ),
            Pass(
                "simplify again",
                simplify,
                "forward and weight gradient build the same copy of the input; one is enough",
            ),
        )
    else:
        passes = (
            Pass(
                "whole window",
                whole_window,
                "after simplify: a convolution that slides nowhere is better off as a product",
            ),
            Pass("simplify again", simplify, "reshapes of reshapes become one"),
        )
    if capabilities.pooled_gradients:
        pooled = Pass(
            "pooled gradients",
            pooled_gradients,
            "after simplify has moved slopes to the pooled side: only then does the gradient of a "
            "max pool reach the convolution as it is",
        )
        merged = Pass("merge equal", merge_equal, "both gradients of a convolution ask for the "
                      "same numbers")  # fmt: skip
        dropped = Pass("drop dead", drop_dead, "nobody reads the whole gradient any more")
        passes = (*passes, pooled, merged, dropped)
    owned = Pass(
        "own updates",
        own_updates,
        "very last: merging equal nodes could give two updates one value again",
    )
    passes = (*passes, owned)
    if capabilities.half is not None:
        kept = Pass(
            "keep halves",
            partial(keep_halves, capabilities=capabilities),
            "after the very last: which values reach memory is only known of the finished graph",
        )
        passes = (*passes, kept)
    return Pipeline(capabilities.name, passes)
