"""GOPro: prompt learning for CLIP with self-supervision."""

from gopro.backbone import load_backbone
from gopro.classifier import Answer, Classifier, Prediction, load
from gopro.config import BenchmarkConfig, TrainConfig, TransferConfig
from gopro.data import find_pictures, load_dataset
from gopro.errors import InputError
from gopro.sharing import push
from gopro.sweep import benchmark
from gopro.train import resume, train

__all__ = [
    "Answer",
    "BenchmarkConfig",
    "Classifier",
    "InputError",
    "Prediction",
    "TrainConfig",
    "TransferConfig",
    "benchmark",
    "find_pictures",
    "load",
    "load_backbone",
    "load_dataset",
    "push",
    "resume",
    "train",
]
