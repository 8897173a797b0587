"""brickc: an ahead-of-time compiler for neural-network training steps.

import brickc as bc
N = bc.Dim("N", 1, 1024)
x, t = bc.input("x", (N, 1, 32, 32)), bc.input("t", (N,), "i32", limit=10)
y = bc.Sequential(bc.Conv2d(6, 5), bc.Tanh(), bc.Flatten(), bc.Linear(10))(x)
model = bc.Model(outputs={"logits": y}, loss=bc.softmax_loss(y, t))
program = bc.compile(model, target="numpy", optimizer=bc.SGD(0.1, momentum=0.9))
"""

from __future__ import annotations

__version__ = "0.1.0"

from .compiler.loss_scaling import LossScale
from .compiler.optimizers import (
    SGD,
    AdaDelta,
    AdaGrad,
    Adam,
    AdamW,
    Optimizer,
    RMSProp,
    parse_optimizer,
)
from .errors import BrickcError
from .frontends import functional, layers, zoo
from .frontends.caffe import load_caffemodel, save_caffemodel
from .frontends.containers import Concat, Parallel, Residual, Sequential
from .frontends.functional import *  # noqa: F403 - its __all__ is the explicit list
from .frontends.gradients import gradients
from .frontends.layer import Layer
from .frontends.layers import *  # noqa: F403 - its __all__ is the explicit list
from .frontends.load import load_model
from .frontends.losses import tensors, with_loss
from .frontends.model import Model
from .frontends.onnx import from_onnx, to_onnx
from .frontends.torch_export import from_torch
from .frontends.trace import Tensor, input, literal, parameter, state
from .ir.dims import Dim
from .ir.dtypes import DType
from .ir.graph import Graph
from .ir.initializers import constant, gaussian, msra, uniform, xavier
from .ir.interpret import interpret
from .ir.printer import print_graph
from .ir.verify import verify
from .program import Program, compile, load
from .runtime import data
from .runtime.executable import Executable

__all__ = [
    "SGD",
    "AdaDelta",
    "AdaGrad",
    "Adam",
    "AdamW",
    "BrickcError",
    "Concat",
    "DType",
    "Dim",
    "Executable",
    "Graph",
    "Layer",
    "LossScale",
    "Model",
    "Optimizer",
    "Parallel",
    "Program",
    "RMSProp",
    "Residual",
    "Sequential",
    "Tensor",
    "__version__",
    "compile",
    "constant",
    "data",
    "from_onnx",
    "from_torch",
    "functional",
    "gaussian",
    "gradients",
    "input",
    "interpret",
    "literal",
    "load",
    "load_caffemodel",
    "load_model",
    "msra",
    "parameter",
    "parse_optimizer",
    "print_graph",
    "save_caffemodel",
    "state",
    "tensors",
    "to_onnx",
    "uniform",
    "verify",
    "with_loss",
    "xavier",
    "zoo",
]
__all__ += functional.__all__
__all__ += layers.__all__
