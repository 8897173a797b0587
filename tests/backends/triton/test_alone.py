"""Kernels as modules of their own, and what is read from their instructions."""

from __future__ import annotations

from brickc.backends.triton.alone import Module
from brickc.backends.triton.disassembly import instructions_of_gcn, statistics

SOURCE = '''"""title"""

import os

import triton
import triton.language as tl


FLAG = tl.constexpr(os.environ.get("X") == "1")


@triton.jit
def helper(x):
    """A comment that does not count."""
    return x if FLAG else -x


@triton.jit
def unused(x):
    return x


# train_step 4: a layer
# tile: 64 elements
@triton.jit
def map_NUMBER_tile(tile, p0, n_N):
    tl.store(p0 + tile, helper(tile))  # stored


@triton.jit(do_not_specialize=['n_N'])
def map_NUMBER(p0, n_N):
    map_NUMBER_tile(tl.program_id(0), p0, n_N)
'''


def test_equal_kernels_are_equal_texts() -> None:
    one = Module(SOURCE.replace("NUMBER", "3")).alone("map_3")
    other = SOURCE.replace("NUMBER", "12").replace("a layer", "another layer")
    assert one == Module(other).alone("map_12")
    assert "unused" not in one
    assert "#" not in one
    assert "FLAG =" in one
    assert "def helper(" in one
    assert "def kernel(p0, n_N)" in one
    assert "map_" not in one
    compile(one, "kernels", "exec")


def test_other_helpers_are_other_texts() -> None:
    changed = SOURCE.replace("else -x", "else x")
    assert Module(SOURCE).alone("map_NUMBER") != Module(changed).alone("map_NUMBER")


def test_loads_in_loops_are_told_apart() -> None:
    code = [
        (0x00, "LDG.E.128 R0, desc[UR4][R2.64]"), (0x10, "@P0 LDG.E R4, desc[UR4][R2.64]"),
        (0x20, "LDGSTS.E.BYPASS.128 [R5], desc[UR6][R6.64]"), (0x30, "LDGDEPBAR"),
        (0x40, "HGMMA.64x128x8.F32.TF32 R24, gdesc[UR8], R24"), (0x50, "@!P5 BRA 0x20"),
        (0x60, "LDG.E.64 R0, desc[UR4][R2.64]"), (0x70, "BRA 0x70"),
    ]  # fmt: skip
    assert statistics(code, "cuda") == {
        "tensor": {"HGMMA": 1},
        "loads": {"128": 2, "64": 1, "32": 1},
        "loop_loads": {"128": 1, "64": 0, "32": 0},
    }


def test_loads_by_descriptors_are_tiles() -> None:
    code = [
        (0x00, "LDG.E R4, desc[UR4][R2.64]"), (0x10, "@P1 UTMALDG.2D [UR8], [UR4], desc[UR6]"),
        (0x20, "UTMACMDFLUSH"), (0x30, "UTMALDG.2D [UR8], [UR4]"), (0x40, "@P0 BRA 0x30"),
    ]  # fmt: skip
    assert statistics(code, "cuda") == {
        "tensor": {},
        "loads": {"128": 0, "64": 0, "32": 1, "tile": 2},
        "loop_loads": {"128": 0, "64": 0, "32": 0, "tile": 1},
    }


def test_text_for_amd() -> None:
    code = instructions_of_gcn("""
\t.text
kernel:
\tglobal_load_dword v0, v[0:1], off
.LBB0_1:                ; %loop
\tbuffer_load_dwordx4 v[0:3], v4, s[0:3], 0 offen
\tv_mfma_f32_32x32x8_xf32 a[0:15], v0, v1, a[0:15]
\ts_cbranch_scc1 .LBB0_1
\ts_branch .LBB0_2
.LBB0_2:
\tbuffer_load_ushort v0, v4, s[0:3], 0 offen
\ts_endpgm
""")
    assert statistics(code, "hip") == {
        "tensor": {"MFMA": 1},
        "loads": {"128": 1, "64": 0, "32": 2},
        "loop_loads": {"128": 1, "64": 0, "32": 0},
    }
