"""Every network of the zoo compiled ahead of time, and what its kernels are held to.

No GPU: registers, shared memory and instructions are read from the binaries. Equal kernels of all
networks are compiled once, by way of the cache.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import brickc as bc
from brickc.backends.cache import cache_folder
from brickc.backends.triton import RESOURCES
from brickc.backends.triton.options import ARCHITECTURES
from brickc.driver import Compiled, compile_model
from brickc.errors import UnsupportedError

pytest.importorskip("triton")
# the package has a function of the same name
build = import_module("brickc.backends.triton.build")

SMALL = ("mlp", "lenet5", "lenet")
LARGE = ("alexnet", "alexnet2012", "overfeat", "vgg_a", "googlenet")

#: tensor-core instructions of an architecture; the first needs tiles of 64 rows
TENSOR = {"sm_80": ("HMMA", "HMMA"), "sm_90": ("HGMMA", "HMMA"), "gfx942": ("MFMA", "MFMA")}

TRITON = tuple(map(int, importlib.metadata.version("triton").split(".")[:2]))
#: older code generators spill, and see fewer loads side by side
GATED = TRITON >= (3, 9)

REASON = "loads below 128 bits: "
#: wgmma reads its second operand from shared memory, in tf32 only as it lies along the sum; the two
#: operands of a weight gradient both lie across it. The first goes by way of registers
ACROSS = "tf32 takes the second operand along the sum"
#: the image is given rows first: the first layer reads it as it is
GIVEN = "neighbours in the tile are none in memory"


def ahead(name: str, target: str) -> tuple[Compiled, dict[str, dict[str, Any]]]:
    """A training step compiled for a GPU, and what its kernels take."""
    compiled = compile_model(
        bc.zoo.model(name), target, optimizer=bc.SGD(0.01, momentum=0.9), functions=["train_step"]
    )
    return compiled, json.loads(compiled.sources[RESOURCES])


def held(name: str, architecture: str, precision: str) -> dict[str, dict[str, Any]]:
    """No spilled registers and shared memory within the architecture's; all kernels."""
    _, kernels = ahead(name, f"triton:{architecture},{precision},launches")
    assert kernels
    assert not {k: r["spilled"] for k, r in kernels.items() if r["spilled"]}
    limit = ARCHITECTURES[architecture].shared
    assert all(r["shared"] <= limit for r in kernels.values())
    most = 512 if architecture == "gfx942" else 255
    assert all(0 < r["registers"] <= most for r in kernels.values())
    return kernels


def only_compiled(name: str, target: str) -> None:
    """Large networks under a Triton that the gates are not for."""
    _, kernels = ahead(name, target)
    assert kernels
    pytest.skip("compiled; the gates are for the Triton of constraints.txt")


