"""A pack for the tests: the host's large text encoders with few layers, and finite weights where a file has none.

T5-XXL and Qwen3-4B have billions of parameters, whatever a checkpoint holds of them. What a prompt says is not tested.
"""

import comfy.sd1_clip
import comfy.text_encoders.llama
import comfy.text_encoders.t5
import torch

SHORT = {
    comfy.text_encoders.t5.T5: {"num_layers": 1, "d_ff": 64},
    getattr(comfy.text_encoders.llama, "Qwen3_4B", None): {"num_hidden_layers": 3, "intermediate_size": 64},
}


def shorten(network, changes):
    make = network.__init__

    def shorter(self, config_dict, *rest):
        make(self, {**config_dict, **changes}, *rest)

    network.__init__ = shorter


def fill(encoder):
    make = encoder.__init__

    def filled(self, *args, **others):
        make(self, *args, **others)
        with torch.no_grad():
            for parameter in self.transformer.parameters():
                parameter.fill_(0.02 * float(torch.randn(1)))

    encoder.__init__ = filled


for network, changes in SHORT.items():
    if network is not None:
        shorten(network, changes)
fill(comfy.sd1_clip.SDClipModel)

NODE_CLASS_MAPPINGS = {}
