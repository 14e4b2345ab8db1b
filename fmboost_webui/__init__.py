"""FMBoost in AUTOMATIC1111, Forge and their forks: hires-fix without a second diffusion pass, Extras and X/Y/Z plots.

`scripts/fmboost.py` is the file that the hosts load. `models.py` has the models and their entries, `options.py` the
options, `hires.py` the pass, `script.py` its page, `extras.py` and `grid.py` the other two places. `contract.py` says
what a host must have. `checkpoint.py` and `host.py` alone know in what the hosts differ.
"""