def products_of(kernels: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {k: r for k, r in kernels.items() if re.match(r"\d+ x \d+ results, ", r["tile"])}


def reasons(r: dict[str, Any]) -> list[str]:
    """Why some loads of a kernel are shorter than they could be."""
    _, found, text = r["tile"].partition(REASON)
    return text.split("; ") if found else []


def check_products(kernels: dict[str, dict[str, Any]], architecture: str) -> None:
    """Tensor cores in all products; full loads in their loops, or a reason."""
    for name, r in products_of(kernels).items():
        rows, columns = map(int, re.findall(r"\d+", r["tile"])[:2])
        wanted = TENSOR[architecture][rows < 64]
        assert set(r["tensor"]) == {wanted}, (name, r)
        loop = r["loop_loads"] if sum(r["loop_loads"].values()) else None
        why = reasons(r)
        if not why:
            assert r["loads"]["128"] > 0, (name, r)
            # Triton gives the threads of AMD's wider warps 64 bits of an operand of 16 rows
            halved = architecture == "gfx942" and min(rows, columns) < 32
            # before 3.9 a loop's last step may lie behind what follows the sums and jump back over
            # it: the rate of an update then counts as a load in the loop
            exact = architecture != "gfx942" or TRITON >= (3, 9)
            short = loop["32"] * exact + loop["64"] * (not halved) if loop else 0
            assert short == 0, (name, r)
        if why == [ACROSS]:  # one of two operands
            assert (loop or r["loads"])["128"] > 0, (name, r)


def test_no_network_is_left_out() -> None:
    assert {*SMALL, *LARGE} == set(bc.zoo.ZOO)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", SMALL)
def test_small_networks(name: str, architecture: str) -> None:
    kernels = held(name, architecture, "tf32")
    check_products(kernels, architecture)


def test_without_tensor_cores() -> None:
    kernels = held("lenet5", "sm_90", "f32")
    assert not any(r["tensor"] for r in kernels.values())


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", LARGE)
def test_large_networks(name: str, architecture: str) -> None:
    if not GATED:
        only_compiled(name, f"triton:{architecture},tf32,launches")
    kernels = held(name, architecture, "tf32")
    products = products_of(kernels)
    assert len(products) >= 10
    check_products(kernels, architecture)
    found: dict[str, list[str]] = {}
    for k, r in products.items():
        for why in reasons(r):
            found.setdefault(why, []).append(k)
    assert set(found) <= ({GIVEN, ACROSS} if architecture == "sm_90" else {GIVEN})
    # forward and gradient of the first layer
    assert len(found[GIVEN]) == 2
    # most products that are no weight gradients have full loads for both operands
    across = [k for k in found.get(ACROSS, ()) if not k.startswith("convolutionweightgrad")]
    assert len(across) <= 0.2 * len(products)
    for k, r in kernels.items():
        if k.startswith("map_") and sum(r["loads"].values()) and not reasons(r):
            assert r["loads"]["128"] > 0, (k, r)


def test_halves_have_full_loads_everywhere() -> None:
    """Tensor cores take halves however they lie in shared memory."""
    if not GATED:
        only_compiled("alexnet", "triton:sm_90,bf16,launches")
    kernels = held("alexnet", "sm_90", "bf16")
    check_products(kernels, "sm_90")
    found = [reasons(r) for r in products_of(kernels).values() if reasons(r)]
    # the first layer and its gradient: of the image the three colours are neighbours
    assert found == [["3 neighbours in memory"]] * 2


# ── the cache ────────────────────────────────────────────────────────────────────────────────


def test_two_compilations_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for folder in ("one", "two"):
        monkeypatch.setenv("BRICKC_CACHE", str(tmp_path / folder))
        compiled, _ = ahead("mlp", "triton:sm_90,tf32,launches")
        found.append(compiled.sources)
        assert any((tmp_path / folder).rglob("*"))  # compiled afresh
    assert found[0] == found[1]


def test_kernels_are_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRICKC_CACHE", str(tmp_path))
    target = "triton:sm_90,tf32,launches"
    compiled: list[int] = []
    compile_ = build._compile

    def counted(jobs: Any, *rest: Any) -> Any:
        compiled.append(len(jobs))
        return compile_(jobs, *rest)

    monkeypatch.setattr(build, "_compile", counted)
    first, kernels = ahead("mlp", target)
    assert compiled == [len(kernels)]
    again, _ = ahead("mlp", target)
    assert compiled == [len(kernels)]  # all from the cache
    assert again.sources == first.sources
    # what is damaged is compiled again, to the same bytes
    entries = sorted(p for p in cache_folder().rglob("*") if p.is_file())
    assert len(entries) == len(kernels)
    for entry in entries[:2]:
        entry.write_bytes(entry.read_bytes()[:-100])
    mended, _ = ahead("mlp", target)
    assert compiled == [len(kernels), 2]
    assert mended.sources == first.sources
    # another architecture has entries of its own
    ahead("mlp", target.replace("sm_90", "sm_80"))
    assert compiled[-1] > 2


def test_what_triton_refuses_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    job = build._Job("import triton\n\n@triton.jit\ndef k(p0):\n    nothing(p0)\n", "k", ("p0",),
                     ("*fp32",), (), 4, 1)  # fmt: skip
    with pytest.raises(UnsupportedError, match="cannot compile map_3; got"):
        build._compile({"key": job}, ARCHITECTURES["sm_90"], {"key": "map_3"})
