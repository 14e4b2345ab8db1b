"""What AUTOMATIC1111 and Forge load; all of it is in `fmboost_webui/`.

The hosts register the classes that they find here. They have this extension's folder on `sys.path` only while this
file is imported, which is why everything is imported at once.
"""

from modules import script_callbacks

from fmboost_webui import grid, hires
from fmboost_webui.extras import UpscalerFMBoost  # noqa: F401
from fmboost_webui.script import FMBoostScript  # noqa: F401

hires.register_entries()
script_callbacks.on_before_ui(grid.add_axes)
