"""Segmentation-like and detection-like networks: large outputs, several of them, features of several scales."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_networks import Architecture, picture
from zoo_networks.classic import conv_bn

KINDS = 4


class UNet(nn.Module):
    """Source: Ronneberger et al. 2015: transposed convolutions, and skips that are concatenated."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.down1, self.down2 = self._pair(3, width), self._pair(width, 2 * width)
        self.bottom = self._pair(2 * width, 4 * width)
        self.up2, self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.join2, self.join1 = self._pair(4 * width, 2 * width), self._pair(2 * width, width)
        self.out = nn.Conv2d(width, KINDS, 1)

    @staticmethod
    def _pair(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(*conv_bn(before, after), *conv_bn(after, after))

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        x = self.bottom(F.max_pool2d(two, 2))
        x = self.join2(torch.cat([self.up2(x), two], 1))
        return self.out(self.join1(torch.cat([self.up1(x), one], 1)))


class ASPP(nn.Module):
    """Dilated convolutions side by side with the mean of the picture. Source: Chen et al. 2017."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [nn.Conv2d(before, width, 1)]
            + [nn.Conv2d(before, width, 3, padding=rate, dilation=rate) for rate in (2, 4)]
        )
        self.pool = nn.Conv2d(before, width, 1)
        self.project = conv_bn(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = [F.relu(branch(x)) for branch in self.branches]
        mean = F.interpolate(self.pool(F.adaptive_avg_pool2d(x, 1)), size=x.shape[-2:], mode="bilinear")
        return self.project(torch.cat([*found, mean], dim=1))


class DeepLab(nn.Module):
    """Answers a dictionary: the map, and an auxiliary one."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(conv_bn(3, 16, 3, 2), conv_bn(16, 32, 3, 2), conv_bn(32, 32))
        self.aspp = ASPP(32, 16)
        self.classifier, self.aux = nn.Conv2d(16, KINDS, 1), nn.Conv2d(32, KINDS, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        size = x.shape[-2:]
        features = self.backbone(x)
        out = F.interpolate(self.classifier(self.aspp(features)), size=size, mode="bilinear", align_corners=False)
        aux = F.interpolate(self.aux(features), size=size, mode="bilinear", align_corners=False)
        return {"out": out, "aux": aux}


class SSD(nn.Module):
    """Boxes and scores of every anchor at two scales. Source: Liu et al. 2016."""

    def __init__(self, anchors: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 16, 3, 2), conv_bn(16, 32, 3, 2))
        self.extra = conv_bn(32, 48, 3, 2)
        self.boxes = nn.ModuleList([nn.Conv2d(32, anchors * 4, 3, 1, 1), nn.Conv2d(48, anchors * 4, 3, 1, 1)])
        self.scores = nn.ModuleList([nn.Conv2d(32, anchors * KINDS, 3, 1, 1), nn.Conv2d(48, anchors * KINDS, 3, 1, 1)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.stem(x)
        features = [first, self.extra(first)]
        boxes = [
            head(f).permute(0, 2, 3, 1).reshape(f.shape[0], -1, 4) for head, f in zip(self.boxes, features, strict=True)
        ]
        scores = [
            head(f).permute(0, 2, 3, 1).reshape(f.shape[0], -1, KINDS)
            for head, f in zip(self.scores, features, strict=True)
        ]
        return torch.cat(boxes, 1), torch.cat(scores, 1)


class RetinaFPN(nn.Module):
    """A feature pyramid with one head that every level shares. Source: Lin et al. 2017, both papers."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.c2, self.c3, self.c4 = conv_bn(3, 16, 3, 2), conv_bn(16, 24, 3, 2), conv_bn(24, 32, 3, 2)
        self.lateral = nn.ModuleList([nn.Conv2d(n, width, 1) for n in (16, 24, 32)])
        self.smooth = nn.ModuleList([nn.Conv2d(width, width, 3, 1, 1) for _ in range(3)])
        self.head = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, KINDS + 4, 3, 1, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        c2 = self.c2(x)
        c3 = self.c3(c2)
        c4 = self.c4(c3)
        p4 = self.lateral[2](c4)
        p3 = self.lateral[1](c3) + F.interpolate(p4, scale_factor=2, mode="nearest")
        p2 = self.lateral[0](c2) + F.interpolate(p3, scale_factor=2, mode="nearest")
        return [self.head(smooth(p)) for smooth, p in zip(self.smooth, (p2, p3, p4), strict=True)]


class YoloHead(nn.Module):
    """CSP stages, spatial pyramid pooling, and boxes decoded on a grid, as YOLO of version 5 does."""

    def __init__(self, anchors: int = 2) -> None:
        super().__init__()
        self.anchors = anchors
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 6, 2, 2, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.cv1, self.cv2 = self._conv(16, 16), self._conv(16, 16)
        self.inner = nn.Sequential(self._conv(16, 16), self._conv(16, 16, 3))
        self.cv3 = self._conv(32, 32)
        self.down = self._conv(32, 32, 3, 2)
        self.sppf = self._conv(128, 32)
        self.detect = nn.Conv2d(32, anchors * (5 + KINDS), 1)
        self.register_buffer("grid", self._grid(8))

    @staticmethod
    def _conv(before: int, after: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(after), nn.SiLU()
        )

    @staticmethod
    def _grid(size: int) -> Tensor:
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        return torch.stack((x, y), 2).view(1, 1, size, size, 2).float() - 0.5

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        left = self.cv1(x)
        x = self.down(self.cv3(torch.cat((left + self.inner(left), self.cv2(x)), 1)))
        y1 = F.max_pool2d(x, 5, 1, 2)
        y2 = F.max_pool2d(y1, 5, 1, 2)
        raw = self.detect(self.sppf(torch.cat((x, y1, y2, F.max_pool2d(y2, 5, 1, 2)), 1)))
        batch, _, height, width = raw.shape
        raw = raw.view(batch, self.anchors, 5 + KINDS, height, width).permute(0, 1, 3, 4, 2).contiguous()
        y = raw.sigmoid()
        xy = (y[..., 0:2] * 2 + self.grid) * 4
        wh = (y[..., 2:4] * 2) ** 2
        return torch.cat((xy, wh, y[..., 4:]), 4).view(batch, -1, 5 + KINDS), raw


class Autoencoder(nn.Module):
    """Variational, sampling from its mean in evaluation; three outputs. Source: Kingma and Welling 2014."""

    def __init__(self, latent: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU())
        self.mu, self.logvar = nn.Linear(32 * 64, latent), nn.Linear(32 * 64, latent)
        self.expand = nn.Linear(latent, 32 * 64)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(x).flatten(1)
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu
        return self.decoder(self.expand(z).view(-1, 32, 8, 8)), mu, logvar


class SubPixel(nn.Module):
    """Super-resolution by shuffling channels into pixels. Source: Shi et al. 2016."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 5, 1, 2), nn.Tanh(), nn.Conv2d(32, 16, 3, 1, 1), nn.Tanh(), nn.Conv2d(16, 12, 3, 1, 1)
        )
        self.pixel_shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pixel_shuffle(self.body(x))


ARCHITECTURES = (
    Architecture("unet", "Ronneberger et al. 2015", "segmentation", UNet, picture()),
    Architecture("deeplab", "Chen et al. 2017", "segmentation", DeepLab, picture()),
    Architecture("ssd", "Liu et al. 2016", "detection", SSD, picture()),
    Architecture("retina_fpn", "Lin et al. 2017", "detection", RetinaFPN, picture()),
    Architecture("yolo_csp", "YOLOv5 (Jocher 2020), its structure", "detection", YoloHead, picture()),
    Architecture("vae", "Kingma and Welling 2014", "several outputs", Autoencoder, picture()),
    Architecture("espcn", "Shi et al. 2016", "picture to picture", SubPixel, picture(16)),
)
