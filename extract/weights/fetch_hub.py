"""The files of one model from the hub of transformers, fetched by a process of its own.

The hub's library waits without limit for some answers and tries others again for minutes. A
process can be ended, a thread cannot: so this one ends itself when no byte has come for a while.

    python -P extract/weights/fetch_hub.py ENDPOINT NAME FOLDER SECONDS
"""

import os
import sys
import threading
import time
import traceback
from pathlib import Path

WANTED = ["*.json", "*.txt", "*.model", "model*.safetensors"]
OLDER = "pytorch_model.bin"
STALLED = 75  # exit code
CHUNK = 1 << 16  # bytes that reach the disk at once, so that a slow download is seen to go on


def fetch(endpoint: str, name: str, folder: str, seconds: str) -> None:
    """Fetch the files of the model `name`; the process ends after `seconds` without a byte."""
    # Plain downloads, whose bytes can be watched; no bars; nothing told about who is asking.
    for setting in ("XET", "PROGRESS_BARS", "TELEMETRY", "UPDATE_CHECK"):
        os.environ[f"HF_HUB_DISABLE_{setting}"] = "1"
    from huggingface_hub import constants, snapshot_download

    constants.DOWNLOAD_CHUNK_SIZE = CHUNK
    threading.Thread(target=watch, args=(Path(folder), float(seconds)), daemon=True).start()
    snapshot_download(name, endpoint=endpoint, allow_patterns=WANTED, local_dir=folder)
    if not list(Path(folder).glob("model*.safetensors")):  # an older model
        snapshot_download(name, endpoint=endpoint, allow_patterns=[OLDER], local_dir=folder)


def watch(folder: Path, seconds: float) -> None:
    """End the process when files in `folder` have neither come nor grown for `seconds`."""
    before, since = state(folder), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(min(0.2, seconds / 5))
        if (now := state(folder)) != before:
            before, since = now, time.monotonic()
    sys.stderr.write(f"it sent nothing for {seconds:g} s\n")
    sys.stderr.flush()
    os._exit(STALLED)


def state(folder: Path) -> tuple[int, int]:
    """Files below `folder`, and their bytes."""
    sizes = []
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # moved to its place meanwhile
            continue
    return len(sizes), sum(sizes)


if __name__ == "__main__":
    try:
        fetch(*sys.argv[1:])
    except Exception as error:  # the hub's library raises many kinds
        sys.exit(traceback.format_exception_only(error)[0].splitlines()[0])
