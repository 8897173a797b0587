"""Older spellings of a network as layers of today: ``layers``, V0's ``layer`` in it, headers.

Source: the rules by which Caffe itself reads such files (util/upgrade_proto)
"""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import ImportModelError
from .message import Message
from .schema import fields_of

__all__ = ["MOST_LAYERS", "layers_of"]

#: layers of one network; the deepest in use have about two thousand
MOST_LAYERS = 10_000

#: V1's type -> today's, where it is not the name in camel case
_V1_TYPES: Mapping[str, str] = {
    "ABSVAL": "AbsVal", "ARGMAX": "ArgMax", "BNLL": "BNLL", "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output", "LRN": "LRN", "MVN": "MVN", "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss", "TANH": "TanH",
}  # fmt: skip

#: V0's type -> today's
_V0_TYPES: Mapping[str, str] = {
    "accuracy": "Accuracy", "bnll": "BNLL", "concat": "Concat", "conv": "Convolution",
    "data": "Data", "dropout": "Dropout", "euclidean_loss": "EuclideanLoss",
    "flatten": "Flatten", "hdf5_data": "HDF5Data", "hdf5_output": "HDF5Output",
    "im2col": "Im2col", "images": "ImageData", "infogain_loss": "InfogainLoss",
    "innerproduct": "InnerProduct", "lrn": "LRN",
    "multinomial_logistic_loss": "MultinomialLogisticLoss", "pool": "Pooling", "relu": "ReLU",
    "sigmoid": "Sigmoid", "softmax": "Softmax", "softmax_loss": "SoftmaxWithLoss",
    "split": "Split", "tanh": "TanH", "window_data": "WindowData",
}  # fmt: skip

_DATA = {"data": "data_param", "hdf5_data": "hdf5_data_param", "images": "image_data_param",
         "window_data": "window_data_param"}  # fmt: skip

#: V0's field -> where it belongs today, by V0's type ("" for all)
_V0_FIELDS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "num_output": {"conv": ("convolution_param", "num_output"),
                   "innerproduct": ("inner_product_param", "num_output")},
    "biasterm": {"conv": ("convolution_param", "bias_term"),
                 "innerproduct": ("inner_product_param", "bias_term")},
    "weight_filler": {"conv": ("convolution_param", "weight_filler"),
                      "innerproduct": ("inner_product_param", "weight_filler")},
    "bias_filler": {"conv": ("convolution_param", "bias_filler"),
                    "innerproduct": ("inner_product_param", "bias_filler")},
    "pad": {"conv": ("convolution_param", "pad"), "pool": ("pooling_param", "pad")},
    "kernelsize": {"conv": ("convolution_param", "kernel_size"),
                   "pool": ("pooling_param", "kernel_size")},
    "group": {"conv": ("convolution_param", "group")},
    "stride": {"conv": ("convolution_param", "stride"), "pool": ("pooling_param", "stride")},
    "pool": {"pool": ("pooling_param", "pool")},
    "dropout_ratio": {"dropout": ("dropout_param", "dropout_ratio")},
    "local_size": {"lrn": ("lrn_param", "local_size")},
    "alpha": {"lrn": ("lrn_param", "alpha")},
    "beta": {"lrn": ("lrn_param", "beta")},
    "k": {"lrn": ("lrn_param", "k")},
    "source": {**{k: (v, "source") for k, v in _DATA.items()},
               "infogain_loss": ("infogain_loss_param", "source")},
    "batchsize": {k: (v, "batch_size") for k, v in _DATA.items()},
    "rand_skip": {"data": ("data_param", "rand_skip"),
                  "images": ("image_data_param", "rand_skip")},
    "shuffle_images": {"images": ("image_data_param", "shuffle")},
    "new_height": {"images": ("image_data_param", "new_height")},
    "new_width": {"images": ("image_data_param", "new_width")},
    "concat_dim": {"concat": ("concat_param", "concat_dim")},
    "scale": {"": ("transform_param", "scale")},
    "meanfile": {"": ("transform_param", "mean_file")},
    "cropsize": {"": ("transform_param", "crop_size")},
    "mirror": {"": ("transform_param", "mirror")},
}  # fmt: skip

#: fields that once said how to transform data where it was read
_TRANSFORM = ("scale", "mean_file", "crop_size", "mirror")


def layers_of(net: Message) -> list[Message]:
    """The layers of a NetParameter as today's LayerParameters, inputs of the header first.

    Raises ImportModelError where the file mixes generations or says nonsense.
    """
    new, old = net.subs("layer"), net.subs("layers")
    if new and old:
        raise old[0].fail("the file has layers of two generations", got="`layer` and `layers`")
    count = len(new) + len(old)
    if count > MOST_LAYERS:
        raise net.fail("too many layers", got=count, expected=f"at most {MOST_LAYERS}")
    if old:
        v0 = any(layer.has("layer") for layer in old)
        new = [_from_v0(layer) for layer in _padded(old)] if v0 else [_from_v1(x) for x in old]
    for layer in new:
        _move_transform(layer)
    return [*_header(net), *new]


