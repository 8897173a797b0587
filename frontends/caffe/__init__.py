"""Caffe's networks and solvers: prototxt of all generations, weights in and out.

bc.load_model("lenet_train_test.prototxt")                  loss and metrics, both phases
bc.load_model("deploy.prototxt:weights.caffemodel")         outputs, with weights
"""

from __future__ import annotations

from .files import finder, load, load_net, read_solver_or_net
from .net import Imported, Settings
from .weights import load_caffemodel, save_caffemodel

__all__ = ["Imported", "Settings", "finder", "load", "load_caffemodel", "load_net",
           "read_solver_or_net", "save_caffemodel"]  # fmt: skip
