"""Networks: build, train, read, write, name their layers and split them."""

from carelab.networks.architectures import mlp, seeded
from carelab.networks.convolutional import PAPER_PLANS, Plan, cnn, conv_network, paper_network
from carelab.networks.files import load, load_into, save
from carelab.networks.fingerprints import fingerprint
from carelab.networks.inputs import check_evaluation_mode, check_inputs, input_features
from carelab.networks.layers import (
    feature_positions,
    hidden_layers,
    hidden_neurons,
    ordered_modules,
    pre_activation,
    split,
    width,
)
from carelab.networks.nnet_files import NnetFile, Normalisation, read_nnet
from carelab.networks.onnx_files import read_onnx, write_onnx
from carelab.networks.residual import Residual, residual_network
from carelab.networks.tracing import as_sequential
from carelab.networks.training import Epoch, accuracy, fit, labels_of, logits, predict

__all__ = [
    "PAPER_PLANS",
    "Epoch",
    "NnetFile",
    "Normalisation",
    "Plan",
    "Residual",
    "accuracy",
    "as_sequential",
    "check_evaluation_mode",
    "check_inputs",
    "cnn",
    "conv_network",
    "feature_positions",
    "fingerprint",
    "fit",
    "hidden_layers",
    "hidden_neurons",
    "input_features",
    "labels_of",
    "load",
    "load_into",
    "logits",
    "mlp",
    "ordered_modules",
    "paper_network",
    "pre_activation",
    "predict",
    "read_nnet",
    "read_onnx",
    "residual_network",
    "save",
    "seeded",
    "split",
    "width",
    "write_onnx",
]
