"""Small sets in exactly the layouts in which MVTec AD, MVTec AD 2 and VisA are published; defects are white squares."""

import cv2
import numpy as np
from checkpoints import pictures, write_images


def defects(folder, masks, name, count, suffix=".png", seed=1):
    """Images with a white square each, and masks that say where; ``name`` is that of a mask for its number."""
    folder.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(pictures(count, seed=seed)):
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[4:9, 3 + number % 5 : 8 + number % 5] = 1 + number % 3  # VisA numbers its defects
        image[mask > 0] = 255
        cv2.imwrite(str(folder / f"{number:03d}{suffix}"), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
        cv2.imwrite(str(masks / name.format(number)), mask)


def write_mvtec(root):
    """``root`` is a category: 30 normals to train on, 6 and twice 4 images to test on."""
    write_images(root / "train/good", pictures(30))
    write_images(root / "test/good", pictures(6, seed=2))
    for seed, defect in enumerate(("bent", "cut"), 3):
        defects(root / "test" / defect, root / "ground_truth" / defect, "{:03d}_mask.png", 4, seed=seed)


def write_mvtec_2(root):
    """A category of the second: its names of folders, and private tests without any label."""
    write_images(root / "train/good", pictures(30))
    write_images(root / "validation/good", pictures(8, seed=5))
    write_images(root / "test_public/good", pictures(6, seed=2))
    defects(root / "test_public/bad", root / "test_public/ground_truth/bad", "{:03d}_mask.png", 4)
    for name in ("test_private", "test_private_mixed"):
        write_images(root / name, pictures(3, seed=6))


def write_visa(root):
    """Objects pcb1 and candle, both protocols; the masks of pcb1 hold 1 to 3 for the defects."""
    lines = {"1cls": ["object,split,label,image,mask"], "2cls_highshot": ["object,split,label,image,mask"]}
    for name, count in (("pcb1", 30), ("candle", 2)):
        data = root / name / "Data"
        write_images(data / "Images/Normal", pictures(count))
        defects(data / "Images/Anomaly", data / "Masks/Anomaly", "{:03d}.png", 6, ".JPG")
        for number, path in enumerate(sorted((data / "Images/Normal").iterdir())):
            split = "test" if number % 5 == 0 else "train"
            for table in lines.values():
                table.append(f"{name},{split},normal,{path.relative_to(root)},")
        for number, path in enumerate(sorted((data / "Images/Anomaly").iterdir())):
            mask = f"{name}/Data/Masks/Anomaly/{path.stem}.png"
            lines["1cls"].append(f"{name},test,anomaly,{path.relative_to(root)},{mask}")
            split = "train" if number < 2 else "test"
            lines["2cls_highshot"].append(f"{name},{split},anomaly,{path.relative_to(root)},{mask}")
    (root / "split_csv").mkdir()
    for name, table in lines.items():
        (root / "split_csv" / f"{name}.csv").write_text("\n".join(table) + "\n")
