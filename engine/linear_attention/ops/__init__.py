"""The field's recurrences as building blocks for mixers.

Convention: q, k `[batch, time, heads, d_key]`, v `[batch, time, heads, d_value]`. Every recurrence returns
`(output [batch, time, heads, d_value], final_state)`, takes `initial_state=None` and `scale=None` (then
`d_key ** -0.5`), and is causal; to decode with a constant state, call it with one token and the last state. They are
chunkwise pure PyTorch, linear in time (softmax attention excepted), and go to fla's Triton kernels on CUDA.
"""

from engine.linear_attention.ops.additive import gla, linear_attention, simple_gla
from engine.linear_attention.ops.convolution import ShortConvolution, causal_convolution
from engine.linear_attention.ops.delta import delta_rule, gated_delta_rule, kda
from engine.linear_attention.ops.features import (
    bounded_gate,
    elu_plus_one,
    hedgehog_feature,
    l2_normalize,
    log_rates,
    log_sigmoid_gate,
    relu_feature,
    retention_decay,
    rotary,
    softmax_feature,
    softplus_gate,
    squared_relu,
    taylor_feature,
)
from engine.linear_attention.ops.householder import delta_product
from engine.linear_attention.ops.norms import GatedRMSNorm, RMSNorm
from engine.linear_attention.ops.softmax import sliding_window_attention, softmax_attention

__all__ = [
    "GatedRMSNorm",
    "RMSNorm",
    "ShortConvolution",
    "bounded_gate",
    "causal_convolution",
    "delta_product",
    "delta_rule",
    "elu_plus_one",
    "gated_delta_rule",
    "gla",
    "hedgehog_feature",
    "kda",
    "l2_normalize",
    "linear_attention",
    "log_rates",
    "log_sigmoid_gate",
    "relu_feature",
    "retention_decay",
    "rotary",
    "simple_gla",
    "sliding_window_attention",
    "softmax_attention",
    "softmax_feature",
    "softplus_gate",
    "squared_relu",
    "taylor_feature",
]
