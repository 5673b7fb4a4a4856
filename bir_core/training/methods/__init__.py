"""How each kind of network is trained: one file per method, and their table."""

from .table import METHODS, Method, load_recipe, make_training, recipe_from_table, shipped_recipes

__all__ = [
    "METHODS",
    "Method",
    "load_recipe",
    "make_training",
    "recipe_from_table",
    "shipped_recipes",
]
