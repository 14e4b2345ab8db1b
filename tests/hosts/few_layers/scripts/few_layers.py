"""An extension for the tests: FLUX.1, Chroma and SD3 with few layers, and random weights for what a checkpoint lacks.

The hosts fix the number of layers, or derive it from a width. That makes up to 12 billion parameters; a test needs few.
The host's own loader, samplers and VAE do the rest. Checkpoints without the mark of `marked.write_checkpoint` stay as
they are.
"""

import importlib
from unittest import mock

import torch
from modules import sd_models

MARK = "few_layers.0"
WIDTH = 128
FLUX = {"hidden_size": WIDTH, "num_heads": 1, "depth": 1, "depth_single_blocks": 1}
CHROMA = FLUX | {"guidance_out_dim": WIDTH, "guidance_hidden_dim": 64, "guidance_n_layers": 1}
NETWORKS = {"FluxTransformer2DModel": FLUX, "ChromaTransformer2DModel": CHROMA}


def random(name, shape):
    """A weight that neither explodes nor vanishes: a matrix keeps the size of what it multiplies."""
    if len(shape) < 2:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    return torch.randn(shape) / shape[1:].numel() ** 0.5


def is_marked(weights):
    return any(name.endswith(MARK) for name in weights or ())


def complete(weights, network):
    """Add what a network has and a marked checkpoint's weights lack."""
    if not is_marked(weights):
        return
    shapes = {name: value.shape for name, value in network.state_dict().items() if value.is_floating_point()}
    for name, module in network.named_modules():
        # Forge's linear layers have no weight before they are loaded.
        if hasattr(module, "in_features") and module.weight is None:
            shapes[f"{name}.weight"] = torch.Size([module.out_features, module.in_features])
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        weights.update({name: random(name, shape) for name, shape in shapes.items() if name not in weights})


def in_forge(loader):
    """Forge builds and loads each part in one function, by a configuration beside its code or by its guess."""
    build, load = loader.load_huggingface_component, loader.load_state_dict
    read, of_clip = loader.read_arbitrary_config, importlib.import_module("transformers").CLIPTextConfig

    def built(guess, component, library, kind, folder, weights):
        if not is_marked(weights):
            return build(guess, component, library, kind, folder, weights)
        guess.unet_config.update(NETWORKS.get(kind, {}))

        def short(path):
            return of_clip(**of_clip.get_config_dict(path)[0] | {"num_hidden_layers": 2})

        def t5(path):
            return read(path) | {"num_layers": 1, "d_ff": 64}

        patch = mock.patch.object
        with patch(of_clip, "from_pretrained", short), patch(loader, "read_arbitrary_config", t5):
            return build(guess, component, library, kind, folder, weights)

    def loaded(network, weights, *rest, **others):
        complete(weights, network)
        load(network, weights, *rest, **others)

    loader.load_huggingface_component, loader.load_state_dict = built, loaded


def in_automatic1111(conditions, encoders):
    """AUTOMATIC1111 builds all of SD3 at once. It would download T5's tokenizer, which it never uses without T5."""
    for config in (conditions.CLIPL_CONFIG, conditions.CLIPG_CONFIG):
        config["num_hidden_layers"] = 3  # the last but one is taken, and has to have one before it
    of_clip, load = conditions.CLIPTokenizer, sd_models.load_model_weights

    def loaded(network, info, weights, timer):
        complete(weights, network)
        load(network, info, weights, timer)

    sd_models.load_model_weights = loaded
    stand_in = mock.Mock(from_pretrained=lambda _: of_clip.from_pretrained("openai/clip-vit-large-patch14"))
    conditions.T5TokenizerFast = encoders.T5TokenizerFast = stand_in


try:
    from backend import loader as forges
except ImportError:
    in_automatic1111(*map(importlib.import_module, ("modules.models.sd3.sd3_cond", "modules.models.sd3.other_impls")))
else:
    in_forge(forges)
