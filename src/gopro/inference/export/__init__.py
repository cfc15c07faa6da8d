"""A trained run as an ONNX or TorchScript file that needs no GOPro: images in, probabilities out."""
