"""What to say of nodes that have no spiking form, and what to do instead."""

from __future__ import annotations

from snncc.errors import Option, Words

__all__ = [
    "ADVICE",
    "BORDER",
    "BY_HAND",
    "CONSTANT",
    "COPIES",
    "FEWER_BITS",
    "LEVELS",
    "LINEAR",
    "LOOP",
    "LOOPED",
    "MASKED_SHIFT",
    "NEURON",
    "NORM_OF_BATCH",
    "NO_PAIR",
    "NO_SPREAD",
    "ONE_PAIR",
    "ONE_ZERO",
    "OPERATORS",
    "OTHER",
    "POSITIVE",
    "UNMASKED",
]

CLASS = ("picks the largest, which spikes do not do", "leave it out; use the logits")
NEURON = "snncc.nn.IntegerFire(D=4), then fine-tune"
ADVICE: dict[str, tuple[str, str]] = {
    "Relu": ("real-valued, no levels", NEURON),
    "Gelu": ("real-valued, no levels", NEURON),
    "Sigmoid": ("real-valued, no levels", NEURON),
    "HardSigmoid": ("real-valued, no levels", NEURON),
    "HardSwish": ("real-valued, no levels", NEURON),
    "Tanh": ("real-valued, no levels", NEURON),
    "LeakyRelu": ("real-valued, no levels", NEURON),
    "PRelu": ("real-valued, no levels", NEURON),
    "Elu": ("real-valued, no levels", NEURON),
    "Selu": ("real-valued, no levels", NEURON),
    "Softplus": ("real-valued, no levels", NEURON),
    "Mish": ("real-valued, no levels", NEURON),
    "Swish": ("real-valued, no levels", NEURON),
    "Erf": ("real-valued, no levels", NEURON),
    "Clip": ("clamps without rounding, no levels", NEURON),
    "Softmax": ("divides by a sum of live values", "leave it out; take the class from the logits"),
    "LogSoftmax": ("divides by a sum of live values", "leave it out; use the logits"),
    "ArgMax": CLASS,
    "ArgMin": CLASS,
    "TopK": CLASS,
    "LayerNormalization": ("statistics of the live input", "BatchNorm, which folds away"),
    "InstanceNormalization": ("statistics of the live input", "BatchNorm, which folds away"),
    "GroupNormalization": ("statistics of the live input", "BatchNorm, which folds away"),
    "Dropout": (
        "drops values in eval mode, too",
        "nn.Dropout, or F.dropout(x, training=self.training)",
    ),
    "Concat": ("joins potentials or results", "join the spikes of neurons instead"),
    "MatMul": ("a product of two live values", "convolutions and linear layers with weights"),
    "Mul": (
        "a product of two live values that is no gate",
        "spikes of two neurons, of one shape or with one number per channel, nothing between but a "
        "max-pool; or 1 - x of a neuron whose spikes count 1",
    ),
}
ADVICE |= dict.fromkeys(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"),
    ("draws random numbers in eval mode, too", "no randomness in eval mode"),
)
BY_HAND = (
    "compares a live value with a threshold: a neuron written by hand",
    "describe its class with snncc.frontends.leaves.register_leaf",
)
ADVICE |= dict.fromkeys(("Greater", "GreaterOrEqual", "Less", "LessOrEqual"), BY_HAND)
#: What such neurons and loops around them are made of.
LOOP = (
    "belongs to a neuron written by hand, or to its loop over timesteps",
    "first describe the neuron's class",
)
LOOPED = (
    "Tile", "Expand", "Gather", "Unsqueeze", "Squeeze", "Concat", "Split", "Slice", "Cast", "Where",
    "ScatterElements", "ScatterND", "ReduceMean", "ReduceSum",
)  # fmt: skip
#: Of PyTorch's operators that become several nodes, or one that tells nothing.
OPERATORS: dict[str, tuple[str, str]] = {
    "adaptive_avg_pool2d": (
        "averages windows of different sizes",
        "an output size that divides the map's, or a mean over all of it",
    ),
    "adaptive_avg_pool3d": (
        "averages over three axes at once",
        "a mean over height and width, x.mean((3, 4)), or AdaptiveAvgPool2d on [T·N, C, H, W]",
    ),
    "adaptive_max_pool2d": (
        "takes maxima of windows of different sizes",
        "an output size that divides the map's, or MaxPool2d",
    ),
    "pixel_unshuffle": (
        "moves positions into channels",
        "a convolution of that kernel and stride, which may do the same",
    ),
    "pixel_shuffle": (
        "moves channels into positions",
        Words("no shuffle; a detector's end: ", Option("until")),
    ),
    "feature_dropout": ADVICE["Dropout"],
    "alpha_dropout": ADVICE["Dropout"],
    "feature_alpha_dropout": ADVICE["Dropout"],
    "bernoulli": ADVICE["Bernoulli"],
    "batch_norm": (
        "takes its statistics from the batch, in eval mode, too",
        "track_running_stats=True, and training=False where it is called as a function",
    ),
    "fake_quantize_per_tensor_affine": (
        "quantises with a scale that training still changes (FakeQuantize)",
        "convert the network, then export it as ONNX with QDQ; or snncc.nn.IntegerFire",
    ),
}
QUANTISED = (
    "ConvInteger",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "DynamicQuantizeLinear",
)
ADVICE |= dict.fromkeys(
    QUANTISED,
    ("an integer operator of a quantised file", "quantise with QuantFormat.QDQ, statically"),
)
OTHER = (
    "has no spiking form",
    Words("move it out of the network, or cut with ", Option("until")),
)
NORM_OF_BATCH = OPERATORS["batch_norm"]
NO_SPREAD = (
    "divides by nothing: variance plus eps is not positive, or not constant",
    "eps above 0 and trained statistics",
)
NO_PAIR = "no DequantizeLinear with the same constant scale and zero point follows"
ONE_ZERO = "one zero point for all channels, as activations per tensor have it"
LEVELS = "a quantiser of two levels or more; a clamp next to it may leave one alone"
ONE_PAIR = "a DequantizeLinear right after it, with the scale and zero point that it has"
FEWER_BITS = "quantise activations to 8 bits (activation_type=QuantType.QUInt8)"
POSITIVE = "positive scales; the sign belongs into the weights"
LINEAR = (
    "no layer over (C, H, W), over features, or over the channels of tokens",
    "Conv2d, Conv1d of kernel 1, or Linear over features or channels",
)
CONSTANT = ("its constant differs within a channel", "one value per channel, or for all")
BORDER = ("a border that no convolution takes up", "padding right before a convolution")
COPIES = ("pads with copies of live values", "zeros: Conv2d(padding=…, padding_mode='zeros')")
UNMASKED = ("masks what is no membrane potential", "SparseBatchNorm2d after SpikeSparseConv2d")
MASKED_SHIFT = ("is shifted before a patch mask", "a layer right before it, to take the shift")
