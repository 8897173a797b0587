"""From layers to a model: blobs, phases, losses, labels, names, and everything that is refused."""

from __future__ import annotations

import numpy as np
import pytest
from caffe_nets import gradients, imported, inputs_text, model_of, run_model

from brickc.driver import compile_model
from brickc.errors import BrickcError, ImportModelError, UnsupportedError
from brickc.frontends.caffe.text import parse_text

DATA = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { crop_size: 8 } data_param { source: "a" batch_size: 16 backend: LMDB } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 8 } data_param { source: "b" batch_size: 10 backend: LMDB } }
"""
FC = """
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 5
  weight_filler { type: "gaussian" std: 0.1 } } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }\n'
ACCURACY = """
layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc" include { phase: TEST } }
"""


def test_a_network_to_train_and_test() -> None:
    net = imported(DATA + FC + ACCURACY + LOSS)
    model = net.model
    assert {n: str(t) for n, t in model.inputs.items()} == {
        "data": "f32[N,3,8,8]",
        "label": "i32[N]",
    }
    assert model.loss == "loss"
    assert model.metrics == ("acc",)
    assert model.outputs == ("fc",)
    assert model.label_limit("label") == 5
    assert net.blobs == {"fc": ("fc.weight", "fc.bias")}
    # both phases share every layer: nothing is chosen by mode
    assert not any(node.brick.mnemonic == "by_mode" for node in model.graph().nodes())


def test_origins_are_lines_and_layers() -> None:
    graph = model_of(DATA + FC + LOSS).graph()
    origin = graph.node(graph.parameters["fc.weight"]).origin
    assert (origin.file, origin.line, origin.layer) == ("net.prototxt", 7, "fc")


def test_phases_that_differ() -> None:
    text = (
        inputs_text({"data": (2, 3), "label": (2, 5)})
        + FC
        + 'layer { name: "r" type: "ReLU" bottom: "fc" top: "fc" include { phase: TEST } }'
        'layer { name: "l" type: "EuclideanLoss" bottom: "fc" bottom: "label" top: "l" }'
    )
    model = model_of(text)
    x = {"data": np.ones((2, 3)), "label": np.zeros((2, 5))}
    w = {"fc.weight": -np.ones((5, 3))}
    # 1/2N · sum of (-3)²: the rectifier is only there in TEST
    assert run_model(model, x, w, training=True)["loss"] == pytest.approx(22.5)
    assert run_model(model, x, w)["loss"] == 0


def test_losses_add_up_by_their_weights() -> None:
    text = (
        inputs_text({"x": (2, 2), "t": (2, 2)})
        + 'layer { name: "a" type: "EuclideanLoss" bottom: "x" bottom: "t" top: "a" }'
        'layer { name: "b" type: "EuclideanLoss" bottom: "x" bottom: "t" top: "b" loss_weight: 0.5 }'
        'layer { name: "c" type: "EuclideanLoss" bottom: "x" bottom: "t" top: "c" loss_weight: 0 }'
        'layer { name: "d" type: "AbsVal" bottom: "x" top: "d" loss_weight: 10 }'
    )
    found = run_model(model_of(text), {"x": np.ones((2, 2)), "t": np.zeros((2, 2))})
    # each distance is 1; the other term is the sum of the blob
    assert found["loss"] == pytest.approx(1 + 0.5 + 40)
    assert found["a"] == found["b"] == found["c"] == 1


def test_a_loss_without_a_top() -> None:
    text = inputs_text({"x": (2, 2), "t": (2, 2)}) + (
        'layer { name: "e" type: "EuclideanLoss" bottom: "x" bottom: "t" }'
    )
    assert model_of(text).loss == "loss"


def test_no_gradient_past_propagate_down() -> None:
    text = (
        inputs_text({"data": (2, 3), "label": (2,)})
        + FC
        + (
            'layer { name: "a" type: "InnerProduct" bottom: "fc" top: "a" propagate_down: false '
            "inner_product_param { num_output: 4 } }"
            'layer { name: "l" type: "SoftmaxWithLoss" bottom: "a" bottom: "label" top: "l" }'
        )
    )
    found = gradients(model_of(text), {"data": np.ones((2, 3)), "label": [0, 1]})
    assert set(found) == {"a.weight", "a.bias"}


