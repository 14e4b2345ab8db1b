"""FMBoost as a ComfyUI node pack: clone the repository into `custom_nodes/` and start the host."""

from importlib.util import find_spec

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY"]

# Test runners import this file too; only ComfyUI has what the nodes are made of.
if find_spec("comfy_api") is not None:
    from .nodes import comfy_entrypoint

    __all__ += ["comfy_entrypoint"]
