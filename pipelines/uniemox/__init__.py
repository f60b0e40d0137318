"""UniEmoX from the cache: its pictures and teachers read, its encoder pre-trained and fine-tuned."""
