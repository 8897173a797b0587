"""What every test shares: hypothesis profiles, golden files, seeded randomness.

Set ``HYPOTHESIS_PROFILE`` to ``ci`` or ``dev`` to choose; ``CI`` in the environment means ``ci``.
"""

from __future__ import annotations

import atexit
import difflib
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

GOLDEN = Path(__file__).parent / "golden"

# compiled kernels are kept for one run of the tests, all workers share them
if "BRICKC_CACHE" not in os.environ:
    os.environ["BRICKC_CACHE"] = _cache = tempfile.mkdtemp(prefix="brickc-tests-")
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)

# read when Triton's language is imported: its kernels run in NumPy, GPU or not
os.environ.setdefault("TRITON_INTERPRET", "1")

# Compiling an example may take long on a busy machine: no deadlines, only counts.
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=60,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("dev", deadline=None, max_examples=25)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite the files under tests/golden instead of comparing with them",
    )
    parser.addoption(
        "--exhaustive", action="store_true", help="run what takes many minutes of compiling, too"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--exhaustive"):
        return
    for item in items:
        if item.get_closest_marker("exhaustive"):
            item.add_marker(pytest.mark.skip(reason="takes minutes; --exhaustive runs it"))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden("name.txt", text)`` compares text with tests/golden/name.txt, exactly."""
    update: bool = request.config.getoption("--update-golden")

    def compare(name: str, text: str) -> None:
        __tracebackhide__ = True
        path = GOLDEN / name
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
            return
        if not path.exists():
            pytest.fail(f"no golden file {name}; write it with --update-golden", pytrace=False)
        expected = path.read_bytes().decode()
        if text == expected:
            return
        diff = difflib.unified_diff(
            [line + "\n" for line in expected.split("\n")],
            [line + "\n" for line in text.split("\n")],
            f"tests/golden/{name}",
            "got",
        )
        pytest.fail(
            f"differs from the golden file; if this is meant, --update-golden\n{''.join(diff)}",
            pytrace=False,
        )

    return compare


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number of the test's own: the same in every run, order and worker."""
    return zlib.crc32(request.node.nodeid.encode())


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """The generator a test draws from."""
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seeds the global generators too, for libraries that draw from them."""
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
