"""The converter table: Caffe's layer types and what makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..trace import Tensor
from . import data, losses, neurons, norms, recurrent, shapes, vision
from .call import Call

__all__ = [
    "BY_EXAMPLE",
    "BY_EXAMPLE_BESIDE_AXIS_0",
    "CONVERTERS",
    "INDEX_BOTTOMS",
    "LOSSES",
    "REASONS",
    "TRANSPARENT",
]

Converter = Callable[[Call], list[Tensor]]

#: layer type -> the function that makes its tops
CONVERTERS: Mapping[str, Converter] = {
    # data
    "Data": data.data, "DummyData": data.dummy, "HDF5Data": data.hdf5, "ImageData": data.images,
    "Input": data.input_, "MemoryData": data.memory, "Parameter": data.parameter,
    "Python": data.foreign,
    # on every element
    "AbsVal": neurons.absval, "Axpy": neurons.axpy, "BNLL": neurons.bnll, "Bias": neurons.bias,
    "Clip": neurons.clip, "Dropout": neurons.dropout, "ELU": neurons.elu,
    "Eltwise": neurons.eltwise, "Exp": neurons.exp, "Log": neurons.log, "PReLU": neurons.prelu,
    "Power": neurons.power, "ReLU": neurons.relu, "ReLU6": neurons.relu6, "Scale": neurons.scale,
    "Sigmoid": neurons.sigmoid, "Swish": neurons.swish, "TanH": neurons.tanh,
    "Threshold": neurons.threshold,
    # products and windows
    "Convolution": vision.convolution, "ConvolutionDepthwise": vision.depthwise,
    "Deconvolution": vision.deconvolution, "DepthwiseConvolution": vision.depthwise,
    "Im2col": vision.im2col, "InnerProduct": vision.inner_product, "Pooling": vision.pooling,
    "SPP": vision.spp,
    # normalisation
    "BatchNorm": norms.batch_norm, "LRN": norms.lrn, "MVN": norms.mvn, "Softmax": norms.softmax,
    # shapes and reductions
    "ArgMax": shapes.argmax, "BatchReindex": shapes.batch_reindex, "Concat": shapes.concat,
    "Crop": shapes.crop, "Embed": shapes.embed, "Filter": shapes.filter_,
    "Flatten": shapes.flatten,
    "HDF5Output": shapes.silence, "Permute": shapes.permute, "Reduction": shapes.reduction,
    "Reshape": shapes.reshape, "Silence": shapes.silence, "Slice": shapes.slice_,
    "Split": shapes.split, "Tile": shapes.tile,
    # sequences
    "LSTM": recurrent.lstm, "LSTMUnit": recurrent.lstm_unit, "RNN": recurrent.rnn,
    # losses
    "Accuracy": losses.accuracy, "ContrastiveLoss": losses.contrastive,
    "EuclideanLoss": losses.euclidean, "HingeLoss": losses.hinge,
    "InfogainLoss": losses.infogain, "MultinomialLogisticLoss": losses.multinomial,
    "SigmoidCrossEntropyLoss": losses.sigmoid, "SoftmaxWithLoss": losses.softmax,
}  # fmt: skip

#: types whose first top is added to the loss unless loss_weight says otherwise
LOSSES = frozenset(name for name in CONVERTERS if name.endswith("Loss"))

#: bottoms that are class numbers or indices, by type
INDEX_BOTTOMS: Mapping[str, frozenset[int]] = {
    "Accuracy": frozenset((1,)), "BatchReindex": frozenset((1,)),
    "ContrastiveLoss": frozenset((2,)), "Embed": frozenset((0,)), "HingeLoss": frozenset((1,)),
    "InfogainLoss": frozenset((1,)), "MultinomialLogisticLoss": frozenset((1,)),
    "SoftmaxWithLoss": frozenset((1,)),
}  # fmt: skip

#: types that hand integers on as they are
TRANSPARENT = frozenset(("Concat", "Flatten", "HDF5Output", "Permute", "Reshape", "Silence",
                         "Slice", "Split", "Tile"))  # fmt: skip

#: types that treat every example by itself, so that a Filter may stand before them
BY_EXAMPLE = frozenset(
    ("AbsVal", "BNLL", "Clip", "Convolution", "ConvolutionDepthwise", "Deconvolution",
     "DepthwiseConvolution", "Dropout", "ELU", "Eltwise", "Embed", "Exp", "Filter", "LRN", "Log",
     "MVN", "PReLU", "Pooling", "Power", "ReLU", "ReLU6", "SPP", "Sigmoid", "Split", "Swish",
     "TanH", "Threshold")
)  # fmt: skip
#: the same, where the axis that they work on is not that of the examples
BY_EXAMPLE_BESIDE_AXIS_0 = frozenset(("ArgMax", "Concat", "Flatten", "InnerProduct", "Scale",
                                      "Bias", "Slice", "Softmax", "Tile"))  # fmt: skip

_DETECTION = "belongs to a library for object detection"

#: why a type that is known is not here
REASONS: Mapping[str, str] = {
    "AnnotatedData": _DETECTION,
    "DetectionOutput": _DETECTION,
    "MultiBoxLoss": _DETECTION,
    "PriorBox": _DETECTION,
    "ROIPooling": _DETECTION,
    "Recurrent": "is no layer by itself; LSTM and RNN are",
    "WindowData": "cuts windows for object detection out of images while it reads",
}
