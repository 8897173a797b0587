"""Files of torch.export.save: what is in them, and what must not happen when they are bad."""

from __future__ import annotations

import copy
import json
import pickle
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_archives import Small, edited, entries, paths_of, replaced, save

import brickc as bc
from brickc.errors import BrickcError, ImportModelError, UnsupportedError, UsageError

# torch's exporter warns of what it uses itself
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec:FutureWarning")

#: seconds and bytes that no file may take
LONGEST, LARGEST = 5.0, 2**30


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("pt2") / "small.pt2"
    batch = torch.export.Dim("N", min=1, max=16)
    save(Small(), torch.randn(2, 1, 8, 8), path, dynamic_shapes=({0: batch},))
    return path


def test_reads_what_torch_wrote(good: Path) -> None:
    module = Small().eval()
    program = torch.export.load(good)
    module.load_state_dict(program.state_dict)
    model = bc.load_model(str(good))
    assert model.name == "small"
    assert str(model.inputs["x"]) == "f32[N,1,8,8]"
    assert (model.inputs["x"].dims["N"].lo, model.inputs["x"].dims["N"].hi) == (1, 16)
    assert set(model.parameters) == {n for n, _ in module.named_parameters()}
    assert {n for n, _ in module.named_buffers()} <= set(model.states)
    compiled = bc.compile(model)
    for batch in (1, 3, 16):
        x = torch.randn(batch, 1, 8, 8)
        got = compiled.infer(x=x.numpy())["output"]
        np.testing.assert_allclose(got, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_weights_go_back(good: Path) -> None:
    module = Small()
    module.load_state_dict(bc.compile(bc.load_model(str(good))).state_dict("torch"))
    for key, value in torch.export.load(good).state_dict.items():
        torch.testing.assert_close(module.state_dict()[key], value)


def test_agrees_with_the_module_itself(good: Path, tmp_path: Path) -> None:
    """A file in training IR, one in core ATen, and from_torch are the same network."""
    program = torch.export.load(good)
    torch.export.save(program.run_decompositions(), tmp_path / "core.pt2")
    x = np.random.default_rng(0).standard_normal((4, 1, 8, 8)).astype(np.float32)
    ours = [bc.compile(bc.load_model(str(p))).infer(x=x)["output"]
            for p in (good, tmp_path / "core.pt2")]  # fmt: skip
    np.testing.assert_allclose(*ours, rtol=1e-5, atol=1e-6)


def test_places_are_kept(good: Path) -> None:
    origins = {str(n.origin) for n in bc.load_model(str(good)).graph().nodes()}
    line = next(k for k, text in enumerate(Path(save.__code__.co_filename).read_text().split("\n"), 1)
                if "torch.relu(self.bn" in text)  # fmt: skip
    assert f'torch_archives.py:{line} "conv"' in origins


def test_writes_in_place_are_followed(tmp_path: Path) -> None:
    class InPlace(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            y = x + 1
            z = y.mul_(2)
            y.add_(3)
            return z - x

    save(InPlace(), torch.randn(3), tmp_path / "a.pt2")
    x = np.array([1.0, -2.0, 0.5], np.float32)
    got = bc.compile(bc.load_model(str(tmp_path / "a.pt2"))).infer(x=x)["output"]
    np.testing.assert_allclose(got, (x + 1) * 2 + 3 - x)


def test_writes_into_views_are_refused(tmp_path: Path) -> None:
    class IntoView(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            y = x + 1
            y[0].mul_(2)
            return y

    program = save(IntoView(), torch.randn(3, 2), tmp_path / "a.pt2")
    with pytest.raises(UnsupportedError, match="in place into a tensor of which there are views"):
        bc.load_model(str(tmp_path / "a.pt2"))
    # torch's own decompositions say it without writing
    torch.export.save(program.run_decompositions(), tmp_path / "b.pt2")
    x = np.ones((3, 2), np.float32)
    got = bc.compile(bc.load_model(str(tmp_path / "b.pt2"))).infer(x=x)["output"]
    np.testing.assert_allclose(got, [[4, 4], [2, 2], [2, 2]])


def test_lists_every_unsupported_operator(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.linalg.qr(x)[0] + torch.linalg.svdvals(x)[0] + torch.special.i0(x)

    save(Odd(), torch.randn(3, 3), tmp_path / "a.pt2")
    with pytest.raises(UnsupportedError) as caught:
        bc.load_model(str(tmp_path / "a.pt2"))
    for name in ("linalg_qr", "linalg_svdvals", "special_i0"):
        assert name in str(caught.value)
    assert "test_archive.py:" in str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_a_pickle_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save(Small().state_dict(), path)
    with pytest.raises(UsageError, match=r"torch\.export\.save"):
        bc.load_model(str(path))


# ── no code is run ───────────────────────────────────────────────────────────────────────


class Canary:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_no_pickle_is_read(good: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    bomb = pickle.dumps(Canary(canary))
    pickle.loads(bomb)  # noqa: S301 - that the canary sings at all
    canary.unlink()
    content = entries(good)
    content = {n: bomb if "sample_inputs" in n else d for n, d in content.items()}
    bc.load_model(str(replaced(tmp_path / "a.pt2", content)))  # nobody asks for these
    assert not canary.exists()

    def pickled(config: Any) -> None:
        config["config"]["fc.weight"]["use_pickle"] = True

    content = edited(content, "weights_config.json", pickled)
    content = {n: bomb if n.endswith("weight_4") else d for n, d in content.items()}
    with pytest.raises(UnsupportedError, match="pickle"):
        bc.load_model(str(replaced(tmp_path / "b.pt2", content)))
    assert not canary.exists()


CODE = "__import__('pathlib').Path({!r}).touch()"


@pytest.mark.parametrize("form", ["{}", "Symbol('s77', {})", "Add(Symbol('s77'), {})", "Integer({})",
                                  "(lambda: {})()", "[{} for _ in range(1)][0]"])  # fmt: skip
def test_no_size_is_evaluated(form: str, good: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    text = form.format(CODE.format(str(canary)))

    def hostile(program: Any) -> None:
        for meta in program["graph_module"]["graph"]["tensor_values"].values():
            meta["sizes"] = [{"as_expr": {"expr_str": text}} if "as_expr" in s else s
                             for s in meta["sizes"]]  # fmt: skip

    path = replaced(tmp_path / "a.pt2", edited(entries(good), "models/model.json", hostile))
    with pytest.raises(BrickcError):
        bc.load_model(str(path))
    assert not canary.exists()


NAMES = ['x"; import os #', "../../etc/passwd", "", "a" * 10_000, "x\ny", "__class__", "π", "a b",
         "import os\nos.system('touch /tmp/x')", "\x00", "optimizer.lr", "random.seed"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_hostile_names(name: str, good: Path, tmp_path: Path) -> None:
    """Names are data: refused, or carried through to a program that computes the same."""
    content = entries(good)

    def rename_weight(config: Any) -> None:
        config["config"][name] = config["config"].pop("fc.weight")

    def rename_spec(program: Any) -> None:
        for spec in program["graph_module"]["signature"]["input_specs"]:
            if spec.get("parameter", {}).get("parameter_name") == "fc.weight":
                spec["parameter"]["parameter_name"] = name

    content = edited(content, "weights_config.json", rename_weight)
    content = edited(content, "models/model.json", rename_spec)
    path = replaced(tmp_path / "a.pt2", content)
    try:
        model = bc.load_model(str(path))
        program = bc.compile(model)
    except BrickcError:
        return
    x = np.ones((2, 1, 8, 8), np.float32)
    expected = bc.compile(bc.load_model(str(good))).infer(x=x)["output"]
    np.testing.assert_array_equal(program.infer(x=x)["output"], expected)


def test_a_compressed_archive_is_refused(good: Path, tmp_path: Path) -> None:
    content = {n: b"\0" * 2**24 if "weight_0" in n else d for n, d in entries(good).items()}
    path = replaced(tmp_path / "a.pt2", content, zipfile.ZIP_DEFLATED)
    with pytest.raises(ImportModelError, match="compressed"):
        bc.load_model(str(path))


@pytest.mark.parametrize("place", ["../weight_0", "/etc/passwd", "weight_99", "", "a/b"])
def test_places_outside_are_refused(place: str, good: Path, tmp_path: Path) -> None:
    def move(config: Any) -> None:
        config["config"]["fc.weight"]["path_name"] = place

    path = replaced(tmp_path / "a.pt2", edited(entries(good), "weights_config.json", move))
    with pytest.raises(ImportModelError):
        bc.load_model(str(path))


def test_sizes_are_checked_before_memory_is_taken(good: Path, tmp_path: Path) -> None:
    def grow(config: Any) -> None:
        meta = config["config"]["fc.weight"]["tensor_meta"]
        meta["sizes"] = [{"as_int": 2**31 - 1}, {"as_int": 2**31 - 1}]
        meta["strides"] = [{"as_int": 0}, {"as_int": 0}]

    path = replaced(tmp_path / "a.pt2", edited(entries(good), "weights_config.json", grow))
    with pytest.raises(ImportModelError, match="does not fit"):
        bc.load_model(str(path))


# ── damaged files ────────────────────────────────────────────────────────────────────────


def survive(path: Path, then: Callable[[bc.Model], object] = lambda model: None) -> None:
    """Load it: a model or a BrickcError, soon, in little memory."""
    tracemalloc.start()
    started = time.perf_counter()
    try:
        then(bc.load_model(str(path)))
    except BrickcError as error:
        assert str(error)
    finally:
        seconds = time.perf_counter() - started
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert seconds < LONGEST
    assert peak < LARGEST


FIXTURES_ARE_READ_ONLY = [HealthCheck.function_scoped_fixture]


@settings(suppress_health_check=FIXTURES_ARE_READ_ONLY)
@given(data=st.data())
def test_truncated_and_flipped(good: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(good.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) * 8 - 1), max_size=6)):
        content[place // 8] ^= 1 << place % 8
    end = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    path = tmp_path / "bad.pt2"
    path.write_bytes(content[:end])
    survive(path)


HOSTILE = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.sampled_from([2**31, 2**31 - 1, -1]),
    st.floats(), st.text(max_size=8), st.sampled_from(NAMES),
    st.sampled_from([[], {}, [[]], [[[[[[]]]]]], {"as_int": 2**31 - 1}, {"as_tensor": {"name": "x"}},
                     {"as_ints": [0, 0]}, {"as_tensors": []}, {"as_none": True}, {"as_bool": True},
                     {"as_float": "NaN"}, {"as_int": 0}, {"as_int": -1}, {"as_float": 1e300},
                     {"as_ints": [2**30] * 3}, "aten.cat.default", "torch.ops.aten.cumsum.default",
                     "torch.ops.aten.view.default", "torch.ops.aten.split.Tensor",
                     "torch.ops.aten.mul_.Tensor", "torch.ops.aten.unbind.int"]),
)  # fmt: skip


@settings(suppress_health_check=FIXTURES_ARE_READ_ONLY, max_examples=150)
@given(data=st.data())
def test_spoilt_documents(good: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Well-formed archives whose program says something else."""
    content = entries(good)
    name = data.draw(st.sampled_from([n for n in content if n.endswith(".json")]))
    document = json.loads(content[name])
    for _ in range(data.draw(st.integers(1, 3))):
        ways = list(paths_of(document))
        if not ways:
            break
        *way, last = data.draw(st.sampled_from(ways))
        place = document
        for key in way:
            place = place[key]
        if data.draw(st.booleans()):
            place[last] = copy.deepcopy(data.draw(HOSTILE))
        elif isinstance(place, list):
            place.insert(data.draw(st.integers(0, len(place))), place[last])
        else:
            del place[last]
    content[name] = json.dumps(document).encode()

    def compiled(model: bc.Model) -> None:
        bc.compile(model, functions=["infer"])

    survive(replaced(tmp_path / "bad.pt2", content), compiled)


def test_deep_nesting(good: Path, tmp_path: Path) -> None:
    content = entries(good)
    (name,) = (n for n in content if n.endswith("models/model.json"))
    content[name] = b"[" * 200_000
    with pytest.raises(ImportModelError, match="no JSON"):
        bc.load_model(str(replaced(tmp_path / "a.pt2", content)))


def test_an_inference_file_gains_training(good: Path) -> None:
    """The loss is added by brickc; the weights go back into the module all the same."""
    model = bc.with_loss(bc.load_model(str(good)), "softmax")
    program = bc.compile(model, optimizer=bc.SGD(0.02))
    rng = np.random.default_rng(1)
    x = rng.standard_normal((8, 1, 8, 8)).astype(np.float32)
    (name,) = set(model.inputs) - {"x"}
    labels = rng.integers(0, 10, 8).astype(model.inputs[name].dtype.numpy)
    inputs = {"x": x, name: labels}
    before = float(program.evaluate(**inputs)["loss"])
    for _ in range(60):
        program.train_step(**inputs)
    assert float(program.evaluate(**inputs)["loss"]) < before / 2
    module = Small().eval()
    module.load_state_dict(program.state_dict("torch"))
    got = program.infer(x=x)["output"]
    np.testing.assert_allclose(got, module(torch.from_numpy(x)).detach(), rtol=1e-3, atol=1e-4)
