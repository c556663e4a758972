"""The table of the classifier's backbones; names, sizes and layers elsewhere follow from it."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT = "resnet50"
LITE0 = "efficientnet_lite0"


@dataclass(frozen=True)
class Backbone:
    """One network.

    ``name``: in flags and file names. ``title``: in texts. ``features``: values per image. ``last_layer``: name of
    the layer that is left out. ``maps``: name of the layer whose output heat maps explain. ``weights``:
    torchvision's entry of ImageNet weights, "" for those of a package. ``operations``: multiply-adds per image of
    224 pixels, in 10^9. ``megabytes``: of its weights.
    """

    name: str
    title: str
    features: int
    last_layer: str
    maps: str
    weights: str
    operations: float
    megabytes: float

    @property
    def library(self) -> str:
        """The package whose names its weights have."""
        return "torchvision" if self.weights else "timm"


# Operations and sizes: torchvision's and timm's tables of models. The first ImageNet weights rather than the
# newer ones: label smoothing and mixup, with which those were trained, make features transfer worse to a linear
# head (Kornblith et al., NeurIPS 2021).
BACKBONES = {
    backbone.name: backbone
    for backbone in (
        Backbone("resnet50", "ResNet-50", 2048, "fc", "layer4", "IMAGENET1K_V1", 4.1, 94),
        Backbone("resnet18", "ResNet-18", 512, "fc", "layer4", "IMAGENET1K_V1", 1.8, 45),
        Backbone("resnet34", "ResNet-34", 512, "fc", "layer4", "IMAGENET1K_V1", 3.7, 85),
        Backbone("densenet121", "DenseNet-121", 1024, "classifier", "features.norm5", "IMAGENET1K_V1", 2.8, 28),
        Backbone("efficientnet_b0", "EfficientNet-B0", 1280, "classifier.1", "features.8", "IMAGENET1K_V1", 0.4, 16),
        Backbone("convnext_tiny", "ConvNeXt-Tiny", 768, "classifier.2", "features.7", "IMAGENET1K_V1", 4.5, 111),
        Backbone(LITE0, "EfficientNet-Lite0", 1280, "classifier", "bn2", "", 0.4, 13),
    )
}
