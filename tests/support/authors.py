"""Recipes and learning rates that tools/golden_recipes.py recorded from the authors' repositories."""

import json
from itertools import product
from typing import Any, get_args

from gopro.methods.recipe import Conditions, Task
from tests.support.golden import GOLDEN

RECORDED: dict[str, Any] = json.loads((GOLDEN / "recipes.json").read_text())
DATA_SETS = {
    "imagenet": "ImageNet",
    "caltech101": "Caltech101",
    "oxford_pets": "OxfordPets",
    "stanford_cars": "StanfordCars",
    "oxford_flowers": "OxfordFlowers",
    "food101": "Food101",
    "fgvc_aircraft": "FGVCAircraft",
    "sun397": "SUN397",
    "dtd": "DescribableTextures",
    "eurosat": "EuroSAT",
    "ucf101": "UCF101",
}
"""The authors' names of the data sets by ours."""
TRAININGS = [
    Conditions(task, data, shots)
    for task, data, shots in product(get_args(Task), DATA_SETS, (1, 2, 4, 8, 16))
    if task != "transfer" or data == "imagenet"  # all tables of transfer are of models trained on ImageNet
]
"""The trainings of all tables."""
