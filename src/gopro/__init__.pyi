from .benchmark.runner import benchmark
from .clip.backbone import load_backbone
from .data.folders.find_images import find_images, find_pictures
from .data.load_dataset import load_dataset
from .errors import InputError
from .inference.classifier import Answer, Classifier, Prediction, load
from .runs.config import BenchmarkConfig, TrainConfig, TransferConfig
from .runs.push import push
from .training.train import resume, train

__all__ = [
    "Answer",
    "BenchmarkConfig",
    "Classifier",
    "InputError",
    "Prediction",
    "TrainConfig",
    "TransferConfig",
    "benchmark",
    "find_images",
    "find_pictures",
    "load",
    "load_backbone",
    "load_dataset",
    "push",
    "resume",
    "train",
]
