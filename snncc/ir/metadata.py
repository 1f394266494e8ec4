"""Keys of metadata: what graphs, their nodes and values say beside what they compute."""

from __future__ import annotations

__all__ = [
    "APART",
    "CALL",
    "CALLS",
    "CLASS",
    "FOLLOWED",
    "FOUND_NEURONS",
    "LAYER_BITS",
    "LINEAGE",
    "LOST",
    "MAP_OF",
    "MODULE",
    "NORM",
    "NO_ATTENTION",
    "NO_NEURON",
    "OPERATOR",
    "OUTPUT_SCALES",
    "PART",
    "PASS",
    "PREFIX",
    "RESULTS",
    "ROUNDING",
    "SEQUENCE",
    "SOURCE",
    "SQUEEZED",
    "STAGE",
    "STATISTICS",
    "STILL_NORMS",
    "TIMESTEPS",
]

#: What all of ours begin with; those of exporters do not.
PREFIX = "snncc."

# -- of a model ------------------------------------------------------------------------------

#: Its stage.
STAGE = "snncc.stage"
#: How its values come from those of the graphs before it (``snncc.ir.lineage``).
LINEAGE = "snncc.lineage"
#: Neurons of the network's own code that were found by experiment, for people.
FOUND_NEURONS = "snncc.found_neurons"
#: T, where its input is a sequence [N, T, ...].
SEQUENCE = "snncc.sequence"
#: T, where timesteps are folded into its batch axis.
TIMESTEPS = "snncc.timesteps"
#: Names of its results, and which outputs each is made of (``snncc.ir.results``).
RESULTS = "snncc.results"
#: Real value of one unit of each of its outputs.
OUTPUT_SCALES = "snncc.output_scales"
#: Bits of weights, by the name of the layer's result.
LAYER_BITS = "snncc.layer_bits"
#: Layers that lack bits, as others take the room of their potentials.
SQUEEZED = "snncc.squeezed"
#: What became of layers with no neuron between.
NO_NEURON = "snncc.no_neuron_between"
#: Batch norms with channels that hardly varied in training.
STILL_NORMS = "snncc.still_norms"

# -- of a node: where it comes from ----------------------------------------------------------

#: Torch module path.
MODULE = "snncc.module"
#: ``file:line`` in the author's code.
SOURCE = "snncc.source"
#: What made it.
PASS = "snncc.pass"
#: What PyTorch runs there.
OPERATOR = "snncc.operator"
#: Which call of it.
CALL = "snncc.operator_call"
#: Of an imported neuron: which calls of neurons it stands for, numbers with commas.
CALLS = "snncc.calls"
#: Of an imported neuron: which of the memories it is that such a call adds up.
PART = "snncc.part"
#: Of an imported neuron: the author's class that was taken for it.
CLASS = "snncc.class"

# -- of a node: what passes know of it -------------------------------------------------------

#: Of a neuron: the norm that it was trained with, folded now.
NORM = "snncc.norm"
#: Of a neuron that counts: what its rule of rounding was.
ROUNDING = "snncc.rounding"
#: Which value of tokens a node on maps computes.
MAP_OF = "snncc.map_of"
#: That it was followed but has no map: it holds tokens, or a product.
FOLLOWED = "snncc.followed"
#: That it could be followed, but reads what was lost before it.
LOST = "snncc.lost"
#: Why a product of live values is no attention.
NO_ATTENTION = "snncc.no_attention"
#: Of an attention: which of q and k have factors that differ within a head.
APART = "snncc.factors_apart"

# -- of a value ------------------------------------------------------------------------------

#: Of a graph input that stands for a weight: figures of it.
STATISTICS = "snncc.weights"
