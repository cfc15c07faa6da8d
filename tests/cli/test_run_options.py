"""`--backbone` and `--device` of the commands that load a trained run."""

from pathlib import Path

import pytest
import torch

COMMANDS = {
    "predict": ("predict", "RUN", "IMAGE"),
    "eval": ("eval", "RUN", "--workers", "0"),
    "head": ("head", "RUN", "--workers", "0"),
    "export": ("export", "RUN"),
    "serve": ("serve", "RUN", "--port", "0"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_weights_from_elsewhere(command: str, zeroshot_run: Path, image: Path, gopro) -> None:
    words = [{"RUN": zeroshot_run, "IMAGE": image}.get(word, word) for word in COMMANDS[command]]
    code, _, err = gopro(*words, "--backbone", "nowhere.safetensors")
    assert code == 2 and "--backbone nowhere.safetensors: no such file; give the weights of emoji" in err
    code, _, err = gopro(*words, "--backbone", "ViT-S-32-alt:random")
    assert code == 2 and "was trained on other weights of emoji than ViT-S-32-alt:random has now (fingerprint" in err


@pytest.mark.parametrize("command", ["predict", "eval", "head", "serve"])
def test_a_device_that_is_not_there_is_refused_in_one_line(
    command: str, zeroshot_run: Path, image: Path, gopro, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = [{"RUN": zeroshot_run, "IMAGE": image}.get(word, word) for word in COMMANDS[command]]
    for device, expected in {"cuda": "torch finds no GPU on this machine; use cpu", "mps": "mps"}.items():
        code, _, err = gopro(*words, "--device", device)
        assert code == 2 and expected in err and len(err.splitlines()) == 1


def test_a_run_predicts_with_its_own_backbone_named(zeroshot_run: Path, image: Path, gopro) -> None:
    plain, named = (gopro("predict", zeroshot_run, image, *more) for more in ((), ("--backbone", "emoji")))
    assert plain == named and plain[0] == 0
