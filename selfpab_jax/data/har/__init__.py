"""Public labeled data sets, as published, in g and on HUNT4's axes.

`import selfpab_jax.data.har.tfds` makes their builders known to TensorFlow Datasets: `tfds.builder("harth", ...)`.
"""
