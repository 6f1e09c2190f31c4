"""Copies on one machine of an image that is stored raw or as qcow2, to a target that is stored raw or as qcow2.

What the two hold is compared by qemu-img after each copy; that is not part of its time.
"""

from __future__ import annotations

import itertools
import subprocess
import time
from functools import partial
from pathlib import Path

from benchmarks.setting import Setting, copy
from lab.errors import CommandError
from lab.measure import images
from lab.measure.benchmark import Benchmark, Case, Detail, Target, Trials, median
from lab.measure.cpu import children_seconds

_FORMATS = "raw", "qcow2"


def benchmark(setting: Setting) -> Benchmark:
    """Return the benchmark."""
    stored = {"raw": setting.image.path, "qcow2": setting.folder / "image.qcow2"}
    _qemu_img("convert", "-O", "qcow2", stored["raw"], stored["qcow2"])
    cases, targets = [], []
    for here, there in itertools.product(_FORMATS, _FORMATS):
        name = f"{here} to {there}"
        work = partial(_moved, setting, stored[here], here, there)
        cases.append(Case(name, setting.image, work, prepare=partial(images.warm, stored[here])))
        if name != "raw to raw":
            targets.append(Target(f"speed of {name} over raw to raw", partial(_speed, name), 0.7, least=True))
            targets.append(Target(f"CPU of {name} over raw to raw", partial(_cpu, name), 1.43))
    return Benchmark("formats", {"image": setting.image.path.name}, cases, targets)


def _moved(setting: Setting, source: Path, here: str, there: str) -> Detail:
    config = setting.folder / "xenplugin.conf"
    config.write_text(f'formats = {{ "{here}" = "{there}" }}\n', encoding="utf-8")
    config.chmod(0o644)
    before, began = children_seconds(), time.monotonic()
    done = copy(["--config", str(config), str(source), str(setting.arrived)])
    times = {"wall": time.monotonic() - began, "cpu": children_seconds() - before}
    _qemu_img("compare", "-f", here, "-F", there, source, setting.arrived)
    setting.arrived.unlink()
    return {**done, **times}


def _speed(name: str, trials: Trials) -> float:
    return median(trials["raw to raw"]) / median(trials[name])


def _cpu(name: str, trials: Trials) -> float:
    return median(trials[name], lambda trial: trial.cpu) / median(trials["raw to raw"], lambda trial: trial.cpu)


def _qemu_img(*words: str | Path) -> None:
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"qemu-img {words[0]} failed ({done.returncode}): {(done.stdout + done.stderr).strip()}")
