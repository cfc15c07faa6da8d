"""Record the recipes and learning rates of the authors, for tests/training/test_lr_schedule.py.

    git clone https://github.com/KaiyangZhou/Dassl.pytorch                # as of c61a1b5 for the recorded file
    git clone https://github.com/KaiyangZhou/CoOp                         # as of ff61507
    git clone https://github.com/htyao89/KgCoOp                           # as of c43ccc3
    git clone https://github.com/muzairkhattak/multimodal-prompt-learning # as of 69bce21
    git clone https://github.com/muzairkhattak/PromptSRC                  # as of bb95c77
    git clone https://github.com/yunncheng/MMRL                           # as of 27d8821
    git clone https://github.com/mainaksingha01/GOPro                     # as of e284586
    git clone https://github.com/gaopengcuhk/Tip-Adapter                  # as of d0e2d6f
    python -m tools.golden_recipes --repositories FOLDER

Writes tests/golden/recipes.json. `recipes` maps each settings file, as repository/path, to what it trains with, Dassl's
defaults included; its `trainer` are the settings of the method. `mmrl` has MMRL's settings by data set. `schedules`
lists the learning rate of each epoch, from Dassl's own schedule, stepped at the end of each epoch as its trainers do;
`steps` lists Tip-Adapter-F's for each of 2 batches in 20 epochs.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module, util
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from tests.support.golden import GOLDEN
from tools.authors import install_dassl_stubs, read_settings

FILES = [
    *(f"CoOp/configs/trainers/CoOp/vit_b16{name}.yaml" for name in ("", "_ep50", "_ep100", "_ctxv1", "_ep50_ctxv1")),
    "CoOp/configs/trainers/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1.yaml",
    "KgCoOp/KgCoOp/configs/trainers/KgCoOp/vit_b16_ep100_ctxv1.yaml",
    "multimodal-prompt-learning/configs/trainers/MaPLe/vit_b16_c2_ep5_batch4_2ctx.yaml",
    "multimodal-prompt-learning/configs/trainers/MaPLe/vit_b16_c2_ep5_batch4_2ctx_cross_datasets.yaml",
    "PromptSRC/configs/trainers/PromptSRC/vit_b16_c2_ep20_batch4_4+4ctx.yaml",
    "PromptSRC/configs/trainers/PromptSRC/vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets.yaml",
    "PromptSRC/configs/trainers/PromptSRC/vit_b16_c2_ep50_batch4_4+4ctx_few_shot.yaml",
    *(f"MMRL/configs/trainers/MMRL/vit_b16{name}.yaml" for name in ("", "_cross_datasets", "_few_shot", "_imagenet")),
    "GOPro/configs/trainers/GOPro/vit_b16.yaml",
]
DATA_SETS = ["ImageNet", "Caltech101", "OxfordPets", "StanfordCars", "OxfordFlowers", "Food101", "FGVCAircraft"]
DATA_SETS += ["SUN397", "DescribableTextures", "EuroSAT", "UCF101"]
TIP_ADAPTER = ["imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc", "sun397"]
TIP_ADAPTER += ["dtd", "eurosat", "ucf101"]
TIP_ADAPTER_EPOCHS, TIP_ADAPTER_BATCHES = 20, 2


def recipe(settings: Any, file: Path) -> dict[str, Any]:
    """Return what settings train with, by the names of our `Recipe`, and those of the method by the authors' names."""
    optim, trainer = settings.OPTIM, yaml.safe_load(file.read_text()).get("TRAINER", {})
    return {
        "optimizer": optim.NAME,
        "lr": optim.LR,
        "epochs": optim.MAX_EPOCH,
        "batch": settings.DATALOADER.TRAIN_X.BATCH_SIZE,
        "warmup": optim.WARMUP_EPOCH,
        "weight_decay": optim.WEIGHT_DECAY,
        "momentum": optim.MOMENTUM,
        "crop": settings.INPUT.RRCROP_SCALE[0],
        "trainer": {key: value for own in trainer.values() for key, value in own.items() if key != "PREC"},
    }


