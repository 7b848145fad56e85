"""Networks: build, train, read, write, name their layers and split them."""

from carelab.networks.architectures import cnn, mlp, seeded

__all__ = ["cnn", "mlp", "seeded"]
