"""The recipe of the bundled model, `tessera-tiny`: its data, its three stages, its evaluation and its export.

Run it with `python -m training train`; read it from `training/recipe.py`.
"""
