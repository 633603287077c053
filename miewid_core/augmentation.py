"""The paper's augmentation (A.1)."""

import albumentations
import cv2

P_TEXTURE, P_EACH_TEXTURE, P_AFFINE, P_JITTER = 0.5, 0.3, 0.5, 0.5


def augmentation(size: int) -> albumentations.Compose:
    """A.1: colour sharpening, CLAHE; shift 25 %, scale 20 %, rotation 15 degrees; colour jitter.

    All ranges are written out. By default albumentations 2 shifts hues by up to 0.5, which swaps
    colours, where earlier versions, those of MiewID's time, shifted them by up to 0.2; and its
    Affine stretches the axes apart, where ShiftScaleRotate scaled both alike.
    """
    return albumentations.Compose(
        [
            albumentations.OneOf(
                [
                    albumentations.Sharpen(p=P_EACH_TEXTURE),
                    albumentations.ToGray(p=P_EACH_TEXTURE),
                    albumentations.CLAHE(p=P_EACH_TEXTURE),
                ],
                p=P_TEXTURE,
            ),
            albumentations.Affine(
                translate_percent=(-0.25, 0.25),
                scale=(0.8, 1.2),
                keep_ratio=True,
                rotate=(-15, 15),
                border_mode=cv2.BORDER_REFLECT_101,
                p=P_AFFINE,
            ),
            albumentations.ColorJitter(*[(0.8, 1.2)] * 3, hue=(-0.2, 0.2), p=P_JITTER),
        ]
    )
