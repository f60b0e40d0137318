"""The network classes of ultralytics. The only file that imports it.

ultralytics is AGPL-3.0; who distributes a program with it, or serves one, takes on its terms. Only
its network classes are used: its loaders would fetch weights and send usage data. Its import
tests the network, writes a settings file into the home folder and changes printing, warnings and
environment for everybody; `ultralytics_tasks` keeps all of that in.
"""

import importlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cache.errors import SettingsError


def ultralytics_tasks() -> Any:
    """`ultralytics.nn.tasks`, imported once, offline, without a trace outside this process."""
    if "ultralytics.nn.tasks" not in sys.modules:
        with tempfile.TemporaryDirectory() as folder, contained(folder):
            importlib.import_module("ultralytics.nn.tasks")
            from ultralytics.utils import SETTINGS

            # in memory only: its own way of setting would write the file again
            dict.update(SETTINGS, sync=False)
    return sys.modules["ultralytics.nn.tasks"]


@contextmanager
def contained(folder: str) -> Iterator[None]:
    """Offline, with its settings file in `folder`; afterwards environment, warnings, printing,
    OpenCV's threads, and the functions it replaces in Pillow and torch are as before."""
    import numpy as np
    import torch
    from PIL import Image

    environment = dict(os.environ)
    import cv2  # it, too, writes into the environment

    numpy_print, threads = np.get_printoptions(), cv2.getNumThreads()
    torch_print = vars(torch._tensor_str.PRINT_OPTS).copy()
    # Its Image.open would try to install a package for every file that is no picture.
    image_open, torch_save = Image.open, torch.save
    os.environ.update(
        YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false", YOLO_CONFIG_DIR=folder
    )
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        Image.open, torch.save = image_open, torch_save
        np.set_printoptions(**numpy_print)
        cv2.setNumThreads(threads)
        vars(torch._tensor_str.PRINT_OPTS).update(torch_print)


def shape_of(name: str, tasks: Any) -> dict[str, Any]:
    """The shape of `yolo26n`, `yolov8n-face` ..., out of the package's own description.

    Raises SettingsError where the installed version has none.
    """
    base = name.lower().removesuffix("-face")
    version, size = base[:-1], base[-1]
    models = Path(tasks.__file__).parents[1] / "cfg" / "models"
    path = models / version.removeprefix("yolo") / f"{version}.yaml"
    if not path.exists():
        raise SettingsError(
            f"the installed ultralytics has no shape for {name!r} (it would be {path}): upgrade "
            "ultralytics, or choose another views.objects.detector or views.head.detector"
        )
    return yaml.safe_load(path.read_text(encoding="utf-8")) | {"scale": size}


def coco_names() -> tuple[str, ...]:
    """The 80 class names, in the order of the network's outputs."""
    path = Path(ultralytics_tasks().__file__).parents[1] / "cfg" / "datasets" / "coco.yaml"
    names = yaml.safe_load(path.read_text(encoding="utf-8"))["names"]
    return tuple(names[number] for number in range(len(names)))