def _header(net: Message) -> list[Message]:
    names = net.texts("input")
    if not names:
        if net.has("input_dim") or net.has("input_shape"):
            field = "input_dim" if net.has("input_dim") else "input_shape"
            raise net.fail("there is a shape but no input", field)
        return []
    shapes, numbers = net.subs("input_shape"), net.integers("input_dim")
    if shapes and numbers:
        raise net.fail("both input_shape and input_dim are given", "input_dim")
    if len(shapes) != len(names) and len(numbers) != 4 * len(names):
        raise net.fail(
            "the inputs' shapes do not fit their number", "input",
            got=f"{len(names)} inputs, {len(shapes)} input_shape, {len(numbers)} input_dim",
            expected="one input_shape, or four input_dim, for each",
        )  # fmt: skip
    line = net.lines["input"]
    layer = Message("LayerParameter", line, net.file)
    layer.put("name", "input")
    layer.put("type", "Input")
    parameter = Message("InputParameter", line, net.file)
    for k, name in enumerate(names):
        layer.add("top", name, line)
        shape = shapes[k] if shapes else Message("BlobShape", line, net.file)
        if not shapes:
            for number in numbers[4 * k : 4 * k + 4]:
                shape.add("dim", number, line)
        parameter.add("shape", shape, line)
    layer.put("input_param", parameter)
    return [layer]


def _new(old: Message) -> Message:
    return Message("LayerParameter", old.line, old.file)


def _copy(old: Message, new: Message, fields: tuple[str, ...]) -> None:
    for field in fields:
        if old.has(field):
            new.values[field] = list(old.values[field])
            new.lines[field] = old.lines[field]


def _from_v1(old: Message) -> Message:
    new = _new(old)
    new.unknown = list(old.unknown)
    if not old.has("type"):
        raise old.fail("a layer without a type")
    type = old.text("type")
    new.put("type", _V1_TYPES.get(type) or "".join(part.capitalize() for part in type.split("_")))
    known = fields_of("LayerParameter")
    same = [f for f in fields_of("V1LayerParameter") if f in known and f.endswith("_param")]
    _copy(old, new, ("name", "bottom", "top", "loss_weight", "include", "exclude", *same))
    modes = [str(v) for v in old.values.get("blob_share_mode", ())]
    _specs(new, old.texts("param"), modes, old.reals("blobs_lr"), old.reals("weight_decay"))
    return new


def _specs(
    new: Message, names: list[str], modes: list[str], rates: list[float], decays: list[float]
) -> None:
    """``param`` messages out of the lists that older generations keep."""
    for k in range(max(len(names), len(rates), len(decays))):
        spec = Message("ParamSpec", new.line, new.file)
        if k < len(names) and names[k]:
            spec.put("name", names[k])
        if k < len(modes):
            spec.put("share_mode", modes[k])
        if k < len(rates):
            spec.put("lr_mult", rates[k])
        if k < len(decays):
            spec.put("decay_mult", decays[k])
        new.add("param", spec, new.line)


def _from_v0(old: Message) -> Message:
    new = _new(old)
    inner = old.sub("layer")
    new.unknown = [*old.unknown, *inner.unknown]
    _copy(old, new, ("bottom", "top"))
    _copy(inner, new, ("name",))
    type = inner.text("type")
    # a type that nobody knows is listed with the other unsupported ones
    new.put("type", _V0_TYPES.get(type, type))
    for field, places in _V0_FIELDS.items():
        if not inner.has(field):
            continue
        place = places.get("") or places.get(type)
        if place is None:
            raise inner.fail(f"a layer of type {type!r} has no {field}", field)
        sub = new.sub(place[0]) if new.has(place[0]) else None
        if sub is None:
            kind = fields_of("LayerParameter")[place[0]].type
            sub = Message(kind, inner.line, inner.file)
            new.put(place[0], sub)
        sub.values[place[1]] = list(inner.values[field])
        sub.lines[place[1]] = inner.lines[field]
    _copy(inner, new, ("hdf5_output_param",))
    _specs(new, [], [], inner.reals("blobs_lr"), inner.reals("weight_decay"))
    return new


def _padded(layers: list[Message]) -> list[Message]:
    """V0's padding layers as the padding of the convolution or pooling that follows."""
    made: dict[str, Message] = {}
    kept = []
    for layer in layers:
        inner = layer.sub("layer")
        if inner.text("type") != "padding":
            bottoms = layer.texts("bottom")
            sources = [made.get(b) for b in bottoms]
            paddings = [s for s in sources if s is not None and _is_padding(s)]
            if paddings:
                if inner.text("type") not in ("conv", "pool") or len(bottoms) != 1:
                    raise inner.fail("a padding layer leads to a convolution or pooling alone",
                                     got=inner.text("type"))  # fmt: skip
                layer, inner = layer.copy(), inner.copy()
                inner.put("pad", paddings[0].sub("layer").integer("pad"))
                layer.put("layer", inner)
                layer.values["bottom"] = list(paddings[0].values.get("bottom", ()))
            kept.append(layer)
        elif len(layer.texts("bottom")) != 1 or len(layer.texts("top")) != 1:
            raise ImportModelError("a padding layer has one bottom and one top", where=layer.where)
        for top in layer.texts("top"):
            made[top] = layer
    return kept


def _is_padding(layer: Message) -> bool:
    return layer.sub("layer").text("type") == "padding"


def _move_transform(layer: Message) -> None:
    """Crop, scale, mean and mirroring from data_param to transform_param, where they are now."""
    for holder in ("data_param", "image_data_param", "window_data_param"):
        if not layer.has(holder):
            continue
        found = [f for f in _TRANSFORM if layer.sub(holder).has(f)]
        if not found:
            continue
        source, target = layer.sub(holder).copy(), layer.sub("transform_param").copy()
        for field in found:
            if not target.has(field):
                target.values[field] = list(source.values[field])
                target.lines[field] = source.lines[field]
            source.drop(field)
        layer.put(holder, source)
        layer.put("transform_param", target)
