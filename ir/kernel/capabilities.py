"""What a backend can do, as data that passes read."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..dtypes import DType

__all__ = ["Capabilities"]


@dataclass(frozen=True)
class Capabilities:
    """One target's abilities.

    ``epilogue`` and ``prologue`` name the anchor kinds that may be followed or preceded by
    a scalar program in the same kernel. ``convolution`` says whether convolution anchors
    are carried out as such ("direct") or legalised to contractions ("contract"). ``layout``
    is the policy of orders of axes: "batch innermost" (a vector holds the same element of
    neighbouring examples), "channels last" (images [N, *S, C] and kernels [O, *K, C], all
    else as its type says) or "row major" (everything as its type says).

    ``half`` is the dtype in which f32 activations and gradients are kept between kernels, and in
    which products read them; None keeps everything as its type says. Such a target widens halves
    as it loads them: a cast from a half to f32 needs no memory.
    """

    name: str
    epilogue: frozenset[str] = field(default_factory=frozenset)
    prologue: frozenset[str] = field(default_factory=frozenset)
    convolution: str = "direct"
    layout: str = "batch innermost"
    #: gradients through max pools into convolutions are sums over windows
    pooled_gradients: bool = False
    #: anchor kinds whose results can be pooled in the same kernel, windows side by side
    pool: frozenset[str] = field(default_factory=frozenset)
    #: compile ``infer`` once more for a batch of one, which has other lanes
    single: bool = False
    #: most bytes of all parameters in one horizontally fused update; 0 turns it off
    bundle_bytes: int = 0
    #: rows of a large parameter are never a multiple of so many bytes apart; 0 allows that
    apart_bytes: int = 0
    half: DType | None = None
    #: several training steps can be started at once, each with inputs and results of its own
    several_steps: bool = False
