"""Shapes named in signatures are checked under test: the hook must stand before any import."""

import os

from jaxtyping import install_import_hook

# As the command does: threads that spin while they wait slow a shared machine; read by torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

CHECKED = ["checkpoint", "data", "fit", "heads.hugme", "layers", "losses", "metrics", "run"]
install_import_hook([f"train.{name}" for name in CHECKED], "beartype.beartype")
