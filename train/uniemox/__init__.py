"""UniEmoX: a masked autoencoder over scene and person that learns from frozen teachers, and the
classifier that is fitted on its encoder. Pictures come in as tensors; nothing here opens a file of
theirs. See docs/uniemox.md."""
