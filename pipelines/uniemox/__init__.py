"""UniEmoX from the cache: its pictures and teachers read, its encoder fitted, then fine-tuned."""
