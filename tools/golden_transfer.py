"""Record logits of the authors' own MMRL from ImageNet to EuroSAT, for tests/methods/test_golden_transfer.py.

    git clone https://github.com/yunncheng/MMRL               # as of 27d8821 for the recorded file
    python -m tools.golden_transfer --repository MMRL

A model for class names and prompt of ImageNet (its first 20 classes) gives its learned tensors to a new one for those
of EuroSAT, as in their cross-dataset test. Both are a ViT-B/16 with the random weights of `random_clip(VIT_B16)`, in
fp32 on the CPU; the learned tensors are those of `drawn_parameters`. tests/golden/transfer-mmrl.safetensors holds the
logits of four images of `drawn_images`: `imagenet` [4, 20] from both features and `eurosat` [4, 10] from the class
token's, as their test takes them.
"""

from __future__ import annotations

import torch
from open_clip import IMAGENET_CLASSNAMES
from safetensors.torch import save_file
from torch import Tensor

from tests.support.golden import EUROSAT, VIT_B16, drawn_images, random_clip
from tools.authors import recording_arguments, use_repository
from tools.golden_maple import MMRLSizes, build_mmrl

SIZES = MMRLSizes(layers=tuple(range(6, 13)), tokens=5, dim=512)


@torch.no_grad()
def record() -> dict[str, Tensor]:
    """Return the tensors of the file."""
    state, images = random_clip(VIT_B16), drawn_images(4, 224)
    trained = build_mmrl(state, SIZES, IMAGENET_CLASSNAMES[:20], "ImageNet")
    trained.draw_parameters()
    imagenet = trained.model.eval()(images)[2]
    learned = {name: t for name, t in trained.model.state_dict().items() if "prompt_embeddings" not in name}
    tested = build_mmrl(state, SIZES, EUROSAT, "EuroSAT").model.eval()
    tested.load_state_dict(learned, strict=False)
    return {"imagenet": imagenet, "eurosat": tested(images)[0]}


def main() -> None:
    parser = recording_arguments(__doc__)
    arguments = parser.parse_args()
    use_repository(arguments.repository)
    save_file(record(), arguments.output / "transfer-mmrl.safetensors")


if __name__ == "__main__":
    main()
