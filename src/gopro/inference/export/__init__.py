"""Export a trained run to an ONNX or TorchScript file that does not need GOPro: images in, probabilities out."""

from gopro.inference.export.model_file import ExportedModel, ExportSettings, export_run

__all__ = ["ExportSettings", "ExportedModel", "export_run"]
