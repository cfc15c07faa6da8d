"""What an expert would write: features of a timm model and scikit-learn's logistic regression.

    python -m benchmarks.expert_classifier PLAN.json

PLAN.json is written by classifier.py. This program is timed as a whole, so it imports nothing of gopro: the model is
what timm and the weights file give, in torch's default layout.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

CS = np.logspace(-2, 4, 7)
"""Inverse strengths of regularisation to choose from."""


class Images(Dataset[tuple[torch.Tensor, int]]):
    """Image files and labels as preprocessed tensors."""

    def __init__(self, listed: list[tuple[str, int]], size: int, mean: list[float], std: list[float]) -> None:
        self.listed = listed
        steps = [
            transforms.Resize(size, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.listed[index]
        return self.transform(Image.open(path).convert("RGB")), label


def load_tower(plan: dict[str, Any]) -> torch.nn.Module:
    """Return the image tower: timm's model with the weights of the plan, or the pickled module if it is not timm's."""
    content = torch.load(plan["weights"], weights_only=plan["timm_model"] is not None)
    if plan["timm_model"] is None:
        return content.eval()
    import timm

    model = timm.create_model(plan["timm_model"], num_classes=0)
    model.load_state_dict(content)
    return model.eval()


def main() -> None:
    with open(sys.argv[1]) as file:
        plan = json.load(file)
    tower = load_tower(plan)

    @torch.inference_mode()
    def features(split: str) -> tuple[np.ndarray, np.ndarray]:
        images = Images(plan[split], plan["size"], plan["mean"], plan["std"])
        encoded = [(tower(batch), labels) for batch, labels in DataLoader(images, 64, num_workers=plan["workers"])]
        x, y = (torch.cat(parts) for parts in zip(*encoded, strict=True))
        return torch.nn.functional.normalize(x.float(), dim=-1).numpy(), y.numpy()

    train, val, test = features("train"), features("val"), features("test")
    fitted = [LogisticRegression(C=c, max_iter=1000).fit(*train) for c in CS]
    best = max(fitted, key=lambda classifier: classifier.score(*val))
    print(json.dumps({"accuracy": 100 * best.score(*test), "n": len(test[1]), "C": best.C}))


if __name__ == "__main__":
    main()
