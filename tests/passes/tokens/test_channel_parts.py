"""One layer for q, k and v, cut into three after its neuron: each part is known by the layer."""

import torch
from torch import nn

from snncc.frontends.pytorch import import_module
from snncc.ir.graphs import nodes, provenance
from snncc.nn import IntegerFire
from snncc.passes import FRONT, PassManager


class Joint(nn.Module):
    """Attention of one head over 4 by 4 tokens."""

    def __init__(self):
        super().__init__()
        self.stem, self.first = nn.Conv2d(1, 4, 3, padding=1), IntegerFire(2)
        self.qkv, self.fires = nn.Conv2d(4, 12, 1), IntegerFire(2)
        self.last = IntegerFire(2)

    def forward(self, x):
        spikes = self.first(self.stem(x))
        q, k, v = self.fires(self.qkv(spikes)).flatten(2).transpose(1, 2).chunk(3, 2)
        return self.last(((q @ k.transpose(1, 2)) @ v).transpose(1, 2).unflatten(2, (4, 4)))


def test_a_part_of_a_layer_is_of_its_module():
    torch.manual_seed(0)
    graph = PassManager(FRONT).run(import_module(Joint(), (1, 4, 4)))
    convs = [provenance(node) for node in nodes(graph, "Conv")]
    assert [origin.module for origin in convs] == ["stem", "qkv", "qkv", "qkv"]
    assert len({origin.source for origin in convs[1:]}) == 1
    fires = [provenance(node).module for node in nodes(graph, "IntegerFire")]
    assert fires == ["first", "fires", "fires", "fires", "last"]