def test_multipliers() -> None:
    text = (
        DATA
        + FC.replace(
            "inner_product_param",
            "param { lr_mult: 0 } param { lr_mult: 3 decay_mult: 0.5 } inner_product_param",
        )
        + LOSS
    )
    graph = model_of(text).graph()
    weight, bias = (graph.node(graph.parameters[f"fc.{n}"]).brick for n in ("weight", "bias"))
    assert (weight.lr_scale, weight.decay_scale) == (0, 1)  # type: ignore[attr-defined]
    assert (bias.lr_scale, bias.decay_scale) == (3, 0.5)  # type: ignore[attr-defined]


SIAMESE = "".join(
    f'layer {{ name: "f{k}" type: "InnerProduct" bottom: "x{k}" top: "y{k}" '
    f'param {{ name: "w" }} param {{ name: "b" {{}} }} inner_product_param {{ num_output: 2 }} }}'
    for k in (1, 2)
)


def test_shared_parameters() -> None:
    text = inputs_text({"x1": (1, 3), "x2": (1, 3)}) + SIAMESE.replace("{}", "")
    net = imported(text)
    assert list(net.model.parameters) == ["f1.weight", "f1.bias"]
    assert net.blobs == {"f1": ("f1.weight", "f1.bias"), "f2": ("f1.weight", "f1.bias")}
    with pytest.raises(ImportModelError, match=r"shared with a layer that has another shape"):
        imported(inputs_text({"x1": (1, 3), "x2": (1, 4)}) + SIAMESE.replace("{}", ""))
    # PERMISSIVE asks for the number of elements alone
    loose = text.replace('{ name: "w" }', '{ name: "w" share_mode: PERMISSIVE }')
    turned = loose.replace('bottom: "x2" top: "y2"', 'bottom: "x2" top: "y2"', 1)
    assert list(imported(turned).model.parameters) == ["f1.weight", "f1.bias"]


def test_in_place_layers() -> None:
    text = inputs_text({"x": (1, 2)}) + (
        'layer { name: "p" type: "Power" bottom: "x" top: "a" power_param { shift: -1 } }'
        'layer { name: "r" type: "ReLU" bottom: "a" top: "a" }'
        'layer { name: "s" type: "Power" bottom: "a" top: "a" power_param { scale: 3 } }'
    )
    assert run_model(model_of(text), {"x": [[0, 3]]})["a"].tolist() == [[0, 6]]


def test_stages() -> None:
    text = inputs_text({"x": (1, 2)}) + (
        'layer { name: "r" type: "ReLU" bottom: "x" top: "y" include { stage: "deploy" } }'
        'layer { name: "r" type: "AbsVal" bottom: "x" top: "y" exclude { stage: "deploy" } }'
    )
    assert run_model(model_of(text), {"x": [[-1, 3]]})["y"].tolist() == [[1, 3]]
    assert run_model(model_of(text, stages=["deploy"]), {"x": [[-1, 3]]})["y"].tolist() == [[0, 3]]


def test_a_state_in_the_file() -> None:
    text = (
        'state { phase: TEST stage: "s" }'
        + inputs_text({"x": (1, 2)})
        + (
            'layer { name: "r" type: "ReLU" bottom: "x" top: "y" include { stage: "s" phase: TEST } }'
        )
    )
    assert model_of(text).outputs == ("y",)


def test_labels_of_several_kinds() -> None:
    # class numbers are integers, distances are not; a label through Slice and Reshape is still one
    text = inputs_text({"x": (4, 5), "t": (4, 3)}) + (
        'layer { name: "s" type: "Slice" bottom: "t" top: "t0" top: "rest" slice_param { axis: 1 slice_point: 1 } }'
        'layer { name: "v" type: "Silence" bottom: "rest" }'
        'layer { name: "q" type: "Reshape" bottom: "t0" top: "t1" reshape_param { shape { dim: -1 } } }'
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t1" top: "l" }'
    )
    assert str(model_of(text).inputs["t"]) == "i32[N,3]"
    both = text + 'layer { name: "e" type: "AbsVal" bottom: "t" top: "z" }'
    assert str(model_of(both).inputs["t"]) == "f32[N,3]"


def test_the_batch_stays_a_number_where_it_must() -> None:
    text = inputs_text({"x": (6, 4)}) + (
        'layer { name: "r" type: "Reshape" bottom: "x" top: "y" reshape_param { shape { dim: 3 dim: 8 } } }'
    )
    assert str(model_of(text).inputs["x"]) == "f32[6,4]"
    assert str(model_of(text.replace("dim: 3 dim: 8", "dim: -1 dim: 2")).inputs["x"]) == "f32[N,4]"


