"""Shapes named in signatures are checked under test: the hook must stand before any import."""

from jaxtyping import install_import_hook

from pipelines.process import settle

settle()  # as the command does, before torch is imported

CHECKED = ["checkpoint", "data", "fit", "heads.hugme", "layers", "losses", "metrics", "run"]
install_import_hook([f"train.{name}" for name in CHECKED], "beartype.beartype")
