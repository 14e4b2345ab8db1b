"""The file that AUTOMATIC1111, Forge and their forks load; its content is in `fmboost_webui/`.

The hosts register the classes that they find here. This extension's folder is on `sys.path` only while they import
this file, so everything is imported here at once.
"""

from modules import script_callbacks

from fmboost_webui import contract

lacking = contract.missing()
if lacking:
    print(contract.refusal(lacking))
else:
    from fmboost_webui import extras, grid, hires
    from fmboost_webui.extras import UpscalerFMBoost  # noqa: F401
    from fmboost_webui.script import FMBoostScript  # noqa: F401

    hires.register_entries()
    script_callbacks.on_before_ui(grid.add_axes)
    script_callbacks.on_before_ui(extras.register)
    script_callbacks.on_ui_settings(extras.add_setting)
    script_callbacks.on_app_started(extras.register)  # without a page, the first callback does not come
    script_callbacks.on_before_ui(contract.announce)