def test_large_batches() -> None:
    model = model_of(DATA.replace("batch_size: 16", "batch_size: 5000") + FC + LOSS)
    (dim,) = model.inputs["data"].dims.values()
    assert (dim.lo, dim.hi) == (1, 5000)


def test_one_phase_alone() -> None:
    only = DATA.split("\nlayer")[1]
    assert model_of("layer" + only + FC + LOSS).loss == "loss"


# ── refused ──────────────────────────────────────────────────────────────────────────────


def test_everything_unsupported_is_listed_at_once() -> None:
    text = inputs_text({"x": (1, 2)}) + (
        '\nlayer { name: "p" type: "Python" bottom: "x" top: "y" }'
        '\nlayer { name: "w" type: "WarpCTC" bottom: "y" top: "z" }'
        '\nlayer { name: "f" type: "PriorBox" bottom: "x" bottom: "z" top: "q" }'
        '\nlayer { name: "r" type: "ReLU" bottom: "x" top: "u" relu_param { magic: 3 } }'
    )
    with pytest.raises(UnsupportedError) as caught:
        model_of(text)
    message = str(caught.value)
    assert "4 things are not supported" in message
    for part in (
        "net.prototxt:3 \"p\": 'Python' runs Python code",
        "net.prototxt:4 \"w\": 'WarpCTC' is none of",
        "net.prototxt:5 \"f\": 'PriorBox' belongs to a library",
        "net.prototxt:6 \"r\": ReLU has no field 'magic'",
    ):
        assert part in message


def test_engines_of_forks_change_nothing() -> None:
    text = inputs_text({"x": (1, 2)}) + (
        'layer { name: "b" type: "BatchNorm" bottom: "x" top: "y" batch_norm_param { engine: CUDNN } }'
    )
    assert model_of(text).outputs == ("y",)


def test_unsupported_settings_are_listed_too() -> None:
    pool = "pooling_param {{ pool: STOCHASTIC kernel_size: {} }}"
    text = inputs_text({"x": (1, 1, 40, 40)}) + "".join(
        f'layer {{ name: "p{k}" type: "Pooling" bottom: "x" top: "y{k}" {pool.format(k)} }}\n'
        f'layer {{ name: "r{k}" type: "ReLU" bottom: "y{k}" top: "z{k}" }}\n'
        for k in (9, 10)
    )
    with pytest.raises(
        UnsupportedError, match=r"2 things are not supported:(.|\n)*\"p9\"(.|\n)*\"p10\""
    ):
        model_of(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "computes nothing|no layers"),
        ('layer { name: "r" type: "ReLU" bottom: "x" top: "y" }', "reads a blob that no layer makes"),
        (inputs_text({"x": (1, 2)}) * 2, "makes a blob that is there already"),
        (inputs_text({"x": (1, 2)}), "computes nothing"),
        (inputs_text({"x": (1, 2)}) + 'layer { name: "r" type: "ReLU" top: "y" }', "number of bottoms"),
        (inputs_text({"x": (1, 2)}) + 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" top: "z" }', "too many tops"),
        (inputs_text({"x": (1, 2)}) + 'layer { name: "r" type: "Split" bottom: "x" top: "y" top: "y" }', "two tops of one name"),
        (inputs_text({"x": (1, 2)}) + 'layer { name: "r" bottom: "x" top: "y" }', "without a type"),
        (inputs_text({"x": (1, 2)}) + 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" propagate_down: true propagate_down: false }', "propagate_down"),
        (inputs_text({"x": (1, 2)}) + 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" loss_weight: 1 loss_weight: 1 }', "loss_weight"),
        # a cycle: there is no order in which the layers could run
        (inputs_text({"x": (1, 2)}) + 'layer { name: "a" type: "Eltwise" bottom: "x" bottom: "c" top: "b" } layer { name: "b" type: "ReLU" bottom: "b" top: "c" }', "'c'"),
        (inputs_text({"x": (2147483647, 2147483647)}) + 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }', "too large"),
        (inputs_text({"x": (1, 2147483648)}) + 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }', "impossible shape"),
        (inputs_text({"x": (1, 0)}) + 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }', "impossible shape"),
        ('layer { name: "p" type: "Parameter" top: "y" parameter_param { shape { dim: 2147483647 dim: 9 } } }', "impossible shape"),
        (DATA.replace("crop_size: 8", "") + FC, r"nothing tells the shape of 'data'.*--shape data="),
        (DATA.replace("batch_size: 10", "") + FC, "batch_size"),
    ],
)  # fmt: skip
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ImportModelError, match=message):
        model_of(text)


