"""GOPro: prompt learning for CLIP with self-supervision."""

from gopro.backbone import load_backbone
from gopro.classifier import Classifier, Prediction, load
from gopro.config import BenchmarkConfig, TrainConfig, TransferConfig
from gopro.data import load_dataset
from gopro.errors import InputError
from gopro.sweep import benchmark
from gopro.train import resume, train

__all__ = [
    "BenchmarkConfig",
    "Classifier",
    "InputError",
    "Prediction",
    "TrainConfig",
    "TransferConfig",
    "benchmark",
    "load",
    "load_backbone",
    "load_dataset",
    "resume",
    "train",
]
