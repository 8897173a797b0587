"""Networks as people write them for Caffe, with few channels: each a prototxt by name."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["WILD"]


def _layer(name: str, type: str, bottoms: str, tops: str = "", rest: str = "") -> str:
    inputs = "".join(f'  bottom: "{b}"\n' for b in bottoms.split())
    made = "".join(f'  top: "{t}"\n' for t in (tops or name).split())
    return f'layer {{\n  name: "{name}"\n  type: "{type}"\n{inputs}{made}  {rest}\n}}\n'


def _data(size: int, channels: int = 3, labels: bool = True) -> str:
    tops = "data label" if labels else "data"
    return "".join(
        _layer("data", "Data", "", tops, f"include {{ phase: {phase} }} transform_param {{ crop_size: {size} "
               + "mean_value: 104 " * channels + f'}} data_param {{ source: "{phase}_lmdb" batch_size: {batch} backend: LMDB }}')
        for phase, batch in (("TRAIN", 8), ("TEST", 4))
    )  # fmt: skip


def _conv(
    name: str, bottom: str, out: int, kernel: int = 1, rest: str = "", filler: str = "msra"
) -> str:
    return _layer(name, "Convolution", bottom, "",
                  f"convolution_param {{ num_output: {out} kernel_size: {kernel} {rest} "
                  f'weight_filler {{ type: "{filler}" }} }}')  # fmt: skip


def _relu(name: str, blob: str) -> str:
    return _layer(name, "ReLU", blob, blob)


def _pool(name: str, bottom: str, rest: str) -> str:
    return _layer(name, "Pooling", bottom, "", f"pooling_param {{ {rest} }}")


def _fc(name: str, bottom: str, out: int) -> str:
    return _layer(
        name,
        "InnerProduct",
        bottom,
        "",
        f'inner_product_param {{ num_output: {out} weight_filler {{ type: "xavier" }} }}',
    )


def _head(blob: str, weight: float = 1, name: str = "loss") -> str:
    return _layer(
        name, "SoftmaxWithLoss", f"{blob} label", name, f"loss_weight: {weight}"
    ) + _layer(f"{name}/top-1", "Accuracy", f"{blob} label", "", "include { phase: TEST }")


def _bn(blob: str, suffix: str) -> str:
    """BatchNorm and Scale in place, as residual networks have them."""
    return _layer(f"bn{suffix}", "BatchNorm", blob, blob,
                  "param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 }") + _layer(
        f"scale{suffix}", "Scale", blob, blob, "scale_param { bias_term: true }")  # fmt: skip


def residual() -> str:
    text = (
        'name: "ResNet"\n'
        + _data(16)
        + _conv("conv1", "data", 4, 3, "pad: 1 stride: 2 bias_term: false")
    )
    text += (
        _bn("conv1", "_conv1")
        + _relu("conv1_relu", "conv1")
        + _pool("pool1", "conv1", "kernel_size: 3 stride: 2 pool: MAX")
    )
    before = "pool1"
    for k, (width, stride) in enumerate(((4, 1), (6, 2))):
        main, short = f"res{k}_branch2b", f"res{k}_branch1"
        text += _conv(short, before, width, 1, f"stride: {stride} bias_term: false") + _bn(
            short, f"{k}_branch1"
        )
        first = f"res{k}_branch2a"
        text += _conv(first, before, width, 3, f"pad: 1 stride: {stride} bias_term: false") + _bn(
            first, f"{k}_branch2a"
        )
        text += (
            _relu(f"{first}_relu", first)
            + _conv(main, first, width, 3, "pad: 1 bias_term: false")
            + _bn(main, f"{k}_branch2b")
        )
        before = f"res{k}"
        text += _layer(before, "Eltwise", f"{short} {main}") + _relu(f"{before}_relu", before)
    return (
        text
        + _pool("pool5", before, "global_pooling: true pool: AVE")
        + _fc("fc", "pool5", 5)
        + _head("fc")
    )


def squeeze() -> str:
    text = (
        'name: "SqueezeNet"\n'
        + _data(17)
        + _conv("conv1", "data", 6, 3, "stride: 2")
        + _relu("r1", "conv1")
    )
    text += _pool("pool1", "conv1", "pool: MAX kernel_size: 3 stride: 2")
    before = "pool1"
    for k in (2, 3):
        f = f"fire{k}"
        text += _conv(f"{f}/squeeze1x1", before, 2, filler="xavier") + _relu(
            f"{f}/relu_squeeze1x1", f"{f}/squeeze1x1"
        )
        text += _conv(f"{f}/expand1x1", f"{f}/squeeze1x1", 4, filler="xavier") + _relu(
            f"{f}/relu_expand1x1", f"{f}/expand1x1"
        )
        text += _conv(f"{f}/expand3x3", f"{f}/squeeze1x1", 4, 3, "pad: 1", "xavier") + _relu(
            f"{f}/relu_expand3x3", f"{f}/expand3x3"
        )
        text += _layer(f"{f}/concat", "Concat", f"{f}/expand1x1 {f}/expand3x3")
        before = f"{f}/concat"
    text += _layer("drop9", "Dropout", before, before, "dropout_param { dropout_ratio: 0.5 }")
    text += _conv("conv10", before, 5, 1, "", "gaussian") + _relu("relu_conv10", "conv10")
    return text + _pool("pool10", "conv10", "pool: AVE global_pooling: true") + _head("pool10")


def dense() -> str:
    text = (
        'name: "DenseNet"\n'
        + _data(12)
        + _conv("Convolution1", "data", 4, 3, "pad: 1 bias_term: false")
    )
    before = "Convolution1"
    for k in (1, 2, 3):
        text += _layer(f"BatchNorm{k}", "BatchNorm", before) + _layer(
            f"Scale{k}",
            "Scale",
            f"BatchNorm{k}",
            f"BatchNorm{k}",
            "scale_param { filler { value: 1 } bias_term: true bias_filler { value: 0 } }",
        )
        text += _relu(f"ReLU{k}", f"BatchNorm{k}") + _conv(
            f"grow{k}", f"BatchNorm{k}", 3, 3, "pad: 1 bias_term: false"
        )
        text += _layer(
            f"Dropout{k}", "Dropout", f"grow{k}", "", "dropout_param { dropout_ratio: 0.2 }"
        )
        text += _layer(
            f"Concat{k}", "Concat", f"{before} Dropout{k}", "", "concat_param { axis: 1 }"
        )
        before = f"Concat{k}"
    text += _pool("Pooling1", before, "pool: AVE kernel_size: 2 stride: 2")
    return (
        text
        + _pool("Pooling2", "Pooling1", "pool: AVE global_pooling: true")
        + _fc("ip", "Pooling2", 5)
        + _head("ip")
    )


def mobile() -> str:
    text = (
        'name: "MobileNet"\n'
        + _data(16)
        + _conv("conv1", "data", 4, 3, "pad: 1 stride: 2 bias_term: false")
        + _bn("conv1", "1")
    )
    before, width = "conv1", 4
    for k, stride in ((2, 1), (3, 2)):
        dw, sep = f"conv{k}_1/dw", f"conv{k}_1/sep"
        text += _conv(
            dw,
            before,
            width,
            3,
            f"pad: 1 stride: {stride} group: {width} engine: CAFFE bias_term: false",
        )
        text += (
            _bn(dw, dw)
            + _relu(f"relu/{dw}", dw)
            + _conv(sep, dw, 2 * width, 1, "bias_term: false")
            + _bn(sep, sep)
            + _relu(f"relu/{sep}", sep)
        )
        before, width = sep, 2 * width
    text += _pool("pool6", before, "pool: AVE global_pooling: true") + _conv("fc7", "pool6", 5)
    return text + _layer("flat", "Flatten", "fc7") + _head("flat")


def inception() -> str:
    text = (
        'name: "GoogLeNet"\n'
        + _data(20)
        + _conv("conv1/7x7_s2", "data", 4, 7, "pad: 3 stride: 2")
        + _relu("conv1/relu", "conv1/7x7_s2")
    )
    text += _pool("pool1/3x3_s2", "conv1/7x7_s2", "pool: MAX kernel_size: 3 stride: 2")
    text += _layer(
        "pool1/norm1",
        "LRN",
        "pool1/3x3_s2",
        "",
        "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }",
    )
    before = "pool1/norm1"
    for k in ("3a", "3b"):
        i = f"inception_{k}"
        text += _conv(f"{i}/1x1", before, 2) + _relu(f"{i}/relu_1x1", f"{i}/1x1")
        text += _conv(f"{i}/3x3_reduce", before, 2) + _conv(
            f"{i}/3x3", f"{i}/3x3_reduce", 3, 3, "pad: 1"
        )
        text += _conv(f"{i}/5x5_reduce", before, 2) + _conv(
            f"{i}/5x5", f"{i}/5x5_reduce", 2, 5, "pad: 2"
        )
        text += _pool(f"{i}/pool", before, "pool: MAX kernel_size: 3 stride: 1 pad: 1") + _conv(
            f"{i}/pool_proj", f"{i}/pool", 2
        )
        text += _layer(f"{i}/output", "Concat", f"{i}/1x1 {i}/3x3 {i}/5x5 {i}/pool_proj")
        if k == "3a":
            text += _pool(
                "loss1/ave_pool", f"{i}/output", "pool: AVE kernel_size: 3 stride: 2"
            ) + _fc("loss1/classifier", "loss1/ave_pool", 5)
            text += _head("loss1/classifier", 0.3, "loss1/loss")
        before = f"{i}/output"
    text += _pool("pool5", before, "pool: AVE kernel_size: 5 stride: 1") + _fc(
        "loss3/classifier", "pool5", 5
    )
    return text + _head("loss3/classifier", 1, "loss3/loss3")


def fully_convolutional() -> str:
    """Segmentation: scores are upsampled, cropped to the image, compared place by place."""
    text = 'name: "FCN"\n' + _layer(
        "data", "Input", "", "data", "input_param { shape { dim: 1 dim: 3 dim: 16 dim: 16 } }"
    )
    text += _layer(
        "label", "Input", "", "label", "input_param { shape { dim: 1 dim: 1 dim: 16 dim: 16 } }"
    )
    text += (
        _conv("conv1_1", "data", 4, 3, "pad: 10")
        + _relu("relu1_1", "conv1_1")
        + _pool("pool1", "conv1_1", "pool: MAX kernel_size: 2 stride: 2")
    )
    text += _conv("conv2_1", "pool1", 6, 3, "pad: 1") + _pool(
        "pool2", "conv2_1", "pool: MAX kernel_size: 2 stride: 2"
    )
    text += _conv("score_fr", "pool2", 5)
    up = 'param {{ lr_mult: 0 }} convolution_param {{ num_output: 5 bias_term: false kernel_size: {} stride: {} weight_filler {{ type: "bilinear" }} group: 5 }}'
    text += _layer("upscore2", "Deconvolution", "score_fr", "", up.format(4, 2)) + _conv(
        "score_pool1", "pool1", 5
    )
    text += _layer("upscore2c", "Crop", "upscore2 score_pool1", "", "crop_param { offset: 1 }")
    text += _layer(
        "fuse", "Eltwise", "upscore2c score_pool1", "", "eltwise_param { operation: SUM }"
    )
    text += _layer("upscore4", "Deconvolution", "fuse", "", up.format(4, 2))
    text += _layer("score", "Crop", "upscore4 data", "", "crop_param { axis: 2 offset: 9 }")
    return text + _layer(
        "loss",
        "SoftmaxWithLoss",
        "score label",
        "loss",
        "loss_param { ignore_label: 255 normalize: true }",
    )


def siamese() -> str:
    text = 'name: "mnist_siamese_train_test"\n'
    for phase in ("TRAIN", "TEST"):
        text += _layer(
            "pair_data",
            "Data",
            "",
            "pair_data sim",
            f'include {{ phase: {phase} }} transform_param {{ scale: 0.00390625 }} data_param {{ source: "siamese_{phase}" batch_size: 8 }}',
        )
    text += _layer(
        "slice_pair",
        "Slice",
        "pair_data",
        "data data_p",
        "slice_param { slice_dim: 1 slice_point: 1 }",
    )
    shared = 'param {{ name: "{0}_w" lr_mult: 1 }} param {{ name: "{0}_b" lr_mult: 2 }} '
    for p in ("", "_p"):
        text += _layer(
            f"conv1{p}",
            "Convolution",
            f"data{p}",
            "",
            shared.format("conv1")
            + 'convolution_param { num_output: 3 kernel_size: 5 weight_filler { type: "xavier" } }',
        )
        text += _pool(f"pool1{p}", f"conv1{p}", "pool: MAX kernel_size: 2 stride: 2")
        text += _layer(
            f"feat{p}",
            "InnerProduct",
            f"pool1{p}",
            "",
            shared.format("feat")
            + 'inner_product_param { num_output: 2 weight_filler { type: "xavier" } }',
        )
    return text + _layer(
        "loss", "ContrastiveLoss", "feat feat_p sim", "loss", "contrastive_loss_param { margin: 1 }"
    )


def autoencoder() -> str:
    text = 'name: "MNISTAutoencoder"\n' + _layer(
        "data",
        "Data",
        "",
        "data",
        'include { phase: TRAIN } transform_param { scale: 0.0039215684 } data_param { source: "mnist_train_lmdb" batch_size: 8 backend: LMDB }',
    )
    for stage in ("test-on-train", "test-on-test"):
        text += _layer(
            "data",
            "Data",
            "",
            "data",
            f'include {{ phase: TEST stage: "{stage}" }} transform_param {{ scale: 0.0039215684 }} data_param {{ source: "mnist_{stage}" batch_size: 10 backend: LMDB }}',
        )
    text += _layer("flatdata", "Flatten", "data")
    before = "data"
    for k, width in enumerate((12, 4, 12, 784)):
        name = f"encode{k}" if width != 784 else "decode1"
        text += _layer(
            name,
            "InnerProduct",
            before,
            "",
            f'param {{ lr_mult: 1 decay_mult: 1 }} param {{ lr_mult: 1 decay_mult: 0 }} inner_product_param {{ num_output: {width} weight_filler {{ type: "gaussian" std: 1 sparse: 4 }} bias_filler {{ value: 0 }} }}',
        )
        if width == 12:
            text += _layer(f"{name}neuron", "Sigmoid", name)
        before = f"{name}neuron" if width == 12 else name
    text += _layer(
        "loss",
        "SigmoidCrossEntropyLoss",
        "decode1 flatdata",
        "cross_entropy_loss",
        "loss_weight: 1",
    )
    text += _layer("decode1neuron", "Sigmoid", "decode1") + _layer(
        "loss", "EuclideanLoss", "decode1neuron flatdata", "l2_error", "loss_weight: 0"
    )
    return text


def old_benchmark() -> str:
    """Legacy syntax, with the batch in the header, as benchmarks of 2014 had it."""
    return """name: "old"
input: "data"
input_dim: 128
input_dim: 3
input_dim: 24
input_dim: 24
force_backward: true
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 11 stride: 4 weight_filler { type: "gaussian" std: 0.01 } } }
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
layers { name: "pool1" type: POOLING bottom: "conv1" top: "pool1" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layers { name: "conv2" type: CONVOLUTION bottom: "pool1" top: "conv2"
  convolution_param { num_output: 8 pad: 2 kernel_size: 5 group: 2 } }
layers { name: "fc6" type: INNER_PRODUCT bottom: "conv2" top: "fc6" inner_product_param { num_output: 16 } }
layers { name: "fc7" type: INNER_PRODUCT bottom: "fc6" top: "fc7" inner_product_param { num_output: 10 } }
"""


#: name -> prototxt
WILD: Mapping[str, str] = {
    f.__name__: f()
    for f in (residual, squeeze, dense, mobile, inception, fully_convolutional, siamese,
              autoencoder, old_benchmark)
}  # fmt: skip
