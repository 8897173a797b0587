"""Functions that generated kernels call, as text: Triton is not imported by brickc itself.

Each is written with what both the compiler and the interpreter of Triton have, which leaves
out libdevice. Series are cut where the next term is below half a unit in the last place.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["NEEDS", "PRELUDE", "prelude_text"]

PRELUDE: dict[str, str] = {
    "interpreted": """\
# Triton's interpreter cuts f32 to bf16, multiplies the bit patterns of bf16, and widens its
# subnormals to other numbers
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
""",
    "bf16": '''\
@triton.jit
def bf16(x):
    """x rounded to 7 bits of mantissa, ties to even."""
    if INTERPRETED:
        bits = x.to(tl.float32).to(tl.uint32, bitcast=True)
        bits = bits + (((bits >> 16) & 1) + 0x7FFF)
        bits = tl.where(x != x, 0x7FC00000, bits)
        return (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return x.to(tl.bfloat16)
''',
    "tf32": '''\
@triton.jit
def tf32(x):
    """x cut to 10 bits of mantissa, as the tensor cores would cut it."""
    if INTERPRETED:
        return x
    else:
        return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
''',
    "widened": '''\
@triton.jit
def widened(x):
    """A half as f32."""
    if INTERPRETED and x.dtype == tl.bfloat16:
        bits = x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
        return bits.to(tl.float32, bitcast=True)
    else:
        return x.to(tl.float32)
''',
    "half": '''\
@triton.jit
def half(x):
    """An operand of the tensor cores, as it lies in memory."""
    if INTERPRETED:
        return widened(x)
    else:
        return x
''',
    "grid_barrier": '''\
@triton.jit
def grid_barrier(counter, first, count):
    """Waits until all programs are here, and makes what they wrote visible.

    Each adds 1; the first one adds what is missing to 2**31, so that the sign of the counter
    changes with the last to come. Nobody has to set it back: it is 0 or -2**31 in between.
    """
    tl.debug_barrier()
    share = tl.where(first == 0, 2147483647 - count + 2, 1)
    before = tl.atomic_add(counter, share, sem="release", scope="gpu")
    now = tl.atomic_add(counter, 0, sem="acquire", scope="gpu")
    while (before ^ now) >= 0:
        now = tl.atomic_add(counter, 0, sem="acquire", scope="gpu")
    tl.debug_barrier()
''',
    "next_first": '''\
@triton.jit
def next_first(first, tiles, count):
    """The first tile of this program in a phase that follows one of so many tiles."""
    return (first + count - tiles % count) % count
''',
    "expm1": '''\
@triton.jit
def expm1(x):
    """exp(x) - 1, by its series near 0, where the difference would lose digits."""
    small = tl.where(tl.abs(x) < 0.5, x, 0.0)
    series = small * 0.0 + 1.0
    for k in tl.static_range(16, 1, -1):
        series = 1.0 + series * small * (1.0 / k)
    return tl.where(tl.abs(x) < 0.5, small * series, tl.exp(x) - 1.0)
''',
    "log1p": '''\
@triton.jit
def log1p(x):
    """log(1 + x): 2·artanh(x/(2 + x)) as a series near 0."""
    near = tl.abs(x) < 0.5
    small = tl.where(near, x, 0.0)
    s = small / (2.0 + small)
    s2 = s * s
    series = s * 0.0
    for k in tl.static_range(35, 0, -2):
        series = series * s2 + 1.0 / k
    return tl.where(near, 2.0 * s * series, tl.log(1.0 + x))
''',
    "tanh": '''\
@triton.jit
def tanh(x):
    """-e/(e + 2) with e = exp(-2|x|) - 1, and x's sign."""
    e = expm1(-2.0 * tl.abs(x))
    y = -e / (e + 2.0)
    return tl.where(x < 0.0, -y, y)
''',
    "logistic": '''\
@triton.jit
def logistic(x):
    """1/(1 + exp(-x)); exp overflows to infinity, whose inverse is the limit."""
    return 1.0 / (1.0 + tl.exp(-x))
''',
    "softplus": '''\
@triton.jit
def softplus(x):
    """log(1 + exp(x)) without overflow."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) + log1p(tl.exp(-tl.abs(x)))
''',
    "signum": '''\
@triton.jit
def signum(x):
    """-1, 0 or 1; x itself where it is zero or NaN."""
    one = x * 0 + 1
    return tl.where(x > 0, one, tl.where(x < 0, -one, x))
''',
    "power": '''\
@triton.jit
def power(x, y):
    """x to the power y: exp(y·log|x|), and the sign of x for odd whole y."""
    size = tl.exp(y * tl.log(tl.abs(x)))
    whole = tl.floor(y) == y
    half = y * 0.5
    odd = whole & (tl.floor(half) != half)
    signed = tl.where(x < 0.0, tl.where(whole, tl.where(odd, -size, size), float("nan")), size)
    return tl.where((y == 0.0) | (x == 1.0), 1.0, signed)
''',
    "philox": '''\
@triton.jit
def philox(block, stream, counter, seed):
    """Ten rounds of Philox 4x32 (Salmon et al., 2011): four words, held in 64 bits."""
    word = tl.full([], 0xFFFFFFFF, tl.uint64)
    m0 = tl.full([], 0xD2511F53, tl.uint64)
    m1 = tl.full([], 0xCD9E8D57, tl.uint64)
    c0 = block.to(tl.uint64)
    c1 = c0 * 0 + stream
    c2 = c0 * 0 + (counter & word)
    c3 = c0 * 0 + (counter >> 32)
    k0 = seed & word
    k1 = seed >> 32
    for _ in tl.static_range(10):
        q0 = m0 * c0
        q1 = m1 * c2
        c0 = (q1 >> 32) ^ c1 ^ k0
        c1 = q1 & word
        c2 = (q0 >> 32) ^ c3 ^ k1
        c3 = q0 & word
        k0 = (k0 + 0x9E3779B9) & word
        k1 = (k1 + 0xBB67AE85) & word
    return c0, c1, c2, c3
''',
}

#: what a function calls
NEEDS: dict[str, tuple[str, ...]] = {
    "tanh": ("expm1",), "softplus": ("log1p",), "bf16": ("interpreted",),
    "widened": ("interpreted",), "tf32": ("interpreted",),
    "half": ("interpreted", "widened"),
}  # fmt: skip


def prelude_text(names: Iterable[str]) -> str:
    """Source of the functions and of what they call, callees first."""
    wanted = set(names)
    wanted |= {n for name in names for n in NEEDS.get(name, ())}
    return "\n\n".join(text for name, text in PRELUDE.items() if name in wanted)
