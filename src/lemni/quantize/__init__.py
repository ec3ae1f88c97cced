"""A model's weights in other precisions: written into a folder of its own, or compared by size, speed and quality."""
