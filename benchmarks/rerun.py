"""What the cache is for: the seconds of a whole run against those of a rerun with another head
setting, in one process, on the demo's made-up scenes and with the networks of params.yaml.

    python benchmarks/rerun.py [--pictures 24] [--runs 3] [--json]
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from made import ROOT


def seconds(job: Callable[[], Any]) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()

    from pipelines import stages
    from pipelines.demo.scenes import make_scenes
    from pipelines.settings import load

    params = ROOT / "params.yaml"
    whole, unchanged, head = [], [], []
    for run in range(asked.runs):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            settings = load(
                params,
                [
                    "data.root=data",
                    f"demo.pictures={asked.pictures}",
                    f"demo.seed={run}",
                    "train.epochs=20",
                ],
            )
            make_scenes(settings.data.root, settings.demo)

            def everything(settings=settings) -> None:
                stages.prepare(settings)
                stages.extract(settings)
                stages.train(settings)

            other = load(params, ["data.root=data", "train.lr=0.001", "train.epochs=20"])
            whole.append(seconds(everything))
            unchanged.append(seconds(lambda settings=settings: stages.extract(settings)))
            head.append(seconds(lambda other=other: stages.train(other)))
            os.chdir(ROOT)

    result = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "pictures": asked.pictures,
        "runs": asked.runs,
        "whole_s": round(statistics.median(whole), 2),
        "extract_unchanged_s": round(statistics.median(unchanged), 3),
        "head_only_s": round(statistics.median(head), 2),
        "times": round(statistics.median(w / h for w, h in zip(whole, head, strict=True)), 1),
    }
    if asked.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
