"""Defines a layer under another name."""

from torch import nn


class Layer(nn.Module):
    pass
