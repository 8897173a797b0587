"""Older generations become today's layers."""

from __future__ import annotations

import pytest
from caffe_nets import model_of, run_model

from brickc.errors import BrickcError, ImportModelError
from brickc.frontends.caffe.message import Message
from brickc.frontends.caffe.text import parse_text
from brickc.frontends.caffe.upgrade import layers_of
from brickc.ir.printer import print_graph

V0 = """
name: "old"
input: "data" input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 8
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" }
layers {
  layer {
    name: "conv1" type: "conv" num_output: 4 kernelsize: 3 stride: 2 group: 1 biasterm: true
    weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" value: 1. }
    blobs_lr: 1. blobs_lr: 2. weight_decay: 1. weight_decay: 0.
  }
  bottom: "pad1" top: "conv1"
}
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.5 beta: 0.25 } bottom: "conv1" top: "norm1" }
layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 stride: 2 } bottom: "norm1" top: "pool1" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.25 } bottom: "pool1" top: "pool1" }
layers { layer { name: "fc" type: "innerproduct" num_output: 5 } bottom: "pool1" top: "fc" }
layers { layer { name: "prob" type: "softmax" } bottom: "fc" top: "prob" }
"""

V1 = """
name: "old"
input: "data" input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 8
layers {
  name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1"
  blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
  convolution_param {
    num_output: 4 kernel_size: 3 stride: 2 pad: 2 group: 1 bias_term: true
    weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" value: 1. }
  }
}
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
layers { name: "norm1" type: LRN bottom: "conv1" top: "norm1" lrn_param { local_size: 3 alpha: 0.5 beta: 0.25 } }
layers { name: "pool1" type: POOLING bottom: "norm1" top: "pool1" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layers { name: "drop" type: DROPOUT bottom: "pool1" top: "pool1" dropout_param { dropout_ratio: 0.25 } }
layers { name: "fc" type: INNER_PRODUCT bottom: "pool1" top: "fc" inner_product_param { num_output: 5 } }
layers { name: "prob" type: SOFTMAX bottom: "fc" top: "prob" }
"""

V2 = """
name: "old"
layer { name: "input" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param {
    num_output: 4 kernel_size: 3 stride: 2 pad: 2 group: 1 bias_term: true
    weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" value: 1. }
  }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "norm1" type: "LRN" bottom: "conv1" top: "norm1" lrn_param { local_size: 3 alpha: 0.5 beta: 0.25 } }
layer { name: "pool1" type: "Pooling" bottom: "norm1" top: "pool1" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "pool1" top: "pool1" dropout_param { dropout_ratio: 0.25 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool1" top: "fc" inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


def text_of(text: str) -> str:
    """The graph without its origins."""
    return "\n".join(
        line.partition("  #")[0] for line in print_graph(model_of(text).graph()).split("\n")
    )


def test_three_generations_are_one_network() -> None:
    assert text_of(V0) == text_of(V2)
    assert text_of(V1) == text_of(V2)
    leaves = model_of(V1).graph()
    bias = leaves.node(leaves.parameters["conv1.bias"]).brick
    assert (bias.lr_scale, bias.decay_scale) == (2, 0)  # type: ignore[attr-defined]


def layers(text: str) -> list[Message]:
    return layers_of(parse_text(text, "NetParameter"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CONVOLUTION", "Convolution"), ("SOFTMAX_LOSS", "SoftmaxWithLoss"), ("BNLL", "BNLL"),
        ("HDF5_DATA", "HDF5Data"), ("HDF5_OUTPUT", "HDF5Output"), ("IM2COL", "Im2col"),
        ("IMAGE_DATA", "ImageData"), ("INNER_PRODUCT", "InnerProduct"), ("LRN", "LRN"),
        ("MULTINOMIAL_LOGISTIC_LOSS", "MultinomialLogisticLoss"), ("MVN", "MVN"),
        ("SIGMOID_CROSS_ENTROPY_LOSS", "SigmoidCrossEntropyLoss"), ("TANH", "TanH"),
        ("WINDOW_DATA", "WindowData"), ("ABSVAL", "AbsVal"), ("ARGMAX", "ArgMax"),
        ("DUMMY_DATA", "DummyData"), ("EUCLIDEAN_LOSS", "EuclideanLoss"), ("4", "Convolution"),
        ("MEMORY_DATA", "MemoryData"), ("CONTRASTIVE_LOSS", "ContrastiveLoss"),
    ],
)  # fmt: skip
def test_names_of_types(old: str, new: str) -> None:
    assert layers(f"layers {{ type: {old} }}")[0].text("type") == new


def test_shared_names_and_transformations_move() -> None:
    (layer,) = layers(
        'layers { type: DATA param: "w" param: "" blob_share_mode: PERMISSIVE '
        'data_param { source: "s" scale: 0.5 mirror: true crop_size: 5 mean_file: "m" } }'
    )
    assert [s.text("name") for s in layer.subs("param")] == ["w", ""]
    assert layer.subs("param")[0].text("share_mode") == "PERMISSIVE"
    transform = layer.sub("transform_param")
    assert (transform.real("scale"), transform.flag("mirror")) == (0.5, True)
    assert (transform.integer("crop_size"), transform.text("mean_file")) == (5, "m")
    assert not layer.sub("data_param").has("scale")


def test_headers_with_shapes() -> None:
    net = (
        'input: "a" input_shape { dim: 2 dim: 3 } input: "b" input_shape { dim: 2 }\n'
        'layer { name: "t" type: "Scale" bottom: "a" bottom: "b" top: "y" scale_param { axis: 0 } }'
    )
    assert run_model(model_of(net), {"a": [[1, 2, 3]] * 2, "b": [2, 3]})["y"].tolist() == [
        [2, 4, 6],
        [3, 6, 9],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('input: "a"', "do not fit their number"),
        ('input: "a" input_dim: 1', "do not fit their number"),
        ("input_dim: 1", "no input"),
        ('input: "a" input_shape { dim: 1 } input_dim: 1', "both input_shape"),
        ('layer { name: "a" type: "ReLU" } layers { type: RELU }', "two generations"),
        ('layers { name: "a" }', "without a type"),
        ('layers { layer { type: "relu" num_output: 3 } }', "has no num_output"),
        ('layers { layer { type: "padding" pad: 1 } bottom: "a" top: "b" } layers { layer { type: "relu" } bottom: "b" top: "c" }', "padding layer leads to"),
        ('layers { layer { type: "padding" pad: 1 } }', "one bottom and one top"),
        ("layer { }" * 10_001, "too many layers"),
    ],
)  # fmt: skip
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ImportModelError, match=message):
        layers(text)


def test_an_unknown_type_of_old_is_listed() -> None:
    with pytest.raises(BrickcError, match="'warp'"):
        model_of('layers { layer { name: "w" type: "warp" } }')