@pytest.mark.parametrize("name", ['x"; import os #', "a\\b", "a\nb", "é" * 201, "x" * 10_000, " a"])
def test_names_that_cannot_be_printed(name: str) -> None:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    for text in (
        f'layer {{ name: "{escaped}" type: "ReLU" bottom: "x" top: "y" }}',
        f'layer {{ name: "a" type: "ReLU" bottom: "x" top: "{escaped}" }}',
    ):
        with pytest.raises(ImportModelError, match=r"net\.prototxt:2: not a name"):
            model_of(inputs_text({"x": (1, 2)}) + text)


@pytest.mark.parametrize("name", ["../../etc/passwd", "import os", "1+1", "class", "a/b", "ü", ""])
def test_strange_names_are_only_names(name: str) -> None:
    import brickc as bc

    text = inputs_text({"x": (1, 2)}) + (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "{name or "y"}" '
        "inner_product_param { num_output: 3 } }"
    )
    program = bc.compile(model_of(f'name: "{name}"' + text))
    assert next(iter(program.infer(x=np.ones((1, 2), np.float32)).values())).tolist() == [[0, 0, 0]]


def test_two_layers_of_one_name() -> None:
    with pytest.raises(ImportModelError, match="another layer with weights has this name"):
        model_of(
            inputs_text({"data": (1, 5)})
            + FC
            + FC.replace('bottom: "data" top: "fc"', 'bottom: "fc" top: "fc2"')
        )
    # without weights names may repeat
    model_of(
        inputs_text({"x": (1, 5)})
        + 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" } layer { name: "r" type: "ReLU" bottom: "y" top: "z" }'
    )


def test_a_long_chain_of_layers() -> None:
    text = inputs_text({"x": (1, 2)}) + "".join(
        f'layer {{ name: "r{k}" type: "ReLU" bottom: "x" top: "x" }}\n' for k in range(3000)
    )
    assert model_of(text).outputs == ("x",)


def test_hints_and_files_for_shapes() -> None:
    bare = DATA.replace("crop_size: 8", "")
    assert str(model_of(bare + FC, shapes={"data": (2, 7)}).inputs["data"]) == "f32[N,2,7]"
    digits = bare.replace('source: "a"', 'source: "x/mnist_lmdb"').replace(
        'source: "b"', 'source: "mnist"'
    )
    assert str(model_of(digits + FC).inputs["data"]) == "f32[N,1,28,28]"


def test_the_schema_is_whole() -> None:
    from brickc.frontends.caffe.schema import ENUMS, MESSAGES, SCALARS, enum_values, fields_of

    for message in MESSAGES:
        numbers = [f.number for f in fields_of(message).values()]
        assert len(set(numbers)) == len(numbers)
        for field in fields_of(message).values():
            assert field.type in SCALARS or field.type in MESSAGES or field.type in ENUMS
            if field.type in ENUMS and field.default is not None:
                assert field.default in enum_values(field.type)
    assert parse_text("", "LayerParameter").sub("lrn_param").integer("local_size") == 5


def test_errors_are_ours() -> None:
    with pytest.raises(BrickcError):
        model_of(
            inputs_text({"x": (1,)}) + 'layer { name: "r" type: "PReLU" bottom: "x" top: "y" }'
        )


def _kernels(text: str) -> tuple[int, list[str]]:
    function = compile_model(model_of(text)).functions["train_step"].program
    return len(function.kernels), list(function.outputs)


def test_training_does_not_compute_what_only_testing_measures() -> None:
    without, _ = _kernels(DATA + FC + LOSS)
    tested, outputs = _kernels(DATA + FC + ACCURACY + LOSS)
    assert (tested, outputs) == (without, ["loss"])
    both, outputs = _kernels(DATA + FC + ACCURACY.replace("include { phase: TEST }", "") + LOSS)
    assert both > without
    assert sorted(outputs) == ["acc", "loss"]
    model = model_of(DATA + FC + ACCURACY + LOSS)
    assert list(model.evaluation().outputs) == ["fc", "loss", "acc"]


def test_an_input_that_only_testing_reads_stays_in_training() -> None:
    """Batches of training data have the label, too, and the step takes what a batch has."""
    square = 'layer { name: "l" type: "EuclideanLoss" bottom: "fc" bottom: "fc2" top: "l" }'
    text = DATA + FC + FC.replace('"fc"', '"fc2"') + ACCURACY + square
    assert list(model_of(text).training().inputs) == ["data", "label"]
