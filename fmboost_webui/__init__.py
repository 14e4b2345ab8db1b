"""FMBoost in AUTOMATIC1111 and Forge: in hires-fix instead of a second diffusion pass, in Extras, in X/Y/Z plots.

`scripts/fmboost.py` is what the hosts load. `options.py` is what a person sets, `hires.py` the pass itself,
`script.py` its page, `extras.py` and `grid.py` the other two places; `host.py` is the only bridge to both hosts.
"""