def by_data_set(config: Path) -> dict[str, dict[str, float]]:
    """Return the settings that MMRL has for each data set, the same for all tasks, by the authors' names."""
    spec = util.spec_from_file_location("mmrl_config", config)
    assert spec is not None and spec.loader is not None
    module: Any = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings: dict[str, dict[str, float]] = {}
    for name in DATA_SETS:
        lists = [module.get_dataset_specified_config(name, "MMRL", task) for task in ("B2N", "FS", "CD")]
        assert lists[0] == lists[1] == lists[2]
        settings[name] = {key.rpartition(".")[2]: value for key, value in zip(*[iter(lists[0])] * 2, strict=True)}
    return settings


def epoch_rates(optim: Any) -> list[float]:
    """Return the learning rate of each epoch from Dassl's schedule."""
    dassl = import_module("dassl.optim")
    optimizer = dassl.build_optimizer([nn.Parameter(torch.zeros(1))], optim)
    return scheduled_rates(optimizer, dassl.build_lr_scheduler(optimizer, optim), optim.MAX_EPOCH)


def step_rates(lr: float) -> list[float]:
    """Return the learning rate of each of Tip-Adapter-F's steps."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=lr)
    steps = TIP_ADAPTER_EPOCHS * TIP_ADAPTER_BATCHES
    return scheduled_rates(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps), steps)


def scheduled_rates(optimizer: torch.optim.Optimizer, schedule: Any, count: int) -> list[float]:
    """Return the learning rates of an optimiser whose schedule is stepped this many times."""
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def record(repositories: Path) -> dict[str, Any]:
    """Return the content of the file."""
    install_dassl_stubs(repositories / "Dassl.pytorch")
    recipes: dict[str, Any] = {}
    rates: dict[tuple[float, int, int], list[float]] = {}
    for name in FILES:
        settings = read_settings(repositories / name)
        recipes[name] = recipe(settings, repositories / name)
        optim = settings.OPTIM
        rates[optim.LR, optim.MAX_EPOCH, optim.WARMUP_EPOCH] = epoch_rates(optim)
    for name in TIP_ADAPTER:  # the rest is in main.py: AdamW with torch's weight decay, batches of 256, crops from 0.5
        own = yaml.safe_load((repositories / "Tip-Adapter" / "configs" / f"{name}.yaml").read_text())
        recipes[f"Tip-Adapter/configs/{name}.yaml"] = {
            "optimizer": "adamw",
            "lr": own["lr"],
            "epochs": own["train_epoch"],
            "batch": 256,
            "warmup": 0,
            "weight_decay": 0.01,
            "crop": 0.5,
            "trainer": {key: own[key] for key in ("init_alpha", "init_beta", "search_scale", "search_step")},
        }
    schedules = [{"lr": lr, "epochs": e, "warmup": w, "rates": r} for (lr, e, w), r in sorted(rates.items())]
    steps = {"lr": 1e-3, "epochs": TIP_ADAPTER_EPOCHS, "batches": TIP_ADAPTER_BATCHES, "rates": step_rates(1e-3)}
    mmrl = by_data_set(repositories / "MMRL/trainers/config.py")
    return {"recipes": recipes, "mmrl": mmrl, "schedules": schedules, "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repositories", type=Path, required=True, help="folder that holds the repositories")
    parser.add_argument("--output", type=Path, default=GOLDEN, help="folder to write to")
    arguments = parser.parse_args()
    content = record(arguments.repositories)
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content["recipes"].items()]
    schedules = [json.dumps(schedule) for schedule in content["schedules"]]
    text = '{"recipes": {\n' + ",\n".join(lines) + '\n},\n"mmrl": ' + json.dumps(content["mmrl"])
    text += ',\n"schedules": [\n' + ",\n".join(schedules)
    text += '\n],\n"steps": ' + json.dumps(content["steps"]) + "}\n"
    (arguments.output / "recipes.json").write_text(text)


if __name__ == "__main__":
    main()
